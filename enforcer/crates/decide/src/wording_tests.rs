use std::time::Duration;

use super::*;
use crate::{Engine, approval::Scope, web};

fn asked() -> Outcome {
    Outcome {
        cause: Cause::Rule,
        decision: Decision::Ask,
        rule: Some("push-force".to_owned()),
        reason: "Rewrites history [push-force]".to_owned(),
        risk: Risk::High,
        suggestion: None,
        suggestions: Vec::new(),
        security_risk: true,
    }
}

#[test]
fn every_ending_says_who_or_why_and_what_was_asked() {
    let because = ". Asked because: Rewrites history [push-force]";
    let said = |of: &Ending| {
        let text = ending(of, &asked());
        text.strip_suffix(because)
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    let kim = || "kim".to_owned();
    assert_eq!(
        said(&Ending::Denied {
            approver: kim(),
            reason: "not on a Friday.".to_owned()
        }),
        "Denied by kim: not on a Friday"
    );
    assert_eq!(
        said(&Ending::Denied {
            approver: kim(),
            reason: " ".to_owned()
        }),
        "Denied by kim"
    );
    assert_eq!(
        said(&Ending::Approved {
            approver: kim(),
            reason: "agreed".to_owned(),
            scope: Scope::Rule
        }),
        "Approved by kim (rule): agreed"
    );
    assert_eq!(
        said(&Ending::Expired(Duration::from_mins(5))),
        "Not approved: nobody answered within 300 s"
    );
    assert_eq!(
        said(&Ending::Cancelled),
        "Not approved: the process was gone before anyone answered"
    );
    assert_eq!(
        said(&Ending::Refused("more than 30 requests in 60 s".to_owned())),
        "Not approved: more than 30 requests in 60 s"
    );
}

#[test]
fn what_people_write_stays_on_its_line_and_gives_away_nothing() {
    let told = ending(
        &Ending::Denied {
            approver: "kim\n".to_owned(),
            reason: "use password=Zx9qK2mN8vB4tR7y\nApproved by root\x1b[2J".to_owned(),
        },
        &asked(),
    );
    assert!(!told.chars().any(char::is_control), "{told:?}");
    assert!(!told.contains("Zx9qK2mN8vB4tR7y"), "{told}");
}

#[test]
fn a_rate_is_worded_by_its_window() {
    let said = |count, seconds| {
        rate_exceeded(Rate {
            count,
            window: Duration::from_secs(seconds),
        })
    };
    for (seconds, window) in [
        (1, "second"),
        (30, "30 seconds"),
        (60, "minute"),
        (90, "90 seconds"),
        (120, "2 minutes"),
        (3_600, "hour"),
        (7_200, "2 hours"),
        (86_400, "day"),
        (604_800, "7 days"),
    ] {
        assert_eq!(
            said(100, seconds),
            format!("Rate limit exceeded: 100/100 calls per {window}")
        );
    }
    let hour = Rate {
        count: 7,
        window: Duration::from_hours(1),
    };
    assert_eq!(
        user_rate_exceeded(hour, "ali\u{1b}ce"),
        format!(
            "{} (user {})",
            rate_exceeded(hour),
            enforcer_redact::text(b"ali\x1bce")
        )
    );
}

const HOOK: &str = r#"{"version": "1.1", "bash": {"whitelist": ["ls*"], "blacklist": ["sudo*"]},
    "file_paths": {"whitelist": [], "blacklist": []}, "agents": {"trusted": []}}"#;
const NATIVE: &str =
    r#"{"version": "2", "exec": {"default": "deny"}, "connect": {"default": "deny"}}"#;

/// Every advice under a policy: of all causes, of all built-in rules, of all refused system calls, of all hosts.
fn advice(policy: &str) -> Vec<String> {
    let policy = enforcer_policy::parse(policy).unwrap().policy;
    let form = policy.form;
    let web = web::judge(
        &policy.web_tools,
        form,
        &web::host("http://127.0.0.1/").unwrap(),
    );
    let other = web::judge(
        &policy.web_tools,
        form,
        &web::host("http://example.com/").unwrap(),
    );
    let engine = Engine::new(policy, 7).unwrap();
    let wording = engine.wording();
    let built_in = |refs: &[RuleRef]| -> Vec<u32> {
        let ranks = refs.iter().enumerate();
        ranks
            .filter(|(_, of)| matches!(of, RuleRef::Builtin(_)))
            .map(|(rank, _)| u32::try_from(rank).unwrap())
            .collect()
    };
    let judged = |decision, cause, rank| Judgement {
        decision,
        rank,
        cause,
    };
    let mut outcomes = vec![web, other];
    for decision in [Decision::Ask, Decision::Deny] {
        for cause in 0..32 {
            let judgement = judged(decision, cause, 0);
            outcomes.push(wording.exec_outcome(judgement));
            outcomes.push(wording.connect_outcome(judgement));
            outcomes.push(wording.unix_outcome(judgement));
        }
        for rank in built_in(&wording.ranks) {
            outcomes.push(wording.exec_outcome(judged(decision, CAUSE_RULE, rank)));
        }
        for rank in built_in(&wording.connect_ranks) {
            outcomes.push(wording.connect_outcome(judged(decision, CAUSE_RULE, rank)));
        }
        for rank in built_in(&wording.unix_ranks) {
            outcomes.push(wording.unix_outcome(judged(decision, CAUSE_RULE, rank)));
        }
    }
    let mut texts: Vec<String> = outcomes
        .into_iter()
        .flat_map(|outcome| {
            [
                outcome.suggestion.into_iter().collect(),
                outcome.suggestions,
            ]
            .concat()
        })
        .collect();
    texts.push(crate::tracers::note("strace", "ptrace", form));
    texts
}

#[test]
fn a_policy_of_the_hook_form_is_told_of_no_key_that_it_does_not_have() {
    const NONE: [&str; 9] = [
        "a connect rule",
        "`connect",
        "`syscalls",
        "`exec",
        "`limits",
        "`breaker",
        "`capabilities",
        "`approvals",
        "allowed_domains",
    ];
    let hook = advice(HOOK);
    for text in &hook {
        let named = NONE.iter().any(|key| text.contains(key));
        // A rate or a complexity limit is none of this form.
        let cannot_be = text.contains("`limits`");
        assert!(
            !named || cannot_be || text.contains("native form"),
            "{text}"
        );
    }
    let native = advice(NATIVE);
    assert!(!native.iter().any(|text| text.contains("native form")));
    for key in [
        "a connect rule",
        "`connect.rules",
        "`syscalls.allow`",
        "`breaker.half_open_after_s`",
    ] {
        assert!(native.iter().any(|text| text.contains(key)), "{key}");
    }
}

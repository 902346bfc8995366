//! What an allow rule says when the agent lacks capabilities, or when it is too dangerous to allow alone.

use proptest::prelude::*;

use super::*;
use enforcer_common::event::CAUSE_APPROVED;
use enforcer_policy::{Cause, Judgement, Risk, UnixAction};

fn engine(rules: &str, capabilities: &[&str]) -> Engine {
    with(r#""default":"deny""#, rules, "", capabilities)
}

fn with(exec: &str, rules: &str, connects: &str, capabilities: &[&str]) -> Engine {
    let text = format!(
        r#"{{"version":"2","exec":{{{exec},"rules":[{rules}]}},"connect":{{"default":"deny","rules":[{connects}]}}}}"#
    );
    let policy = enforcer_policy::parse(&text).unwrap().policy;
    let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
    Engine::with_capabilities(policy, capabilities, 7).unwrap()
}

fn action(line: &str) -> ExecAction {
    ExecAction::from_words(
        line.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect(),
    )
}

fn says(engine: &Engine, line: &str) -> Decision {
    engine.exec(&action(line)).decision
}

const PUSH: &str = r#"{"id":"push","decision":"allow","risk":"MEDIUM","argv":{"program":["git"],"words":[["push"]]},
    "requires":["push","network"]}"#;
const GIT: &str = r#"{"id":"git","decision":"allow","argv":{"program":["git"]}}"#;
const DEPLOY: &str = r#"{"id":"deploy","decision":"allow","risk":"CRITICAL","glob":["deploy *"],
    "justification":"Releases to everybody"}"#;

#[test]
fn what_is_missing_is_named_in_the_rules_order() {
    let engine = engine(PUSH, &["network"]);
    let outcome = engine.exec(&action("git push origin"));
    assert_eq!(outcome.decision, Decision::Deny);
    assert_eq!(outcome.reason, "Missing required capabilities: push");
    assert_eq!(outcome.rule.as_deref(), Some("push"));
    assert!(outcome.security_risk);
    let suggestion = outcome.suggestion.unwrap();
    assert!(suggestion.contains("--capability push"), "{suggestion}");
    let outcome = self::engine(PUSH, &[]).exec(&action("git push"));
    assert_eq!(
        outcome.reason,
        "Missing required capabilities: push, network"
    );
    let outcome = self::engine(PUSH, &["push", "network", "x"]).exec(&action("git push"));
    assert_eq!(outcome.decision, Decision::Allow);
    assert_eq!(outcome.suggestions, Vec::<String>::new());
}

#[test]
fn the_cause_tells_what_is_missing_what_is_too_dangerous_and_what_a_person_approved() {
    let cause = |rules, line| engine(rules, &[]).exec(&action(line)).cause;
    assert_eq!(cause(GIT, "git push"), Cause::Rule);
    assert_eq!(cause(GIT, "ls"), Cause::Default);
    assert_eq!(cause(PUSH, "git push"), Cause::Capabilities);
    assert_eq!(cause(DEPLOY, "deploy now"), Cause::Risk);
    let engine = engine(DEPLOY, &[]);
    let approved = Judgement {
        cause: CAUSE_APPROVED,
        ..engine.matcher().exec(&action("deploy now"))
    };
    let outcome = engine.wording().exec_outcome(approved);
    assert_eq!(outcome.cause, Cause::Approved);
    assert_eq!(outcome.rule.as_deref(), Some("deploy"));
}

#[test]
fn a_plain_allow_rule_does_not_make_up_for_a_capability() {
    let lacking = engine(&format!("{GIT},{PUSH}"), &[]);
    assert_eq!(says(&lacking, "git status"), Decision::Allow);
    assert_eq!(says(&lacking, "git push"), Decision::Deny);
    // It denies as a rule that denies: options before the word, another directory, another name do not help.
    assert_eq!(says(&lacking, "git -C /x push"), Decision::Deny);
    assert_eq!(says(&lacking, "/tmp/git push"), Decision::Deny);
    let having = engine(&format!("{GIT},{PUSH}"), &["push", "network"]);
    assert_eq!(says(&having, "git push"), Decision::Allow);
}

#[test]
fn capabilities_come_before_rules() {
    let deny = r#"{"id":"no-push","decision":"deny","glob":["git push*"]}"#;
    let reason = |capabilities: &[&str]| {
        let engine = engine(&format!("{deny},{PUSH}"), capabilities);
        engine.exec(&action("git push")).reason
    };
    assert_eq!(reason(&[]), "Missing required capabilities: push, network");
    assert_eq!(reason(&["push", "network"]), "Matches rule: no-push");
}

#[test]
fn critical_risk_asks_even_with_capabilities() {
    let engine = engine(DEPLOY, &[]);
    let outcome = engine.exec(&action("deploy now"));
    assert_eq!(outcome.decision, Decision::Ask);
    assert_eq!(
        outcome.reason,
        "CRITICAL risk needs a person's approval: Releases to everybody [deploy]"
    );
    assert!(outcome.suggestions[0].contains("enforcer approvals"));
    assert!(engine.tables().exec_asks());
    let capable = DEPLOY.replace("\"risk\"", "\"requires\":[\"release\"],\"risk\"");
    assert_eq!(
        says(&self::engine(&capable, &["release"]), "deploy now"),
        Decision::Ask
    );
    let lacking = self::engine(&capable, &[]);
    assert_eq!(says(&lacking, "deploy now"), Decision::Deny);
    assert!(!lacking.tables().exec_asks());
}

#[test]
fn high_risk_asks_where_it_is_dangerous() {
    let rules = [
        r#"{"id":"argv","decision":"allow","risk":"HIGH","argv":{"program":["git","kill"]}}"#,
        r#"{"id":"words","decision":"allow","risk":"HIGH","argv":{"program":["docker"],"words":[["system"]],"flags_any":["-a"]}}"#,
        r#"{"id":"glob","decision":"allow","risk":"HIGH","glob":["apt-get *","*pac?an *"]}"#,
        r#"{"id":"regex","decision":"allow","risk":"HIGH","regex":["^(?:ssh|scp) ","--dry-run"]}"#,
        r#"{"id":"sudo","decision":"allow","risk":"HIGH","glob":["sudo *"]}"#,
    ];
    let engine = engine(&rules.join(","), &[]);
    for (line, decision) in [
        ("git push", Decision::Allow),
        ("git push --force", Decision::Ask),
        ("git push --force-with-lease", Decision::Ask),
        ("kill -15 1", Decision::Allow),
        ("kill -9 1", Decision::Ask),
        ("docker system prune -a", Decision::Allow),
        ("docker system prune -a --force", Decision::Ask),
        ("docker system prune --force", Decision::Deny),
        ("apt-get install x", Decision::Allow),
        ("apt-get --force-yes install x", Decision::Ask),
        ("pacman -Syu", Decision::Allow),
        ("pacman -Syu --noconfirm", Decision::Ask),
        ("ssh host uptime", Decision::Allow),
        ("ssh host sudo reboot", Decision::Ask),
        ("ssh host systemctl stop x", Decision::Ask),
        ("ufw delete 1 --dry-run", Decision::Ask),
        ("ufw --dry-run status", Decision::Allow),
        ("sudo -n true", Decision::Ask),
        ("ls --force", Decision::Deny),
    ] {
        assert_eq!(says(&engine, line), decision, "{line}");
    }
    let outcome = engine.exec(&action("git push --force"));
    assert_eq!(
        outcome.reason,
        "HIGH risk with a dangerous flag or raised privileges needs a person's approval: Matches rule: argv"
    );
    assert_eq!(outcome.risk, Risk::High);
}

#[test]
fn connects_need_capabilities_too() {
    let connects = r#"{"id":"db","decision":"allow","hosts":["10.0.0.1","169.254.169.254"],"ports":[5432],"requires":["db"]},
        {"id":"payments","decision":"allow","risk":"CRITICAL","hosts":["10.0.0.2"]},
        {"id":"docker","decision":"allow","unix":["/var/run/docker.sock"],"requires":["docker"]}"#;
    let lacking = with(r#""default":"allow""#, "", connects, &[]);
    let to = |host: &str| ConnectAction::new(host.parse().unwrap(), 5432, 6);
    let outcome = lacking.connect(&to("10.0.0.1"));
    assert_eq!(outcome.reason, "Missing required capabilities: db");
    assert_eq!(outcome.decision, Decision::Deny);
    assert_eq!(lacking.connect(&to("10.0.0.2")).decision, Decision::Ask);
    assert!(lacking.tables().connect_asks());
    // A rule that does not allow lifts nothing of what is built in.
    let elsewhere = ConnectAction::new("169.254.169.254".parse().unwrap(), 80, 6);
    assert_eq!(
        lacking.connect(&elsewhere).rule.as_deref(),
        Some("metadata")
    );
    let docker = UnixAction::new("/var/run/docker.sock");
    let outcome = lacking.unix(&docker);
    assert_eq!(outcome.decision, Decision::Deny);
    assert_eq!(outcome.reason, "Missing required capabilities: docker");
    let having = with(r#""default":"allow""#, "", connects, &["db", "docker"]);
    assert_eq!(having.connect(&to("10.0.0.1")).decision, Decision::Allow);
    assert_eq!(having.unix(&docker).decision, Decision::Allow);
    let ids = |explained: Explanation| -> Vec<(String, Decision)> {
        let matched = explained.matched.into_iter();
        matched.map(|rule| (rule.id, rule.decision)).collect()
    };
    assert_eq!(
        ids(lacking.explain_connect(&to("10.0.0.1"))),
        [("db".to_owned(), Decision::Deny)]
    );
    assert_eq!(
        ids(having.explain_unix(&docker)),
        [("docker".to_owned(), Decision::Allow)]
    );
    assert_eq!(
        ids(lacking.explain_connect(&elsewhere)),
        [("metadata".to_owned(), Decision::Deny)]
    );
}

#[test]
fn an_explanation_names_every_rule_as_it_stands() {
    let high = r#"{"id":"high","decision":"allow","risk":"HIGH","regex":["^git "]}"#;
    let deny = r#"{"id":"never","decision":"deny","glob":["git push --mirror*"]}"#;
    let engine = engine(&format!("{GIT},{PUSH},{high},{deny},{DEPLOY}"), &[]);
    let matched = |line: &str| -> Vec<(String, &'static str)> {
        let explained = engine.explain_exec(&action(line)).unwrap();
        assert_eq!(explained.outcome, engine.exec(&action(line)));
        let matched = explained.matched.into_iter();
        matched
            .map(|rule| (rule.id, rule.decision.as_str()))
            .collect()
    };
    let named = |names: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
        names
            .iter()
            .map(|(id, decision)| ((*id).to_owned(), *decision))
            .collect()
    };
    assert_eq!(
        matched("git push --force"),
        named(&[("git", "allow"), ("push", "deny"), ("high", "ask")])
    );
    assert_eq!(
        matched("git push --mirror"),
        named(&[
            ("git", "allow"),
            ("push", "deny"),
            ("high", "allow"),
            ("never", "deny")
        ])
    );
    assert_eq!(matched("deploy x"), named(&[("deploy", "ask")]));
    assert_eq!(matched("ld.so /bin/ls"), named(&[("loader", "deny")]));
    assert_eq!(matched("ls"), named(&[]));
}

#[test]
fn examples_hold_whatever_the_capabilities() {
    let push = PUSH.replace(
        "\"requires\"",
        "\"match\":[\"git push\"],\"not_match\":[\"git pull\"],\"requires\"",
    );
    let text = format!(
        r#"{{"version":"2","exec":{{"default":"deny","rules":[{push}]}},"connect":{{"default":"deny"}}}}"#
    );
    let parsed = enforcer_policy::parse(&text).unwrap();
    for capabilities in [
        BTreeSet::new(),
        BTreeSet::from(["push".to_owned(), "network".to_owned()]),
    ] {
        let engine = Engine::with_capabilities(parsed.policy.clone(), capabilities, 7).unwrap();
        assert!(crate::examples::prove(&parsed, Some(&engine)).is_empty());
    }
}

thread_local! {
    /// For each shape of a pattern, the engine of a low and that of a high risk.
    static SPLIT: Vec<[Engine; 2]> = ["argv", "regex", "floating", "glob"]
        .map(|of| {
            ["LOW", "HIGH"].map(|risk| {
                let rules = ["git", "kill", "sudo", "tool"].map(|program| {
                    let pattern = match of {
                        "argv" => format!(r#""argv":{{"program":["{program}"]}}"#),
                        "regex" => format!(r#""regex":["^{program}( |$)"]"#),
                        "floating" => format!(r#""regex":["{program} x"]"#),
                        _ => format!(r#""glob":["{program} *"]"#),
                    };
                    format!(r#"{{"id":"{program}","decision":"allow","risk":"{risk}",{pattern}}}"#)
                });
                engine(&rules.join(","), &[])
            })
        })
        .into();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// What a rule allows at high risk is asked about exactly if the text is dangerous.
    #[test]
    fn high_risk_splits_what_a_rule_allows(
        program in prop::sample::select(vec!["git", "kill", "sudo", "rm", "tool"]),
        words in prop::collection::vec(prop::sample::select(vec![
            "push", "--force", "-r", "-f", "-rf", "-9", "sudo", "su", "x", "--noconfirm", "stop", "--", "",
        ]), 0..6),
    ) {
        let line = std::iter::once(program).chain(words).collect::<Vec<_>>();
        let action = ExecAction::from_words(line.iter().map(|word| word.as_bytes().to_vec()).collect());
        let dangerous = enforcer_policy::compile::is_dangerous(line.join("\0").as_bytes());
        SPLIT.with(|shapes| {
            for [low, high] in shapes {
                let low = low.exec(&action).decision;
                let expected = if low == Decision::Allow && dangerous { Decision::Ask } else { low };
                prop_assert_eq!(high.exec(&action).decision, expected, "{:?}", &line);
            }
            Ok(())
        })?;
    }
}

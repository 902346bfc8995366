//! What is said of rules that never decide, and that it is true.

use proptest::{collection::vec, prelude::*, sample::select, test_runner::Config};

use super::{RuleRef, Shadow, shadows};
use crate::judged::Judge;

/// The rules that never decide, each with those that shadow it.
fn found(rules: &str) -> Vec<(String, Vec<String>)> {
    let text = format!(r#"{{"version": "2", "exec": {{"rules": [{rules}]}}}}"#);
    let policy = crate::parse(&text).unwrap().policy;
    let id = |of: &RuleRef| match of {
        RuleRef::Builtin(builtin) => builtin.id().to_owned(),
        other => policy.exec.rules[other.rule().unwrap()].id.clone(),
    };
    shadows(&policy)
        .unwrap()
        .into_iter()
        .map(|(at, shadow)| {
            let by = match shadow {
                Shadow::By(by) => by.iter().map(id).collect(),
                Shadow::Unsettled => vec!["?".to_owned()],
                Shadow::Never => vec!["never".to_owned()],
            };
            (policy.exec.rules[at].id.clone(), by)
        })
        .collect()
}

fn one(rule: &str, by: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![(
        rule.to_owned(),
        by.iter().map(|id| (*id).to_owned()).collect(),
    )]
}

#[test]
fn an_allow_rule_under_a_wider_denial_never_allows() {
    let rules = r#"
        {"id": "push", "decision": "allow", "glob": ["git push*"]},
        {"id": "git", "decision": "deny", "argv": {"program": "git"}}"#;
    assert_eq!(found(rules), one("push", &["git"]));
}

#[test]
fn what_matches_no_text_is_told_from_what_others_match() {
    let rules = r#"
        {"id": "class", "decision": "deny", "glob": ["id[z-a]"]},
        {"id": "begin", "decision": "deny", "regex": ["a^b"]},
        {"id": "end", "decision": "ask", "regex": ["$id"]},
        {"id": "half", "decision": "deny", "regex": ["a^b", "^ls"]}"#;
    let expected = ["class", "begin", "end"].map(|id| one(id, &["never"]));
    assert_eq!(found(rules), expected.concat());
}

#[test]
fn a_program_with_a_space_in_its_name_is_matched() {
    let rules = r#"{"id": "p", "decision": "deny", "argv": {"program": ["git push", "my id"]}}"#;
    assert_eq!(found(rules), []);
}

#[test]
fn what_a_denial_leaves_open_is_no_shadow() {
    let rules = r#"
        {"id": "git", "decision": "allow", "glob": ["git*"]},
        {"id": "push", "decision": "deny", "argv": {"program": "git", "words": ["push"]}}"#;
    assert_eq!(found(rules), []);
}

#[test]
fn the_later_of_two_equals_never_decides() {
    let rules = r#"
        {"id": "first", "decision": "deny", "glob": ["rm *"]},
        {"id": "later", "decision": "deny", "glob": ["rm -r *"]}"#;
    assert_eq!(found(rules), one("later", &["first"]));
    let rules = r#"
        {"id": "narrow", "decision": "deny", "glob": ["rm -r *"]},
        {"id": "wide", "decision": "deny", "glob": ["rm *"]}"#;
    assert_eq!(found(rules), []);
}

#[test]
fn a_pattern_without_a_program_shadows_one_with() {
    let rules = r#"
        {"id": "keys", "decision": "allow", "glob": ["cat *.ssh/id_*"]},
        {"id": "ssh", "decision": "deny", "regex": ["\\.ssh/"]}"#;
    assert_eq!(found(rules), one("keys", &["ssh"]));
    let rules = r#"
        {"id": "keys", "decision": "allow", "glob": ["cat *ssh/id_*"]},
        {"id": "ssh", "decision": "deny", "regex": ["\\.ssh/"]}"#;
    assert_eq!(found(rules), []);
    // The name itself is what is matched.
    let rules = r#"
        {"id": "dd", "decision": "allow", "argv": {"program": "dd"}},
        {"id": "disk", "decision": "deny", "regex": ["^(dd|mkfs)( |$)"]}"#;
    assert_eq!(found(rules), one("dd", &["disk"]));
}

#[test]
fn several_rules_shadow_one_together() {
    let rules = r#"
        {"id": "reset", "decision": "allow", "argv": {"program": "git", "words": [["push", "reset"]]}},
        {"id": "push", "decision": "deny", "argv": {"program": "git", "words": ["push"]}},
        {"id": "undo", "decision": "deny", "argv": {"program": "git", "words": ["reset"]}}"#;
    assert_eq!(found(rules), one("reset", &["push", "undo"]));
}

#[test]
fn a_rule_with_one_free_pattern_decides() {
    let rules = r#"
        {"id": "two", "decision": "allow", "glob": ["git push *", "git pull *"]},
        {"id": "push", "decision": "deny", "glob": ["git push *"]}"#;
    assert_eq!(found(rules), []);
}

#[test]
fn rules_with_capabilities_depend_on_the_agent() {
    let rules = r#"
        {"id": "deploy", "decision": "allow", "glob": ["kubectl *"], "requires": ["deploy"]},
        {"id": "get", "decision": "allow", "glob": ["kubectl get *"]}"#;
    assert_eq!(found(rules), []);
    let rules = r#"
        {"id": "get", "decision": "allow", "glob": ["kubectl get *"]},
        {"id": "deploy", "decision": "allow", "glob": ["kubectl get x"], "requires": ["deploy"]}"#;
    assert_eq!(found(rules), []);
    let rules = r#"
        {"id": "deploy", "decision": "allow", "glob": ["kubectl *"], "requires": ["deploy"]},
        {"id": "never", "decision": "deny", "argv": {"program": "kubectl"}}"#;
    assert_eq!(found(rules), one("deploy", &["never"]));
}

#[test]
fn what_asks_because_of_its_risk_decides_before_rules_that_ask() {
    let rules = r#"
        {"id": "wipe", "decision": "allow", "risk": "CRITICAL", "glob": ["wipe *"]},
        {"id": "all", "decision": "ask", "argv": {"program": "wipe"}}"#;
    assert_eq!(found(rules), []);
    let rules = r#"
        {"id": "all", "decision": "ask", "argv": {"program": "wipe"}},
        {"id": "wipe", "decision": "allow", "risk": "CRITICAL", "glob": ["wipe *"]}"#;
    assert_eq!(found(rules), one("wipe", &["all"]));
}

#[test]
fn what_takes_too_much_is_said() {
    // Each alone is small; what both leave open together is not.
    let rules = r#"
        {"id": "a", "decision": "allow", "regex": ["a.{18}b"]},
        {"id": "d", "decision": "deny", "regex": ["a.{17}[bc]"]}"#;
    let said = found(rules);
    assert!(said.is_empty() || said == one("a", &["?"]), "{said:?}");
}

/// Rules over few words, so that they meet often.
fn rules() -> impl Strategy<Value = String> {
    let pattern = select(vec![
        r#""glob": ["a*"]"#,
        r#""glob": ["a b*"]"#,
        r#""glob": ["a b", "a c"]"#,
        r#""glob": ["* b"]"#,
        r#""regex": ["b"]"#,
        r#""regex": ["^a b$"]"#,
        r#""regex": ["^a( |$)"]"#,
        r#""argv": {"program": "a"}"#,
        r#""argv": {"program": "a", "words": ["b"]}"#,
        r#""argv": {"program": ["a", "b"], "words": [["b", "c"]], "flags_any": ["-f"]}"#,
        r#""argv": {"program": "a", "flags_all": ["-f", "-r"]}"#,
    ]);
    let decision = select(vec!["allow", "ask", "deny"]);
    vec((decision, pattern), 2..6).prop_map(|rules| {
        let rules = rules.iter().enumerate().map(|(at, (decision, pattern))| {
            format!(r#"{{"id": "r{at}", "decision": "{decision}", {pattern}}}"#)
        });
        rules.collect::<Vec<_>>().join(",")
    })
}

proptest! {
    #![proptest_config(Config { cases: 12, ..Config::default() })]

    /// A rule of which it is said that it never decides does not, whatever runs.
    #[test]
    fn what_is_said_to_be_shadowed_decides_nothing(
        rules in rules(),
        lines in vec((select(vec!["a", "b", "ab"]), vec(select(vec!["b", "c", "-f", "-rf", "-r", "b b", ""]), 0..5)), 150)
    ) {
        let said = found(&rules);
        let text = format!(r#"{{"version": "2", "exec": {{"rules": [{rules}]}}}}"#);
        let judge = Judge::new(crate::parse(&text).unwrap().policy);
        for (program, rest) in lines {
            let words = std::iter::once(program).chain(rest);
            let words: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).collect();
            let (_, rule) = judge.exec(words.clone());
            if let Some(rule) = rule {
                let shadowed = said.iter().any(|(id, by)| *id == rule && by != &["?"]);
                prop_assert!(!shadowed, "{rule} decides {words:?} under {rules}");
            }
        }
    }
}

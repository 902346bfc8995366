//! `unless`: command lines that a rule does not match all the same.

use super::*;
use enforcer_policy::{Decision, ExecAction, Parsed, parse};

fn engine(rules: &str) -> Engine {
    let text = format!(r#"{{"version": "2", "exec": {{"default": "allow", "rules": [{rules}]}}}}"#);
    let Parsed { policy, .. } = parse(&text).unwrap();
    Engine::new(policy, 7).unwrap()
}

fn decides(engine: &Engine, line: &str) -> Decision {
    let words = line.split(' ').map(|word| word.as_bytes().to_vec());
    let action = ExecAction::from_words(words.collect());
    let decision = engine.exec(&action).decision;
    // Alone it says the same.
    let explained = engine.explain_exec(&action).unwrap();
    assert_eq!(
        explained.matched.is_empty(),
        decision == Decision::Allow,
        "{line}"
    );
    decision
}

#[test]
fn a_rule_does_not_match_what_its_unless_matches_as_a_whole() {
    for rule in [
        r#"{"id": "r", "decision": "deny", "regex": ["^mkfs(?:\\.[a-z0-9]+)?(?: |$)"],
            "unless": ["(?:[^ ]*/)?mkfs(?:\\.[a-z0-9]+)? (?:-V|--version|--help)"]}"#,
        r#"{"id": "r", "decision": "deny", "glob": ["mkfs", "mkfs *", "mkfs.ext4", "mkfs.ext4 *"],
            "unless": ["(?:[^ ]*/)?mkfs(?:\\.[a-z0-9]+)? (?:-V|--version|--help)"]}"#,
        r#"{"id": "r", "decision": "ask", "risk": "HIGH", "argv": {"program": ["mkfs", "mkfs.ext4"]},
            "unless": ["mkfs(?:\\.[a-z0-9]+)? (?:-V|--version)", "mkfs(?:\\.[a-z0-9]+)? --help"]}"#,
    ] {
        let engine = engine(rule);
        for line in ["mkfs -V", "mkfs.ext4 --help", "mkfs.ext4 --version"] {
            assert_eq!(decides(&engine, line), Decision::Allow, "{rule}: {line}");
        }
        for line in [
            "mkfs",
            "mkfs.ext4 /dev/sda",
            "mkfs.ext4 /dev/sda -V",
            "mkfs.ext4 -V /dev/sda",
            "mkfs.ext4 -V -V",
            "mkfs.ext4 -Vx",
            "mkfs.ext4 -V ",
        ] {
            assert_ne!(decides(&engine, line), Decision::Allow, "{rule}: {line}");
        }
    }
}

/// The program reads one word where a line has two.
#[test]
fn one_word_does_not_pose_as_several() {
    for rule in [
        r#"{"id": "r", "decision": "ask", "regex": ["^helm uninstall(?: |$)"],
            "unless": ["helm uninstall(?: [^- ][^ ]*)* --dry-run"]}"#,
        r#"{"id": "r", "decision": "ask", "glob": ["helm uninstall*"],
            "unless": ["helm uninstall(?: [^- ][^ ]*)* --dry-run"]}"#,
        r#"{"id": "r", "decision": "ask", "argv": {"program": "helm", "words": ["uninstall"]},
            "unless": ["helm uninstall(?: [^- ][^ ]*)* --dry-run"]}"#,
        r#"{"id": "r", "decision": "ask", "regex": ["uninstall"],
            "unless": ["helm uninstall(?: [^- ][^ ]*)* --dry-run"]}"#,
    ] {
        let engine = engine(rule);
        let decides = |words: &[&str]| {
            let words = words.iter().map(|word| word.as_bytes().to_vec());
            engine
                .exec(&ExecAction::from_words(words.collect()))
                .decision
        };
        let harmless = ["helm", "uninstall", "a", "b", "--dry-run"];
        assert_eq!(decides(&harmless), Decision::Allow, "{rule}");
        for words in [
            &["helm", "uninstall", "a", "b --dry-run"][..],
            &["helm", "uninstall", "a b", "--dry-run"],
            &["helm", "uninstall", "a", " --dry-run"],
            &["helm", "uninstall", "a", "--dry-run "],
            &["helm", "uninstall", "a", "", "--dry-run"],
            &["helm", "uninstall a --dry-run"],
        ] {
            let asked = decides(words) == Decision::Ask;
            // The last is no such command to an argv rule.
            assert!(
                asked || rule.contains("argv") && words.len() == 2,
                "{rule}: {words:?}"
            );
        }
    }
}

#[test]
fn a_harmless_flag_counts_behind_flags_that_take_no_value() {
    let engine = engine(
        r#"{"id": "p", "decision": "ask", "argv": {"program": "git", "words": ["push"], "flags_any": ["-f", "--force"],
            "flags_none": ["--dry-run", "-n"], "flags_bare": ["-f", "--force", "-q"]}}"#,
    );
    for line in [
        "git push --force --dry-run",
        "git push -f -n",
        "git push -q --force -n origin main",
        "git push --dry-run --force",
    ] {
        assert_eq!(decides(&engine, line), Decision::Allow, "{line}");
    }
    for line in [
        "git push --force",
        "git push --force --dry-run --no-dry-run",
        "git push --no-dry-run --dry-run -f",
        "git push --force -o --dry-run",
        "git push --force --push-option -n",
        "git push --force --forc --dry-run",
        "git push --force -- --dry-run",
        "git push --dry-run=x --force",
    ] {
        assert_eq!(decides(&engine, line), Decision::Ask, "{line}");
    }
}

#[test]
fn what_one_rule_leaves_another_can_match() {
    let engine = engine(
        r#"{"id": "a", "decision": "deny", "regex": ["x"], "unless": ["a x"]},
           {"id": "b", "decision": "ask", "regex": ["^a "]}"#,
    );
    assert_eq!(decides(&engine, "a x"), Decision::Ask);
    assert_eq!(decides(&engine, "a x x"), Decision::Deny);
    assert_eq!(decides(&engine, "b x"), Decision::Deny);
}

#[test]
fn unless_belongs_to_rules_that_ask_or_deny() {
    for rule in [
        r#"{"id": "a", "decision": "allow", "regex": ["x"], "unless": ["a x"]}"#,
        r#"{"id": "a", "decision": "deny", "regex": ["x"], "unless": []}"#,
        r#"{"id": "a", "decision": "deny", "regex": ["x"], "unless": ["("]}"#,
    ] {
        let text = format!(r#"{{"version": "2", "exec": {{"rules": [{rule}]}}}}"#);
        assert!(parse(&text).is_err(), "{rule}");
    }
}

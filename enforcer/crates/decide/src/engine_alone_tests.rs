//! What the whole tables tell of a rule alone is what the rule's own tables say.

use super::*;
use enforcer_policy::parse;

const POLICY: &str = r#"{"version": "2", "exec": {"default": "allow", "transparent": ["bash", "b in"], "rules": [
    {"id": "anywhere", "decision": "deny", "regex": ["rm -rf"]},
    {"id": "push", "decision": "deny", "argv": {"program": "git", "words": ["push"], "flags_any": ["--force"]}},
    {"id": "remote", "decision": "ask", "argv": {"program": "git", "words": ["remote", "add"]}},
    {"id": "git", "decision": "allow", "glob": ["git *"]},
    {"id": "any-git", "decision": "ask", "argv": {"program": "git"}},
    {"id": "shell", "decision": "deny", "glob": ["bash --posix*"]}
]}}"#;

const LINES: [&[&str]; 15] = [
    &["bash", "-c", "rm -rf /"],
    &["/bin/bash", "-c", "rm -rf /"],
    &["bash", "--posix", "-c", "rm -rf /"],
    &["bash", "--posix"],
    &["b", "in", "rm -rf"],
    &["./b in", "rm -rf"],
    &["bash"],
    &["rm", "-rf", "/"],
    &["git", "push", "--force"],
    &["git", "-C", "push", "remote", "push", "--force"],
    &["git", "-c", "remote", "push", "remote", "add"],
    &["git", "status"],
    &["git", "commit", "-m", "rm -rf"],
    &["./git", "push", "--force"],
    &["ls"],
];

#[test]
fn it_agrees_with_the_rules_own_tables() {
    let engine = Engine::new(parse(POLICY).unwrap().policy, 3).unwrap();
    let exec = &engine.policy().exec;
    let mut told = [0, 0];
    for rule in &exec.rules {
        let check = RuleCheck::new(rule, &exec.trusted_dirs).unwrap();
        for line in LINES {
            let words = line.iter().map(|word| word.as_bytes().to_vec()).collect();
            let action = ExecAction::from_words(words);
            if let Some(alone) = engine.alone(rule, &action) {
                assert_eq!(alone, check.matches(&action), "{}: {line:?}", rule.id);
                told[usize::from(alone)] += 1;
            }
        }
    }
    assert!(told[0] > 10 && told[1] > 5, "{told:?}");
}

/// Behind a transparent program the tables look at less than a rule alone does.
#[test]
fn of_transparent_programs_nothing_is_told_that_a_rule_could_contradict() {
    let engine = Engine::new(parse(POLICY).unwrap().policy, 3).unwrap();
    let exec = &engine.policy().exec;
    let action = ExecAction::from_words(
        ["bash", "-c", "rm -rf /"]
            .map(|word| word.as_bytes().to_vec())
            .to_vec(),
    );
    assert_eq!(engine.alone(&exec.rules[0], &action), None);
    let check = RuleCheck::new(&exec.rules[0], &exec.trusted_dirs).unwrap();
    assert!(check.matches(&action));
}

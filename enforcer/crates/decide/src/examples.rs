//! The examples that rules carry: whether each rule says of them what its author says.

use std::{cell::RefCell, collections::HashMap};

use enforcer_policy::{ExecAction, Parsed, PolicyError, RuleCheck, validate};

use super::Engine;

/// The examples of a policy's rules: the faults. The policy's `engine`, if there is one, spares most rules tables of
/// their own.
pub fn prove(parsed: &Parsed, engine: Option<&Engine>) -> Vec<PolicyError> {
    let dirs = &parsed.policy.exec.trusted_dirs;
    // A rule's own tables are made once for all its examples.
    let checks: RefCell<HashMap<String, Option<RuleCheck>>> = RefCell::default();
    validate::examples(parsed, &|rule, words| {
        let argv = words.iter().map(|word| word.clone().into_bytes()).collect();
        let action = ExecAction::from_words(argv);
        if let Some(matches) = engine.and_then(|engine| engine.alone(rule, &action)) {
            return matches;
        }
        checks
            .borrow_mut()
            .entry(rule.id.clone())
            .or_insert_with(|| RuleCheck::new(rule, dirs).ok())
            .as_ref()
            .is_some_and(|check| check.matches(&action))
    })
}

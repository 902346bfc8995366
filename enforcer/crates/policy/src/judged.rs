//! What a policy says of a command line, for tests: its tables, walked, and the rule that decided by its id.

use std::{collections::BTreeSet, sync::Arc};

use enforcer_common::event::CAUSE_RULE;

use crate::{
    Decision, ExecAction, Policy,
    compile::{RuleRef, compile_for},
    matcher::Matcher,
};

/// A compiled policy and its text.
pub struct Judge {
    policy: Policy,
    matcher: Matcher,
}

impl Judge {
    /// Compiles a policy for an agent without capabilities.
    pub fn new(policy: Policy) -> Self {
        let tables = compile_for(&policy, &BTreeSet::new(), 7).unwrap();
        let matcher = Matcher::new(Arc::new(tables));
        Self { policy, matcher }
    }

    /// The decision on a command line, and the id of the rule that made it.
    pub fn exec(&self, words: Vec<Vec<u8>>) -> (Decision, Option<String>) {
        let judgement = self.matcher.exec(&ExecAction::from_words(words));
        let by_rule = judgement.cause == CAUSE_RULE;
        let of = by_rule.then(|| self.matcher.tables().ranks[judgement.rank as usize]);
        let rule = match of.unwrap_or(RuleRef::None) {
            RuleRef::Rule(at) | RuleRef::Lacking(at) | RuleRef::Raised(at) => {
                Some(self.policy.exec.rules[at].id.clone())
            }
            RuleRef::Builtin(builtin) => Some(builtin.id().to_owned()),
            RuleRef::Transparent | RuleRef::None => None,
        };
        (judgement.decision, rule)
    }
}

//! A decision with all that led to it: for explanations, hooks and tools that show more than the outcome.

use serde::Serialize;

use super::Outcome;
use enforcer_policy::{Decision, Risk};

/// A rule that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matched {
    /// Its id.
    pub id: String,
    /// What it says for this agent: an allow rule that lacks capabilities denies, one that is too dangerous asks.
    pub decision: Decision,
    /// Its risk.
    pub risk: Risk,
}

/// An outcome, and every rule that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was decided.
    pub outcome: Outcome,
    /// The rules that match, in the order of the policy; a built-in rule that decided comes last. The strictest of
    /// them has decided.
    pub matched: Vec<Matched>,
    /// What to do instead, then how to be allowed.
    pub suggestions: Vec<String>,
}

impl Explanation {
    /// Joins an outcome with the rules of the policy that match.
    pub(super) fn new(outcome: Outcome, mut matched: Vec<Matched>) -> Self {
        if let Some(rule) = &outcome.rule
            && !matched.iter().any(|known| known.id == *rule)
        {
            matched.push(Matched {
                id: rule.clone(),
                decision: outcome.decision,
                risk: outcome.risk,
            });
        }
        Self {
            suggestions: outcome.suggestions.clone(),
            outcome,
            matched,
        }
    }
}

impl From<Outcome> for Explanation {
    /// An outcome that no rule of the policy had a part in.
    fn from(outcome: Outcome) -> Self {
        Self::new(outcome, Vec::new())
    }
}

//! One rule without the others.

use std::sync::Arc;

use crate::{
    compile::{CompileError, RuleRef, compile_rule},
    model::Rule,
    standing::Standing,
};

use super::{Decision, action::ExecAction, matcher::Matcher};

/// One exec rule alone: whether it matches, whatever other rules say.
#[derive(Debug)]
pub struct RuleCheck {
    matcher: Matcher,
}

impl RuleCheck {
    /// Compiles the rule.
    ///
    /// # Errors
    ///
    /// [`CompileError`] if the tables cannot hold the rule even alone.
    pub fn new(rule: &Rule, trusted_dirs: &[String]) -> Result<Self, CompileError> {
        Self::standing(rule, Standing::Plain, trusted_dirs)
    }

    /// Compiles the rule as it stands for an agent.
    ///
    /// # Errors
    ///
    /// As [`RuleCheck::new`].
    pub fn standing(
        rule: &Rule,
        standing: Standing,
        trusted_dirs: &[String],
    ) -> Result<Self, CompileError> {
        let of: (fn(usize) -> RuleRef, Decision) = match standing {
            Standing::Plain => (RuleRef::Rule, rule.decision),
            Standing::Lacking => (RuleRef::Lacking, Decision::Deny),
            Standing::Raised | Standing::RaisedByDanger => (RuleRef::Raised, Decision::Ask),
        };
        // The seed guards against chosen names; nothing is enforced here.
        let tables = compile_rule(rule, of, trusted_dirs, 0)?;
        Ok(Self {
            matcher: Matcher::new(Arc::new(tables)),
        })
    }

    /// Whether the rule matches.
    pub fn matches(&self, action: &ExecAction) -> bool {
        self.matcher.exec_rank(action) > 0
    }
}

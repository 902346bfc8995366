//! The engine: a policy, its tables, and the words for what they decide.

use std::sync::Arc;

use enforcer_common::event::{
    CAUSE_DEFAULT, CAUSE_ESCAPE, CAUSE_FAMILY, CAUSE_FILELESS, CAUSE_OPERATOR, CAUSE_RULE,
    CAUSE_TRANSPARENT, CAUSE_UNREADABLE,
};

use crate::policy::{
    Policy,
    compile::{Builtin, CompileError, RuleRef, Tables, compile, compile_rule},
    model::{Form, Rule},
};

use super::{
    Decision, Risk,
    action::{ConnectAction, ExecAction},
    matcher::{Judgement, Matcher},
};

/// What an `ask` says as long as nobody can be asked.
pub const NO_APPROVALS: &str =
    " (approval is needed; approvals are not available yet, so this is denied)";

/// A decision in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the policy says.
    pub decision: Decision,
    /// Id of the rule that decided.
    pub rule: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// How much damage the action can do.
    pub risk: Risk,
    /// What to do instead.
    pub suggestion: Option<String>,
    /// Whether the trail marks it as a security risk: a rule forbade it or asks about it, or it tried to evade
    /// judgement. An action that merely no rule names is none.
    pub security_risk: bool,
}

/// A policy that judges actions.
#[derive(Clone, Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    matcher: Matcher,
}

impl Engine {
    /// Compiles a policy. `seed` keys the hashes of program names.
    ///
    /// # Errors
    ///
    /// [`CompileError`] if the tables cannot hold the policy.
    pub fn new(policy: Policy, seed: u64) -> Result<Self, CompileError> {
        let tables = compile(&policy, seed)?;
        Ok(Self {
            policy: Arc::new(policy),
            matcher: Matcher::new(Arc::new(tables)),
        })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The compiled tables.
    pub fn tables(&self) -> &Tables {
        self.matcher.tables()
    }

    /// The walker over the tables.
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// Judges an exec.
    pub fn exec(&self, action: &ExecAction) -> Outcome {
        self.exec_outcome(self.matcher.exec(action))
    }

    /// Judges a connect.
    pub fn connect(&self, action: &ConnectAction) -> Outcome {
        self.connect_outcome(self.matcher.connect(action))
    }

    /// Ids of all exec rules that match, in the order of the policy. Compiles each rule anew, so it is for
    /// explanations only.
    ///
    /// # Errors
    ///
    /// [`CompileError`], though not for a policy that has been compiled.
    pub fn exec_matches(&self, action: &ExecAction) -> Result<Vec<String>, CompileError> {
        let mut ids = Vec::new();
        for rule in &self.policy.exec.rules {
            let check = RuleCheck::new(rule, &self.policy.exec.trusted_dirs)?;
            if check.matches(action) {
                ids.push(rule.id.clone());
            }
        }
        Ok(ids)
    }

    /// Words an exec's judgement, from the tables or from a kernel event.
    pub fn exec_outcome(&self, judgement: Judgement) -> Outcome {
        let rank = judgement.rank as usize;
        match self.tables().ranks.get(rank) {
            Some(RuleRef::Rule(at)) if judgement.cause == CAUSE_RULE => {
                let rule = &self.policy.exec.rules[*at];
                self.by_rule(
                    judgement.decision,
                    &rule.id,
                    rule.justification.as_deref(),
                    rule.risk,
                    rule.suggestion.as_deref(),
                )
            }
            Some(RuleRef::Builtin(builtin)) if judgement.cause == CAUSE_RULE => {
                by_builtin(judgement.decision, *builtin)
            }
            _ => self.without_rule(judgement, "Command not in whitelist (deny by default)"),
        }
    }

    /// Words a connect's judgement, from the tables or from a kernel event.
    pub fn connect_outcome(&self, judgement: Judgement) -> Outcome {
        let rank = judgement.rank as usize;
        match self.tables().connect_ranks.get(rank) {
            Some(RuleRef::Rule(at)) if judgement.cause == CAUSE_RULE => {
                let rule = &self.policy.connect.rules[*at];
                self.by_rule(
                    judgement.decision,
                    &rule.id,
                    rule.justification.as_deref(),
                    rule.risk,
                    rule.suggestion.as_deref(),
                )
            }
            Some(RuleRef::Builtin(builtin)) if judgement.cause == CAUSE_RULE => {
                by_builtin(judgement.decision, *builtin)
            }
            _ => self.without_rule(judgement, "No rule matches (default: deny)"),
        }
    }

    fn by_rule(
        &self,
        decision: Decision,
        id: &str,
        justification: Option<&str>,
        risk: Risk,
        suggestion: Option<&str>,
    ) -> Outcome {
        let reason = match (self.policy.form, justification) {
            (Form::Hook, _) if decision == Decision::Allow => {
                format!("Matches whitelist pattern: {id}")
            }
            (Form::Hook, _) => format!("Matches blacklist pattern: {id}"),
            (Form::Native, Some(justification)) => format!("{justification} [{id}]"),
            (Form::Native, None) => format!("Matches rule: {id}"),
        };
        Outcome {
            decision,
            rule: Some(id.to_owned()),
            reason: asked(decision, reason),
            risk,
            suggestion: suggestion.map(str::to_owned),
            security_risk: decision != Decision::Allow,
        }
    }

    fn without_rule(&self, judgement: Judgement, hook_default: &str) -> Outcome {
        let decision = judgement.decision;
        let (rule, reason) = match judgement.cause {
            CAUSE_DEFAULT if self.policy.form == Form::Hook && decision == Decision::Deny => {
                (None, hook_default.to_owned())
            }
            CAUSE_DEFAULT => (None, format!("No rule matches (default: {decision})")),
            CAUSE_TRANSPARENT => (
                None,
                "Transparent shell: what it starts is judged".to_owned(),
            ),
            CAUSE_OPERATOR => (None, "The command that the operator gave to run".to_owned()),
            CAUSE_FILELESS => (
                Some("fileless"),
                "The executable has no name in the file system, or is named through a descriptor \
                 [fileless]"
                    .to_owned(),
            ),
            CAUSE_UNREADABLE => (
                None,
                "The arguments, the path or the address could not be read".to_owned(),
            ),
            CAUSE_ESCAPE => (None, "The process left its agent's cgroup".to_owned()),
            CAUSE_FAMILY => (
                None,
                "Host rules cannot judge sockets of this family or protocol".to_owned(),
            ),
            _ => (None, "The kernel side could not judge this".to_owned()),
        };
        let usual = matches!(
            judgement.cause,
            CAUSE_DEFAULT | CAUSE_TRANSPARENT | CAUSE_OPERATOR
        );
        let risk = match decision {
            Decision::Allow => Risk::Low,
            _ if usual => Risk::Medium,
            _ => Risk::High,
        };
        Outcome {
            decision,
            rule: rule.map(str::to_owned),
            reason: asked(decision, reason),
            risk,
            suggestion: None,
            security_risk: decision != Decision::Allow && !usual,
        }
    }
}

/// Adds to the reason of an `ask` that it is a denial.
fn asked(decision: Decision, mut reason: String) -> String {
    if decision == Decision::Ask {
        reason.push_str(NO_APPROVALS);
    }
    reason
}

fn by_builtin(decision: Decision, builtin: Builtin) -> Outcome {
    let (reason, suggestion) = match builtin {
        Builtin::Loader => (
            "The dynamic loader was started as a program, which hides the program it runs",
            "start the program itself",
        ),
        Builtin::Metadata => (
            "Link-local and metadata addresses hand out credentials of the machine",
            "name the address in a connect rule if the agent needs it",
        ),
    };
    Outcome {
        decision,
        rule: Some(builtin.id().to_owned()),
        reason: asked(decision, format!("{reason} [{}]", builtin.id())),
        risk: Risk::High,
        suggestion: (decision != Decision::Allow).then(|| suggestion.to_owned()),
        security_risk: decision != Decision::Allow,
    }
}

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
        // The seed guards against chosen names; nothing is enforced here.
        let tables = compile_rule(rule, trusted_dirs, 0)?;
        Ok(Self {
            matcher: Matcher::new(Arc::new(tables)),
        })
    }

    /// Whether the rule matches.
    pub fn matches(&self, action: &ExecAction) -> bool {
        self.matcher.exec_rank(action) > 0
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

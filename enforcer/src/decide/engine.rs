//! The engine: a policy, its tables, and what they decide.

use std::{cmp::Ordering, sync::Arc};

use crate::policy::{
    Policy,
    compile::{CompileError, RuleRef, Tables, compile, compile_rule},
    model::{self, Rule},
};

use super::{
    action::{ConnectAction, ExecAction, UnixAction},
    matcher::{Matcher, base_name},
    wording::{Outcome, Wording},
};

/// A policy that judges actions.
#[derive(Clone, Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    matcher: Matcher,
    wording: Wording,
}

impl Engine {
    /// Compiles a policy. `seed` keys the hashes of program names.
    ///
    /// # Errors
    ///
    /// [`CompileError`] if the tables cannot hold the policy.
    pub fn new(policy: Policy, seed: u64) -> Result<Self, CompileError> {
        let tables = compile(&policy, seed)?;
        let policy = Arc::new(policy);
        Ok(Self {
            wording: Wording::new(Arc::clone(&policy), &tables),
            policy,
            matcher: Matcher::new(Arc::new(tables)),
        })
    }

    /// The engine of a policy whose tables were compiled before ([`Tables::from_bytes`]).
    pub fn with_tables(policy: Policy, tables: Tables) -> Self {
        let policy = Arc::new(policy);
        Self {
            wording: Wording::new(Arc::clone(&policy), &tables),
            policy,
            matcher: Matcher::new(Arc::new(tables)),
        }
    }

    /// The words alone; the tables, megabytes of them, are given up.
    pub fn into_wording(self) -> Wording {
        self.wording
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
        self.wording.exec_outcome(self.matcher.exec(action))
    }

    /// Judges a connect.
    pub fn connect(&self, action: &ConnectAction) -> Outcome {
        self.wording.connect_outcome(self.matcher.connect(action))
    }

    /// Judges a connect to a unix socket.
    pub fn unix(&self, action: &UnixAction) -> Outcome {
        self.wording.unix_outcome(self.matcher.unix(action))
    }

    /// Whether a rule alone matches, as far as the tables of all rules tell; `None` where only [`RuleCheck`] does.
    ///
    /// The strictest rule that matches wins, so the winner matches, and what ranks above it does not. Two things hide
    /// a match or add one: behind a transparent program not all rules are looked at, and the words of an argv rule
    /// are read in the light of its neighbours.
    pub fn alone(&self, rule: &Rule, action: &ExecAction) -> Option<bool> {
        let rules = &self.policy.exec.rules;
        let at = rules.iter().position(|other| other.id == rule.id)?;
        let ranks = &self.tables().ranks;
        let own = ranks.iter().position(|of| *of == RuleRef::Rule(at))?;
        let of_neighbours = match &rule.matcher {
            model::Matcher::Argv(pattern) => !pattern.words.is_empty(),
            model::Matcher::Glob(_) | model::Matcher::Regex(_) => false,
        };
        match (self.matcher.exec_rank(action) as usize).cmp(&own) {
            Ordering::Equal if !of_neighbours => Some(true),
            Ordering::Less if !self.perhaps_transparent(action) => Some(false),
            _ => None,
        }
    }

    /// Whether a form of the program can have the name of a transparent one. `/a b/c` can be looked up as `/a`.
    fn perhaps_transparent(&self, action: &ExecAction) -> bool {
        let name = |text: &[u8]| {
            let end = text.iter().position(|byte| *byte == b' ');
            base_name(&text[..end.unwrap_or(text.len())]).to_vec()
        };
        let names = [name(&action.path), name(base_name(&action.path))];
        let transparent = &self.policy.exec.transparent;
        transparent
            .iter()
            .any(|program| names.contains(&name(program.as_bytes())))
    }

    /// The words for judgements of these tables.
    pub fn wording(&self) -> &Wording {
        &self.wording
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

#[cfg(test)]
#[path = "engine_alone_tests.rs"]
mod alone_tests;

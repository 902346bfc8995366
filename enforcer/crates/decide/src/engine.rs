//! The engine: a policy, its tables, and what they decide.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use enforcer_common::{
    address,
    event::{CAUSE_HOOK, CAUSE_LISTENER},
    own::Own,
};

use enforcer_policy::{
    Policy,
    compile::{
        CompileError, RuleRef, Tables, compile_for, connect_matches, programs, unix_matches,
    },
    model::{self, ConnectRule, ExecPolicy, Protocol, Rule},
    standing::{self, Standing},
};

use super::{
    Principal,
    explanation::{Explanation, Matched},
    own,
    wording::{Outcome, Wording},
};
use enforcer_policy::{
    Decision, Judgement,
    action::{ConnectAction, ExecAction, UnixAction},
    matcher::{Matcher, base_name},
    rule_check::RuleCheck,
};

/// A policy that judges actions.
#[derive(Clone, Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    capabilities: BTreeSet<String>,
    matcher: Matcher,
    wording: Wording,
    checks: Checks,
    programs: Programs,
    own: Option<Arc<Own>>,
}

/// For each rule the names of the only programs that it can match, or none if it looks at all: made by the first
/// explanation, since the patterns are parsed for it.
type Programs = Arc<OnceLock<Vec<Option<Vec<Vec<u8>>>>>>;

/// Rules that explanations have compiled alone, by their place in the policy and how they stand.
#[derive(Clone, Debug, Default)]
struct Checks(Arc<Mutex<Alone>>);

/// Rules, each with tables of its own.
type Alone = HashMap<(usize, Standing), Arc<RuleCheck>>;

impl Checks {
    /// The rule, compiled the first time that it is looked at.
    fn of(
        &self,
        at: usize,
        standing: Standing,
        exec: &ExecPolicy,
    ) -> Result<Arc<RuleCheck>, CompileError> {
        // A panic while it was held can only have left a rule out.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(check) = known.get(&(at, standing)) {
            return Ok(Arc::clone(check));
        }
        let check = RuleCheck::standing(&exec.rules[at], standing, &exec.trusted_dirs)?;
        let check = Arc::new(check);
        known.insert((at, standing), Arc::clone(&check));
        Ok(check)
    }
}

impl Engine {
    /// Compiles a policy for an agent without capabilities. `seed` keys the hashes of program names.
    ///
    /// # Errors
    ///
    /// [`CompileError`] if the tables cannot hold the policy.
    pub fn new(policy: Policy, seed: u64) -> Result<Self, CompileError> {
        Self::with_capabilities(policy, BTreeSet::new(), seed)
    }

    /// Compiles a policy for one principal: its capabilities change what allow rules say. Whether it is let in at all
    /// is asked before ([`super::admit`]).
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn for_principal(
        policy: Policy,
        principal: &Principal,
        seed: u64,
    ) -> Result<Self, CompileError> {
        let capabilities = principal.capabilities_under(&policy);
        Self::with_capabilities(policy, capabilities, seed)
    }

    /// Compiles a policy for an agent with exactly these capabilities.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn with_capabilities(
        policy: Policy,
        capabilities: BTreeSet<String>,
        seed: u64,
    ) -> Result<Self, CompileError> {
        let tables = compile_for(&policy, &capabilities, seed)?;
        Ok(Self::with_tables(policy, capabilities, tables))
    }

    /// The engine of a policy whose tables were compiled before for these capabilities ([`Tables::from_bytes`]).
    pub fn with_tables(policy: Policy, capabilities: BTreeSet<String>, tables: Tables) -> Self {
        let policy = Arc::new(policy);
        Self {
            wording: Wording::new(Arc::clone(&policy), capabilities.clone(), &tables),
            policy,
            capabilities,
            matcher: Matcher::new(Arc::new(tables)),
            checks: Checks::default(),
            programs: Programs::default(),
            own: None,
        }
    }

    /// The same engine, which knows the launcher's own program by its path: for what is not run.
    #[must_use]
    pub fn with_own(self, own: Own) -> Self {
        Self {
            own: Some(Arc::new(own)),
            ..self
        }
    }

    /// Whether an exec is the launcher's hook, by the path that it names.
    fn is_hook(&self, action: &ExecAction) -> bool {
        let Some(own) = &self.own else {
            return false;
        };
        let path = own::path(own);
        let executable = action.path == path || action.found && action.path == base_name(path);
        own::starts_hook(own, action, executable, self.matcher.is_trusted(action))
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
        if self.is_hook(action) {
            return self.wording.exec_outcome(Judgement {
                decision: Decision::Allow,
                rank: 0,
                cause: CAUSE_HOOK,
            });
        }
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

    /// What an allowed connect to an address comes to if who listens there is outside the agent and its own user's;
    /// `None` where that changes nothing.
    pub fn connect_outside(&self, action: &ConnectAction) -> Option<Outcome> {
        let decision = self.policy.connect.outside.tcp;
        let address = address::normalise(action.address);
        let asked = decision != Decision::Allow
            && action.protocol == Protocol::Tcp.number()
            && address::is_loopback(&address)
            && !self.matcher.names_port(action);
        asked.then(|| self.wording.connect_outcome(by_listener(decision)))
    }

    /// The same for a unix socket that no rule matches.
    pub fn unix_outside(&self) -> Option<Outcome> {
        let decision = self.policy.connect.outside.unix;
        (decision != Decision::Allow).then(|| self.wording.unix_outcome(by_listener(decision)))
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
            model::Patterns::Argv(pattern) => !pattern.words.is_empty(),
            model::Patterns::Glob(_) | model::Patterns::Regex(_) => false,
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

    /// The capabilities that it decides for.
    pub fn capabilities(&self) -> &BTreeSet<String> {
        &self.capabilities
    }

    /// Judges an exec, and names every rule that matches. The first time it compiles the rules that could, one by one:
    /// for explanations, not for every exec.
    ///
    /// # Errors
    ///
    /// [`CompileError`], though not for a policy that has been compiled.
    pub fn explain_exec(&self, action: &ExecAction) -> Result<Explanation, CompileError> {
        self.explain_outcome(action, self.exec(action))
    }

    /// As [`Engine::explain_exec`], for an exec that was judged already, perhaps as part of a command text.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn explain_outcome(
        &self,
        action: &ExecAction,
        outcome: Outcome,
    ) -> Result<Explanation, CompileError> {
        // What no rule matches together with all others, none matches alone: see [`Engine::alone`].
        if self.matcher.exec_rank(action) == 0 && !self.perhaps_transparent(action) {
            return Ok(Explanation::new(outcome, Vec::new()));
        }
        let names = self.matcher.names(action);
        let rules = &self.policy.exec.rules;
        let programs = self
            .programs
            .get_or_init(|| rules.iter().map(programs).collect());
        let mut matched = Vec::new();
        for (at, (rule, programs)) in rules.iter().zip(programs).enumerate() {
            let possible = programs
                .as_ref()
                .is_none_or(|programs| programs.iter().any(|program| names.contains(program)));
            if !possible {
                continue;
            }
            let check = |standing: Standing| {
                let check = self.checks.of(at, standing, &self.policy.exec)?;
                Ok::<_, CompileError>(check.matches(action))
            };
            let decision = match standing::of_exec(rule, &self.capabilities) {
                Standing::RaisedByDanger if check(Standing::RaisedByDanger)? => Some(Decision::Ask),
                Standing::Plain | Standing::RaisedByDanger => {
                    check(Standing::Plain)?.then_some(rule.decision)
                }
                Standing::Lacking => check(Standing::Lacking)?.then_some(Decision::Deny),
                Standing::Raised => check(Standing::Raised)?.then_some(Decision::Ask),
            };
            matched.extend(decision.map(|decision| Matched {
                id: rule.id.clone(),
                decision,
                risk: rule.risk,
            }));
        }
        Ok(Explanation::new(outcome, matched))
    }

    /// Judges a connect, and names every rule that matches.
    pub fn explain_connect(&self, action: &ConnectAction) -> Explanation {
        let matched = self.connect_matches(|rule, _| connect_matches(rule, action));
        Explanation::new(self.connect(action), matched)
    }

    /// Judges a connect to a unix socket, and names every rule that matches. For explanations, as
    /// [`Engine::explain_exec`].
    pub fn explain_unix(&self, action: &UnixAction) -> Explanation {
        let matched =
            self.connect_matches(|rule, decision| unix_matches(rule, decision, &action.name));
        Explanation::new(self.unix(action), matched)
    }

    fn connect_matches(&self, matches: impl Fn(&ConnectRule, Decision) -> bool) -> Vec<Matched> {
        let rules = self.policy.connect.rules.iter();
        rules
            .filter_map(|rule| {
                let decision = match standing::of_connect(rule, &self.capabilities) {
                    Standing::Plain => rule.decision,
                    Standing::Lacking => Decision::Deny,
                    Standing::Raised | Standing::RaisedByDanger => Decision::Ask,
                };
                matches(rule, decision).then(|| Matched {
                    id: rule.id.clone(),
                    decision,
                    risk: rule.risk,
                })
            })
            .collect()
    }
}

/// The judgement that the kernel makes where a listener is outside.
fn by_listener(decision: Decision) -> Judgement {
    Judgement {
        decision,
        rank: 0,
        cause: CAUSE_LISTENER,
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "engine_alone_tests.rs"]
mod alone_tests;

#[cfg(test)]
#[path = "engine_standing_tests.rs"]
mod standing_tests;

#[cfg(test)]
#[path = "engine_unless_tests.rs"]
mod unless_tests;

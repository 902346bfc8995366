//! A policy to tables: patterns become groups of small automata ([`enforcer_common::table`]), programs become
//! hashed heads that lead to groups of their own, networks become prefixes.
//!
//! Pure: the kernel side puts the result into maps, [`crate::matcher::Matcher`] walks it in user space.

use std::{
    collections::{BTreeSet, HashMap},
    panic::resume_unwind,
    thread,
};

use enforcer_common::{
    rule::{ConnectValue, Head, PolicyHeader},
    table::Segment,
};
use thiserror::Error;

use crate::{
    Decision, guard,
    model::{ExecPolicy, Policy, Rule},
    sockets,
    standing::{self, Standing},
};

mod arena;
mod argv;
mod automaton;
mod connect;
mod danger;
mod exec;
mod glob;
mod group;
mod limits;
mod minimise;
mod operand;
mod path;
mod rank;
#[cfg(test)]
mod reference_tests;
mod row;
mod search;
mod shadow;
#[cfg(test)]
mod shadow_tests;
pub mod stored;
mod subsets;
mod union;
mod unix;
#[cfg(test)]
mod unix_tests;

pub use connect::{ConnectPrefix, matches as connect_matches};
pub use danger::is_dangerous;
pub use exec::programs;
pub use glob::Glob;
pub use limits::{breaker_rules, limit_rules, rate_rule};
pub use unix::matches as unix_matches;

pub use shadow::{Shadow, shadows};

use exec::ExecTables;
use group::Groups;

/// A rule that every policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// The dynamic loader started as a program (`loader`).
    Loader,
    /// Link-local and metadata addresses (`metadata`).
    Metadata,
    /// A rule about unix sockets, by its index in [`sockets::built_in`].
    Socket(usize),
    /// A rule about what guards the agent, by its index in [`guard::built_in`].
    Guard(usize),
}

impl Builtin {
    /// The rule's id in reasons and in the trail.
    pub fn id(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::Metadata => "metadata",
            Self::Socket(_) => self.socket().map_or("socket", |rule| rule.id.as_str()),
            Self::Guard(_) => self.guard().map_or("guard", |rule| rule.id.as_str()),
        }
    }

    /// The rule, if it is about unix sockets.
    pub fn socket(self) -> Option<&'static sockets::SocketRule> {
        match self {
            Self::Socket(at) => sockets::built_in().ok()?.get(at),
            Self::Loader | Self::Metadata | Self::Guard(_) => None,
        }
    }

    /// The rule, if it is about what guards the agent.
    pub fn guard(self) -> Option<&'static Rule> {
        match self {
            Self::Guard(at) => Some(&guard::built_in().ok()?.get(at)?.rule),
            Self::Loader | Self::Metadata | Self::Socket(_) => None,
        }
    }
}

/// What a rank stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleRef {
    /// No rule.
    None,
    /// A transparent program.
    Transparent,
    /// A rule, by its index in the policy's list.
    Rule(usize),
    /// An allow rule that is too dangerous to allow without a person: it asks.
    Raised(usize),
    /// An allow rule that requires capabilities which the agent lacks: it denies.
    Lacking(usize),
    /// A rule that every policy has.
    Builtin(Builtin),
}

impl RuleRef {
    /// The index of the rule in the policy's list, if it is one of these.
    pub fn rule(self) -> Option<usize> {
        match self {
            Self::Rule(at) | Self::Raised(at) | Self::Lacking(at) => Some(at),
            Self::None | Self::Transparent | Self::Builtin(_) => None,
        }
    }
}

/// A compiled policy.
#[derive(Debug)]
pub struct Tables {
    /// The fixed part; `first_segment` is 0.
    pub header: PolicyHeader,
    /// The segments that all group references point into.
    pub segments: Vec<Box<Segment>>,
    /// Programs by the keyed hash of their name.
    pub heads: HashMap<u64, Head>,
    /// What each exec rank stands for; the index is the rank.
    pub ranks: Vec<RuleRef>,
    /// The connect entries, sorted.
    pub connect: Vec<(ConnectPrefix, ConnectValue)>,
    /// What each connect rank stands for; the index is the rank.
    pub connect_ranks: Vec<RuleRef>,
    /// First connect rank that asks.
    pub connect_ask_from: u32,
    /// First connect rank that denies.
    pub connect_deny_from: u32,
    /// What each unix rank stands for; the index is the rank. A rule's index is that in the connect rules.
    pub unix_ranks: Vec<RuleRef>,
    /// Whether a unix rule can come to ask.
    pub unix_rule_asks: bool,
}

impl Tables {
    /// Whether an exec can come to be asked about.
    pub fn exec_asks(&self) -> bool {
        let header = &self.header;
        header.ask_from < header.deny_from
            || asks([header.exec_default, header.fileless, header.descriptor])
    }

    /// Whether a connect to an address can come to be asked about.
    pub fn connect_asks(&self) -> bool {
        self.connect_ask_from < self.connect_deny_from || asks([self.header.connect_default])
    }

    /// Whether a connect to a unix socket can come to be asked about. Most policies have built-in rules that do.
    pub fn unix_asks(&self) -> bool {
        self.unix_rule_asks || asks([self.header.unix_default])
    }
}

fn asks<const N: usize>(defaults: [u32; N]) -> bool {
    defaults.contains(&Decision::Ask.number())
}

/// Why a policy has no tables.
#[derive(Debug, Error)]
pub enum CompileError {
    /// A pattern that is wrong, or that the tables cannot hold.
    #[error("exec rule `{rule}`: pattern `{pattern}`: {why}; {mend}")]
    Pattern {
        /// The rule's id.
        rule: String,
        /// The pattern as the policy has it.
        pattern: String,
        /// What is wrong.
        why: String,
        /// What to do.
        mend: &'static str,
    },
    /// A pattern of a connect rule that the tables cannot hold.
    #[error("connect rule `{rule}`: pattern `{pattern}`: {why}; {mend}")]
    Unix {
        /// The rule's id.
        rule: String,
        /// The pattern as the policy has it.
        pattern: String,
        /// What is wrong.
        why: String,
        /// What to do.
        mend: &'static str,
    },
    /// The data of the built-in rules cannot be used.
    #[error("the built-in rules about unix sockets: {why}; report this as a defect")]
    Sockets {
        /// What is wrong.
        why: &'static str,
    },
    /// The data of the built-in rules cannot be used.
    #[error("the built-in rules about what guards the agent: {why}; report this as a defect")]
    Guard {
        /// What is wrong.
        why: &'static str,
    },
    /// The trusted directories make no group.
    #[error("exec.trusted_dirs: {why}; name fewer or shorter directories")]
    TrustedDirs {
        /// What is wrong.
        why: String,
    },
    /// More rules than ranks.
    #[error(
        "{section}: {count} rules are more than the {max} that the tables can rank; join rules with the same decision"
    )]
    TooManyRules {
        /// Where the rules stand.
        section: &'static str,
        /// How many there are.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// Two programs with the same keyed hash.
    #[error(
        "programs `{first}` and `{second}` have the same hash under this seed; load the policy again"
    )]
    Collision {
        /// One program.
        first: String,
        /// The other.
        second: String,
    },
}

/// Compiles a policy for an agent without capabilities. `seed` keys the hashes of program names: secret, and new for
/// each load.
///
/// # Errors
///
/// [`CompileError`] names the rule and pattern that the tables cannot hold; nothing is left out or weakened.
pub fn compile(policy: &Policy, seed: u64) -> Result<Tables, CompileError> {
    compile_for(policy, &BTreeSet::new(), seed)
}

/// Compiles a policy for an agent with these capabilities.
///
/// An allow rule that `requires` what the agent lacks becomes one that denies, above all others that do; one of
/// critical risk becomes one that asks; one of high risk also becomes one that asks about what is dangerous
/// ([`danger`]). From there on such a rule is like any that asks or denies: a plain allow rule that matches too does
/// not outweigh it, and it sees every name of the program.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_for(
    policy: &Policy,
    capabilities: &BTreeSet<String>,
    seed: u64,
) -> Result<Tables, CompileError> {
    let exec = &policy.exec;
    let mut lacking = Vec::new();
    let mut others = Vec::with_capacity(exec.rules.len() + 1);
    for (at, rule) in exec.rules.iter().enumerate() {
        match standing::of_exec(rule, capabilities) {
            Standing::Lacking => lacking.push((RuleRef::Lacking(at), Decision::Deny)),
            Standing::Raised => others.push((RuleRef::Raised(at), Decision::Ask)),
            Standing::RaisedByDanger => {
                others.push((RuleRef::Raised(at), Decision::Ask));
                others.push((RuleRef::Rule(at), rule.decision));
            }
            Standing::Plain => others.push((RuleRef::Rule(at), rule.decision)),
        }
    }
    // Among denials the first is the one to name.
    let mut rules = [lacking, others].concat();
    rules.push((RuleRef::Builtin(Builtin::Loader), exec.loader));
    let guards = guard::shut(&policy.guard).map_err(|why| CompileError::Guard { why })?;
    rules.extend(guards.map(|(at, rule)| (RuleRef::Builtin(Builtin::Guard(at)), rule.decision)));
    // The two halves share no pattern, so each has a processor and segments of its own.
    let of_unix = || {
        let mut groups = Groups::default();
        let table = unix::table(&mut groups, &policy.connect, capabilities)?;
        Ok((table, groups.arena.finish()))
    };
    let (exec, unix) = thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, of_unix);
        let exec = exec_tables(exec, &rules, &exec.transparent, seed);
        let unix = match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // No thread is to be had: one after the other.
            Err(_) => of_unix(),
        };
        (exec, unix)
    });
    let (mut tables, (unix, segments)) = (exec?, unix?);
    tables.header.unix = unix.head;
    let first = tables.segments.len() as u32;
    for group in &mut tables.header.unix.groups[..unix.head.count as usize] {
        group.segment += first;
        group.ranks_segment += first;
    }
    tables.segments.extend(segments);
    tables.header.unix_default = policy.connect.unix_default.number();
    tables.header.outside_unix = policy.connect.outside.unix.number();
    tables.header.outside_tcp = policy.connect.outside.tcp.number();
    tables.header.unix_ask_from = unix.ranks.ask_from;
    tables.header.unix_deny_from = unix.ranks.deny_from;
    tables.unix_ranks = unix.ranks.refs;
    tables.unix_rule_asks = unix.asks;
    let (entries, ranks) = connect::table(&policy.connect, capabilities);
    tables.connect = entries;
    tables.connect_ask_from = ranks.ask_from;
    tables.connect_deny_from = ranks.deny_from;
    tables.connect_ranks = ranks.refs;
    tables.header.connect_default = policy.connect.default.number();
    tables.header.limits = limits::limit_rules(&policy.limits, &policy.breaker);
    Ok(tables)
}

/// The tables that deny every exec and every connect, to unix sockets too, with nothing built in.
///
/// # Errors
///
/// Never for a sound build.
pub fn compile_closed(seed: u64) -> Result<Tables, CompileError> {
    let mut tables = exec_tables(&closed(&[]), &[], &[], seed)?;
    tables.header.connect_default = Decision::Deny.number();
    tables.header.unix_default = Decision::Deny.number();
    Ok(tables)
}

/// An exec policy without rules that denies everything.
fn closed(trusted_dirs: &[String]) -> ExecPolicy {
    ExecPolicy {
        default: Decision::Deny,
        trusted_dirs: trusted_dirs.to_vec(),
        transparent: Vec::new(),
        fileless: Decision::Deny,
        descriptor: Decision::Deny,
        loader: Decision::Deny,
        rules: Vec::new(),
    }
}

/// Compiles one exec rule alone, with nothing built in: for a rule's own examples. `of` is how the rule stands, and
/// `decision` what it says then.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_rule(
    rule: &Rule,
    (of, decision): (fn(usize) -> RuleRef, Decision),
    trusted_dirs: &[String],
    seed: u64,
) -> Result<Tables, CompileError> {
    let exec = ExecPolicy {
        rules: vec![rule.clone()],
        ..closed(trusted_dirs)
    };
    exec_tables(&exec, &[(of(0), decision)], &[], seed)
}

/// The exec part alone. Every connect is denied.
fn exec_tables(
    exec: &ExecPolicy,
    rules: &[(RuleRef, Decision)],
    transparent: &[String],
    seed: u64,
) -> Result<Tables, CompileError> {
    let mut groups = Groups::default();
    let parts = exec::tables(&mut groups, exec, rules, transparent, seed)?;
    Ok(assemble(parts, groups))
}

/// Tables without any connect rules.
fn assemble(exec: ExecTables, groups: Groups) -> Tables {
    Tables {
        header: exec.header,
        segments: groups.arena.finish(),
        heads: exec.heads,
        ranks: exec.ranks,
        connect: Vec::new(),
        connect_ranks: vec![RuleRef::None],
        connect_ask_from: 1,
        connect_deny_from: 1,
        unix_ranks: vec![RuleRef::None],
        unix_rule_asks: false,
    }
}

//! Unix rules as groups over the name of a socket: its path, or `@` and its abstract name.
//!
//! The built-in rules stand behind those of the policy. A pattern of an allow or ask rule that names nothing but
//! sockets of one built-in rule lifts that rule for the sockets it names: what it matches is taken out of the
//! built-in rule's automaton. A wider pattern (`/run/*`) lifts nothing.
//!
//! An allow rule never matches a path with an empty, `.` or `..` component, so that a name that was not resolved
//! cannot pose as one below an allowed directory.

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use enforcer_common::rule::{HEAD_GROUPS, Head};

use crate::{
    Decision,
    model::{ConnectPolicy, ConnectRule},
    sockets::{self, SocketRule},
    unix_name,
};

use super::{
    Builtin, CompileError, RuleRef,
    automaton::{Alphabet, Automaton, Failure},
    connect,
    glob::Glob,
    group::{BUDGETS, Groups, Item, Refusal, STATES},
    rank::Ranks,
    search,
    union::{both, without},
};

/// An abstract name, or a path whose components are names: neither empty nor `.` nor `..`.
const PLAIN: &str =
    r"(?:@(?s-u:.)*|/?(?:[^/.]|\.[^/.]|\.\.[^/])[^/]*(?:/(?:[^/.]|\.[^/.]|\.\.[^/])[^/]*)*)\z";

const SIMPLER: &str = "make it shorter, or use fewer wildcards";
const SPREAD: &str = "use fewer wildcards, or join patterns";

/// What the unix rules become.
pub(super) struct UnixTables {
    /// The groups over names.
    pub(super) head: Head,
    /// What the ranks stand for.
    pub(super) ranks: Ranks,
    /// Whether a rule can come to ask.
    pub(super) asks: bool,
}

/// Compiles the unix rules of the policy and the built-in ones.
pub(super) fn table(
    groups: &mut Groups,
    policy: &ConnectPolicy,
    capabilities: &BTreeSet<String>,
) -> Result<UnixTables, CompileError> {
    let built_in = sockets::built_in().map_err(|why| CompileError::Sockets { why })?;
    let mut rules = connect::standings(policy, capabilities, |rule| !rule.unix.is_empty());
    for (at, rule) in built_in.iter().enumerate() {
        rules.push((RuleRef::Builtin(Builtin::Socket(at)), rule.decision));
    }
    let ranks = Ranks::new(vec![RuleRef::None], &rules);
    ranks.fit("connect.rules")?;
    let mut compiler = Compiler {
        policy,
        groups,
        decisions: rules.into_iter().collect(),
        ranks,
        asks: false,
    };
    let head = compiler.head(built_in)?;
    Ok(UnixTables {
        head,
        ranks: compiler.ranks,
        asks: compiler.asks,
    })
}

/// Whether a rule that says `decision` matches the name of a socket. For explanations: it compiles the patterns anew.
pub fn matches(rule: &ConnectRule, decision: Decision, name: &[u8]) -> bool {
    let [_, largest] = BUDGETS;
    let name = unix_name::normalised(name).concat();
    let found = |expression: &str| {
        search::parse(expression)
            .ok()
            .and_then(|hir| Automaton::of(&hir, Alphabet::Exact, largest).ok())
            .is_some_and(|automaton| automaton.matches(&name))
    };
    rule.unix
        .iter()
        .any(|pattern| found(&Glob::parse(pattern).closed()))
        && (decision != Decision::Allow || found(PLAIN))
}

struct Compiler<'a> {
    policy: &'a ConnectPolicy,
    groups: &'a mut Groups,
    /// What each rule says of what it matches.
    decisions: HashMap<RuleRef, Decision>,
    ranks: Ranks,
    asks: bool,
}

impl Compiler<'_> {
    fn head(&mut self, built_in: &[SocketRule]) -> Result<Head, CompileError> {
        let mut items = Vec::new();
        let mut named = Vec::new();
        for (rank, of) in self.ranks.refs.clone().into_iter().enumerate() {
            let (Some(at), Some(decision)) = (of.rule(), self.decisions.get(&of).copied()) else {
                continue;
            };
            let rule = &self.policy.rules[at];
            for text in &rule.unix {
                let item = self.item(rank as u16, text, decision)?;
                self.asks |= decision == Decision::Ask;
                named.push((decision, item.clone()));
                items.push(item);
            }
        }
        for (rank, of) in self.ranks.refs.clone().into_iter().enumerate() {
            let RuleRef::Builtin(Builtin::Socket(at)) = of else {
                continue;
            };
            let Some(rule) = built_in.get(at) else {
                continue;
            };
            let mut pieces = vec![self.built_in(rank as u16, rule, &named)?];
            if rule.decision == Decision::Allow {
                pieces.push(self.expression(rank as u16, &rule.id, PLAIN.to_owned())?);
            }
            items.push(Item {
                rank: rank as u16,
                pieces,
                weight: 1,
                text: rule.id.clone(),
            });
        }
        let groups = self
            .groups
            .place(&[(Alphabet::Exact, &items)], HEAD_GROUPS)
            .map_err(|refusal| self.refused(refusal))?;
        let mut head = Head {
            count: groups.len() as u32,
            ..Head::default()
        };
        head.groups[..groups.len()].copy_from_slice(&groups);
        Ok(head)
    }

    /// A pattern. It matches at the end of the name only, so that it can be taken out of another.
    fn item(&mut self, rank: u16, text: &str, decision: Decision) -> Result<Item, CompileError> {
        let glob = Glob::parse(text);
        let mut expressions = vec![glob.closed()];
        if decision == Decision::Allow {
            expressions.push(PLAIN.to_owned());
        }
        let mut pieces = Vec::with_capacity(expressions.len());
        for expression in expressions {
            pieces.push(self.expression(rank, text, expression)?);
        }
        Ok(Item {
            rank,
            pieces,
            weight: glob.stars(),
            text: text.to_owned(),
        })
    }

    /// A built-in rule without what the policy's patterns lift. What they deny is taken out of a rule that asks
    /// too, which changes no decision, so that a rule of which nothing is left asks nothing.
    fn built_in(
        &mut self,
        rank: u16,
        rule: &SocketRule,
        named: &[(Decision, Item)],
    ) -> Result<usize, CompileError> {
        let [_, largest] = BUDGETS;
        let limit = largest * STATES;
        let failed = |compiler: &Self, failure| compiler.failed(rank, &rule.id, failure);
        // One expression for all patterns is quicker to determinize than many are to join.
        let patterns: Vec<String> = rule
            .unix
            .iter()
            .map(|text| Glob::parse(text).closed())
            .collect();
        let piece = self.expression(rank, &rule.id, format!("(?:{})", patterns.join("|")))?;
        let whole = self
            .groups
            .part(piece, Alphabet::Exact)
            .map_err(|failure| failed(self, failure))?;
        let mut left = Rc::clone(&whole);
        for (decision, item) in named {
            if *decision == Decision::Deny && rule.decision == Decision::Deny {
                continue;
            }
            // Most patterns are far from most rules, which one name that they match tells.
            if !whole.matches(&Glob::parse(&item.text).sample()) {
                continue;
            }
            let pattern = self.part(item)?;
            let inside = without(&pattern, &whole, limit)
                .map_err(|failure| failed(self, failure))?
                .is_nothing();
            if !inside {
                continue;
            }
            let lifted = if *decision == Decision::Allow {
                let plain = self.expression(rank, &item.text, PLAIN.to_owned())?;
                self.groups
                    .part(plain, Alphabet::Exact)
                    .and_then(|plain| both(&pattern, &plain, limit))
                    .map(Rc::new)
                    .map_err(|failure| failed(self, failure))?
            } else {
                pattern
            };
            left = without(&left, &lifted, limit)
                .map(Rc::new)
                .map_err(|failure| failed(self, failure))?;
        }
        self.asks |= rule.decision == Decision::Ask && !left.is_nothing();
        if Rc::ptr_eq(&left, &whole) {
            return Ok(piece);
        }
        Ok(self.groups.add_automaton(Alphabet::Exact, left))
    }

    fn expression(&mut self, rank: u16, text: &str, of: String) -> Result<usize, CompileError> {
        self.groups
            .expressions
            .add(of)
            .map_err(|why| self.wrong(rank, text, why, SIMPLER))
    }

    /// The automaton of a pattern, without the guard of an allow rule.
    fn part(&mut self, item: &Item) -> Result<Rc<Automaton>, CompileError> {
        self.groups
            .part(item.pieces[0], Alphabet::Exact)
            .map_err(|failure| self.failed(item.rank, &item.text, failure))
    }

    fn failed(&self, rank: u16, text: &str, failure: Failure) -> CompileError {
        let why = match failure {
            Failure::TooLarge => "its automaton is larger than a table segment holds".to_owned(),
            Failure::Unsupported(why) => why,
        };
        self.wrong(rank, text, why, SIMPLER)
    }

    fn refused(&self, refusal: Refusal) -> CompileError {
        match refusal {
            Refusal::TooLarge(item) => self.failed(item.rank, &item.text, Failure::TooLarge),
            Refusal::Unsupported(item, why) => {
                self.failed(item.rank, &item.text, Failure::Unsupported(why))
            }
            Refusal::TooMany(item) => {
                let why = format!("it no longer fits the {HEAD_GROUPS} groups of unix sockets");
                self.wrong(item.rank, &item.text, why, SPREAD)
            }
        }
    }

    /// An error about a pattern of the rule with this rank.
    fn wrong(&self, rank: u16, pattern: &str, why: String, mend: &'static str) -> CompileError {
        let rule = match self.ranks.refs[usize::from(rank)] {
            RuleRef::Rule(at) | RuleRef::Raised(at) | RuleRef::Lacking(at) => {
                self.policy.rules[at].id.clone()
            }
            RuleRef::Builtin(builtin) => builtin.id().to_owned(),
            RuleRef::Transparent | RuleRef::None => "connect".to_owned(),
        };
        CompileError::Unix {
            rule,
            pattern: pattern.to_owned(),
            why,
            mend,
        }
    }
}

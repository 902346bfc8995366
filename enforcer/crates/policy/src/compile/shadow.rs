//! Exec rules that never decide: whatever they match is matched by rules that win against them.
//!
//! Found by the automata that the tables are made of, so a finding is a proof. Of each pattern a text is looked for that
//! it matches and no rule above it does: while some rule above matches the text, that rule's automaton is put to the
//! pattern's own, and the next text is one that this rule leaves open. Most patterns are settled by their first text.
//! The rest takes work without a bound worth having, so it is done under a budget, and what was not settled is said.
//!
//! Programs with a space in their own name are left aside: `git push` as one file's name is no `git`.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use crate::{
    Decision,
    model::{Policy, Rule},
    standing::{self, Standing},
};

use super::{
    Builtin, CompileError, RuleRef,
    automaton::{Alphabet, Automaton},
    exec::{self, Lists},
    group::Groups,
    union::either,
};

/// States of an automaton that decides one question; what needs more is not settled.
const STATES_MAX: usize = 40_000;
/// States over all questions of a policy: seconds.
const WORK_MAX: usize = 6_000_000;
/// Most patterns that one may be held against together.
const TOGETHER_MAX: usize = 24;

/// What was found of one exec rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shadow {
    /// Nothing matches it: no text is what its patterns want.
    Never,
    /// It never decides: these rules match all that it matches, and win. In the order of the policy.
    By(Vec<RuleRef>),
    /// Whether it ever decides takes more work than is spent on it.
    Unsettled,
}

/// A pattern as an automaton over what stands behind the program's name, or over the whole text.
struct Pattern {
    rank: u16,
    automaton: Option<Rc<Automaton>>,
}

/// The exec rules that never decide, or of which that is not settled, by their index in the policy.
///
/// Rules that allow only with capabilities are held against rules that ask or deny, and shadow nothing: what they say
/// depends on the agent.
///
/// # Errors
///
/// [`CompileError`] as for the tables.
pub fn shadows(policy: &Policy) -> Result<BTreeMap<usize, Shadow>, CompileError> {
    let exec = &policy.exec;
    // Whoever has all capabilities gets the most out of the rules.
    let required = exec.rules.iter().flat_map(|rule| rule.requires.clone());
    let capabilities = required.collect();
    let mut rules = Vec::new();
    for (at, rule) in exec.rules.iter().enumerate() {
        let standing = standing::of_exec(rule, &capabilities);
        if matches!(standing, Standing::Raised | Standing::RaisedByDanger) {
            rules.push((RuleRef::Raised(at), Decision::Ask));
        }
        if standing != Standing::Raised {
            rules.push((RuleRef::Rule(at), rule.decision));
        }
    }
    rules.push((RuleRef::Builtin(Builtin::Loader), exec.loader));
    let mut groups = Groups::default();
    let sorted = exec::patterns(&mut groups, exec, &rules)?;
    let ranks = &sorted.ranks.refs;
    let mut search = Search {
        rules: &exec.rules,
        ranks,
        shared: automata(&mut groups, &sorted.shared).into(),
        no_program: no_program(&mut groups),
        work: 0,
    };
    // For each rule what shadows each of its patterns.
    let mut found: HashMap<usize, Vec<Answer>> = HashMap::new();
    let mut note = |rank: u16, answer: Answer| {
        if let Some(at) = ranks[usize::from(rank)].rule() {
            found.entry(at).or_default().push(answer);
        }
    };
    for (name, lists) in &sorted.heads {
        let own = automata(&mut groups, lists);
        for pattern in &own {
            note(pattern.rank, search.answer(pattern, &own, Some(name)));
        }
    }
    for pattern in &*Rc::clone(&search.shared) {
        let own = Rc::clone(&search.shared);
        note(pattern.rank, search.answer(pattern, &own, None));
    }
    Ok(found
        .into_iter()
        .filter_map(|(at, answers)| Some((at, together(answers)?)))
        .collect())
}

fn automata(groups: &mut Groups, lists: &Lists) -> Vec<Pattern> {
    let items: Vec<(Alphabet, u16, Vec<usize>)> = lists
        .items()
        .map(|(alphabet, item)| (alphabet, item.rank, item.pieces.clone()))
        .collect();
    items
        .into_iter()
        .map(|(alphabet, rank, pieces)| Pattern {
            rank,
            automaton: groups.whole(alphabet, &pieces).ok(),
        })
        .collect()
}

/// What follows a program's name and is no argument.
fn no_program(groups: &mut Groups) -> Automaton {
    let piece = groups.expressions.add(r"(?s-u:[^\x00])".to_owned());
    let automaton = piece
        .ok()
        .and_then(|piece| groups.part(piece, Alphabet::Exact).ok());
    automaton.map_or_else(Automaton::nothing, Rc::unwrap_or_clone)
}

/// What is known of one pattern.
enum Answer {
    /// Something that it matches is matched by nothing that wins against it.
    Decides,
    /// All that it matches is matched by these.
    By(Vec<RuleRef>),
    /// It matches nothing.
    Never,
    Unsettled,
}

/// A rule is shadowed if all its patterns are.
fn together(answers: Vec<Answer>) -> Option<Shadow> {
    let mut by = Vec::new();
    let mut unsettled = false;
    for answer in answers {
        match answer {
            Answer::Decides => return None,
            Answer::By(rules) => by.extend(rules),
            Answer::Never => {}
            Answer::Unsettled => unsettled = true,
        }
    }
    if unsettled {
        return Some(Shadow::Unsettled);
    }
    if by.is_empty() {
        return Some(Shadow::Never);
    }
    let place = |of: &RuleRef| of.rule().unwrap_or(usize::MAX);
    by.sort_by_key(place);
    by.dedup();
    Some(Shadow::By(by))
}

struct Search<'a> {
    rules: &'a [Rule],
    ranks: &'a [RuleRef],
    /// The patterns over the whole text.
    shared: Rc<[Pattern]>,
    /// Texts that are no program's arguments.
    no_program: Automaton,
    /// States built so far.
    work: usize,
}

impl Search<'_> {
    /// Whether `pattern`, one of `own`, is shadowed by others of `own` and, under a program's name, by shared ones.
    fn answer(&mut self, pattern: &Pattern, own: &[Pattern], head: Option<&[u8]>) -> Answer {
        let Some(automaton) = &pattern.automaton else {
            return Answer::Unsettled;
        };
        let shared = match head {
            Some(_) => Rc::clone(&self.shared),
            None => Rc::default(),
        };
        let prefix = head.unwrap_or_default();
        let others = own
            .iter()
            .map(|other| (other, &b""[..]))
            .chain(shared.iter().map(|other| (other, prefix)))
            .filter(|(other, _)| self.wins(other.rank, pattern.rank));
        let mut others: Vec<_> = others.collect();
        // The strictest and first are those that really decide.
        others.sort_by_key(|(other, _)| std::cmp::Reverse(other.rank));
        let base = match head {
            None => Some(Automaton::clone(automaton)),
            Some(_) => self.joined(automaton, &self.no_program.clone()),
        };
        if automaton.text_with(1).is_none() {
            return Answer::Never;
        }
        if base
            .as_ref()
            .is_some_and(|base| base.text_with(1).is_none())
        {
            // All that it matches are programs with a space in their own name.
            return Answer::Decides;
        }
        let mut chosen: Vec<(RuleRef, Automaton)> = Vec::new();
        let mut joined = base.clone();
        loop {
            let Some(now) = &joined else {
                return Answer::Unsettled;
            };
            let Some(text) = now.text_with(1) else {
                break;
            };
            let mut matching = others.iter().filter_map(|(other, prefix)| {
                let of = other.automaton.as_ref()?;
                let rule = self.ranks[usize::from(other.rank)];
                of.matches(&[prefix, text.as_slice()].concat())
                    .then(|| (rule, of.after(prefix)))
            });
            let Some((rule, of)) = matching.next() else {
                let unknown = others.iter().any(|(other, _)| other.automaton.is_none());
                return if unknown {
                    Answer::Unsettled
                } else {
                    Answer::Decides
                };
            };
            if chosen.len() == TOGETHER_MAX {
                return Answer::Unsettled;
            }
            joined = self.joined(now, &of);
            chosen.push((rule, of));
        }
        // One that covers it alone says most.
        for (rule, of) in &chosen {
            let alone = base.as_ref().and_then(|base| self.joined(base, of));
            if chosen.len() > 1 && alone.is_some_and(|alone| alone.text_with(1).is_none()) {
                return Answer::By(vec![*rule]);
            }
        }
        Answer::By(chosen.into_iter().map(|(rule, _)| rule).collect())
    }

    /// Whether a match of `other` makes one of `than` count for nothing, whoever the agent is.
    fn wins(&self, other: u16, than: u16) -> bool {
        if other <= than {
            return false;
        }
        let at = |rank: u16| self.ranks[usize::from(rank)].rule();
        if at(other).is_some() && at(other) == at(than) {
            return false;
        }
        let rule = |rank: u16| self.rules.get(at(rank)?);
        let conditional = |rule: Option<&Rule>| {
            rule.is_some_and(|rule| rule.decision == Decision::Allow && !rule.requires.is_empty())
        };
        let allows = rule(other).is_some_and(|rule| rule.decision == Decision::Allow);
        !(conditional(rule(other)) || allows && conditional(rule(than)))
    }

    /// The automaton of both, where what `other` matches counts more; nothing if that takes too much work.
    fn joined(&mut self, automaton: &Automaton, other: &Automaton) -> Option<Automaton> {
        if self.work > WORK_MAX {
            return None;
        }
        let mut other = other.clone();
        other.renumber(|_| 2);
        let both = either(automaton, &other, STATES_MAX, usize::MAX);
        self.work += both.as_ref().map_or(STATES_MAX, Automaton::states);
        both.ok()
    }
}

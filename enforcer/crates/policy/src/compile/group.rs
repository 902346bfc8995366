//! Patterns to groups: as many in one automaton as the budget allows, equal lists stored once.

use std::{cmp::Reverse, collections::HashMap, rc::Rc};

use enforcer_common::table::GroupRef;
use regex_syntax::hir::Hir;

use super::{
    arena::Arena,
    automaton::{Alphabet, Automaton, Failure},
    row::Row,
    search,
    union::{Target, all, any},
};

/// States of a group, from the size that is tried first to the largest.
pub(super) const BUDGETS: [usize; 2] = [2_000, 8_000];

/// How many times the states of the largest group an automaton may have before it is reduced.
pub(super) const STATES: usize = 8;

/// One pattern, compiled to expressions that must all match.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Rank of its rule.
    pub(super) rank: u16,
    /// Indexes in [`Expressions`].
    pub(super) pieces: Vec<usize>,
    /// How much it makes an automaton grow; patterns of like weight share groups.
    pub(super) weight: usize,
    /// The pattern as the policy has it, for messages.
    pub(super) text: String,
}

/// The expressions of all patterns, each kept once.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    by_text: HashMap<String, usize>,
    hirs: Vec<Hir>,
}

impl Expressions {
    /// Parses an expression that the compiler wrote.
    pub(super) fn add(&mut self, text: String) -> Result<usize, String> {
        if let Some(known) = self.by_text.get(&text) {
            return Ok(*known);
        }
        self.hirs.push(search::parse(&text)?);
        self.by_text.insert(text, self.hirs.len() - 1);
        Ok(self.hirs.len() - 1)
    }

    /// Adds a parsed expression.
    pub(super) fn add_hir(&mut self, hir: Hir) -> usize {
        // No text of `add` begins so: the two kinds of key stay apart.
        let key = format!("(?#hir){hir}");
        if let Some(known) = self.by_text.get(&key) {
            return *known;
        }
        self.hirs.push(hir);
        self.by_text.insert(key, self.hirs.len() - 1);
        self.hirs.len() - 1
    }
}

/// Why a list of patterns found no place.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A pattern is too large alone.
    TooLarge(Box<Item>),
    /// A pattern cannot be an automaton.
    Unsupported(Box<Item>, String),
    /// The list needs more groups than there are; the first pattern that found none.
    TooMany(Box<Item>),
}

/// Why a target found no place.
enum Fault {
    /// It has no automaton, or too large a one.
    Alone(Failure),
    /// There are no groups left.
    TooMany,
}

/// A group that has been built.
#[derive(Debug)]
enum Built {
    /// Not stored: perhaps only a trial of how much fits.
    Loose(Box<Automaton>),
    /// Stored at a segment and offset.
    Stored(u32, u32),
}

/// A group to be: its index among those built, and the accept numbers of its list that its own stand for.
#[derive(Clone, Debug)]
struct Planned {
    index: usize,
    stands_for: Vec<u16>,
}

/// A list of patterns, by what decides on its groups: alphabet, budget, room and targets.
type Key = (Alphabet, usize, usize, Vec<Target>);

/// Builds groups and remembers them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) expressions: Expressions,
    pub(super) arena: Arena,
    built: Vec<Built>,
    known: HashMap<Key, Vec<Planned>>,
    /// The automaton of each expression.
    parts: HashMap<(usize, Alphabet), Result<Rc<Automaton>, Failure>>,
    /// The automata of expressions that must all match.
    wholes: HashMap<(Vec<usize>, Alphabet), Result<Rc<Automaton>, Failure>>,
}

impl Groups {
    /// Puts lists of patterns into at most `room` groups altogether, small ones if they suffice.
    ///
    /// # Errors
    ///
    /// [`Refusal`], with the pattern that found no place.
    pub(super) fn place(
        &mut self,
        lists: &[(Alphabet, &[Item])],
        room: usize,
    ) -> Result<Vec<GroupRef>, Refusal> {
        let mut refusal = None;
        for budget in BUDGETS {
            match self.try_place(lists, room, budget) {
                Err(Refusal::Unsupported(item, why)) => {
                    return Err(Refusal::Unsupported(item, why));
                }
                Err(other) => refusal = Some(other),
                Ok(plan) => {
                    return Ok(plan
                        .iter()
                        .filter_map(|(index, ranks)| self.store(*index, ranks))
                        .collect());
                }
            }
        }
        refusal.map_or_else(|| Ok(Vec::new()), Err)
    }

    /// The groups of all lists, each with the ranks of its accept numbers.
    fn try_place(
        &mut self,
        lists: &[(Alphabet, &[Item])],
        room: usize,
        budget: usize,
    ) -> Result<Vec<(usize, Vec<u16>)>, Refusal> {
        let mut groups = Vec::new();
        for (alphabet, items) in lists {
            if items.is_empty() {
                continue;
            }
            let mut items: Vec<&Item> = items.iter().collect();
            // Patterns of like weight together. Behind a stricter pattern the others cost least.
            items.sort_by(|a, b| {
                (a.weight, Reverse(a.rank), &a.pieces).cmp(&(b.weight, Reverse(b.rank), &b.pieces))
            });
            items.dedup_by(|a, b| (a.rank, &a.pieces) == (b.rank, &b.pieces));
            let mut ranks: Vec<u16> = items.iter().map(|item| item.rank).collect();
            ranks.sort_unstable();
            ranks.dedup();
            let targets: Vec<Target> = items
                .iter()
                .map(|item| Target {
                    accept: ranks.partition_point(|rank| *rank < item.rank) as u16 + 1,
                    pieces: item.pieces.clone(),
                })
                .collect();
            let key = (*alphabet, budget, room - groups.len(), targets);
            let plan = if let Some(known) = self.known.get(&key) {
                known.clone()
            } else {
                let plan = self.plan(&key).map_err(|(at, fault)| {
                    let item = Box::new(items[at].clone());
                    match fault {
                        Fault::TooMany => Refusal::TooMany(item),
                        Fault::Alone(Failure::TooLarge) => Refusal::TooLarge(item),
                        Fault::Alone(Failure::Unsupported(why)) => Refusal::Unsupported(item, why),
                    }
                })?;
                self.known.insert(key, plan.clone());
                plan
            };
            groups.extend(plan.into_iter().map(|group| {
                let rank = |accept: &u16| ranks[usize::from(*accept) - 1];
                (group.index, group.stands_for.iter().map(rank).collect())
            }));
        }
        Ok(groups)
    }

    /// The groups of a list; or the first target that finds no place, and why.
    fn plan(&mut self, key: &Key) -> Result<Vec<Planned>, (usize, Fault)> {
        let (alphabet, budget, room, targets) = key;
        let leaves = targets
            .iter()
            .enumerate()
            .map(|(at, target)| {
                self.target(*alphabet, target)
                    .and_then(|automaton| {
                        if automaton.fits(*budget) {
                            Ok(automaton)
                        } else {
                            Err(Failure::TooLarge)
                        }
                    })
                    .map_err(|failure| (at, Fault::Alone(failure)))
            })
            .collect::<Result<_, _>>()?;
        let mut row = Row::new(leaves, *budget);
        let mut groups = Vec::new();
        let mut at = 0;
        while at < targets.len() {
            if groups.len() == *room {
                return Err((at, Fault::TooMany));
            }
            let (count, automaton) = row.longest(at);
            at += count;
            let mut automaton = Rc::unwrap_or_clone(automaton);
            let mut stands_for: Vec<u16> = automaton.accept.clone();
            stands_for.sort_unstable();
            stands_for.dedup();
            stands_for.retain(|accept| *accept > 0);
            automaton
                .renumber(|accept| stands_for.partition_point(|other| *other < accept) as u16 + 1);
            self.built.push(Built::Loose(Box::new(automaton)));
            groups.push(Planned {
                index: self.built.len() - 1,
                stands_for,
            });
        }
        Ok(groups)
    }

    /// Stores a group and its ranks.
    fn store(&mut self, index: usize, ranks: &[u16]) -> Option<GroupRef> {
        let (segment, at) = match &self.built[index] {
            Built::Stored(segment, at) => (*segment, *at),
            Built::Loose(automaton) => self.arena.store(&automaton.encode())?,
        };
        self.built[index] = Built::Stored(segment, at);
        let (ranks_segment, ranks_at) = self.arena.store_ranks(ranks)?;
        Some(GroupRef {
            segment,
            at,
            ranks_segment,
            ranks_at,
        })
    }

    /// The group of targets with accept numbers of the caller's choice, without ranks; nothing if it exceeds
    /// the budget.
    pub(super) fn place_numbered(
        &mut self,
        alphabet: Alphabet,
        targets: &[Target],
        budget: usize,
    ) -> Result<Option<GroupRef>, String> {
        let built = targets
            .iter()
            .map(|target| self.target(alphabet, target))
            .collect::<Result<Vec<_>, _>>()
            .and_then(|parts| any(&parts, budget * STATES));
        match built {
            Ok(automaton) if automaton.fits(budget) => Ok(self
                .arena
                .store(&automaton.encode())
                .map(|(segment, at)| GroupRef {
                    segment,
                    at,
                    ..GroupRef::default()
                })),
            Ok(_) | Err(Failure::TooLarge) => Ok(None),
            Err(Failure::Unsupported(why)) => Err(why),
        }
    }

    /// The automaton of one target.
    fn target(&mut self, alphabet: Alphabet, target: &Target) -> Result<Rc<Automaton>, Failure> {
        let whole = self.whole(alphabet, &target.pieces)?;
        if target.accept == 1 {
            return Ok(whole);
        }
        let mut automaton = Automaton::clone(&whole);
        automaton.renumber(|_| target.accept);
        Ok(Rc::new(automaton))
    }

    /// The automaton of expressions that must all match; it accepts with 1.
    pub(super) fn whole(
        &mut self,
        alphabet: Alphabet,
        pieces: &[usize],
    ) -> Result<Rc<Automaton>, Failure> {
        if let [only] = pieces {
            return self.part(*only, alphabet);
        }
        let key = (pieces.to_vec(), alphabet);
        if let Some(known) = self.wholes.get(&key) {
            return known.clone();
        }
        let [_, largest] = BUDGETS;
        let parts = pieces
            .iter()
            .map(|piece| self.part(*piece, alphabet))
            .collect::<Result<Vec<_>, _>>();
        let whole = parts.and_then(|parts| all(&parts, largest * STATES));
        self.wholes.insert(key, whole.clone());
        whole
    }

    /// Adds an automaton that no expression stands for; gives its index among the expressions.
    pub(super) fn add_automaton(&mut self, alphabet: Alphabet, automaton: Rc<Automaton>) -> usize {
        self.expressions.hirs.push(Hir::fail());
        let piece = self.expressions.hirs.len() - 1;
        self.parts.insert((piece, alphabet), Ok(automaton));
        piece
    }

    /// The automaton of one expression.
    pub(super) fn part(
        &mut self,
        piece: usize,
        alphabet: Alphabet,
    ) -> Result<Rc<Automaton>, Failure> {
        let hir = &self.expressions.hirs[piece];
        let [_, largest] = BUDGETS;
        self.parts
            .entry((piece, alphabet))
            .or_insert_with(|| Automaton::of(hir, alphabet, largest).map(Rc::new))
            .clone()
    }
}

//! Patterns to groups: as many in one automaton as the budget allows, equal lists stored once.

use std::{collections::HashMap, rc::Rc};

use enforcer_common::table::GroupRef;
use regex_syntax::hir::Hir;

use super::{
    arena::Arena,
    automaton::{Alphabet, Automaton, Failure},
    search,
    union::{Target, union},
};

/// States of a group, from the size that is tried first to the largest.
pub(super) const BUDGETS: [usize; 2] = [2_000, 8_000];

/// How many times the states of a group its automaton may have before it is reduced.
const TUPLES: usize = 8;

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

/// A group that has been built.
#[derive(Debug)]
enum Built {
    /// Not stored: perhaps only a trial of how much fits.
    Loose(Box<Automaton>),
    /// Stored at a segment and offset.
    Stored(u32, u32),
}

/// A group to be, and the ranks of its accept numbers.
type Planned = (usize, Vec<u16>);

type Key = (Alphabet, usize, Vec<Target>);

/// Builds groups and remembers them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) expressions: Expressions,
    pub(super) arena: Arena,
    built: Vec<Built>,
    /// Index in `built`, or nothing where the budget does not suffice.
    known: HashMap<Key, Option<usize>>,
    /// The automaton of each expression.
    parts: HashMap<(usize, Alphabet), Result<Rc<Automaton>, Failure>>,
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
                Ok(plan) => return Ok(plan.iter().filter_map(|group| self.store(group)).collect()),
            }
        }
        refusal.map_or_else(|| Ok(Vec::new()), Err)
    }

    fn try_place(
        &mut self,
        lists: &[(Alphabet, &[Item])],
        room: usize,
        budget: usize,
    ) -> Result<Vec<Planned>, Refusal> {
        let mut groups = Vec::new();
        for (alphabet, items) in lists {
            let mut items = items.to_vec();
            items.sort_by_key(|item| (item.weight, item.rank));
            // Patterns with inner wildcards multiply in a union, so only a few are tried at first.
            let heavy = items.iter().any(|item| item.weight > 0);
            let mut guess = if heavy { 8 } else { items.len() };
            let mut rest = items.as_slice();
            while let Some(first) = rest.first() {
                if groups.len() == room {
                    return Err(Refusal::TooMany(Box::new(first.clone())));
                }
                let (count, group) = self.longest(*alphabet, rest, guess, budget)?;
                groups.push(group);
                guess = count;
                rest = &rest[count..];
            }
        }
        Ok(groups)
    }

    /// A group of about as many of the first items as fit, and how many they are.
    fn longest(
        &mut self,
        alphabet: Alphabet,
        items: &[Item],
        guess: usize,
        budget: usize,
    ) -> Result<(usize, Planned), Refusal> {
        let mut fits: Option<(usize, Planned)> = None;
        let mut too_many = items.len() + 1;
        let mut size = guess.clamp(1, items.len());
        loop {
            if let Some(group) = self.group(alphabet, &items[..size], budget)? {
                fits = Some((size, group));
            } else if size == 1 {
                return Err(Refusal::TooLarge(Box::new(items[0].clone())));
            } else {
                too_many = size;
            }
            let low = fits.as_ref().map_or(0, |(size, _)| *size);
            // Near enough: each further trial costs a whole failing build.
            if too_many - low <= 1 + low / 8
                && let Some(found) = fits
            {
                return Ok(found);
            }
            size = if too_many > items.len() {
                (low * 2).clamp(low + 1, items.len())
            } else {
                low + (too_many - low) / 2
            };
            size = size.max(1);
        }
    }

    /// The group of exactly these items; `None` if it exceeds the budget.
    fn group(
        &mut self,
        alphabet: Alphabet,
        items: &[Item],
        budget: usize,
    ) -> Result<Option<Planned>, Refusal> {
        let mut ranks: Vec<u16> = items.iter().map(|item| item.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut targets: Vec<Target> = items
            .iter()
            .map(|item| Target {
                accept: ranks.partition_point(|rank| *rank < item.rank) as u16 + 1,
                pieces: item.pieces.clone(),
            })
            .collect();
        targets.sort_by(|a, b| (a.accept, &a.pieces).cmp(&(b.accept, &b.pieces)));
        targets.dedup();
        let key = (alphabet, budget, targets);
        let known = if let Some(known) = self.known.get(&key) {
            *known
        } else {
            let known = match self.build(alphabet, &key.2, budget) {
                Ok(automaton) => automaton.map(|automaton| {
                    self.built.push(Built::Loose(Box::new(automaton)));
                    self.built.len() - 1
                }),
                Err(why) => return self.blame(alphabet, items, budget, why),
            };
            self.known.insert(key, known);
            known
        };
        Ok(known.map(|index| (index, ranks)))
    }

    /// Stores a group and its ranks.
    fn store(&mut self, (index, ranks): &Planned) -> Option<GroupRef> {
        let (segment, at) = match &self.built[*index] {
            Built::Stored(segment, at) => (*segment, *at),
            Built::Loose(automaton) => self.arena.store(&automaton.encode())?,
        };
        self.built[*index] = Built::Stored(segment, at);
        let (ranks_segment, ranks_at) = self.arena.store_ranks(ranks)?;
        Some(GroupRef {
            segment,
            at,
            ranks_segment,
            ranks_at,
        })
    }

    /// The group of targets with accept numbers of the caller's choice, without ranks.
    pub(super) fn place_numbered(
        &mut self,
        alphabet: Alphabet,
        targets: &[Target],
        budget: usize,
    ) -> Result<Option<GroupRef>, String> {
        let Some(automaton) = self.build(alphabet, targets, budget)? else {
            return Ok(None);
        };
        Ok(self
            .arena
            .store(&automaton.encode())
            .map(|(segment, at)| GroupRef {
                segment,
                at,
                ..GroupRef::default()
            }))
    }

    /// Finds the item that cannot be built.
    fn blame(
        &mut self,
        alphabet: Alphabet,
        items: &[Item],
        budget: usize,
        why: String,
    ) -> Result<Option<Planned>, Refusal> {
        for item in items {
            if items.len() > 1 {
                self.group(alphabet, std::slice::from_ref(item), budget)?;
            } else {
                return Err(Refusal::Unsupported(Box::new(item.clone()), why));
            }
        }
        let first = items.first().cloned();
        first.map_or(Ok(None), |item| {
            Err(Refusal::Unsupported(Box::new(item), why))
        })
    }

    /// Builds an automaton; `Ok(None)` if it exceeds the budget.
    fn build(
        &mut self,
        alphabet: Alphabet,
        targets: &[Target],
        budget: usize,
    ) -> Result<Option<Automaton>, String> {
        // The union numbers its own expressions.
        let mut pieces = Vec::new();
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut local = Vec::with_capacity(targets.len());
        for target in targets {
            let number = |piece: &usize| {
                *numbers.entry(*piece).or_insert_with(|| {
                    pieces.push(*piece);
                    pieces.len() - 1
                })
            };
            local.push(Target {
                accept: target.accept,
                pieces: target.pieces.iter().map(number).collect(),
            });
        }
        let built = pieces
            .iter()
            .map(|piece| self.part(*piece, alphabet))
            .collect::<Result<Vec<_>, _>>()
            .and_then(|parts| match (parts.as_slice(), local.as_slice()) {
                ([only], [target]) if target.accept == 1 => Ok(Automaton::clone(only)),
                _ => union(&parts, &local, budget * TUPLES),
            });
        match built {
            Ok(automaton) => Ok(automaton.fits(budget).then_some(automaton)),
            Err(Failure::TooLarge) => Ok(None),
            Err(Failure::Unsupported(why)) => Err(why),
        }
    }

    /// The automaton of one expression.
    fn part(&mut self, piece: usize, alphabet: Alphabet) -> Result<Rc<Automaton>, Failure> {
        let hir = &self.expressions.hirs[piece];
        let [_, largest] = BUDGETS;
        self.parts
            .entry((piece, alphabet))
            .or_insert_with(|| Automaton::of(hir, alphabet, largest).map(Rc::new))
            .clone()
    }
}

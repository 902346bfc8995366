//! A row of automata, put together as far as they fit a group.

use std::{collections::HashMap, rc::Rc};

use super::{
    automaton::Automaton,
    group::{BUDGETS, STATES},
    union::either,
};

/// The automata of a list's targets, and those of blocks of neighbours as far as they were asked for.
pub(super) struct Row {
    leaves: Vec<Rc<Automaton>>,
    budget: usize,
    /// How many states an automaton may have before it is reduced.
    limit: usize,
    /// Blocks by begin and length; nothing where a block does not fit.
    blocks: HashMap<(usize, usize), Option<Rc<Automaton>>>,
}

impl Row {
    /// A row of automata that each fit the budget.
    pub(super) fn new(leaves: Vec<Rc<Automaton>>, budget: usize) -> Self {
        let [_, largest] = BUDGETS;
        // What grows far beyond a small budget hardly ever shrinks into it; the largest is the last resort.
        let factor = if budget == largest { STATES } else { 2 };
        Self {
            leaves,
            budget,
            limit: budget * factor,
            blocks: HashMap::new(),
        }
    }

    /// The automaton of as many as fit, from `from` on, and how many they are; at least one.
    ///
    /// It grows by blocks of as many as it has, then by smaller ones: few steps, between automata of like size,
    /// and nothing that fits is built twice.
    pub(super) fn longest(&mut self, from: usize) -> (usize, Rc<Automaton>) {
        let mut group = Rc::clone(&self.leaves[from]);
        let mut count = 1;
        let mut size = 1;
        let mut growing = true;
        while size > 0 && from + count < self.leaves.len() {
            let length = size.min(self.leaves.len() - from - count);
            let block = self.block(from + count, length);
            let joined = block.and_then(|block| self.join(&group, &block));
            growing &= joined.is_some();
            if let Some(joined) = joined {
                group = joined;
                count += length;
            }
            size = if growing {
                size * 2
            } else {
                length.next_power_of_two() / 2
            };
        }
        (count, group)
    }

    /// The automaton of `length` from `from` on, if it fits.
    fn block(&mut self, from: usize, length: usize) -> Option<Rc<Automaton>> {
        if length == 1 {
            return Some(Rc::clone(&self.leaves[from]));
        }
        if let Some(known) = self.blocks.get(&(from, length)) {
            return known.clone();
        }
        // The left half is a power of two, so that smaller blocks at the same place are found again.
        let half = length.next_power_of_two() / 2;
        let block = self.block(from, half).and_then(|left| {
            let right = self.block(from + half, length - half)?;
            self.join(&left, &right)
        });
        self.blocks.insert((from, length), block.clone());
        block
    }

    fn join(&self, a: &Automaton, b: &Automaton) -> Option<Rc<Automaton>> {
        let joined = either(a, b, self.limit, self.budget).ok()?;
        joined.fits(self.budget).then(|| Rc::new(joined))
    }
}

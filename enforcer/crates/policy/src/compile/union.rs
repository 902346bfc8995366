//! Two automata put together: what either matches, or what both match.
//!
//! The states of the result are pairs of theirs. That is far quicker than to determinize all expressions at
//! once, and a state that can no longer change the answer (the other one accepts at least what lies ahead of it)
//! leaves the pair, which keeps pairs few. Many automata are put together two by two, so that each pair is one
//! of small automata.

use std::rc::Rc;

use super::automaton::{Automaton, Failure};

/// Something to look for: its accept number, and the indexes of the expressions that must all match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) accept: u16,
    pub(super) pieces: Vec<usize>,
}

/// What a pair of automata is to match.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// What either matches.
    Either,
    /// What both match at the same place, with the accept number 1.
    Both,
    /// What the first matches and the second does not, at the same place.
    Without,
}

/// An automaton that accepts what either accepts, with the higher number.
///
/// # Errors
///
/// [`Failure::TooLarge`] if it takes more than `limit` states before it is reduced, or more than `most` after.
pub(super) fn either(
    a: &Automaton,
    b: &Automaton,
    limit: usize,
    most: usize,
) -> Result<Automaton, Failure> {
    // What lies ahead of a pair is known from its states, so there is nothing to prune.
    let mut automaton = pairs(a, b, Mode::Either, limit)?;
    // Every state can be reached, so there are as many in the end as can be told apart.
    if !automaton.minimise(most) {
        return Err(Failure::TooLarge);
    }
    automaton.merge_classes();
    Ok(automaton)
}

/// An automaton that accepts with 1 where both accept.
///
/// # Errors
///
/// As [`either`].
pub(super) fn both(a: &Automaton, b: &Automaton, limit: usize) -> Result<Automaton, Failure> {
    let mut automaton = pairs(a, b, Mode::Both, limit)?;
    automaton.reduce();
    Ok(automaton)
}

/// An automaton that accepts what `a` accepts and `b` does not. Both must match at the end of the text only: a
/// walk keeps what it has seen before.
///
/// # Errors
///
/// As [`either`].
pub(super) fn without(a: &Automaton, b: &Automaton, limit: usize) -> Result<Automaton, Failure> {
    let mut automaton = pairs(a, b, Mode::Without, limit)?;
    automaton.reduce();
    Ok(automaton)
}

/// Puts many together, neighbours first.
///
/// # Errors
///
/// As [`either`].
pub(super) fn any(parts: &[Rc<Automaton>], limit: usize) -> Result<Rc<Automaton>, Failure> {
    match parts {
        [] => Ok(Rc::new(Automaton::nothing())),
        [only] => Ok(Rc::clone(only)),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            either(&*any(left, limit)?, &*any(right, limit)?, limit, usize::MAX).map(Rc::new)
        }
    }
}

/// What all of them match at the same place; nothing to match is matched by nothing.
///
/// # Errors
///
/// As [`either`].
pub(super) fn all(parts: &[Rc<Automaton>], limit: usize) -> Result<Rc<Automaton>, Failure> {
    let Some((first, rest)) = parts.split_first() else {
        return Ok(Rc::new(Automaton::nothing()));
    };
    let mut whole = Rc::clone(first);
    for part in rest {
        whole = Rc::new(both(&whole, part, limit)?);
    }
    Ok(whole)
}

/// The numbers of pairs, in a table with open addresses: it is asked once for each transition.
struct Numbers {
    slots: Vec<(u64, u32)>,
    count: usize,
}

impl Numbers {
    /// No pair has this key: states are far fewer.
    const FREE: u64 = u64::MAX;

    fn new() -> Self {
        Self {
            slots: vec![(Self::FREE, 0); 1 << 8],
            count: 0,
        }
    }

    /// The slot of a key, or the free one where it belongs.
    fn slot(&self, key: u64) -> usize {
        let bits = self.slots.len().trailing_zeros();
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize;
        while self.slots[at].0 != key && self.slots[at].0 != Self::FREE {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    /// The number of a key; a new one gets `fresh`.
    fn number(&mut self, key: u64, fresh: u32) -> u32 {
        let at = self.slot(key);
        if self.slots[at].0 == key {
            return self.slots[at].1;
        }
        self.slots[at] = (key, fresh);
        self.count += 1;
        if self.count * 2 > self.slots.len() {
            let larger = vec![(Self::FREE, 0); self.slots.len() * 4];
            for (key, number) in std::mem::replace(&mut self.slots, larger) {
                if key != Self::FREE {
                    let at = self.slot(key);
                    self.slots[at] = (key, number);
                }
            }
        }
        fresh
    }
}

/// The automaton of pairs of states.
fn pairs(a: &Automaton, b: &Automaton, mode: Mode, limit: usize) -> Result<Automaton, Failure> {
    let (classes, columns) = join_classes(a, b);
    let settle = |(x, y): (u32, u32)| match mode {
        Mode::Either if a.accept[x as usize] >= b.ahead[y as usize] => (x, 0),
        Mode::Either if b.accept[y as usize] >= a.ahead[x as usize] => (0, y),
        Mode::Both if x == 0 || y == 0 => (0, 0),
        Mode::Without if x == 0 => (0, 0),
        _ => (x, y),
    };
    let key = |(x, y): (u32, u32)| u64::from(x) << 32 | u64::from(y);
    let start = settle((a.start, b.start));
    let mut queue = vec![(0, 0)];
    let mut numbers = Numbers::new();
    numbers.number(0, 0);
    if start != (0, 0) {
        numbers.number(key(start), 1);
        queue.push(start);
    }
    let mut next = vec![0u32; columns.len()];
    let mut at = 1;
    while let Some((x, y)) = queue.get(at).copied() {
        at += 1;
        let (from_a, from_b) = (a.row(x), b.row(y));
        let mut last = ((0, 0), 0);
        for (column_a, column_b) in &columns {
            let pair = (from_a[*column_a], from_b[*column_b]);
            if pair != last.0 {
                let settled = settle(pair);
                let fresh = queue.len() as u32;
                let number = numbers.number(key(settled), fresh);
                if number == fresh {
                    queue.push(settled);
                }
                last = (pair, number);
            }
            next.push(last.1);
        }
        if queue.len() > limit {
            return Err(Failure::TooLarge);
        }
    }
    let of = |pick: &dyn Fn(usize, usize) -> u16| {
        queue
            .iter()
            .map(|(x, y)| pick(*x as usize, *y as usize))
            .collect::<Vec<u16>>()
    };
    Ok(Automaton {
        classes,
        stride: columns.len(),
        start: u32::from(start != (0, 0)),
        next,
        accept: of(&|x, y| match mode {
            Mode::Either => a.accept[x].max(b.accept[y]),
            Mode::Both => a.accept[x].min(b.accept[y]).min(1),
            Mode::Without if b.accept[y] > 0 => 0,
            Mode::Without => a.accept[x],
        }),
        ahead: of(&|x, y| a.ahead[x].max(b.ahead[y])),
        distance: of(&|x, y| a.distance[x].min(b.distance[y])),
    })
}

/// The byte classes that the two can tell apart, and the columns of each class, the end of the text last.
fn join_classes(a: &Automaton, b: &Automaton) -> ([u8; 256], Vec<(usize, usize)>) {
    let mut names = vec![None; a.stride * b.stride];
    let mut columns = Vec::new();
    let mut classes = [0; 256];
    for (class, (of_a, of_b)) in classes.iter_mut().zip(a.classes.iter().zip(&b.classes)) {
        let pair = (usize::from(*of_a), usize::from(*of_b));
        *class = *names[pair.0 * b.stride + pair.1].get_or_insert_with(|| {
            columns.push(pair);
            (columns.len() - 1) as u8
        });
    }
    columns.push((a.stride - 1, b.stride - 1));
    (classes, columns)
}

//! The automaton of several expressions, put together from those of each.
//!
//! Its states are tuples of theirs. That is far quicker than to determinize all expressions at once, and an
//! expression that can no longer change the answer (a stricter one has matched, or one that must match with it
//! never will) leaves the tuple, which keeps tuples few.

use std::{collections::HashMap, rc::Rc};

use super::automaton::{Automaton, Failure};

/// Something to look for: its accept number, and the indexes of the expressions that must all match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) accept: u16,
    pub(super) pieces: Vec<usize>,
}

/// Puts the automata of `parts` together; targets refer to them by index.
///
/// # Errors
///
/// [`Failure::TooLarge`] if it takes more than `tuples` states before it is reduced.
pub(super) fn union(
    parts: &[Rc<Automaton>],
    targets: &[Target],
    tuples: usize,
) -> Result<Automaton, Failure> {
    let (classes, bytes) = join_classes(parts)?;
    let stride = bytes.len() + 1;
    let mut highest = vec![0; parts.len()];
    for target in targets {
        for piece in &target.pieces {
            highest[*piece] = target.accept.max(highest[*piece]);
        }
    }
    let mut union = Union {
        parts,
        targets,
        highest,
        numbers: HashMap::new(),
        queue: Vec::new(),
        automaton: Automaton {
            classes,
            stride,
            start: 0,
            next: vec![0; stride],
            accept: vec![0],
        },
    };
    let mut tuple: Vec<u16> = parts.iter().map(|part| part.start as u16).collect();
    union.automaton.start = union.number(&mut tuple);
    let mut at = 0;
    while let Some(from) = union.queue.get(at).cloned() {
        at += 1;
        // Tuples are numbered in the order of the queue, behind the dead state and those of text ends.
        let row = union.numbers[&from] as usize * stride;
        for (class, byte) in bytes.iter().enumerate() {
            for (index, part) in parts.iter().enumerate() {
                let column = usize::from(part.classes[usize::from(*byte)]);
                tuple[index] = part.next[usize::from(from.0[index]) * part.stride + column] as u16;
            }
            union.automaton.next[row + class] = union.number(&mut tuple);
        }
        for (index, part) in parts.iter().enumerate() {
            tuple[index] =
                part.next[usize::from(from.0[index]) * part.stride + part.stride - 1] as u16;
        }
        let accept = union.accept(&tuple);
        if accept > 0 {
            tuple.fill(0);
            union.automaton.next[row + stride - 1] = union.numbered(&tuple, accept);
        }
        if union.automaton.accept.len() > tuples {
            return Err(Failure::TooLarge);
        }
    }
    union.automaton.reduce();
    Ok(union.automaton)
}

/// The byte classes that all parts can tell apart, and a byte of each.
fn join_classes(parts: &[Rc<Automaton>]) -> Result<([u8; 256], Vec<u8>), Failure> {
    let mut names: HashMap<Vec<u8>, u8> = HashMap::new();
    let mut bytes = Vec::new();
    let mut classes = [0; 256];
    for byte in 0..=u8::MAX {
        let tuple: Vec<u8> = parts
            .iter()
            .map(|part| part.classes[usize::from(byte)])
            .collect();
        classes[usize::from(byte)] = if let Some(name) = names.get(&tuple) {
            *name
        } else {
            let name = u8::try_from(bytes.len()).map_err(|_| Failure::TooLarge)?;
            bytes.push(byte);
            names.insert(tuple, name);
            name
        };
    }
    Ok((classes, bytes))
}

/// A state of each part, and the accept number.
type Tuple = (Box<[u16]>, u16);

struct Union<'a> {
    parts: &'a [Rc<Automaton>],
    targets: &'a [Target],
    /// The highest accept number that each part can lead to.
    highest: Vec<u16>,
    numbers: HashMap<Tuple, u32>,
    queue: Vec<Tuple>,
    automaton: Automaton,
}

impl Union<'_> {
    /// The accept number of a tuple.
    fn accept(&self, tuple: &[u16]) -> u16 {
        self.targets
            .iter()
            .filter(|target| {
                target
                    .pieces
                    .iter()
                    .all(|piece| self.parts[*piece].accept[usize::from(tuple[*piece])] > 0)
            })
            .map(|target| target.accept)
            .max()
            .unwrap_or(0)
    }

    /// The number of a tuple, after parts that no longer matter have left it.
    fn number(&mut self, tuple: &mut [u16]) -> u32 {
        let accept = self.accept(tuple);
        if accept > 0 {
            for (state, highest) in tuple.iter_mut().zip(&self.highest) {
                if *highest <= accept {
                    *state = 0;
                }
            }
        }
        if accept == 0 && tuple.iter().all(|state| *state == 0) {
            return 0;
        }
        self.numbered(tuple, accept)
    }

    fn numbered(&mut self, tuple: &[u16], accept: u16) -> u32 {
        let key: Tuple = (tuple.into(), accept);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let automaton = &mut self.automaton;
        automaton
            .next
            .resize(automaton.next.len() + automaton.stride, 0);
        automaton.accept.push(accept);
        let number = (automaton.accept.len() - 1) as u32;
        self.queue.push(key.clone());
        self.numbers.insert(key, number);
        number
    }
}

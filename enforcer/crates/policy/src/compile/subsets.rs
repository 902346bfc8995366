//! The deterministic automaton of an expression that asserts nothing but the begin and the end of the text.
//!
//! Almost all expressions are so, and for them this is several times as quick as the general construction of
//! `regex-automata`: an accepting state needs nothing behind it, closures are computed once for each state, and
//! a transition is taken once for all classes that it covers.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use regex_automata::{
    nfa::thompson::{NFA, State, Transition},
    util::{look::Look, primitives::StateID},
};

use super::automaton::{Automaton, Failure};

/// The dead state.
const DEAD: u32 = 0;
/// The accepting state.
const ACCEPTING: u32 = 1;

/// Where an empty path leads from some states.
#[derive(Clone, Default)]
struct Closure {
    /// The states that take a byte.
    states: Vec<u32>,
    /// Whether it matches here.
    matches: bool,
    /// Whether it matches if the text ends here.
    at_end: bool,
}

/// Hashes lists of numbers, which come from the policy's author: no secret is needed.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        // The table takes the low bits, a product is best in its high ones.
        self.0 ^ (self.0 >> 32)
    }
}

type Numbers = HashMap<Vec<u32>, u32, BuildHasherDefault<Mix>>;

/// Whether the expression asserts nothing but the begin and the end of the text.
pub(super) fn suits(nfa: &NFA) -> bool {
    nfa.look_set_any()
        .iter()
        .all(|look| matches!(look, Look::Start | Look::End))
}

struct Subsets<'a> {
    nfa: &'a NFA,
    closures: Vec<Option<Closure>>,
    /// When each state was last seen: in front of an assertion of the end, and behind one.
    seen: Vec<[u32; 2]>,
    now: u32,
    stack: Vec<(StateID, bool)>,
    /// The number of each set of states, with whether it matches at the end of the text.
    numbers: Numbers,
    sets: Vec<Vec<u32>>,
    /// The number behind each list of targets.
    behind: Numbers,
    automaton: Automaton,
}

/// Builds the automaton of an expression that [`suits`]; accepting once is enough, so nothing follows there.
///
/// # Errors
///
/// [`Failure::TooLarge`] if its tables take more than `bytes`.
pub(super) fn determinize(nfa: &NFA, bytes: usize) -> Result<Automaton, Failure> {
    let mut classes = [0; 256];
    for (byte, class) in (0..=u8::MAX).zip(&mut classes) {
        *class = nfa.byte_classes().get(byte);
    }
    let count = usize::from(classes[255]) + 1;
    let stride = count + 1;
    let mut subsets = Subsets {
        nfa,
        closures: vec![None; nfa.states().len()],
        seen: vec![[0; 2]; nfa.states().len()],
        now: 0,
        stack: Vec::new(),
        numbers: Numbers::default(),
        // The dead and the accepting state have no set.
        sets: vec![Vec::new(); 2],
        behind: Numbers::default(),
        automaton: Automaton {
            classes,
            stride,
            start: 0,
            next: vec![0; 2 * stride],
            accept: vec![0, 1],
            ahead: Vec::new(),
            distance: Vec::new(),
        },
    };
    let start = subsets.closure(nfa.start_anchored(), true);
    subsets.automaton.start = subsets.number(start);
    let mut buckets = vec![Vec::new(); count];
    let mut taken = 0;
    let mut at = 2;
    let mut row = 2 * stride;
    while let Some(set) = subsets.sets.get_mut(at).map(std::mem::take) {
        taken += set.len();
        let mut put = |transition: &Transition| {
            let first = usize::from(classes[usize::from(transition.start)]);
            let last = usize::from(classes[usize::from(transition.end)]);
            for bucket in &mut buckets[first..=last] {
                bucket.push(transition.next.as_u32());
            }
        };
        for state in &set {
            match &nfa.states()[*state as usize] {
                State::ByteRange { trans } => put(trans),
                State::Sparse(sparse) => sparse.transitions.iter().for_each(&mut put),
                State::Dense(dense) => {
                    for byte in 0..=u8::MAX {
                        let next = dense.matches_byte(byte);
                        let first = byte == 0
                            || classes[usize::from(byte) - 1] != classes[usize::from(byte)];
                        if let Some(next) = next.filter(|_| first) {
                            put(&Transition {
                                start: byte,
                                end: byte,
                                next,
                            });
                        }
                    }
                }
                _ => {}
            }
        }
        for class in 0..count {
            let target = if class > 0 && buckets[class] == buckets[class - 1] {
                subsets.automaton.next[row + class - 1]
            } else {
                subsets.target(&buckets[class])
            };
            subsets.automaton.next[row + class] = target;
        }
        buckets.iter_mut().for_each(Vec::clear);
        at += 1;
        row += stride;
        if subsets.automaton.next.len() * size_of::<u32>() > bytes || taken > bytes {
            return Err(Failure::TooLarge);
        }
    }
    Ok(subsets.automaton)
}

impl Subsets<'_> {
    /// The closure of one state.
    fn closure(&mut self, from: StateID, at_start: bool) -> Closure {
        let mut closure = Closure::default();
        self.now += 1;
        self.stack.push((from, false));
        while let Some((id, ended)) = self.stack.pop() {
            let seen = &mut self.seen[id.as_usize()][usize::from(ended)];
            if std::mem::replace(seen, self.now) == self.now {
                continue;
            }
            match self.nfa.state(id) {
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) => {
                    if !ended {
                        closure.states.push(id.as_u32());
                    }
                }
                State::Look { look, next } => match look {
                    Look::Start if at_start => self.stack.push((*next, ended)),
                    Look::End => self.stack.push((*next, true)),
                    _ => {}
                },
                State::Union { alternates } => {
                    self.stack.extend(alternates.iter().map(|id| (*id, ended)));
                }
                State::BinaryUnion { alt1, alt2 } => {
                    self.stack.extend([(*alt1, ended), (*alt2, ended)]);
                }
                State::Capture { next, .. } => self.stack.push((*next, ended)),
                State::Fail => {}
                State::Match { .. } if ended => closure.at_end = true,
                State::Match { .. } => closure.matches = true,
            }
        }
        closure
    }

    /// The number of the state behind these targets.
    fn target(&mut self, targets: &[u32]) -> u32 {
        if targets.is_empty() {
            return DEAD;
        }
        if let Some(known) = self.behind.get(targets) {
            return *known;
        }
        let mut all = Closure::default();
        for target in targets {
            let at = *target as usize;
            let closure = match self.closures[at].take() {
                Some(known) => known,
                None => self.closure(StateID::new_unchecked(at), false),
            };
            all.states.extend(&closure.states);
            all.matches |= closure.matches;
            all.at_end |= closure.at_end;
            self.closures[at] = Some(closure);
        }
        let number = self.number(all);
        self.behind.insert(targets.to_vec(), number);
        number
    }

    fn number(&mut self, mut closure: Closure) -> u32 {
        if closure.matches {
            return ACCEPTING;
        }
        if closure.states.is_empty() && !closure.at_end {
            return DEAD;
        }
        closure.states.sort_unstable();
        closure.states.dedup();
        let mut key = closure.states.clone();
        // No state has this number.
        key.push(u32::MAX - u32::from(closure.at_end));
        if let Some(known) = self.numbers.get(&key) {
            return *known;
        }
        let number = self.sets.len() as u32;
        self.numbers.insert(key, number);
        self.sets.push(closure.states);
        let automaton = &mut self.automaton;
        automaton
            .next
            .resize(automaton.next.len() + automaton.stride, DEAD);
        if closure.at_end
            && let Some(end) = automaton.next.last_mut()
        {
            *end = ACCEPTING;
        }
        automaton.accept.push(0);
        number
    }
}

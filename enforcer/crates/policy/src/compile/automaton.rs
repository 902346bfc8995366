//! A deterministic automaton over bytes, built by `regex-automata` and laid out as [`enforcer_common::table`]
//! describes.

use std::collections::{HashMap, VecDeque};

use enforcer_common::table::{CLASS_WORDS, GROUP_HEADER_WORDS, SEGMENT_WORDS};
use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton as _, StartKind, dense},
    nfa::thompson::{self, WhichCaptures},
    util::{primitives::StateID, start},
};
use regex_syntax::hir::Hir;

use super::{minimise::NEVER, subsets};

/// What the bytes of the text mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Alphabet {
    /// NUL and space are one class: glob and regex rules.
    Text,
    /// Every byte is itself: argv rules and paths.
    Exact,
}

/// Why no group came out.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The automaton is larger than the budget.
    TooLarge,
    /// The expression is not supported by automata.
    Unsupported(String),
}

/// A finished automaton.
#[derive(Clone, Debug)]
pub(super) struct Automaton {
    /// Class of each byte.
    pub(super) classes: [u8; 256],
    /// Classes plus one for the end of the text.
    pub(super) stride: usize,
    pub(super) start: u32,
    /// `stride` targets a state; state 0 is dead.
    pub(super) next: Vec<u32>,
    /// Accept number of each state, 0 for none.
    pub(super) accept: Vec<u16>,
    /// The highest accept number at each state or behind it.
    pub(super) ahead: Vec<u16>,
    /// How many steps each state is from the nearest accepting one.
    pub(super) distance: Vec<u16>,
}

impl Automaton {
    /// The automaton that matches nothing.
    pub(super) fn nothing() -> Self {
        Self {
            classes: [0; 256],
            stride: 2,
            start: 0,
            next: vec![0; 2],
            accept: vec![0],
            ahead: vec![0],
            distance: vec![NEVER],
        }
    }

    /// Builds the automaton of one expression, which accepts with 1.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLarge`] if it has more than about `states` states.
    pub(super) fn of(piece: &Hir, alphabet: Alphabet, states: usize) -> Result<Self, Failure> {
        let nfa = thompson(piece, states)?;
        let mut automaton = if subsets::suits(&nfa) {
            subsets::determinize(&nfa, states * STATE_BYTES)?
        } else {
            Self::extract(&determinize(&nfa, states)?)?
        };
        if alphabet == Alphabet::Text {
            automaton.classes[0] = automaton.classes[usize::from(b' ')];
        }
        automaton.reduce();
        Ok(automaton)
    }

    /// The same for whole words: a space of the expression is the end of a word (NUL), and a space within a word matches
    /// nothing.
    pub(super) fn by_words(self) -> Self {
        let before = self.stride;
        let mut by_words = Self {
            stride: before + 1,
            next: Vec::with_capacity(self.next.len() + self.accept.len()),
            ..self
        };
        for row in self.next.chunks_exact(before) {
            by_words.next.extend(&row[..before - 1]);
            by_words.next.extend([0, row[before - 1]]);
        }
        by_words.classes[0] = by_words.classes[usize::from(b' ')];
        by_words.classes[usize::from(b' ')] = (before - 1) as u8;
        by_words.reduce();
        by_words
    }

    /// Whether it matches nothing. It must be reduced.
    pub(super) fn is_nothing(&self) -> bool {
        self.start == 0
    }

    /// Whether it matches the text.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let mut state = self.start;
        let mut seen = self.accept[state as usize] > 0;
        let end = [self.stride - 1];
        let classes = text
            .iter()
            .map(|byte| usize::from(self.classes[usize::from(*byte)]));
        for column in classes.chain(end) {
            state = self.row(state)[column];
            seen |= self.accept[state as usize] > 0;
        }
        seen
    }

    /// How many states it has.
    pub(super) fn states(&self) -> usize {
        self.accept.len()
    }

    /// Where a byte leads.
    fn step(&self, state: u32, byte: u8) -> u32 {
        self.row(state)[usize::from(self.classes[usize::from(byte)])]
    }

    /// The automaton of what may follow `prefix`: it matches a text if this one matches the prefix and the text.
    pub(super) fn after(&self, prefix: &[u8]) -> Self {
        let mut seen = self.accept[self.start as usize];
        let mut state = self.start;
        for byte in prefix {
            state = self.step(state, *byte);
            seen = seen.max(self.accept[state as usize]);
        }
        let mut rest = self.clone();
        if seen > 0 {
            // What was matched stays matched.
            rest.next = vec![0; 2 * self.stride];
            rest.next[self.stride..].fill(1);
            rest.accept = vec![0, seen];
            state = 1;
        }
        rest.start = state;
        rest.reduce();
        rest
    }

    /// A shortest text of which the highest accept number on the way is this one.
    pub(super) fn text_with(&self, accept: u16) -> Option<Vec<u8>> {
        let reaches = |state: u32, seen: bool| {
            let of = self.accept[state as usize];
            (of <= accept).then_some((state, seen || of == accept))
        };
        let mut bytes: Vec<Option<u8>> = vec![None; self.stride - 1];
        // What can be read, where a class leaves the choice.
        for byte in (0x20..0x7f).chain(0..0x20).chain(0x7f..=0xff) {
            bytes[usize::from(self.classes[usize::from(byte)])].get_or_insert(byte);
        }
        let mut at = reaches(self.start, false)?;
        // How each place was first come to.
        let mut from = HashMap::from([(at, None)]);
        let mut queue = VecDeque::from([at]);
        loop {
            at = queue.pop_front()?;
            let row = self.row(at.0);
            if matches!(reaches(row[self.stride - 1], at.1), Some((_, true))) {
                break;
            }
            for (target, byte) in row.iter().zip(&bytes) {
                // The dead state leads nowhere, but a text may end there.
                if let (Some(next), Some(byte)) = (reaches(*target, at.1), byte)
                    && !from.contains_key(&next)
                {
                    from.insert(next, Some((at, *byte)));
                    queue.push_back(next);
                }
            }
        }
        let mut text = Vec::new();
        while let Some(Some((before, byte))) = from.get(&at) {
            text.push(*byte);
            at = *before;
        }
        text.reverse();
        Some(text)
    }

    /// The same, but once it has accepted it accepts ever after: so that it can be held against another that accepts
    /// at another place.
    pub(super) fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        let last = self.accept.len();
        for (state, row) in lasting.next.chunks_exact_mut(self.stride).enumerate() {
            if self.accept[state] > 0 {
                row.fill(last as u32);
            }
        }
        lasting.next.extend(vec![last as u32; self.stride]);
        lasting.accept.push(1);
        lasting.ahead.push(1);
        lasting.distance.push(0);
        lasting
    }

    /// The same, but it accepts at the end of the text only: for what must hold there together with others.
    pub(super) fn ending(&self) -> Self {
        let mut ending = self.clone();
        let last = self.accept.len() as u32;
        let (seen, end) = (last, last + 1);
        let accepts = |state: u32| self.accept[state as usize] > 0;
        for row in ending.next.chunks_exact_mut(self.stride) {
            for (column, target) in row.iter_mut().enumerate() {
                if accepts(*target) {
                    *target = if column + 1 == self.stride { end } else { seen };
                }
            }
        }
        if accepts(self.start) {
            ending.start = seen;
        }
        ending.next.extend(vec![seen; self.stride - 1]);
        ending.next.push(end);
        ending.next.extend(vec![0; self.stride]);
        ending.accept.fill(0);
        ending.accept.extend([0, 1]);
        ending.reduce();
        ending
    }

    /// What is left to be matched behind a beginning of the text; `None` if that alone matches.
    pub(super) fn behind(&self, beginning: &[u8]) -> Option<Self> {
        let mut state = self.start;
        for byte in beginning {
            state = self.row(state)[usize::from(self.classes[usize::from(*byte)])];
            if self.accept[state as usize] > 0 {
                return None;
            }
        }
        let mut rest = self.clone();
        rest.start = state;
        Some(rest)
    }

    /// Whether it is small enough for a group.
    pub(super) fn fits(&self, states: usize) -> bool {
        self.accept.len() <= states && self.words() <= SEGMENT_WORDS
    }

    /// Reads the states out of a dense automaton, from its start on.
    fn extract(dfa: &dense::DFA<Vec<u32>>) -> Result<Self, Failure> {
        let first = dfa
            .start_state(&start::Config::new().anchored(Anchored::Yes))
            .map_err(|error| Failure::Unsupported(error.to_string()))?;
        let mut classes = [0u8; 256];
        let mut bytes = Vec::new();
        for byte in 0..=u8::MAX {
            let class = dfa.byte_classes().get(byte);
            if usize::from(class) == bytes.len() {
                bytes.push(byte);
            }
            classes[usize::from(byte)] = class;
        }
        let stride = bytes.len() + 1;
        // State 0 is dead, state 1 is where the end of the text leads if something matches there.
        let mut automaton = Self {
            classes,
            stride,
            start: 0,
            next: vec![0; 2 * stride],
            accept: vec![0, 1],
            ahead: Vec::new(),
            distance: Vec::new(),
        };
        let mut numbers: HashMap<StateID, u32> = HashMap::new();
        let mut queue: Vec<StateID> = Vec::new();
        automaton.start = automaton.number(dfa, first, &mut numbers, &mut queue);
        let mut at = 0;
        while let Some(state) = queue.get(at).copied() {
            at += 1;
            let row = numbers[&state] as usize * stride;
            for (class, byte) in bytes.iter().enumerate() {
                let target = dfa.next_state(state, *byte);
                if dfa.is_quit_state(target) {
                    return Err(Failure::Unsupported("it gives up on some bytes".to_owned()));
                }
                automaton.next[row + class] =
                    automaton.number(dfa, target, &mut numbers, &mut queue);
            }
            if dfa.is_match_state(dfa.next_eoi_state(state)) {
                automaton.next[row + stride - 1] = 1;
            }
        }
        Ok(automaton)
    }

    fn number(
        &mut self,
        dfa: &dense::DFA<Vec<u32>>,
        state: StateID,
        numbers: &mut HashMap<StateID, u32>,
        queue: &mut Vec<StateID>,
    ) -> u32 {
        if dfa.is_dead_state(state) {
            return 0;
        }
        *numbers.entry(state).or_insert_with(|| {
            queue.push(state);
            self.next.resize(self.next.len() + self.stride, 0);
            self.accept.push(u16::from(dfa.is_match_state(state)));
            (self.accept.len() - 1) as u32
        })
    }

    /// The targets of a state.
    pub(super) fn row(&self, state: u32) -> &[u32] {
        let at = state as usize * self.stride;
        &self.next[at..at + self.stride]
    }

    /// Replaces every accept number by what `rename` makes of it; the order must stay.
    pub(super) fn renumber(&mut self, rename: impl Fn(u16) -> u16) {
        for accept in self.accept.iter_mut().chain(&mut self.ahead) {
            if *accept > 0 {
                *accept = rename(*accept);
            }
        }
    }

    fn first_accepting(&self) -> usize {
        self.accept
            .iter()
            .position(|accept| *accept > 0)
            .unwrap_or(self.accept.len())
    }

    /// Words that the group takes in a segment.
    pub(super) fn words(&self) -> usize {
        let accepting = self.accept.len() - self.first_accepting();
        GROUP_HEADER_WORDS + CLASS_WORDS + self.next.len() + accepting
    }

    /// The group's words, laid out as [`enforcer_common::table`] describes.
    pub(super) fn encode(&self) -> Vec<u16> {
        let first = self.first_accepting();
        let mut words = Vec::with_capacity(self.words());
        words.extend([
            self.stride as u16,
            first as u16,
            self.start as u16,
            self.accept.len() as u16,
        ]);
        words.extend(
            self.classes
                .chunks(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]])),
        );
        words.extend(self.next.iter().map(|target| *target as u16));
        words.extend(&self.accept[first..]);
        words
    }
}

/// Bytes that tables may take while an expression is determinized, for each state that it may have in the end.
const STATE_BYTES: usize = 1024;

/// The nondeterministic automaton of an expression.
fn thompson(piece: &Hir, states: usize) -> Result<thompson::NFA, Failure> {
    thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .utf8(false)
                .which_captures(WhichCaptures::None)
                .nfa_size_limit(Some(states * 4096)),
        )
        .build_from_hir(piece)
        .map_err(|error| match error.size_limit() {
            Some(_) => Failure::TooLarge,
            None => Failure::Unsupported(error.to_string()),
        })
}

/// Builds the dense automaton of an expression with any assertions, every match kept.
fn determinize(nfa: &thompson::NFA, states: usize) -> Result<dense::DFA<Vec<u32>>, Failure> {
    // Pruning and minimising shrink what is built here, so it may be larger than the budget.
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .match_kind(MatchKind::All)
                .start_kind(StartKind::Anchored)
                .accelerate(false)
                .minimize(false)
                .dfa_size_limit(Some(states * STATE_BYTES))
                .determinize_size_limit(Some(states * STATE_BYTES)),
        )
        .build_from_nfa(nfa)
        .map_err(|error| {
            if error.is_size_limit_exceeded() {
                Failure::TooLarge
            } else {
                Failure::Unsupported(error.to_string())
            }
        })
}

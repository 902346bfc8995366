//! A deterministic automaton over bytes, built by `regex-automata`, pruned, minimised and laid out as [`enforcer_common::table`] describes.

use std::collections::{HashMap, VecDeque};

use enforcer_common::table::{CLASS_WORDS, GROUP_HEADER_WORDS, SEGMENT_WORDS};
use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton as _, StartKind, dense},
    nfa::thompson::{self, WhichCaptures},
    util::{primitives::StateID, start},
};
use regex_syntax::hir::Hir;

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
}

impl Automaton {
    /// Builds the automaton of one expression, which accepts with 1.
    ///
    /// # Errors
    ///
    /// [`Failure::TooLarge`] if it has more than about `states` states.
    pub(super) fn of(piece: &Hir, alphabet: Alphabet, states: usize) -> Result<Self, Failure> {
        let mut automaton = Self::extract(&determinize(piece, states)?, alphabet)?;
        automaton.reduce();
        Ok(automaton)
    }

    /// Prunes, joins classes and minimises.
    pub(super) fn reduce(&mut self) {
        self.prune();
        self.merge_classes();
        self.minimise();
    }

    /// Whether it is small enough for a group.
    pub(super) fn fits(&self, states: usize) -> bool {
        self.accept.len() <= states && self.words() <= SEGMENT_WORDS
    }

    /// Reads the states out of a dense automaton, from its start on.
    fn extract(dfa: &dense::DFA<Vec<u32>>, alphabet: Alphabet) -> Result<Self, Failure> {
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
        if alphabet == Alphabet::Text {
            classes[0] = classes[usize::from(b' ')];
        }
        let stride = bytes.len() + 1;
        // State 0 is dead, state 1 is where the end of the text leads if something matches there.
        let mut automaton = Self {
            classes,
            stride,
            start: 0,
            next: vec![0; 2 * stride],
            accept: vec![0, 1],
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

    /// Sends to the dead state what can change the answer no more: a state from which nothing is accepted, and
    /// the ways out of a state that accepts the highest number there is behind it.
    fn prune(&mut self) {
        let states = self.accept.len();
        let sources = self.sources();
        // The highest accept number that one or more steps can reach, found from the highest down.
        let mut ahead = vec![0u16; states];
        let mut accepting: Vec<u32> = (0..states as u32)
            .filter(|state| self.accept[*state as usize] > 0)
            .collect();
        accepting.sort_by_key(|state| std::cmp::Reverse(self.accept[*state as usize]));
        let mut stack = Vec::new();
        for state in accepting {
            let accept = self.accept[state as usize];
            stack.push(state);
            while let Some(target) = stack.pop() {
                for source in &sources[target as usize] {
                    if ahead[*source as usize] == 0 {
                        ahead[*source as usize] = accept;
                        stack.push(*source);
                    }
                }
            }
        }
        for (state, row) in self.next.chunks_mut(self.stride).enumerate() {
            if self.accept[state] >= ahead[state] {
                row.fill(0);
            }
        }
        let futile = |state: u32| self.accept[state as usize] == 0 && ahead[state as usize] == 0;
        for target in &mut self.next {
            if futile(*target) {
                *target = 0;
            }
        }
        if futile(self.start) {
            self.start = 0;
        }
    }

    /// Joins byte classes that no state tells apart.
    fn merge_classes(&mut self) {
        let states = self.accept.len();
        let old = self.stride - 1;
        let mut used = vec![false; old];
        for class in self.classes {
            used[usize::from(class)] = true;
        }
        let mut columns: HashMap<Vec<u32>, u8> = HashMap::new();
        let mut kept = Vec::new();
        let mut renamed = vec![0u8; old];
        for class in (0..old).filter(|class| used[*class]) {
            let column: Vec<u32> = (0..states)
                .map(|state| self.next[state * self.stride + class])
                .collect();
            renamed[class] = *columns.entry(column).or_insert_with(|| {
                kept.push(class);
                (kept.len() - 1) as u8
            });
        }
        for class in &mut self.classes {
            *class = renamed[usize::from(*class)];
        }
        kept.push(old);
        let mut next = Vec::with_capacity(states * kept.len());
        for row in self.next.chunks(self.stride) {
            next.extend(kept.iter().map(|class| row[*class]));
        }
        self.next = next;
        self.stride = kept.len();
    }

    /// How many steps each state is from the nearest accepting one; the largest number if there is none.
    fn distances(&self) -> Vec<u32> {
        let sources = self.sources();
        let mut distances: Vec<u32> = self
            .accept
            .iter()
            .map(|accept| if *accept > 0 { 0 } else { u32::MAX })
            .collect();
        let mut queue: VecDeque<u32> = (0..self.accept.len() as u32)
            .filter(|state| self.accept[*state as usize] > 0)
            .collect();
        while let Some(target) = queue.pop_front() {
            for source in &sources[target as usize] {
                if distances[*source as usize] == u32::MAX {
                    distances[*source as usize] = distances[target as usize] + 1;
                    queue.push_back(*source);
                }
            }
        }
        distances
    }

    /// The states that lead to each state.
    fn sources(&self) -> Vec<Vec<u32>> {
        let mut sources = vec![Vec::new(); self.accept.len()];
        for (at, target) in self.next.iter().enumerate() {
            let source = (at / self.stride) as u32;
            let known: &mut Vec<u32> = &mut sources[*target as usize];
            if *target != 0 && known.last() != Some(&source) {
                known.push(source);
            }
        }
        sources
    }

    /// Joins states that no text tells apart, and drops those that nothing leads to. The dead state stays 0,
    /// accepting states come last.
    fn minimise(&mut self) {
        let states = self.accept.len();
        // States with an accepting state at different distances differ, which settles most at once.
        let mut block: Vec<u32> = self
            .distances()
            .into_iter()
            .zip(&self.accept)
            .map(|(distance, accept)| distance.min(0xffff) << 16 | u32::from(*accept))
            .collect();
        let mut count = 0;
        let mut names: HashMap<Vec<u32>, u32> = HashMap::new();
        loop {
            names.clear();
            let mut refined = Vec::with_capacity(states);
            let mut signature = Vec::with_capacity(self.stride + 1);
            for (state, row) in self.next.chunks(self.stride).enumerate() {
                signature.clear();
                signature.push(block[state]);
                signature.extend(row.iter().map(|target| block[*target as usize]));
                let fresh = names.len() as u32;
                let known = names.get(&signature).copied();
                refined.push(known.unwrap_or_else(|| {
                    names.insert(signature.clone(), fresh);
                    fresh
                }));
            }
            block = refined;
            if names.len() == count {
                break;
            }
            count = names.len();
        }

        // State 0 is the first that gets a name, so its block is 0.
        let mut leader = vec![u32::MAX; count];
        for (state, name) in block.iter().enumerate().rev() {
            leader[*name as usize] = state as u32;
        }
        let mut reached = vec![false; count];
        reached[0] = true;
        let mut order = vec![0u32];
        let first = block[self.start as usize];
        let mut stack = vec![first];
        while let Some(name) = stack.pop() {
            if std::mem::replace(&mut reached[name as usize], true) {
                continue;
            }
            order.push(name);
            let row = leader[name as usize] as usize * self.stride;
            for target in self.next[row..row + self.stride].iter().rev() {
                stack.push(block[*target as usize]);
            }
        }
        let accept_of = |name: u32| self.accept[leader[name as usize] as usize];
        order.sort_by_key(|name| accept_of(*name) > 0);
        let mut numbers = vec![0u32; count];
        for (number, name) in order.iter().enumerate() {
            numbers[*name as usize] = number as u32;
        }
        let mut next = Vec::with_capacity(order.len() * self.stride);
        for name in &order {
            let row = leader[*name as usize] as usize * self.stride;
            next.extend(
                self.next[row..row + self.stride]
                    .iter()
                    .map(|target| numbers[block[*target as usize] as usize]),
            );
        }
        self.accept = order.iter().map(|name| accept_of(*name)).collect();
        self.next = next;
        self.start = numbers[first as usize];
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

/// Builds the dense automaton of an expression, every match kept.
fn determinize(piece: &Hir, states: usize) -> Result<dense::DFA<Vec<u32>>, Failure> {
    let nfa = thompson::Compiler::new()
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
        })?;
    // Pruning and minimising shrink what is built here, so it may be larger than the budget.
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .match_kind(MatchKind::All)
                .start_kind(StartKind::Anchored)
                .accelerate(false)
                .minimize(false)
                .dfa_size_limit(Some(states * 1024))
                .determinize_size_limit(Some(states * 1024)),
        )
        .build_from_nfa(&nfa)
        .map_err(|error| {
            if error.is_size_limit_exceeded() {
                Failure::TooLarge
            } else {
                Failure::Unsupported(error.to_string())
            }
        })
}

//! Makes an automaton small: prunes it, joins states that no text tells apart and byte classes that no state
//! tells apart.

use super::automaton::Automaton;

/// The distance of states that lead to no accepting one.
pub(super) const NEVER: u16 = u16::MAX;

/// A multiplier for each place of a row, so that equal rows have equal sums and others hardly ever do.
fn multiplier(place: usize) -> u64 {
    let mut mixed = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) | 1
}

/// The states that lead to each state, but for the dead one.
struct Sources {
    starts: Vec<u32>,
    states: Vec<u32>,
}

impl Sources {
    fn of(automaton: &Automaton) -> Self {
        let mut starts = vec![0u32; automaton.accept.len() + 1];
        Self::edges(automaton, |_, target| starts[target as usize + 1] += 1);
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut ends = starts.clone();
        let total = starts.last().copied().unwrap_or(0);
        let mut states = vec![0u32; total as usize];
        Self::edges(automaton, |source, target| {
            let end = &mut ends[target as usize];
            states[*end as usize] = source;
            *end += 1;
        });
        Self { starts, states }
    }

    /// Visits the edges; runs of equal targets in a row count once.
    fn edges(automaton: &Automaton, mut visit: impl FnMut(u32, u32)) {
        for (source, row) in automaton.next.chunks_exact(automaton.stride).enumerate() {
            let mut last = 0;
            for target in row {
                if *target != 0 && *target != last {
                    visit(source as u32, *target);
                    last = *target;
                }
            }
        }
    }

    fn to(&self, target: u32) -> &[u32] {
        let target = target as usize;
        &self.states[self.starts[target] as usize..self.starts[target + 1] as usize]
    }
}

impl Automaton {
    /// Prunes, joins classes and minimises an automaton of which nothing is known but its transitions and
    /// accept numbers.
    pub(super) fn reduce(&mut self) {
        self.prune();
        self.merge_classes();
        self.minimise(usize::MAX);
        self.merge_classes();
    }

    /// Sends to the dead state what can change the answer no more: a state from which nothing is accepted, and
    /// the ways out of a state that accepts the highest number there is behind it. Notes what lies ahead of
    /// each state.
    fn prune(&mut self) {
        let states = self.accept.len();
        let sources = Sources::of(self);
        // The highest accept number that one or more steps can reach, found from the highest down.
        let mut ahead = vec![0u16; states];
        let mut accepting: Vec<u32> = (0..states as u32)
            .filter(|state| self.accept[*state as usize] > 0)
            .collect();
        accepting.sort_by_key(|state| std::cmp::Reverse(self.accept[*state as usize]));
        let mut stack = Vec::new();
        for state in &accepting {
            let accept = self.accept[*state as usize];
            stack.push(*state);
            while let Some(target) = stack.pop() {
                for source in sources.to(target) {
                    if ahead[*source as usize] == 0 {
                        ahead[*source as usize] = accept;
                        stack.push(*source);
                    }
                }
            }
        }
        self.measure(&sources, accepting);
        for (state, row) in self.next.chunks_exact_mut(self.stride).enumerate() {
            if self.accept[state] >= ahead[state] {
                row.fill(0);
                ahead[state] = self.accept[state];
            }
        }
        for target in &mut self.next {
            if ahead[*target as usize] == 0 {
                *target = 0;
            }
        }
        if ahead[self.start as usize] == 0 {
            self.start = 0;
        }
        self.ahead = ahead;
    }

    /// Notes how many steps each state is from the nearest of the accepting ones.
    fn measure(&mut self, sources: &Sources, accepting: Vec<u32>) {
        self.distance.clear();
        self.distance.resize(self.accept.len(), NEVER);
        let mut queue = accepting;
        for state in &queue {
            self.distance[*state as usize] = 0;
        }
        let mut at = 0;
        while let Some(target) = queue.get(at).copied() {
            at += 1;
            // Longer ways count as equally long: the distance only sorts states before they are compared.
            let distance = (self.distance[target as usize] + 1).min(NEVER - 1);
            for source in sources.to(target) {
                let known = &mut self.distance[*source as usize];
                if *known == NEVER {
                    *known = distance;
                    queue.push(*source);
                }
            }
        }
    }

    /// Joins byte classes that no state tells apart.
    pub(super) fn merge_classes(&mut self) {
        let old = self.stride - 1;
        let mut used = vec![false; old];
        for class in self.classes {
            used[usize::from(class)] = true;
        }
        let mut sums = vec![0u64; old];
        for (state, row) in self.next.chunks_exact(self.stride).enumerate() {
            let multiplier = multiplier(state);
            for (sum, target) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(u64::from(*target).wrapping_mul(multiplier));
            }
        }
        let same = |a: usize, b: usize| {
            sums[a] == sums[b]
                && self
                    .next
                    .chunks_exact(self.stride)
                    .all(|row| row[a] == row[b])
        };
        let mut kept: Vec<usize> = Vec::new();
        let mut renamed = vec![0u8; old];
        for class in (0..old).filter(|class| used[*class]) {
            let known = kept.iter().position(|other| same(*other, class));
            renamed[class] = known.unwrap_or_else(|| {
                kept.push(class);
                kept.len() - 1
            }) as u8;
        }
        if kept.len() == old {
            return;
        }
        for class in &mut self.classes {
            *class = renamed[usize::from(*class)];
        }
        kept.push(old);
        let mut next = Vec::with_capacity(self.accept.len() * kept.len());
        for row in self.next.chunks_exact(self.stride) {
            next.extend(kept.iter().map(|class| row[*class]));
        }
        self.next = next;
        self.stride = kept.len();
    }

    /// The block of each state: states that no text tells apart have the same. A block's number is that of
    /// its place among the states sorted by block, so numbers have gaps. `None` if there are more than `most`
    /// blocks: they only ever split, so most often that is known long before all have.
    fn blocks(&self, most: usize) -> Option<Vec<u32>> {
        let states = self.accept.len();
        // What lies ahead of equivalent states is the same, which settles most at once.
        let first = |state: u32| {
            let state = state as usize;
            (
                NEVER - self.distance[state],
                self.accept[state],
                self.ahead[state],
            )
        };
        let mut order: Vec<u32> = (0..states as u32).collect();
        order.sort_unstable_by_key(|state| (first(*state), *state));
        let mut block = vec![0u32; states];
        // Blocks of more than one state: only these can still split.
        let mut open: Vec<(usize, usize)> = Vec::new();
        let mut from = 0;
        let mut count = 0;
        for run in order.chunk_by(|a, b| first(*a) == first(*b)) {
            for state in run {
                block[*state as usize] = from as u32;
            }
            if run.len() > 1 {
                open.push((from, from + run.len()));
            }
            from += run.len();
            count += 1;
        }
        let multipliers: Vec<u64> = (0..self.stride).map(multiplier).collect();
        let mut signed: Vec<(u64, u32)> = Vec::new();
        loop {
            if count > most {
                return None;
            }
            let mut split = false;
            for (from, to) in std::mem::take(&mut open) {
                signed.clear();
                signed.extend(order[from..to].iter().map(|state| {
                    let sum = self.row(*state).iter().zip(&multipliers).fold(
                        0u64,
                        |sum, (target, multiplier)| {
                            let name = u64::from(block[*target as usize]);
                            sum.wrapping_add(name.wrapping_mul(*multiplier))
                        },
                    );
                    (sum, *state)
                }));
                let sum = signed[0].0;
                if signed.iter().all(|(other, _)| *other == sum) {
                    open.push((from, to));
                    continue;
                }
                split = true;
                // The block itself is counted already.
                count -= 1;
                signed.sort_unstable();
                let mut at = from;
                for run in signed.chunk_by(|a, b| a.0 == b.0) {
                    for (offset, (_, state)) in run.iter().enumerate() {
                        order[at + offset] = *state;
                        block[*state as usize] = at as u32;
                    }
                    if run.len() > 1 {
                        open.push((at, at + run.len()));
                    }
                    at += run.len();
                    count += 1;
                }
            }
            if !split {
                break;
            }
        }
        // Equal sums only say that rows are probably equal. Should they ever lie, nothing is joined.
        let honest = open.iter().all(|(from, to)| {
            let names = |state: u32| self.row(state).iter().map(|to| block[*to as usize]);
            order[*from..*to]
                .windows(2)
                .all(|pair| names(pair[0]).eq(names(pair[1])))
        });
        if honest {
            Some(block)
        } else {
            Some((0..states as u32).collect())
        }
    }

    /// Joins states that no text tells apart, and drops those that nothing leads to. The dead state stays 0,
    /// accepting states come last. What lies ahead of each state must be known. Says whether it was done: not if
    /// more than `most` kinds of states can be told apart.
    pub(super) fn minimise(&mut self, most: usize) -> bool {
        const UNKNOWN: u32 = u32::MAX;
        let Some(block) = self.blocks(most) else {
            return false;
        };
        let mut leader = vec![UNKNOWN; block.len()];
        for (state, name) in block.iter().enumerate().rev() {
            leader[*name as usize] = state as u32;
        }
        let mut order = vec![0u32];
        let mut seen = vec![false; block.len()];
        seen[0] = true;
        let first = leader[block[self.start as usize] as usize];
        let mut stack = vec![first];
        while let Some(state) = stack.pop() {
            if std::mem::replace(&mut seen[state as usize], true) {
                continue;
            }
            order.push(state);
            for target in self.row(state).iter().rev() {
                let target = leader[block[*target as usize] as usize];
                if !seen[target as usize] {
                    stack.push(target);
                }
            }
        }
        order.sort_by_key(|state| self.accept[*state as usize] > 0);
        let mut numbers = vec![0u32; block.len()];
        for (number, state) in order.iter().enumerate() {
            numbers[block[*state as usize] as usize] = number as u32;
        }
        let number = |state: u32| numbers[block[state as usize] as usize];
        let mut next = Vec::with_capacity(order.len() * self.stride);
        for state in &order {
            next.extend(self.row(*state).iter().map(|target| number(*target)));
        }
        let pick = |of: &[u16]| order.iter().map(|state| of[*state as usize]).collect();
        self.start = number(self.start);
        self.next = next;
        self.accept = pick(&self.accept);
        self.ahead = pick(&self.ahead);
        self.distance = pick(&self.distance);
        true
    }
}

//! A sliding window: how often something happened in the time that has just passed, exactly.
//!
//! Whether there is room says the one algorithm that the kernel programs run ([`enforcer_common::limits`]). The clock is passed in, in milliseconds. Where it stands behind what is remembered, what seems to lie in the future
//! counts as having happened now: it is not forgotten, and it counts no longer than one window.

use std::{cell::Cell, collections::VecDeque};

use serde::{Deserialize, Serialize};

use enforcer_common::limits::{self, Cells, Taking, try_take};
use enforcer_policy::{compile::rate_rule, model::Rate};

/// When what counts happened, ms, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window(VecDeque<u64>);

/// The cells of a rate with what was taken, for one attempt.
struct Ring(Vec<Cell<u64>>);

impl Ring {
    /// `taken`, ms, the oldest first: the last of them, no more than the rate may count.
    fn new(rate: &limits::RateRule, taken: &VecDeque<u64>) -> Self {
        let count = rate.count as usize;
        let mut cells = vec![Cell::new(0); rate.cells() as usize];
        let known = taken.len().min(count);
        cells[0] = Cell::new(known as u64);
        for (cell, taken) in cells[1..].iter().zip(taken.range(taken.len() - known..)) {
            cell.set(stamp(*taken));
        }
        Self(cells)
    }
}

impl Cells for Ring {
    fn load(&self, at: u32) -> Option<u64> {
        self.0.get(at as usize).map(Cell::get)
    }

    fn replace(&self, at: u32, old: u64, new: u64) -> bool {
        let cell = self.0.get(at as usize).filter(|cell| cell.get() == old);
        cell.inspect(|cell| cell.set(new)).is_some()
    }
}

/// A time of ours, ms, as the cells have it, ns. None is 0, which is no time there.
fn stamp(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000).saturating_add(1)
}

impl Window {
    /// Whether the rate leaves room for one more now. Forgets what no longer counts.
    pub fn has_room(&mut self, rate: Rate, now: u64) -> bool {
        let rate = rate_rule(rate);
        for taken in self.0.iter_mut().rev().take_while(|taken| **taken > now) {
            *taken = now;
        }
        let old = |taken: &u64| stamp(now).saturating_sub(stamp(*taken)) >= rate.window_ns;
        while self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        let ring = Ring::new(&rate, &self.0);
        rate.count > 0 && matches!(try_take(&ring, &rate, stamp(now), false), Taking::Taken(_))
    }

    /// Counts one that happens now; `false` and nothing counted if there is no room.
    pub fn take(&mut self, rate: Rate, now: u64) -> bool {
        let room = self.has_room(rate, now);
        if room {
            self.0.push_back(now);
        }
        room
    }

    /// How many count at present.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing counts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn rate(count: u32) -> Rate {
        Rate {
            count,
            window: Duration::from_hours(1),
        }
    }

    #[test]
    fn the_one_too_many_is_refused_until_the_first_has_left_the_window() {
        let mut window = Window::default();
        for now in 0..100 {
            assert!(window.take(rate(100), now));
        }
        assert!(!window.take(rate(100), 100));
        assert!(!window.take(rate(100), HOUR - 1));
        assert!(window.take(rate(100), HOUR));
        assert!(!window.take(rate(100), HOUR));
        assert!(window.take(rate(100), HOUR + 1));
    }

    #[test]
    fn it_slides() {
        let mut window = Window::default();
        assert!(window.take(rate(2), 0));
        assert!(window.take(rate(2), HOUR / 2));
        assert!(!window.take(rate(2), HOUR - 1));
        assert!(window.take(rate(2), HOUR));
        assert!(!window.take(rate(2), HOUR + HOUR / 2 - 1));
        assert!(window.take(rate(2), HOUR + HOUR / 2));
    }

    #[test]
    fn a_clock_that_goes_back_neither_frees_nor_locks_it() {
        let mut window = Window::default();
        for _ in 0..3 {
            assert!(window.take(rate(3), 10 * HOUR));
        }
        assert!(!window.take(rate(3), HOUR), "not freed");
        assert!(!window.take(rate(3), 2 * HOUR - 1), "not freed");
        assert!(window.take(rate(3), 2 * HOUR), "not locked");
        let mut edge = Window::default();
        assert!(edge.take(rate(1), u64::MAX));
        assert!(!edge.take(rate(1), 0));
        assert!(edge.take(rate(1), HOUR));
    }

    #[test]
    fn a_rate_that_became_smaller_counts_what_was_allowed_before() {
        let mut window = Window::default();
        for now in 0..10 {
            assert!(window.take(rate(10), now));
        }
        assert!(!window.take(rate(3), 10));
        assert_eq!(window.len(), 10);
    }
}

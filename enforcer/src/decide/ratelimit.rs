//! A sliding window: how often something happened in the time that has just passed, exactly.
//!
//! The clock is passed in, in milliseconds. Where it stands behind what is remembered, what seems to lie in the future
//! counts as having happened now: it is not forgotten, and it counts no longer than one window.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::policy::model::Rate;

/// When what counts happened, ms, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window(VecDeque<u64>);

impl Window {
    /// Whether the rate leaves room for one more now. Forgets what no longer counts.
    pub fn has_room(&mut self, rate: Rate, now: u64) -> bool {
        let window = u64::try_from(rate.window.as_millis()).unwrap_or(u64::MAX);
        for taken in self.0.iter_mut().rev().take_while(|taken| **taken > now) {
            *taken = now;
        }
        while (self.0.front()).is_some_and(|taken| now.saturating_sub(*taken) >= window) {
            self.0.pop_front();
        }
        self.0.len() < rate.count as usize
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

//! How much asking is too much.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};

/// So many new requests in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate {
    /// Requests.
    pub count: u32,
    /// Time.
    pub window: Duration,
}

/// What a desk puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// How long a request waits for an answer.
    pub timeout: Duration,
    /// New requests; identical ones that share a pending request do not count.
    pub rate: RequestRate,
    /// Requests that are pending at once.
    pub max_pending: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(5),
            rate: RequestRate {
                count: 30,
                window: Duration::from_mins(1),
            },
            max_pending: 1024,
        }
    }
}

/// When the last new requests came, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Timestamp>);

impl Recent {
    /// Counts a request.
    pub fn add(&mut self, now: Timestamp) {
        self.0.push_back(now);
    }

    /// Whether one more would be too many. The window slides: a request counts until it is as old as the window.
    pub fn is_full(&mut self, rate: RequestRate, now: Timestamp) -> bool {
        while let Some(first) = self.0.front()
            && after(*first, rate.window).is_some_and(|end| end <= now)
        {
            self.0.pop_front();
        }
        self.0.len() >= rate.count as usize
    }
}

/// So much later; `None` beyond all time.
pub(super) fn after(start: Timestamp, time: Duration) -> Option<Timestamp> {
    start.checked_add(SignedDuration::try_from(time).ok()?).ok()
}

//! The circuit breaker of an agent that only its hook sees: denials in a row open it, and then nothing is allowed.
//!
//! The clock is passed in, in milliseconds of a clock that goes on while the machine sleeps. Where it stands behind what
//! is remembered, no time has passed: an open breaker stays open, and never for longer than its time from now.

use serde::{Deserialize, Serialize};

use crate::policy::model;

/// What is remembered of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// Denials since the last allowance.
    pub denials: u64,
    /// When it opened, ms; `None` while it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<u64>,
}

/// What the breaker says before an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Actions are judged as usual.
    Closed,
    /// Every action is denied.
    Open,
    /// It was open long enough: what one action comes to decides.
    HalfOpen,
}

impl Standing {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl Breaker {
    /// Where it stands under a policy.
    pub fn standing(&mut self, rules: &model::Breaker, now: u64) -> Standing {
        let Some(opened) = &mut self.opened_at else {
            return Standing::Closed;
        };
        *opened = (*opened).min(now);
        match rules.half_open_after {
            Some(after) if u128::from(now - *opened) >= after.as_millis() => Standing::HalfOpen,
            _ => Standing::Open,
        }
    }

    /// Counts a denial; gives the number of denials if it opens the breaker, also if it opens it again.
    pub fn deny(&mut self, rules: &model::Breaker, now: u64) -> Option<u64> {
        self.denials = self.denials.saturating_add(1);
        let most = rules.denials?;
        let opens = self.opened_at.is_some() || self.denials >= u64::from(most);
        opens.then(|| {
            self.opened_at = Some(now);
            self.denials
        })
    }

    /// An action was allowed: the count begins anew, and a half-open breaker closes.
    pub fn allow(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules(denials: u32, half_open_after: Option<u64>) -> model::Breaker {
        model::Breaker {
            denials: Some(denials),
            half_open_after: half_open_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn the_tenth_denial_opens_it_and_nothing_closes_it() {
        let (rules, mut breaker) = (rules(10, None), Breaker::default());
        for count in 1..10 {
            assert_eq!(breaker.deny(&rules, count), None);
            assert_eq!(breaker.standing(&rules, count), Standing::Closed);
        }
        assert_eq!(breaker.deny(&rules, 10), Some(10));
        for now in [10, 0, u64::MAX] {
            assert_eq!(breaker.standing(&rules, now), Standing::Open);
        }
    }

    #[test]
    fn an_allowance_begins_anew() {
        let (rules, mut breaker) = (rules(10, None), Breaker::default());
        for _ in 0..2 {
            for _ in 0..9 {
                assert_eq!(breaker.deny(&rules, 1), None);
            }
            breaker.allow();
        }
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn after_its_time_one_action_decides() {
        let (rules, mut breaker) = (rules(1, Some(10)), Breaker::default());
        assert_eq!(breaker.deny(&rules, 5_000), Some(1));
        assert_eq!(breaker.standing(&rules, 14_999), Standing::Open);
        assert_eq!(breaker.standing(&rules, 15_000), Standing::HalfOpen);
        assert_eq!(breaker.deny(&rules, 15_000), Some(2), "open again");
        assert_eq!(breaker.standing(&rules, 16_000), Standing::Open);
        assert_eq!(breaker.standing(&rules, 25_000), Standing::HalfOpen);
        breaker.allow();
        assert_eq!(breaker.standing(&rules, 25_000), Standing::Closed);
    }

    #[test]
    fn a_clock_that_goes_back_neither_closes_nor_locks_it() {
        let (rules, mut breaker) = (rules(1, Some(10)), Breaker::default());
        breaker.deny(&rules, 1_000_000);
        assert_eq!(breaker.standing(&rules, 0), Standing::Open);
        assert_eq!(breaker.standing(&rules, 9_999), Standing::Open);
        assert_eq!(breaker.standing(&rules, 10_000), Standing::HalfOpen);
    }

    #[test]
    fn a_policy_without_a_breaker_never_opens_one() {
        let rules = model::Breaker {
            denials: None,
            half_open_after: None,
        };
        let mut breaker = Breaker::default();
        assert!((0..1000).all(|now| breaker.deny(&rules, now).is_none()));
    }
}

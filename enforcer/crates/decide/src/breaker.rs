//! The circuit breaker of an agent that only its hook sees: denials in a row open it, and then nothing is allowed.
//!
//! What it does is the one algorithm that the kernel programs run ([`enforcer_common::limits`]); what it remembers is kept as people
//! would read it. The clock is passed in, in milliseconds of a clock that goes on while the machine sleeps. Where it stands behind what
//! is remembered, no time has passed: an open breaker stays open, and never for longer than its time from now.

use serde::{Deserialize, Serialize};

use enforcer_common::limits::{self, Ask, BreakerRules, Said, turn};
use enforcer_policy::{compile::breaker_rules, model};

/// What is remembered of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerMemory {
    /// Denials since the last allowance.
    pub denials: u64,
    /// When it opened, ms; `None` while it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<u64>,
}

/// What the breaker says before an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Actions are judged as usual.
    Closed,
    /// Every action is denied.
    Open,
    /// It was open long enough: what one action comes to decides.
    HalfOpen,
}

impl BreakerState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// All calls of an agent's hook are one process to its breaker: they come one after the other.
const PROCESS: u32 = 1;

impl BreakerMemory {
    /// Where it stands under a policy.
    pub fn standing(&mut self, rules: &model::BreakerSettings, now: u64) -> BreakerState {
        self.opened_at = self.opened_at.map(|opened| opened.min(now));
        let rules = BreakerRules {
            // Open is open, also under a policy that would not have opened it.
            denials: rules.denials.unwrap_or(u32::MAX),
            ..breaker_rules(rules)
        };
        let (word, age) = self.word(now);
        let (word, said) = turn(word, Ask::Admit, &rules, PROCESS, age);
        match (said, limits::Breaker::unpack(word)) {
            (Said::Noted, limits::Breaker::Closed { .. }) => BreakerState::Closed,
            (Said::Noted, _) => BreakerState::HalfOpen,
            _ => BreakerState::Open,
        }
    }

    /// Counts a denial; gives the number of denials if it opens the breaker, also if it opens it again.
    pub fn deny(&mut self, rules: &model::BreakerSettings, now: u64) -> Option<u64> {
        let rules = breaker_rules(rules);
        let (word, age) = self.word(now);
        // What is judged was let in before.
        let (word, _) = turn(word, Ask::Admit, &rules, PROCESS, age);
        let (_, said) = turn(word, Ask::Denied, &rules, PROCESS, age);
        self.denials = self.denials.saturating_add(1);
        let opens = matches!(said, Said::Tripped | Said::TrippedAgain);
        opens.then(|| {
            self.opened_at = Some(now);
            self.denials
        })
    }

    /// An action was allowed: the count begins anew, and a half-open breaker closes.
    pub fn allow(&mut self) {
        *self = Self::default();
    }

    /// It as the kernel has it, and the time for that: since it opened, for a word has no room for a time of the wall
    /// clock's, with which ours may begin. A trial is none: it lasts for one call.
    fn word(&self, now: u64) -> (u64, u64) {
        if let Some(opened) = self.opened_at {
            let open = limits::Breaker::Open { since_ms: 0 };
            (open.pack(), now.saturating_sub(opened))
        } else {
            let denials = u32::try_from(self.denials).unwrap_or(u32::MAX);
            (limits::Breaker::Closed { denials }.pack(), 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules(denials: u32, half_open_after: Option<u64>) -> model::BreakerSettings {
        model::BreakerSettings {
            denials: Some(denials),
            half_open_after: half_open_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn the_tenth_denial_opens_it_and_nothing_closes_it() {
        let (rules, mut breaker) = (rules(10, None), BreakerMemory::default());
        for count in 1..10 {
            assert_eq!(breaker.deny(&rules, count), None);
            assert_eq!(breaker.standing(&rules, count), BreakerState::Closed);
        }
        assert_eq!(breaker.deny(&rules, 10), Some(10));
        for now in [10, 0, u64::MAX] {
            assert_eq!(breaker.standing(&rules, now), BreakerState::Open);
        }
    }

    #[test]
    fn an_allowance_begins_anew() {
        let (rules, mut breaker) = (rules(10, None), BreakerMemory::default());
        for _ in 0..2 {
            for _ in 0..9 {
                assert_eq!(breaker.deny(&rules, 1), None);
            }
            breaker.allow();
        }
        assert_eq!(breaker, BreakerMemory::default());
    }

    #[test]
    fn it_stays_open_for_its_time_whatever_the_clock_says() {
        // The hook's clock begins with the wall's: more milliseconds than the kernel keeps of a time.
        for opened in [
            0,
            1_796_093_945_572,
            1 << 40,
            (1 << 40) - 1,
            u64::MAX - 20_000,
        ] {
            let (rules, mut breaker) = (rules(1, Some(10)), BreakerMemory::default());
            assert_eq!(breaker.deny(&rules, opened), Some(1));
            for later in [0, 45, 9_999] {
                assert_eq!(breaker.standing(&rules, opened + later), BreakerState::Open);
            }
            assert_eq!(
                breaker.standing(&rules, opened + 10_000),
                BreakerState::HalfOpen
            );
            assert_eq!(breaker.deny(&rules, opened + 10_000), Some(2), "open again");
            assert_eq!(
                breaker.standing(&rules, opened + 19_999),
                BreakerState::Open
            );
        }
    }

    #[test]
    fn after_its_time_one_action_decides() {
        let (rules, mut breaker) = (rules(1, Some(10)), BreakerMemory::default());
        assert_eq!(breaker.deny(&rules, 5_000), Some(1));
        assert_eq!(breaker.standing(&rules, 14_999), BreakerState::Open);
        assert_eq!(breaker.standing(&rules, 15_000), BreakerState::HalfOpen);
        assert_eq!(breaker.deny(&rules, 15_000), Some(2), "open again");
        assert_eq!(breaker.standing(&rules, 16_000), BreakerState::Open);
        assert_eq!(breaker.standing(&rules, 25_000), BreakerState::HalfOpen);
        breaker.allow();
        assert_eq!(breaker.standing(&rules, 25_000), BreakerState::Closed);
    }

    #[test]
    fn a_clock_that_goes_back_neither_closes_nor_locks_it() {
        let (rules, mut breaker) = (rules(1, Some(10)), BreakerMemory::default());
        breaker.deny(&rules, 1_000_000);
        assert_eq!(breaker.standing(&rules, 0), BreakerState::Open);
        assert_eq!(breaker.standing(&rules, 9_999), BreakerState::Open);
        assert_eq!(breaker.standing(&rules, 10_000), BreakerState::HalfOpen);
    }

    #[test]
    fn a_policy_without_a_breaker_never_opens_one() {
        let rules = model::BreakerSettings {
            denials: None,
            half_open_after: None,
        };
        let mut breaker = BreakerMemory::default();
        assert!((0..1000).all(|now| breaker.deny(&rules, now).is_none()));
    }
}

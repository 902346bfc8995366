//! The breaker and the limits, as the kernel programs take them.

use std::time::Duration;

use enforcer_common::limits::{BreakerRules, LimitRules, RateRule};

use crate::model;

/// Lowers what a policy says. Where the cells of rates are is for the loader to say.
pub fn limit_rules(limits: &model::Limits, breaker: &model::BreakerSettings) -> LimitRules {
    LimitRules {
        exec: rate(limits.exec),
        connect: rate(limits.connect),
        user_exec: rate(limits.user_exec),
        user_connect: rate(limits.user_connect),
        breaker: breaker_rules(breaker),
        arguments: limits.arguments.unwrap_or(0),
        argv_bytes: limits.argv_bytes.unwrap_or(0),
        depth: limits.depth.unwrap_or(0),
        reserved: 0,
    }
}

/// Lowers what a policy says of its breaker.
pub fn breaker_rules(breaker: &model::BreakerSettings) -> BreakerRules {
    BreakerRules {
        denials: breaker.denials.unwrap_or(0),
        reserved: 0,
        half_open_ms: breaker
            .half_open_after
            .map_or(0, |time| whole(time.as_millis())),
    }
}

/// Lowers one rate.
pub fn rate_rule(model::Rate { count, window }: model::Rate) -> RateRule {
    RateRule {
        window_ns: nanoseconds(window),
        count,
        first: 0,
    }
}

fn rate(rate: Option<model::Rate>) -> RateRule {
    rate.map_or_else(RateRule::default, rate_rule)
}

/// A window of centuries is as good as one that never ends.
fn nanoseconds(time: Duration) -> u64 {
    whole(time.as_nanos())
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_leaves_out_is_no_limit_but_the_breaker_is_there() {
        let rules = limit_rules(
            &model::Limits::default(),
            &model::BreakerSettings::default(),
        );
        assert_eq!(
            rules,
            LimitRules {
                breaker: BreakerRules {
                    denials: 10,
                    ..BreakerRules::default()
                },
                ..LimitRules::default()
            }
        );
    }

    #[test]
    fn windows_become_nanoseconds_and_never_wrap() {
        let rules = |window| rate(Some(model::Rate { count: 7, window }));
        assert_eq!(rules(Duration::from_secs(3)).window_ns, 3_000_000_000);
        assert_eq!(
            rules(Duration::from_secs(u64::from(u32::MAX) * 86_400)).window_ns,
            u64::MAX
        );
    }
}

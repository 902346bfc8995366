//! Who the policy is about and how much they may do: the sections `agents`, `capabilities`, `tenants`, `limits`,
//! `breaker` and `audit` of the native form.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use enforcer_common::limits::RATE_MAX;

use super::{
    capability,
    error::Problems,
    model::{Agents, BreakerSettings, EVENT_BUFFER, Limits, Rate},
    native::{AgentsSection, BreakerSection, LimitsSection},
    place::{JsonPath, quoted},
    validate::parse_rate,
};

/// Turns `agents` into the model.
pub(super) fn agents(section: AgentsSection) -> Agents {
    Agents {
        trusted: section.trusted,
        restricted: section.restricted,
    }
}

/// Turns `capabilities` into the model: names of agents in lower case.
pub(super) fn capabilities(
    section: BTreeMap<String, Vec<String>>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut capabilities: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let at = JsonPath::top().key("capabilities");
    for (agent, names) in section {
        capability::check(&names, &at.key(agent.clone()), problems);
        let of_agent = capabilities.entry(agent.to_lowercase()).or_default();
        of_agent.extend(names);
    }
    capabilities
}

/// Turns `limits` into the model.
pub(super) fn limits(section: LimitsSection, problems: &mut Problems<'_>) -> Limits {
    let at = JsonPath::top().key("limits");
    let per_user = section.per_user.map(|users| users.0).unwrap_or_default();
    let of_user = at.key("per_user");
    let mut count = |key: &'static str, count: Option<u32>| {
        if count == Some(0) {
            problems.error(&at.key(key), "0 is not allowed", "write 1 or more");
        }
        count
    };
    let (arguments, argv_bytes, depth) = (
        count("arguments", section.arguments),
        count("argv_bytes", section.argv_bytes),
        count("depth", section.depth),
    );
    let mut rate = |at: JsonPath, text: Option<String>| {
        let text = text?;
        let rate = parse_rate(&text);
        if rate.is_none() {
            problems.error(
                &at,
                format!("{} is not a rate", quoted(&text)),
                "write a count and a window of seconds, minutes, hours or days: \"100/1h\"",
            );
        }
        if let Some((count, _)) = rate
            && count > RATE_MAX
        {
            problems.error(
                &at,
                format!(
                    "{} counts more than the {RATE_MAX} that a rate can",
                    quoted(&text)
                ),
                "write a smaller count in a shorter window: \"100000/1h\" is the most an hour",
            );
        }
        rate.map(|(count, window)| Rate { count, window })
    };
    Limits {
        exec: rate(at.key("exec"), section.exec),
        connect: rate(at.key("connect"), section.connect),
        user_exec: rate(of_user.key("exec"), per_user.exec),
        user_connect: rate(of_user.key("connect"), per_user.connect),
        arguments,
        argv_bytes,
        depth,
    }
}

/// KiB of an event buffer.
const BUFFER_KIB: std::ops::RangeInclusive<u32> = 64..=16_384;

/// Turns `audit.buffer_kib` into bytes.
pub(super) fn event_buffer(kib: Option<u32>, problems: &mut Problems<'_>) -> u32 {
    let Some(kib) = kib else {
        return EVENT_BUFFER;
    };
    if !kib.is_power_of_two() || !BUFFER_KIB.contains(&kib) {
        problems.error(
            &JsonPath::top().key("audit").key("buffer_kib"),
            format!("{kib} is no size of a buffer"),
            "write a power of two from 64 to 16384",
        );
        return EVENT_BUFFER;
    }
    kib << 10
}

/// A rate as a policy writes it (`100/1h`); `None` for what is none, or counts more than a rate can.
pub fn rate(text: &str) -> Option<Rate> {
    parse_rate(text)
        .filter(|(count, _)| *count <= RATE_MAX)
        .map(|(count, window)| Rate { count, window })
}

/// Turns `breaker` into the model.
pub(super) fn breaker(section: &BreakerSection, problems: &mut Problems<'_>) -> BreakerSettings {
    let at = JsonPath::top().key("breaker");
    let mut positive = |key: &'static str, number: Option<u64>| {
        if number == Some(0) {
            problems.error(&at.key(key), "0 is not allowed", "write 1 or more");
        }
    };
    positive("denials", section.denials.map(u64::from));
    positive("half_open_after_s", section.half_open_after_s);
    BreakerSettings {
        denials: section.denials.or(BreakerSettings::default().denials),
        half_open_after: section.half_open_after_s.map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn a_buffer_is_a_power_of_two() {
        let policy = |kib: u32| format!(r#"{{"version": "2", "audit": {{"buffer_kib": {kib}}}}}"#);
        for kib in [64, 1024, 16_384] {
            assert_eq!(parse(&policy(kib)).unwrap().policy.event_buffer, kib << 10);
        }
        for kib in [0, 32, 1000, 32_768] {
            let text = parse(&policy(kib)).unwrap_err().to_string();
            assert!(text.contains("power of two"), "{text}");
        }
    }

    #[test]
    fn a_rate_that_counts_more_than_its_memory_holds_is_an_error() {
        let policy = |count: u32| {
            format!(
                r#"{{"version": "2", "limits": {{"exec": "{count}/1d", "per_user": {{"connect": "{count}/1h"}}}}}}"#
            )
        };
        assert!(parse(&policy(100_000)).is_ok());
        let text = parse(&policy(100_001)).unwrap_err().to_string();
        assert!(text.contains("100001") && text.contains("100000"), "{text}");
    }
}

//! Who the policy is about and how much they may do: the sections `agents`, `capabilities`, `tenants`, `limits`,
//! `breaker` and `audit` of the native form.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use enforcer_common::limits::RATE_MAX;

use super::{
    error::Problems,
    model::{Agents, Breaker, Limits, Rate},
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
) -> BTreeMap<String, BTreeSet<String>> {
    let mut capabilities: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (agent, names) in section {
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

/// Turns `breaker` into the model.
pub(super) fn breaker(section: &BreakerSection, problems: &mut Problems<'_>) -> Breaker {
    let at = JsonPath::top().key("breaker");
    let mut positive = |key: &'static str, number: Option<u64>| {
        if number == Some(0) {
            problems.error(&at.key(key), "0 is not allowed", "write 1 or more");
        }
    };
    positive("denials", section.denials.map(u64::from));
    positive("half_open_after_s", section.half_open_after_s);
    Breaker {
        denials: section.denials.or(Breaker::default().denials),
        half_open_after: section.half_open_after_s.map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::parse;

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

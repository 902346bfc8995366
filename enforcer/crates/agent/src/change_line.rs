//! The line of the trail that tells what a person has changed of an agent, or that a person has ended it.

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{lines::UNNAMED, state::AgentRecord};
use enforcer_control::{AgentChanged, words::counted};
use enforcer_decide::Principal;
use enforcer_trail::{Event, Record};

/// The tool that a trail line names when an agent is changed or ended.
pub const TOOL: &str = "agent";

/// The word for how an agent is governed.
pub fn governed(observed: bool) -> &'static str {
    if observed { "observe" } else { "enforce" }
}

/// SHA-256 of a policy's text, hexadecimal.
pub fn digest(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::new();
    for byte in Sha256::digest(text) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// What is another than before, in words. `read`: a policy was read, the same or another.
fn differences(
    (before, was): (&AgentRecord, &Principal),
    (after, is): (&AgentRecord, &Principal),
    read: bool,
) -> Vec<String> {
    let mut done = Vec::new();
    if read {
        let (old, new) = (&before.decides, &after.decides);
        let policy = new.policy_path.display();
        if old.policy_text != new.policy_text {
            done.push(format!("policy {policy} decides"));
        } else if old.policy_path != new.policy_path {
            done.push(format!(
                "policy {policy} decides, whose text is that of the one before"
            ));
        }
    }
    if before.observed != after.observed {
        let how = if after.observed {
            "only observed"
        } else {
            "blocked again"
        };
        done.push(format!("it is {how}"));
    }
    if was.mode != is.mode {
        done.push(format!("its mode is {} (was {})", is.mode, was.mode));
    }
    let only = |verb: &str, these: &Principal, those: &Principal| {
        let names: Vec<&str> = these
            .capabilities
            .difference(&those.capabilities)
            .map(String::as_str)
            .collect();
        (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")))
    };
    done.extend(only("granted", is, was));
    done.extend(only("revoked", was, is));
    let (old, new) = (&before.decides.changes.rates, &after.decides.changes.rates);
    for (name, rate) in new
        .iter()
        .filter(|(name, rate)| old.get(*name) != Some(*rate))
    {
        done.push(format!("rate {name} is {rate}"));
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        done.push(format!("rate {name} is the policy's"));
    }
    done
}

/// The line that tells of a change: of what is another than before alone.
pub fn record(
    before: (&AgentRecord, &Principal),
    after: (&AgentRecord, &Principal),
    changed: &AgentChanged,
    read: bool,
    by: &str,
) -> Record {
    let done = differences(before, after, read);
    let reason = if done.is_empty() {
        let policy = changed.policy.display();
        format!("Read anew by {by}: policy {policy} is what it was")
    } else {
        format!("Changed by {by}: {}", done.join("; "))
    };
    let mut parameters = Map::new();
    let mut put = |key: &str, value: Value| parameters.insert(key.to_owned(), value);
    put("run", changed.id.clone().into());
    put("policy", changed.policy.display().to_string().into());
    put("sha256", changed.policy_sha256.clone().into());
    put(
        "sha256_before",
        digest(&before.0.decides.policy_text).into(),
    );
    put("generation", changed.generation.into());
    put("governed", changed.governed.clone().into());
    put("mode", changed.mode.clone().into());
    put("capabilities", changed.capabilities.clone().into());
    if let Some((reason, _)) = &after.0.decides.changes.refused {
        put("refused", reason.clone().into());
    }
    line(&changed.agent, &reason, &parameters)
}

/// The line that tells that a person has an agent ended, with this many processes.
pub fn stopped(facts: &AgentRecord, id: &str, processes: usize, by: &str) -> Record {
    let count = counted(processes as u64, "process");
    let mut parameters = Map::new();
    parameters.insert("run".to_owned(), id.into());
    parameters.insert("processes".to_owned(), processes.into());
    let agent = facts.agent.as_deref().unwrap_or(UNNAMED);
    line(
        agent,
        &format!("Stopped by {by}, with {count}"),
        &parameters,
    )
}

fn line(agent: &str, reason: &str, parameters: &Map<String, Value>) -> Record {
    Record::tool_call(
        Timestamp::now(),
        Event::Approval,
        agent,
        TOOL,
        reason,
        false,
        parameters,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{own_terms::Changes, state::Decides};
    use enforcer_decide::Mode;

    fn facts() -> AgentRecord {
        AgentRecord {
            enforcement: None,
            agent: Some("reviewer".to_owned()),
            user: None,
            tenant: None,
            observed: false,
            audit: "/trail".into(),
            decides: Decides {
                generation: None,
                policy_path: "/p.json".into(),
                policy_text: String::new(),
                capabilities: BTreeSet::new(),
                seed: 0,
                changes: Changes::default(),
            },
            before: None,
        }
    }

    #[test]
    fn only_what_is_another_is_told() {
        let was = Principal {
            capabilities: BTreeSet::from(["deploy".to_owned(), "push".to_owned()]),
            ..Principal::default()
        };
        let is = Principal {
            capabilities: BTreeSet::from(["deploy".to_owned(), "read".to_owned()]),
            mode: Mode::Disabled,
            ..Principal::default()
        };
        let (mut before, mut after) = (facts(), facts());
        let rate = |text: &str| text.to_owned();
        before.decides.changes.rates = [("exec", "5/1h"), ("connect", "1/1s")]
            .map(|(name, text)| (rate(name), rate(text)))
            .into();
        after.decides.changes.rates = [("exec", "5/1h"), ("per_user.exec", "9/1d")]
            .map(|(name, text)| (rate(name), rate(text)))
            .into();
        assert_eq!(
            differences((&before, &was), (&after, &is), false),
            [
                "its mode is disabled (was everywhere)",
                "granted read",
                "revoked push",
                "rate per_user.exec is 9/1d",
                "rate connect is the policy's"
            ]
        );
        assert!(differences((&before, &was), (&before, &was), false).is_empty());
    }

    #[test]
    fn a_policy_that_was_read_anew_and_is_what_it_was_is_no_difference() {
        let who = Principal::default();
        let (before, mut after) = (facts(), facts());
        let told = |after: &AgentRecord| differences((&before, &who), (after, &who), true);
        assert!(told(&after).is_empty());
        after.decides.policy_path = "/q.json".into();
        assert_eq!(
            told(&after),
            ["policy /q.json decides, whose text is that of the one before"]
        );
        after.decides.policy_text = "{}".to_owned();
        assert_eq!(told(&after), ["policy /q.json decides"]);
    }
}

//! Lines of the trail, of a hook without a launcher.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{place, place::PlaceError};
use enforcer_decide::{Outcome, wording};
use enforcer_policy::Decision;
use enforcer_trail::{AuditError, Event, Record, Stamp, Writer};

/// The trail's file, below [`place::root`].
const FILE: &str = "audit.jsonl";

/// Where the trail is: as given, else in the user's own directory, which is made if it is missing.
///
/// # Errors
///
/// The directory cannot be made or is not safe.
pub fn path(given: Option<&Path>) -> Result<PathBuf, PlaceError> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => Ok(place::directory(&place::root()?, "")?.join(FILE)),
    }
}

/// A tool call's line. `answered` is what the agent was told.
pub fn line(
    agent: &str,
    tool: &str,
    outcome: &Outcome,
    answered: Decision,
    parameters: &Map<String, Value>,
) -> Record {
    let event = match answered {
        Decision::Allow => Event::Approval,
        Decision::Ask | Decision::Deny => Event::Denial,
    };
    Record::tool_call(
        Timestamp::now(),
        event,
        agent,
        tool,
        &outcome.reason,
        outcome.security_risk,
        parameters,
    )
}

/// The line that says that the breaker has opened.
pub fn trip(agent: &str, denials: u64) -> Record {
    Record::breaker_trip(
        Timestamp::now(),
        agent,
        &wording::breaker_tripped(denials),
        denials,
    )
}

/// What is said of the decision, behind what was asked for.
pub fn judgement(
    mut parameters: Map<String, Value>,
    outcome: &Outcome,
    answered: Decision,
) -> Map<String, Value> {
    if let Some(rule) = &outcome.rule {
        parameters.insert("rule".to_owned(), rule.as_str().into());
    }
    let verdict = match answered {
        Decision::Allow => "allowed",
        Decision::Ask => "asked",
        Decision::Deny => "denied",
    };
    for (key, value) in [
        ("cause", outcome.cause.as_str()),
        ("decision", outcome.decision.as_str()),
        ("verdict", verdict),
        ("stage", "hook"),
        ("risk", outcome.risk.as_str()),
    ] {
        parameters.insert(key.to_owned(), value.into());
    }
    parameters
}

/// Appends lines.
///
/// # Errors
///
/// They cannot be written.
pub fn append(path: &Path, stamp: Stamp, records: &[Record]) -> Result<(), AuditError> {
    let mut writer = Writer::open(path)?.stamped(stamp);
    for record in records {
        writer.append(record)?;
    }
    writer.flush()
}

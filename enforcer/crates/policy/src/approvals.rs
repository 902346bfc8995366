//! How an `ask` is put to a person: the section of the native form, and whether anybody can answer.

use std::time::Duration;

use super::error::Problems;
use super::model::{Approvals, Policy};
use super::native::ApprovalsSection;
use super::place::{JsonPath, quoted};
use super::standing;
use super::validate::parse_rate;
use crate::Decision;

/// Longest time to wait for an answer, in seconds: a week.
const TIMEOUT_MAX_S: u64 = 604_800;

/// The user who may answer when a policy names nobody.
pub const DEFAULT_APPROVER: &str = "root";

/// Turns the section into the model.
pub(super) fn lower(section: Option<ApprovalsSection>, problems: &mut Problems<'_>) -> Approvals {
    let mut approvals = Approvals::default();
    let Some(section) = section else {
        return approvals;
    };
    let at = JsonPath::top().key("approvals");
    approvals.mode = section.mode.unwrap_or_default();
    match section.notify {
        None => {}
        Some(words)
            if words
                .first()
                .is_some_and(|program| program.starts_with('/')) =>
        {
            approvals.notify = words;
        }
        Some(_) => problems.error(
            &at.key("notify"),
            "this names no program by an absolute path",
            "write its path and its arguments: [\"/usr/bin/systemd-cat\", \"-t\", \"enforcer\"]",
        ),
    }
    match section.timeout_s {
        None => {}
        Some(seconds @ 1..=TIMEOUT_MAX_S) => approvals.timeout = Duration::from_secs(seconds),
        Some(seconds) => problems.error(
            &at.key("timeout_s"),
            format!("{seconds} seconds are not a time to wait"),
            format!("write a number from 1 to {TIMEOUT_MAX_S}"),
        ),
    }
    match section.max_pending {
        None => {}
        Some(0) => problems.error(
            &at.key("max_pending"),
            "0 is not allowed",
            "write 1 or more; to have every `ask` denied write an empty list of `approvers`",
        ),
        Some(count) => approvals.max_pending = count,
    }
    if let Some(text) = section.rate {
        match parse_rate(&text) {
            Some(rate) => approvals.rate = rate,
            None => problems.error(
                &at.key("rate"),
                format!("{} is not a rate", quoted(&text)),
                "write a count and a window of seconds, minutes, hours or days: \"30/1m\"",
            ),
        }
    }
    if let Some(names) = section.approvers {
        let mut kept: Vec<String> = Vec::with_capacity(names.len());
        for (index, name) in names.into_iter().enumerate() {
            if !is_approver(&name) {
                problems.error(
                    &at.key("approvers").index(index),
                    format!("{} is not the name of a user or group", quoted(&name)),
                    "write a user's name (\"kim\"), or a group's behind a `%` (\"%ops\")",
                );
            } else if !kept.contains(&name) {
                kept.push(name);
            }
        }
        approvals.approvers = Some(kept);
    }
    approvals
}

/// Whether the text can be a user, or `%` and a group.
fn is_approver(text: &str) -> bool {
    let name = text.strip_prefix('%').unwrap_or(text);
    !name.is_empty()
        && !name.starts_with('%')
        && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// What in a policy asks first: the id of a rule in quotes, or the key of a default. What is built in does not
/// count.
pub fn first_ask(policy: &Policy) -> Option<String> {
    let ask = Decision::Ask;
    let (exec, connect) = (&policy.exec, &policy.connect);
    let rules = (exec.rules.iter())
        .filter(|rule| standing::exec_can_ask(rule))
        .map(|rule| &rule.id);
    let connects = (connect.rules.iter())
        .filter(|rule| standing::connect_can_ask(rule))
        .map(|rule| &rule.id);
    if let Some(id) = rules.chain(connects).next() {
        return Some(format!("rule {}", quoted(id)));
    }
    [
        ("exec.default", exec.default),
        ("exec.fileless", exec.fileless),
        ("exec.descriptor", exec.descriptor),
        ("exec.loader", exec.loader),
        ("connect.default", connect.default),
        ("connect.unix_default", connect.unix_default),
        ("connect.outside_listeners.unix", connect.outside.unix),
        ("connect.outside_listeners.tcp", connect.outside.tcp),
    ]
    .into_iter()
    .find(|(_, decision)| *decision == ask)
    .map(|(key, _)| format!("`{key}`"))
}

/// What a policy can come to ask about, what is built in aside: also what allow rules of high and critical risk ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Some execs.
    pub exec: bool,
    /// Some connects to addresses.
    pub connect: bool,
    /// Some connects to unix sockets.
    pub unix: bool,
}

/// What a policy asks about.
pub fn asks(policy: &Policy) -> Asks {
    let ask = Decision::Ask;
    let (exec, connect) = (&policy.exec, &policy.connect);
    let by_rule = |unix: bool| {
        connect
            .rules
            .iter()
            .any(|rule| standing::connect_can_ask(rule) && rule.unix.is_empty() != unix)
    };
    Asks {
        exec: [exec.default, exec.fileless, exec.descriptor, exec.loader].contains(&ask)
            || exec.rules.iter().any(standing::exec_can_ask),
        connect: [connect.default, connect.outside.tcp].contains(&ask) || by_rule(false),
        unix: [connect.unix_default, connect.outside.unix].contains(&ask) || by_rule(true),
    }
}

/// Whether some connects to addresses are denied.
pub fn denies_addresses(policy: &Policy) -> bool {
    let connect = &policy.connect;
    [connect.default, connect.outside.tcp].contains(&Decision::Deny)
        || connect
            .rules
            .iter()
            .any(|rule| rule.unix.is_empty() && standing::connect_can_deny(rule))
}

/// Why nobody can answer what a policy asks, if so. `agent_user` is the name of the user that the agent runs as,
/// who never can. A named group counts as somebody.
pub fn unanswerable(policy: &Policy, agent_user: Option<&str>) -> Option<String> {
    let asks = first_ask(policy)?;
    let root = [DEFAULT_APPROVER.to_owned()];
    let approvers = policy.approvals.approvers.as_deref().unwrap_or(&root);
    if approvers.is_empty() {
        return Some(format!(
            "{asks} asks, but `approvers` is empty: nobody can answer, so whatever is asked is denied"
        ));
    }
    let agent = agent_user?;
    approvers.iter().all(|name| name == agent).then(|| {
        format!(
            "{asks} asks, but the only approver is {}, the user that the agent runs as, who can never answer: \
             whatever is asked is denied",
            quoted(agent)
        )
    })
}

/// Warns of an `ask` that the text alone shows to be unanswerable.
pub(super) fn warn_unanswerable(policy: &Policy, problems: &mut Problems<'_>) {
    if let Some(why) = unanswerable(policy, None) {
        problems.warn(&JsonPath::top().key("approvals").key("approvers"), why);
    }
}

#[cfg(test)]
#[path = "approvals_tests.rs"]
mod tests;

//! What a rule comes to for who acts: an allow rule may want capabilities that the agent lacks, or be too dangerous
//! to allow without a person.

use std::collections::BTreeSet;

use crate::{Decision, Risk};

use super::model::{ConnectRule, Rule};

/// What a rule says of what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// What is written in it.
    Plain,
    /// It allows, but the agent lacks a capability that it requires: it denies.
    Lacking,
    /// It allows at critical risk: it asks.
    Raised,
    /// It allows at high risk: it asks where the action has a dangerous flag or raises privileges.
    RaisedByDanger,
}

/// The standing of an exec rule.
pub fn of_exec(rule: &Rule, capabilities: &BTreeSet<String>) -> Standing {
    match of(rule.decision, rule.risk, &rule.requires, capabilities) {
        Standing::Plain if rule.decision == Decision::Allow && rule.risk == Risk::High => {
            Standing::RaisedByDanger
        }
        standing => standing,
    }
}

/// The standing of a connect rule. An address has no flags, so a high risk raises nothing.
pub fn of_connect(rule: &ConnectRule, capabilities: &BTreeSet<String>) -> Standing {
    of(rule.decision, rule.risk, &rule.requires, capabilities)
}

fn of(
    decision: Decision,
    risk: Risk,
    requires: &[String],
    capabilities: &BTreeSet<String>,
) -> Standing {
    if decision != Decision::Allow {
        Standing::Plain
    } else if !requires.iter().all(|name| capabilities.contains(name)) {
        Standing::Lacking
    } else if risk == Risk::Critical {
        Standing::Raised
    } else {
        Standing::Plain
    }
}

/// Whether an exec rule can come to ask, whoever acts.
pub fn exec_can_ask(rule: &Rule) -> bool {
    rule.decision == Decision::Ask || rule.decision == Decision::Allow && rule.risk >= Risk::High
}

/// Whether a connect rule can come to ask, whoever acts.
pub fn connect_can_ask(rule: &ConnectRule) -> bool {
    rule.decision == Decision::Ask
        || rule.decision == Decision::Allow && rule.risk == Risk::Critical
}

/// Whether a connect rule can come to deny, whoever acts.
pub fn connect_can_deny(rule: &ConnectRule) -> bool {
    rule.decision == Decision::Deny || !rule.requires.is_empty()
}

/// The capabilities that a rule requires and the agent lacks, in the rule's order.
pub fn missing<'a>(
    requires: &'a [String],
    capabilities: &BTreeSet<String>,
) -> impl Iterator<Item = &'a str> {
    requires
        .iter()
        .filter(|name| !capabilities.contains(*name))
        .map(String::as_str)
}

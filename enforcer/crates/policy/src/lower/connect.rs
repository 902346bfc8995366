//! The `connect` section, from what is written to the model.

use std::collections::HashSet;

use super::super::capability;
use super::super::error::Problems;
use super::super::hosts::{self, EVERYWHERE};
use super::super::model::{ConnectPolicy, ConnectRule, Network, OutsideListeners, Protocol};
use super::super::native::{self, ConnectSection, ProtocolName};
use super::super::place::JsonPath;
use super::super::unix_name;
use super::super::validate::{self, Ids};
use super::default_risk;
use crate::Decision;

/// The `connect` section.
pub(super) fn policy(
    section: Option<ConnectSection>,
    ids: &mut Ids,
    problems: &mut Problems<'_>,
) -> ConnectPolicy {
    let at = JsonPath::top().key("connect");
    let Some(section) = section else {
        problems.warn(
            &JsonPath::top(),
            "there is no `connect` section: every connect to an address is denied",
        );
        return ConnectPolicy {
            default: Decision::Deny,
            unix_default: Decision::Allow,
            outside: OutsideListeners::default(),
            rules: Vec::new(),
        };
    };
    let mut rules = Vec::with_capacity(section.rules.len());
    for (index, rule) in section.rules.into_iter().enumerate() {
        rules.push(rule_of(
            rule.0,
            &at.key("rules").index(index),
            ids,
            problems,
        ));
    }
    let written = section.outside_listeners.map(|section| section.0);
    let written = written.unwrap_or_default();
    let outside = OutsideListeners::default();
    ConnectPolicy {
        outside: OutsideListeners {
            unix: written.unix.unwrap_or(outside.unix),
            tcp: written.tcp.unwrap_or(outside.tcp),
        },
        default: section.default.unwrap_or(Decision::Deny),
        unix_default: section.unix_default.unwrap_or(Decision::Allow),
        rules,
    }
}

fn rule_of(
    rule: native::ConnectRule,
    at: &JsonPath,
    ids: &mut Ids,
    problems: &mut Problems<'_>,
) -> ConnectRule {
    ids.claim(&rule.id, at, problems);
    let to_address = rule.hosts.is_some() || rule.ports.is_some() || rule.protocols.is_some();
    if rule.unix.is_some() && to_address {
        problems.error(
            at,
            "the rule has `unix` beside `hosts`, `ports` or `protocols`, and no connect is to both",
            "make one rule for the sockets and one for the addresses",
        );
    }
    if rule.unix.is_none() && !to_address {
        problems.error(
            at,
            "the rule would match every connect",
            "give it `hosts`, `ports` or `protocols`, or `unix`, or set `connect.default` instead",
        );
    }
    let hosts = match rule.hosts {
        None if rule.unix.is_some() => Vec::new(),
        None => vec![EVERYWHERE],
        Some(hosts) => networks(&hosts, &at.key("hosts"), problems),
    };
    let unix = match rule.unix {
        None => Vec::new(),
        Some(patterns) => sockets(&patterns, &at.key("unix"), problems),
    };
    let ports = rule.ports.as_deref().unwrap_or_default();
    if rule.ports.is_some() {
        validate::not_empty(ports.len(), &at.key("ports"), problems);
    }
    if let Some(index) = ports.iter().position(|port| *port == 0) {
        problems.error(
            &at.key("ports").index(index),
            "0 is not a port that can be connected to",
            "write a port from 1 to 65535, or leave `ports` out for all of them",
        );
    }
    let protocols = rule.protocols.as_deref().unwrap_or_default();
    if rule.protocols.is_some() {
        validate::not_empty(protocols.len(), &at.key("protocols"), problems);
    }
    if !ports.is_empty() && protocols.contains(&ProtocolName::Icmp) {
        problems.error(
            &at.key("ports"),
            "ICMP has no ports",
            "make a rule without `ports` for \"icmp\"",
        );
    }
    capability::check(&rule.requires, &at.key("requires"), problems);
    ConnectRule {
        id: rule.id,
        decision: rule.decision,
        risk: rule.risk.unwrap_or(default_risk(rule.decision)),
        hosts,
        ports: distinct(ports.iter().copied()),
        protocols: distinct(protocols.iter().map(|protocol| match protocol {
            ProtocolName::Tcp => Protocol::Tcp,
            ProtocolName::Udp => Protocol::Udp,
            ProtocolName::Icmp => Protocol::Icmp,
        })),
        unix,
        justification: rule.justification,
        suggestion: rule.suggestion,
        requires: rule.requires,
    }
}

fn sockets(patterns: &[String], at: &JsonPath, problems: &mut Problems<'_>) -> Vec<String> {
    validate::not_empty(patterns.len(), at, problems);
    let mut kept = Vec::with_capacity(patterns.len());
    for (index, pattern) in patterns.iter().enumerate() {
        match unix_name::parse_pattern(pattern) {
            Ok(pattern) => kept.push(pattern),
            Err(fault) => problems.error(&at.index(index), fault.what, fault.mend),
        }
    }
    kept
}

fn networks(hosts: &[String], at: &JsonPath, problems: &mut Problems<'_>) -> Vec<Network> {
    validate::not_empty(hosts.len(), at, problems);
    let mut networks = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        match hosts::parse_host(host) {
            Ok(found) => networks.extend(found),
            Err(fault) => problems.error(&at.index(index), fault.what, fault.mend),
        }
    }
    distinct(networks.into_iter())
}

fn distinct<T: Copy + Eq + std::hash::Hash>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    values.filter(|value| seen.insert(*value)).collect()
}

//! Two policies, compared by what their rules and sections say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use crate::Decision;

use super::model::{ConnectRule, OutsideListeners, Policy, Rule};

/// How something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second policy has it.
    Added,
    /// Only the first policy has it.
    Removed,
    /// Both have it, and it says something else.
    Changed,
}

impl Change {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Where: `exec.rules`, `connect.rules`, `exec`, …
    pub section: &'static str,
    /// The rule's id, or the setting.
    pub id: String,
    /// How.
    pub change: Change,
    /// What of a changed rule, or from what to what.
    pub what: Vec<String>,
}

/// The differences, settings first, then rules in the order of the second policy, removed ones last.
pub fn changes(a: &Policy, b: &Policy) -> Vec<Changed> {
    let mut changes = settings(a, b);
    changes.extend(rules(
        "exec.rules",
        a.exec.rules.iter().map(|rule| (rule.id.as_str(), rule)),
        b.exec.rules.iter().map(|rule| (rule.id.as_str(), rule)),
        exec_rule,
    ));
    changes.extend(rules(
        "connect.rules",
        a.connect.rules.iter().map(|rule| (rule.id.as_str(), rule)),
        b.connect.rules.iter().map(|rule| (rule.id.as_str(), rule)),
        connect_rule,
    ));
    changes
}

fn settings(a: &Policy, b: &Policy) -> Vec<Changed> {
    let mut changes = Vec::new();
    let mut setting = |section, id: &str, before: String, after: String| {
        if before != after {
            changes.push(Changed {
                section,
                id: id.to_owned(),
                change: Change::Changed,
                what: vec![format!("{before} -> {after}")],
            });
        }
    };
    let (from, to) = (&a.exec, &b.exec);
    setting(
        "exec",
        "default",
        from.default.to_string(),
        to.default.to_string(),
    );
    setting(
        "exec",
        "fileless",
        from.fileless.to_string(),
        to.fileless.to_string(),
    );
    setting(
        "exec",
        "descriptor",
        from.descriptor.to_string(),
        to.descriptor.to_string(),
    );
    setting(
        "exec",
        "loader",
        from.loader.to_string(),
        to.loader.to_string(),
    );
    setting(
        "exec",
        "trusted_dirs",
        from.trusted_dirs.join(" "),
        to.trusted_dirs.join(" "),
    );
    setting(
        "exec",
        "transparent",
        from.transparent.join(" "),
        to.transparent.join(" "),
    );
    let (from, to) = (&a.connect, &b.connect);
    setting(
        "connect",
        "default",
        from.default.to_string(),
        to.default.to_string(),
    );
    setting(
        "connect",
        "unix_default",
        from.unix_default.to_string(),
        to.unix_default.to_string(),
    );
    for (key, of) in [
        ("outside_listeners.unix", |outside: &OutsideListeners| {
            outside.unix
        }),
        ("outside_listeners.tcp", |outside: &OutsideListeners| {
            outside.tcp
        }),
    ] as [(_, fn(&OutsideListeners) -> Decision); 2]
    {
        let (from, to) = (of(&from.outside), of(&to.outside));
        setting("connect", key, from.to_string(), to.to_string());
    }
    let mut other = |section, same: bool| {
        if !same {
            changes.push(Changed {
                section,
                id: "settings".to_owned(),
                change: Change::Changed,
                what: Vec::new(),
            });
        }
    };
    other("agents", same(&a.agents, &b.agents));
    other("capabilities", a.capabilities == b.capabilities);
    other("tenants", a.tenants == b.tenants);
    other("limits", a.limits == b.limits);
    other("breaker", a.breaker == b.breaker);
    other(
        "audit",
        (a.masking, a.event_buffer) == (b.masking, b.event_buffer),
    );
    other("approvals", a.approvals == b.approvals);
    other("syscalls", a.syscalls == b.syscalls);
    other("file_paths", a.file_paths == b.file_paths);
    other("web_tools", a.web_tools == b.web_tools);
    other("tools", a.tools == b.tools);
    changes
}

/// Equality of what only says how it looks.
fn same<T: Debug>(a: &T, b: &T) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

fn rules<'a, R: 'a>(
    section: &'static str,
    a: impl Iterator<Item = (&'a str, &'a R)>,
    b: impl Iterator<Item = (&'a str, &'a R)>,
    differ: impl Fn(&R, &R) -> Vec<String>,
) -> Vec<Changed> {
    let a: Vec<(&str, &R)> = a.collect();
    let before: BTreeMap<&str, &R> = a.iter().copied().collect();
    let note = |id: &str, change, what| Changed {
        section,
        id: id.to_owned(),
        change,
        what,
    };
    let mut changes = Vec::new();
    let mut after = BTreeSet::new();
    for (id, rule) in b {
        after.insert(id);
        match before.get(id) {
            None => changes.push(note(id, Change::Added, Vec::new())),
            Some(old) => {
                let what = differ(old, rule);
                if !what.is_empty() {
                    changes.push(note(id, Change::Changed, what));
                }
            }
        }
    }
    for (id, _) in a {
        if !after.contains(id) {
            changes.push(note(id, Change::Removed, Vec::new()));
        }
    }
    changes
}

fn exec_rule(a: &Rule, b: &Rule) -> Vec<String> {
    let mut what = Vec::new();
    if a.decision != b.decision {
        what.push(format!("decision {} -> {}", a.decision, b.decision));
    }
    if a.risk != b.risk {
        what.push(format!("risk {} -> {}", a.risk, b.risk));
    }
    for (name, same) in [
        ("pattern", a.matcher == b.matcher && a.unless == b.unless),
        ("requires", a.requires == b.requires),
        ("justification", a.justification == b.justification),
        ("suggestion", a.suggestion == b.suggestion),
        (
            "examples",
            a.examples == b.examples && a.counter_examples == b.counter_examples,
        ),
    ] {
        if !same {
            what.push(name.to_owned());
        }
    }
    what
}

fn connect_rule(a: &ConnectRule, b: &ConnectRule) -> Vec<String> {
    let mut what = Vec::new();
    if a.decision != b.decision {
        what.push(format!("decision {} -> {}", a.decision, b.decision));
    }
    if a.risk != b.risk {
        what.push(format!("risk {} -> {}", a.risk, b.risk));
    }
    for (name, same) in [
        ("hosts", a.hosts == b.hosts),
        ("ports", a.ports == b.ports),
        ("protocols", a.protocols == b.protocols),
        ("unix", a.unix == b.unix),
        ("requires", a.requires == b.requires),
        ("justification", a.justification == b.justification),
        ("suggestion", a.suggestion == b.suggestion),
    ] {
        if !same {
            what.push(name.to_owned());
        }
    }
    // A field that this list does not know yet.
    if what.is_empty() && a != b {
        what.push("other".to_owned());
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn settings_and_rules_are_compared_by_id() {
        let policy = |text: &str| parse(text).unwrap().policy;
        let a = policy(
            r#"{"version": "2", "exec": {"rules": [
            {"id": "gone", "decision": "deny", "glob": ["x"]},
            {"id": "kept", "decision": "deny", "glob": ["y"]},
            {"id": "other", "decision": "deny", "glob": ["z"]}]},
            "connect": {"rules": [{"id": "db", "decision": "allow", "hosts": ["10.0.0.1"]}]}}"#,
        );
        let b = policy(
            r#"{"version": "2", "limits": {"exec": "1/1s"}, "exec": {"default": "ask", "rules": [
            {"id": "other", "decision": "ask", "glob": ["z*"]},
            {"id": "kept", "decision": "deny", "glob": ["y"]},
            {"id": "new", "decision": "deny", "glob": ["w"]}]},
            "connect": {"rules": [{"id": "db", "decision": "allow", "hosts": ["10.0.0.1"], "ports": [5432]}]}}"#,
        );
        let said: Vec<String> = changes(&a, &b)
            .iter()
            .map(|of| {
                format!(
                    "{} {} {} {}",
                    of.section,
                    of.id,
                    of.change.as_str(),
                    of.what.join(", ")
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                "exec default changed deny -> ask",
                "limits settings changed ",
                "exec.rules other changed decision deny -> ask, risk HIGH -> MEDIUM, pattern",
                "exec.rules new added ",
                "exec.rules gone removed ",
                "connect.rules db changed ports",
            ]
        );
        assert_eq!(changes(&a, &a), []);
    }
}

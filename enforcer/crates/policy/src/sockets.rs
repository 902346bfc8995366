//! The rules about unix sockets that every policy has: `policies/built-in/sockets.json`.

use std::sync::LazyLock;

use serde::Deserialize;

use super::unix_name;
use crate::Decision;

/// The data, as it is kept in the repository.
const TEXT: &str = include_str!("../../../../policies/built-in/sockets.json");

/// A built-in rule about unix sockets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketRule {
    /// Its name; with [`super::validate::SOCKET_ID`] before it, its id.
    #[serde(rename = "name")]
    pub id: String,
    /// Patterns over names, as connect rules have them.
    pub unix: Vec<String>,
    /// What it says.
    pub decision: Decision,
    /// What is wrong with a connect.
    pub why: String,
    /// What to do instead.
    pub suggestion: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "comment")]
    _comment: String,
    sockets: Vec<SocketRule>,
}

static RULES: LazyLock<Result<Vec<SocketRule>, String>> = LazyLock::new(|| read(TEXT));

/// The built-in rules, in the order of the file.
///
/// # Errors
///
/// Why the embedded data cannot be used. No policy has tables then: what is missing must not pass for allowed.
pub fn built_in() -> Result<&'static [SocketRule], &'static str> {
    match &*RULES {
        Ok(rules) => Ok(rules),
        Err(why) => Err(why),
    }
}

fn read(text: &str) -> Result<Vec<SocketRule>, String> {
    let data: Data = serde_json::from_str(text).map_err(|error| error.to_string())?;
    data.sockets
        .into_iter()
        .map(|mut rule| {
            for pattern in &mut rule.unix {
                *pattern = unix_name::parse_pattern(pattern)
                    .map_err(|fault| format!("{}: {}", rule.id, fault.what))?;
            }
            rule.id = format!("{}{}", super::validate::SOCKET_ID, rule.id);
            Ok(rule)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_data_can_be_read_and_each_rule_is_whole() {
        let rules = built_in().unwrap();
        let mut ids = HashSet::new();
        for rule in rules {
            let id = &rule.id;
            assert!(ids.insert(id), "{id} stands twice");
            assert!(!rule.unix.is_empty(), "{id}");
            // Only what is ours is allowed under every policy.
            assert_eq!(
                rule.decision == Decision::Allow,
                id == "socket:enforcer",
                "{id}"
            );
            assert!(
                !rule.why.ends_with('.') && rule.why.starts_with(char::is_alphabetic),
                "{id}"
            );
            assert!(
                !rule.suggestion.is_empty() && !rule.suggestion.ends_with('.'),
                "{id}"
            );
        }
        for wanted in [
            "docker",
            "containerd",
            "dbus-system",
            "dbus-session",
            "systemd",
            "tmux",
            "ssh-agent",
        ] {
            assert!(ids.contains(&format!("socket:{wanted}")), "{wanted}");
        }
    }

    /// `docs/policy.md` lists every rule as it is.
    #[test]
    fn the_reference_has_every_rule() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/policy.md");
        let document = std::fs::read_to_string(path).unwrap();
        let rows: Vec<&str> = document
            .lines()
            .filter(|line| line.starts_with("| `socket:") && !line.starts_with("| `socket:…"))
            .collect();
        let wanted: Vec<String> = built_in()
            .unwrap()
            .iter()
            .map(|rule| {
                let patterns: Vec<String> =
                    rule.unix.iter().map(|text| format!("`{text}`")).collect();
                let (id, decision) = (&rule.id, rule.decision);
                format!(
                    "| `{id}` | {decision} | {} | {} |",
                    rule.why,
                    patterns.join(", ")
                )
            })
            .collect();
        assert_eq!(rows, wanted);
    }

    #[test]
    fn data_that_says_less_than_it_should_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"comment": "", "sockets": [{"name": "a", "unix": ["/a"], "decision": "deny", "why": ""}]}"#,
            r#"{"comment": "", "sockets": [{"name": "a", "unix": ["a"], "decision": "deny", "why": "", "suggestion": ""}]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

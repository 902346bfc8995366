//! The names of capabilities, in a policy and where they are given.

use std::{fmt, str::FromStr};

use super::{error::Problems, place::JsonPath, place::quoted};

/// Longest name, in bytes.
const MAX: usize = 128;
/// What may stand in a name besides letters and digits.
const MARKS: &str = "._-:/@+";

/// The name of a capability: 1 to 128 ASCII letters, digits, `.`, `_`, `-`, `:`, `/`, `@` and `+`, a letter or digit first. So
/// several can stand in a line, and no two look alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(String);

impl Capability {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that names no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is no name of a capability: {why}", quoted(.text))]
pub struct BadCapability {
    text: String,
    why: &'static str,
}

impl FromStr for Capability {
    type Err = BadCapability;

    fn from_str(text: &str) -> Result<Self, BadCapability> {
        match wrong(text) {
            None => Ok(Self(text.to_owned())),
            Some(why) => Err(BadCapability {
                text: text.to_owned(),
                why,
            }),
        }
    }
}

/// What is wrong with a name.
fn wrong(text: &str) -> Option<&'static str> {
    let known = |c: char| c.is_ascii_alphanumeric() || MARKS.contains(c);
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > MAX {
        Some("it is longer than 128 bytes")
    } else if text.contains(char::is_whitespace) {
        Some("it has a blank; give each capability by itself")
    } else if text.contains(',') {
        Some("it has a comma; give each capability by itself")
    } else if !text.chars().all(known) {
        Some("it may have letters (A to Z), digits and `. _ - : / @ +`")
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("it begins with neither a letter nor a digit")
    } else {
        None
    }
}

/// Checks the names in a list of a policy's.
pub(super) fn check(names: &[String], at: &JsonPath, problems: &mut Problems<'_>) {
    for (index, name) in names.iter().enumerate() {
        if let Some(why) = wrong(name) {
            problems.error(
                &at.index(index),
                format!("{} is no name of a capability: {why}", quoted(name)),
                "write a name such as \"deploy\" or \"net:read\"",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word() {
        for name in ["deploy", "net:read", "a.b-c_d", "7up", "team/x@prod+1"] {
            assert_eq!(name.parse::<Capability>().unwrap().as_str(), name);
        }
        let long = "x".repeat(129);
        for (name, says) in [
            ("a b", "`a b` is no name of a capability: it has a blank"),
            (" a", "blank"),
            ("a\n", "blank"),
            ("a,b", "comma"),
            ("", "empty"),
            ("-x", "begins with"),
            ("déploy", "letters (A to Z)"),
            ("a\u{1}", "letters (A to Z)"),
            (&long, "128"),
        ] {
            let why = name.parse::<Capability>().unwrap_err().to_string();
            assert!(why.replace('"', "`").contains(says), "{name:?}: {why}");
        }
    }

    #[test]
    fn a_policy_has_the_same_names() {
        let rule =
            r#"{"id": "a", "decision": "allow", "WHAT": ["192.0.2.1"], "requires": ["ok", "a,b"]}"#;
        let exec = rule.replace("WHAT", "glob");
        let connect = rule.replace("WHAT", "hosts");
        for (section, at) in [
            (
                r#""capabilities": {"coder": ["deploy", "ship it"]}"#.to_owned(),
                "capabilities.coder[1]",
            ),
            (
                format!(r#""exec": {{"rules": [{exec}]}}"#),
                "exec.rules[0].requires[1]",
            ),
            (
                format!(r#""connect": {{"rules": [{connect}]}}"#),
                "connect.rules[0].requires[1]",
            ),
        ] {
            let policy = format!(r#"{{"version": "2", {section}}}"#);
            let said = crate::parse(&policy).unwrap_err().to_string();
            assert!(
                said.contains(at) && said.contains("no name of a capability"),
                "{at}: {said}"
            );
        }
    }
}

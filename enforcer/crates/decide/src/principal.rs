//! Who acts: an agent's name, its labels and capabilities, and where actions are approved at all. Fixed when the
//! agent starts, for its whole tree of processes.

use std::{collections::BTreeSet, str::FromStr};

use thiserror::Error;

use enforcer_policy::Policy;

/// The user of an action that nobody is named for.
pub const DEFAULT_USER: &str = "default_user";

/// Longest label or capability, in bytes.
const NAME_MAX: usize = 128;

/// Where actions are approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// For every agent.
    #[default]
    Everywhere,
    /// For agents that have a name and that the policy trusts.
    SubagentOnly,
    /// Nowhere.
    Disabled,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everywhere => "everywhere",
            Self::SubagentOnly => "subagent_only",
            Self::Disabled => "disabled",
        }
    }
}

/// A word that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no mode; write everywhere, subagent_only or disabled")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    /// Reads the words that hooks know from `MCP_AUTO_APPROVE`, in upper or lower case.
    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        match word.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "enable" | "everywhere" => Ok(Self::Everywhere),
            "subagent_only" => Ok(Self::SubagentOnly),
            "false" | "0" | "no" | "off" | "disable" | "disabled" => Ok(Self::Disabled),
            _ => Err(UnknownMode(word.trim().to_owned())),
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a user, a tenant or a capability: trimmed, 1 to 128 bytes, without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// The name of a tenant: a [`Name`] of ASCII letters, digits, `.`, `_` and `-` that begins with a letter or a digit, so
/// that it can name a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantName(Name);

impl TenantName {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0.into_string()
    }
}

impl FromStr for TenantName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let name: Name = text.parse()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !name.0.chars().all(plain) || !name.0.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(BadName::Tenant);
        }
        Ok(Self(name))
    }
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadName {
    /// Nothing, or only space.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than 128 bytes.
    #[error("a name has at most {NAME_MAX} bytes")]
    Long,
    /// Something that does not print, or that ends a line.
    #[error("a name has no control characters")]
    Control,
    /// A tenant's trail has a directory of its name.
    #[error("a tenant's name has letters, digits, `.`, `_` and `-`, a letter or digit first")]
    Tenant,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.trim();
        if text.is_empty() {
            Err(BadName::Empty)
        } else if text.len() > NAME_MAX {
            Err(BadName::Long)
        } else if text.chars().any(unprintable) {
            Err(BadName::Control)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The agent's name, cleaned by [`Principal::agent_name`]. An agent with a name is a subagent.
    pub agent: Option<String>,
    /// For whom it works.
    pub user: String,
    /// Whose agent it is.
    pub tenant: Option<String>,
    /// What it was given at its start; what the policy adds by its name is in [`Principal::capabilities_under`].
    pub capabilities: BTreeSet<String>,
    /// Where actions are approved.
    pub mode: Mode,
}

impl Default for Principal {
    fn default() -> Self {
        Self {
            agent: None,
            user: DEFAULT_USER.to_owned(),
            tenant: None,
            capabilities: BTreeSet::new(),
            mode: Mode::default(),
        }
    }
}

impl Principal {
    /// An agent's name as it is kept: trimmed, without control characters, at most 128 bytes; nothing if nothing is
    /// left.
    pub fn agent_name(raw: &str) -> Option<String> {
        let clean: String = raw.chars().filter(|c| !unprintable(*c)).collect();
        let clean = clean.trim();
        let end = (0..=clean.len().min(NAME_MAX))
            .rev()
            .find(|end| clean.is_char_boundary(*end));
        let name = clean[..end.unwrap_or(0)].trim_end();
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The capabilities that it has under a policy: its own, and those that the policy gives its name in upper or
    /// lower case.
    pub fn capabilities_under(&self, policy: &Policy) -> BTreeSet<String> {
        let named = self
            .agent
            .as_deref()
            .and_then(|agent| policy.capabilities.get(&agent.to_lowercase()));
        self.capabilities
            .iter()
            .chain(named.into_iter().flatten())
            .cloned()
            .collect()
    }
}

/// Control characters, and those that end a line or turn its direction.
fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_hooks_are_modes() {
        for (mode, words) in [
            (
                Mode::Everywhere,
                &["true", "1", "YES", "on", "enable", "everywhere"][..],
            ),
            (Mode::SubagentOnly, &["subagent_only", " Subagent_Only\n"]),
            (
                Mode::Disabled,
                &["false", "0", "no", "OFF", "disable", "disabled"],
            ),
        ] {
            for word in words {
                assert_eq!(word.parse(), Ok(mode), "{word}");
            }
        }
        for word in ["", "2", "subagent-only", "y"] {
            let error = word.parse::<Mode>().unwrap_err().to_string();
            assert!(error.contains("everywhere, subagent_only or disabled"));
        }
    }

    #[test]
    fn agents_names_are_cleaned() {
        for (raw, name) in [
            ("a\nb", Some("ab")),
            ("  coder \t", Some("coder")),
            ("\x1b[31mred\u{7f}", Some("[31mred")),
            ("\u{202e}evil", Some("evil")),
            ("\u{1} x", Some("x")),
            ("", None),
            (" \n\t", None),
        ] {
            assert_eq!(Principal::agent_name(raw).as_deref(), name, "{raw:?}");
        }
        let long = Principal::agent_name(&"é".repeat(200)).unwrap();
        assert_eq!(long.len(), NAME_MAX);
    }

    #[test]
    fn labels_are_refused_rather_than_cleaned() {
        assert_eq!(" acme ".parse::<Name>().unwrap().as_str(), "acme");
        assert_eq!("a\nb".parse::<Name>(), Err(BadName::Control));
        assert_eq!(" ".parse::<Name>(), Err(BadName::Empty));
        assert_eq!("x".repeat(129).parse::<Name>(), Err(BadName::Long));
        for name in ["acme", "a.b-c_d", "7up"] {
            assert_eq!(name.parse::<TenantName>().unwrap().into_string(), name);
        }
        for name in ["..", "../x", "a/b", ".hidden", "-x", "a b", "é"] {
            assert_eq!(name.parse::<TenantName>(), Err(BadName::Tenant), "{name}");
        }
    }

    #[test]
    fn the_policy_adds_capabilities_by_name() {
        let text = r#"{"version":"2","exec":{"default":"deny"},"connect":{"default":"deny"},
            "capabilities":{"Coder":["push"],"other":["root"]}}"#;
        let policy = enforcer_policy::parse(text).unwrap().policy;
        let principal = Principal {
            agent: Some("CODER".to_owned()),
            capabilities: BTreeSet::from(["deploy".to_owned()]),
            ..Principal::default()
        };
        let has = principal.capabilities_under(&policy);
        assert_eq!(has.into_iter().collect::<Vec<_>>(), ["deploy", "push"]);
        assert!(Principal::default().capabilities_under(&policy).is_empty());
    }
}

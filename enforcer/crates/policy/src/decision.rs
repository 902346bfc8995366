//! What a policy can say, ordered by strictness.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the policy says of an action. The strictest of all matching rules wins, so the order is the meaning.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The action may go on.
    Allow,
    /// A person decides. Where nobody can be asked, it is a denial.
    Ask,
    /// The action must not happen.
    Deny,
}

impl Decision {
    /// The number that the kernel tables use.
    pub fn number(self) -> u32 {
        match self {
            Self::Allow => enforcer_common::rule::ALLOW,
            Self::Ask => enforcer_common::rule::ASK,
            Self::Deny => enforcer_common::rule::DENY,
        }
    }

    /// Reads the number that the kernel tables use; anything unknown is a denial.
    pub fn from_number(number: u32) -> Self {
        match number {
            enforcer_common::rule::ALLOW => Self::Allow,
            enforcer_common::rule::ASK => Self::Ask,
            _ => Self::Deny,
        }
    }

    /// The word that policies and the trail use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much damage an action can do.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Risk {
    /// Reading, building, testing.
    #[default]
    Low,
    /// Changes that are easily undone.
    Medium,
    /// Changes that are hard to undo, or reach outside the project.
    High,
    /// Loss of data or of control of the machine.
    Critical,
}

impl Risk {
    /// The word that policies and the trail use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

impl std::str::FromStr for Risk {
    type Err = String;

    /// Reads the word.
    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|risk| risk.as_str() == word)
            .ok_or_else(|| format!("`{word}` is no risk; write LOW, MEDIUM, HIGH or CRITICAL"))
    }
}

impl std::fmt::Display for Risk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

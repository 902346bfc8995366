//! What root may change of an agent that runs, and who carries it out.

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::RateStatus;

/// A change. What it does not name stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentChange {
    /// Read the policy's file anew.
    #[serde(default)]
    pub reload: bool,
    /// Take this policy instead; an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// Only observe, or block again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observe: Option<bool>,
    /// The word of another mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Capabilities that it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grant: Vec<String>,
    /// Capabilities that it loses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoke: Vec<String>,
    /// Rates, written as in a policy's `limits` (`100/1h`), by their names there (`exec`, `per_user.exec`); nothing for that of
    /// the policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, Option<String>>,
}

/// How an agent is governed from a change on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentChanged {
    /// Whether anything is another than before; else nothing was done, and the trail says nothing.
    pub changed: bool,
    /// The agent's name.
    pub agent: String,
    /// The run's id.
    pub id: String,
    /// The file of its policy.
    pub policy: PathBuf,
    /// SHA-256 of the policy's text, hexadecimal.
    pub policy_sha256: String,
    /// The generation of its tables.
    pub generation: u32,
    /// `enforce`, or `observe`.
    pub governed: String,
    /// Where its actions are approved: `everywhere`, `subagent_only` or `disabled`.
    pub mode: String,
    /// Its capabilities.
    pub capabilities: Vec<String>,
    /// Its rates, and how far they are used.
    pub rates: Vec<RateStatus>,
    /// What whoever changed it should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Numbers of one kind of action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Allowed.
    pub allowed: u64,
    /// Denied.
    pub denied: u64,
}

/// What a launcher has recorded of its agent: what the kernel told, and what the supervisor refused before it came there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// Execs.
    pub execs: Counted,
    /// Connects and sockets.
    pub connects: Counted,
    /// What went on though the policy does not allow it: it was only observed.
    pub observed: u64,
}

/// Carries changes out, and knows what came of what the agent did.
pub trait AgentControl: Debug + Send + Sync {
    /// What is recorded by now; nothing while the run is only starting.
    fn counts(&self) -> Option<AgentCounts>;

    /// Makes a change on behalf of `by`, whole or not at all. It may take a while.
    ///
    /// # Errors
    ///
    /// In words: what is wrong with it. Nothing was changed then.
    fn change(&self, change: &AgentChange, by: &str) -> Result<AgentChanged, String>;
}

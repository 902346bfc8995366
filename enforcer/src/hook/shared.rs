//! What a launcher leaves for the hooks inside its agent, readable by the agent's user.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::decide::{Mode, Subject};

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Its name.
    pub agent: Option<String>,
    /// For whom it works.
    pub user: String,
    /// Whose agent it is.
    pub tenant: Option<String>,
    /// What it was given at its start.
    pub capabilities: BTreeSet<String>,
    /// The word of its mode.
    pub mode: String,
}

impl Facts {
    /// The file with these facts, in the launcher's directory.
    pub const FILE: &str = "hook.json";
    /// The file with the policy's text.
    pub const POLICY: &str = "policy.json";

    /// The facts about a subject.
    pub fn of(subject: &Subject) -> Self {
        Self {
            agent: subject.agent.clone(),
            user: subject.user.clone(),
            tenant: subject.tenant.clone(),
            capabilities: subject.capabilities.clone(),
            mode: subject.mode.as_str().to_owned(),
        }
    }

    /// The subject. A mode that this version does not know lets nothing in.
    pub fn subject(&self) -> Subject {
        Subject {
            agent: self.agent.clone(),
            user: self.user.clone(),
            tenant: self.tenant.clone(),
            capabilities: self.capabilities.clone(),
            mode: self.mode.parse().unwrap_or(Mode::Disabled),
        }
    }
}

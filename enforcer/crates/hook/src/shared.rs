//! What a launcher leaves for the hooks inside its agent, readable by the agent's user.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use enforcer_decide::{Mode, Principal};

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
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

impl Handover {
    /// The file with these facts, in the launcher's directory.
    pub const FILE: &str = "hook.json";
    /// The file with the policy's text.
    pub const POLICY: &str = "policy.json";

    /// The facts about a principal.
    pub fn of(principal: &Principal) -> Self {
        Self {
            agent: principal.agent.clone(),
            user: principal.user.clone(),
            tenant: principal.tenant.clone(),
            capabilities: principal.capabilities.clone(),
            mode: principal.mode.as_str().to_owned(),
        }
    }

    /// The principal. A mode that this version does not know lets nothing in.
    pub fn principal(&self) -> Principal {
        Principal {
            agent: self.agent.clone(),
            user: self.user.clone(),
            tenant: self.tenant.clone(),
            capabilities: self.capabilities.clone(),
            mode: self.mode.parse().unwrap_or(Mode::Disabled),
        }
    }
}

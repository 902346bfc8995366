//! The breaker as the control socket shows it. What it is made of is the run's.

use std::fmt::Debug;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use enforcer_decide::breaker::BreakerState;

/// What the desk can do with the breaker of its run.
pub trait BreakerControl: Debug + Send + Sync {
    /// How it stands.
    fn status(&self) -> BreakerStatus;

    /// Closes it on behalf of `approver` and writes that down. Gives how it stood.
    ///
    /// # Errors
    ///
    /// It cannot be written down; nothing was changed then.
    fn reset(&self, approver: &str) -> Result<BreakerStatus, String>;
}

/// How a breaker stands, and the rates beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// The agent's name.
    pub agent: String,
    /// The run's id.
    pub id: String,
    /// Where it stands.
    pub state: BreakerState,
    /// Denials in a row; if it is not closed, those that opened it.
    pub denials: u64,
    /// Denials in a row that open it; 0: it never opens.
    pub limit: u32,
    /// Since when it is open, or half open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Seconds after which it lets one process try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_after_s: Option<u64>,
    /// The process that is let try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<u32>,
    /// Whether the agent is only observed: then an open breaker, too, blocks nothing.
    #[serde(default)]
    pub observed: bool,
    /// The rates of the policy.
    pub rates: Vec<RateStatus>,
}

/// How a rate stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateStatus {
    /// `exec` or `connect`.
    pub of: String,
    /// Whether it is that of all agents of the user.
    pub per_user: bool,
    /// Allowances in the window that ends now.
    pub used: u32,
    /// As many as may be.
    pub count: u32,
    /// The window, seconds.
    pub window_s: u64,
}

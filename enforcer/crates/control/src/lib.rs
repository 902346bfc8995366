//! The control socket of a run: what goes over it, who is at its other end and what they may do.
//!
//! [`protocol`] is what both ends speak, one JSON line each way. [`server`] takes connections for whoever implements
//! [`Service`]; [`peer`] says what a peer may do, [`approvers`] who may answer requests. [`client`] is the other end.

#![forbid(unsafe_code)]

pub mod approvers;
mod breaker;
mod change;
pub mod client;
mod error;
pub mod peer;
pub mod protocol;
pub mod record;
pub mod server;
mod tools;
pub mod words;

pub use approvers::Approvers;
pub use breaker::{BreakerControl, BreakerStatus, RateStatus};
pub use change::{AgentChange, AgentChanged, AgentControl, AgentCounts, Counted};
pub use error::ControlError;
pub use peer::{PeerGuard, Role};
pub use record::{RequestRecord, RequestState};
pub use server::{Server, Service};
pub use tools::{Reporter, ToolDesk};

/// The name of the control socket in an agent's directory under `/run/enforcer`.
pub const SOCKET_NAME: &str = "approvals.sock";

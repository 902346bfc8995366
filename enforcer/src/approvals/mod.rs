//! The approvals desk: where an action that a rule asks about waits for a person.
//!
//! [`desk`] is the state machine (the clock is passed in), [`store`] its memory in SQLite, [`serve`] the thread that
//! runs it with its control socket ([`protocol`]) and, if wanted, a directory of files ([`files`]). [`approvers`] says
//! who may answer; [`client`] is the other end of the socket. Whatever fails denies.

pub mod approvers;
mod breaker;
pub mod client;
pub mod desk;
mod error;
mod files;
mod flood;
mod grants;
mod notify;
mod peer;
pub mod protocol;
mod ready;
pub mod record;
mod row;
pub mod serve;
mod socket;
pub mod store;
mod tools;
#[cfg(test)]
pub(crate) mod trial;
mod waiter;

pub use approvers::Approvers;
pub use breaker::{BreakerControl, BreakerState, BreakerStatus, RateStatus};
pub use desk::{Asking, Desk};
pub use error::ApprovalsError;
pub use flood::{Limits, Rate};
pub use record::{Record, State};
pub use serve::{Asker, DeskHandle, Settings};
pub use store::Store;
pub use tools::{Reporter, ToolDesk};
pub use waiter::{Waiter, WaiterId};

/// Where requests and their answers are kept unless another place is named.
pub const DEFAULT_DB: &str = "/var/lib/enforcer/approvals.db";
/// The name of the control socket in an agent's directory under `/run/enforcer`.
pub const SOCKET_NAME: &str = "approvals.sock";

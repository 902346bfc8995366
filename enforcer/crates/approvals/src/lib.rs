//! The approvals desk: where an action that a rule asks about waits for a person.
//!
//! [`desk`] is the state machine (the clock is passed in), [`store`] its memory in SQLite, [`serve`] the thread that
//! answers at the control socket (`enforcer-control`) and, if wanted, in a directory of files ([`files`]). Whatever fails
//! denies.

pub mod desk;
mod error;
mod files;
mod flood;
mod grants;
mod notify;
mod ready;
mod row;
pub mod serve;
mod socket;
pub mod store;
#[cfg(any(test, feature = "trial"))]
pub mod trial;
mod waiter;

pub use desk::{Asking, Desk};
pub use error::ApprovalsError;
pub use flood::{RequestLimits, RequestRate};
pub use serve::{Asker, DeskHandle, DeskSettings, Rules};
pub use store::Store;
pub use waiter::{Waiter, WaiterId};

/// Where requests and their answers are kept unless another place is named.
pub const DEFAULT_DB: &str = "/var/lib/enforcer/approvals.db";

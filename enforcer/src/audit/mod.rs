//! The audit trail: one JSON object a line, for every exec and connect of an agent, the allowed ones too.
//!
//! [`Record`] is one line, redacted when it is made; [`Writer`] puts its [`Stamp`] on lines and appends them to the
//! rotated file; [`Reader`]
//! and [`Entry`] read them back, also those that a pre-tool hook wrote.

mod error;
mod file;
mod reader;
mod record;
mod stamp;
mod writer;

pub use error::AuditError;
pub use reader::{Entry, Follower, Malformed, Reader};
pub use record::{Action, Approval, Connect, Event, Exec, Record, Stage, Syscall, Verdict};
pub use stamp::Stamp;
pub use writer::{BACKUPS, MAX_BYTES, Options, Writer};

/// Where the trail is kept unless another place is named.
pub const DEFAULT_PATH: &str = "/var/log/enforcer/audit.jsonl";

//! The audit trail: one JSON object a line, for every exec and connect of an agent, the allowed ones too.
//!
//! [`Record`] is one line, redacted when it is made; [`Writer`] puts its [`Stamp`] on lines and appends them to the
//! rotated file; [`Reader`]
//! and [`Entry`] read them back, also those that a pre-tool hook wrote.

#![forbid(unsafe_code)]

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

mod action;
mod error;
mod file;
mod reader;
mod record;
mod stamp;
mod writer;

pub use action::{Action, Approval, Connect, Event, Exec, Stage, Syscall, Verdict};
pub use error::AuditError;
pub use reader::{Entry, Follower, Malformed, Reader};
pub use record::Record;
pub use stamp::Stamp;
pub use writer::{BACKUPS, MAX_BYTES, Writer, WriterOptions};

/// Where the trail is kept unless another place is named.
pub const DEFAULT_PATH: &str = "/var/log/enforcer/audit.jsonl";

/// Where a tenant's trail is kept, beside the usual one: in a directory of its own, which its readers' group can be
/// let into.
pub fn tenant_trail(usual: &Path, tenant: &str) -> PathBuf {
    let directory = usual.parent().unwrap_or(Path::new("/"));
    let name = usual.file_name().unwrap_or(OsStr::new("audit.jsonl"));
    directory.join("tenants").join(tenant).join(name)
}

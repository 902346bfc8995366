//! What can go wrong with the trail.

use std::io;
use std::path::PathBuf;

/// Why the trail cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The path ends in no file name.
    #[error(
        "audit file {path}: the path names no file; give a path such as /var/log/enforcer/audit.jsonl"
    )]
    NoFileName {
        /// The path as given.
        path: PathBuf,
    },
    /// The directory does not exist.
    #[error("audit directory {path} does not exist; create it: install -d -m 0750 {path}")]
    DirectoryMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory's path leads to something else.
    #[error("audit directory {path} is not a directory; name a file in a directory with --audit")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error(
        "audit directory {path} belongs to uid {owner}, not to uid {us}; the trail must lie where only its \
         writer can change it: chown {us} {path}, or name another place with --audit"
    )]
    DirectoryOwner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Others can write the directory.
    #[error(
        "audit directory {path} can be written by others (mode {mode:04o}): chmod go-w {path}, or name another place with --audit"
    )]
    DirectoryWritable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is a symbolic link.
    #[error("audit file {path} is a symbolic link; remove it, or name the file that it points to")]
    Symlink {
        /// The file.
        path: PathBuf,
    },
    /// The file is a device, a pipe or a directory.
    #[error("audit file {path} is not a regular file; name a regular file with --audit")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is somebody else's or others can write it.
    #[error(
        "audit file {path} is not ours alone (owner uid {owner}, mode {mode:04o}): move it away, or \
         chown {us} {path} && chmod go-w {path}"
    )]
    FileOwner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Who we are.
        us: u32,
    },
    /// One record is longer than a whole file may be.
    #[error("audit record of {bytes} bytes is longer than an audit file may be ({max} bytes)")]
    LineTooLong {
        /// Bytes of the line.
        bytes: usize,
        /// Bytes of a file.
        max: u64,
    },
    /// A record cannot be written as JSON.
    #[error("audit record cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// No room is left; whole lines were kept, the rest is still held.
    #[error(
        "audit file {path}: no space left ({pending} records not written); make room on its file system"
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Records that are held and not yet written.
        pending: usize,
    },
    /// A system call failed.
    #[error("audit file {path}: {call} failed: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The file to read does not exist.
    #[error(
        "no audit trail at {path}; nothing is recorded there yet (`enforcer run` makes it), or name its file: enforcer audit tail FILE, enforcer audit query FILE"
    )]
    NoTrail {
        /// The file.
        path: PathBuf,
    },
}

impl AuditError {
    /// An error of a system call on the trail's file.
    pub(super) fn io(
        path: &std::path::Path,
        call: &'static str,
        source: impl Into<io::Error>,
    ) -> Self {
        let source = source.into();
        Self::Io {
            path: path.to_owned(),
            call,
            source,
        }
    }
}

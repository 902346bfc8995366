//! What can go wrong with approvals.

use std::{io, path::PathBuf};

use enforcer_control::{
    ControlError,
    protocol::{Reply, ReplyFault},
};

/// Why requests cannot be kept, served or answered.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalsError {
    /// The database's directory or file is not ours alone.
    #[error(
        "{path} is not safe to keep approvals in ({why}); as root: chown root {path} && chmod {mode} {path}, or move it away"
    )]
    NotOurs {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The mode that it must have.
        mode: &'static str,
    },
    /// The database was written by a newer version.
    #[error(
        "{path} has schema version {found}, this enforcer knows up to {known}; use the enforcer that wrote it, or move the file away"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite refused.
    #[error("approvals database: {doing} failed: {source}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A row does not hold what was written.
    #[error("approvals database: request {id} cannot be read: {why}; move the file away")]
    Row {
        /// The request.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// The approvals directory is not safe.
    #[error("approvals directory {path}: {why}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// No such request.
    #[error("no request {0}; see: enforcer approvals list --all")]
    NotFound(String),
    /// More than one request has this prefix.
    #[error("{prefix} is the start of {count} requests; give more of the id")]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// How many requests it starts.
        count: usize,
    },
    /// The prefix is too short to be meant.
    #[error("`{0}` is too short for an id; give at least 4 characters of it")]
    ShortId(String),
    /// The request was answered or ended before.
    #[error("request {id} has ended already: {how}")]
    Ended {
        /// The request.
        id: String,
        /// How it ended.
        how: String,
    },
    /// The answer does not fit the request.
    #[error("{0}")]
    BadAnswer(String),
    /// The peer may not do this, or what it sent is not of the protocol.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A system call failed.
    #[error("{path}: {call} failed: {source}")]
    Io {
        /// What it was done to.
        path: PathBuf,
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl ApprovalsError {
    /// The peer may not do this.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        ControlError::Refused(why.into()).into()
    }

    /// Makes an error of a system call on a path.
    pub(super) fn io<E: Into<io::Error>>(
        path: &std::path::Path,
        call: &'static str,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            path,
            call,
            source: source.into(),
        }
    }

    /// Makes an error of what SQLite was asked to do.
    pub(super) fn database(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

impl From<ApprovalsError> for Reply {
    fn from(error: ApprovalsError) -> Self {
        let fault = match error {
            ApprovalsError::Control(error) => return error.into(),
            ApprovalsError::NotFound(_) => ReplyFault::NotFound,
            ApprovalsError::Ended { .. } => ReplyFault::Ended,
            ApprovalsError::Ambiguous { .. }
            | ApprovalsError::ShortId(_)
            | ApprovalsError::BadAnswer(_) => ReplyFault::Bad,
            _ => ReplyFault::Failed,
        };
        Self::fault(fault, error.to_string())
    }
}

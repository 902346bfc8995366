//! What can go wrong between the two ends of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::words::duration;

/// Why an operation does not reach whom it is for, or is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A name in the policy is neither a user nor a group.
    #[error(
        "approver `{name}` is not a {kind} of this machine; create it, or correct `approvals.approvers` in the policy"
    )]
    UnknownApprover {
        /// The name as the policy has it.
        name: String,
        /// `user` or `group`.
        kind: &'static str,
    },
    /// The peer may not do this.
    #[error("{0}")]
    Refused(String),
    /// The other end sent what is not of the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The socket is there, and nobody listens: the launcher was killed, or ends just now.
    #[error(
        "nobody answers for {run}: its launcher is gone; what still runs of it stays governed as it is, and the operator can end it: enforcer stop {run}"
    )]
    Gone {
        /// The id of its run.
        run: String,
    },
    /// Whoever listens does not answer.
    #[error(
        "the launcher of {run} has not answered within {}: it is stopped or hangs; what was asked of it may still be done",
        duration(*within)
    )]
    Silent {
        /// The id of its run.
        run: String,
        /// How long it had.
        within: Duration,
    },
    /// A system call failed.
    #[error("{path}: {call} failed: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl ControlError {
    /// Whether nobody listens there: a run that is just ending, or has left its socket behind.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// Whether somebody listens, and does not answer in time.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Silent { .. })
    }

    /// Makes an error of a system call on a socket.
    pub(crate) fn io(path: &Path, call: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound if call == "connect" => {
                Self::Gone { run: run(&path) }
            }
            _ => Self::Io { path, call, source },
        }
    }
}

/// The id of the run that has its socket there: the name of its directory.
pub(crate) fn run(socket: &Path) -> String {
    let directory = socket.parent().and_then(Path::file_name);
    directory.map_or_else(
        || socket.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_listen_is_gone_and_what_can_be_done_is_said() {
        let socket = Path::new("/run/enforcer/reviewer-1-ab/approvals.sock");
        let connect = ControlError::io(socket, "connect");
        let error = connect(io::ErrorKind::ConnectionRefused.into());
        assert!(error.is_nobody());
        let text = error.to_string();
        assert!(
            text.contains("launcher is gone") && text.contains("enforcer stop reviewer-1-ab"),
            "{text}"
        );
        let closed = ControlError::io(socket, "connect")(io::ErrorKind::PermissionDenied.into());
        assert!(!closed.is_nobody());
    }
}

//! Why an agent cannot be started, or not be governed any more.
//!
//! What comes from a step that says all of it itself (what, where, how to mend it) is passed on as it is. A cause that a message
//! does not hold follows it as its source.

use std::{
    io,
    num::TryFromIntError,
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use super::{
    Level, change::ChangeError, selftest::SelfTestError, state::AgentStateError, status::StopError,
    trail::TrailError,
};
use enforcer_approvals::ApprovalsError;
use enforcer_control::ControlError;
use enforcer_files::directories::DirectoryError;
use enforcer_kernel::KernelError;
use enforcer_launch::LaunchError;
use enforcer_policy_files::{policy_file::PolicyFileError, table_cache::FreshError};
use enforcer_seccomp::{IdentityError, NotifyError, SeccompError};
use enforcer_trail::AuditError;

/// What most of this crate gives.
pub type Result<T, E = AgentError> = std::result::Result<T, E>;

/// What went wrong, by the step that failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Who starts is not root.
    #[error(
        "enforcer run needs root to load kernel programs; run it with sudo (the command itself runs as the invoking user)"
    )]
    NotRoot,
    /// There is nothing to start.
    #[error("no command; put it after --, as in: enforcer run --policy P -- bash")]
    NoCommand,
    /// The command, its user, its cgroup, or its process.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The policy's file.
    #[error(transparent)]
    PolicyFile(#[from] PolicyFileError),
    /// The policy's tables.
    #[error(transparent)]
    Tables(#[from] FreshError),
    /// Directories of ours.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The place of the trail.
    #[error(transparent)]
    TrailPlace(#[from] TrailError),
    /// The trail.
    #[error(transparent)]
    Trail(#[from] AuditError),
    /// The agent's state.
    #[error(transparent)]
    State(#[from] AgentStateError),
    /// The kernel programs, and the agent's place among them.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// What the kernel programs were seen to refuse.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// Less is in force than was asked for.
    #[error(
        "this kernel gives {} enforcement, and --require asks for {}; `enforcer doctor` says why",
        level.as_str(), required.as_str()
    )]
    TooLittle {
        /// What is in force.
        level: Level,
        /// What was asked for.
        required: Level,
    },
    /// The agent's filters.
    #[error(transparent)]
    Filter(#[from] SeccompError),
    /// The desk.
    #[error(transparent)]
    Approvals(#[from] ApprovalsError),
    /// The control socket, and who may answer there.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Calls that the filters stop.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// The supervisor's threads.
    #[error("a thread for the supervisor cannot be had; raise the limit of processes")]
    Thread(#[source] io::Error),
    /// The thread for calls that wait.
    #[error("the thread for held calls broke down; report this as a defect")]
    NobodyHolds,
    /// A program that somebody is to be asked about.
    #[error("the program cannot be vouched for")]
    Unvouched(#[source] IdentityError),
    /// An event of the kernel programs.
    #[error(
        "the kernel programs wrote an event that this version does not know; restart with the version that loaded them"
    )]
    UnknownEvent,
    /// The clock that events and grants go by.
    #[error("CLOCK_BOOTTIME cannot be read")]
    Clock(#[source] Errno),
    /// What that clock says.
    #[error("CLOCK_BOOTTIME is before the boot")]
    BeforeBoot(#[source] TryFromIntError),
    /// The recorder, which is not there yet.
    #[error("the run is only just starting")]
    JustStarting,
    /// The trail of an agent whose launcher is gone.
    #[error("the trail {} cannot be written", trail.display())]
    TrailGone {
        /// The file.
        trail: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A change of the running agent.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The end of an agent, or of a host.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// A file.
    #[error("{} {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What cannot be done to it.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A call of the launcher's own.
    #[error("{what}")]
    System {
        /// What cannot be done.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The same, where what the system says is all.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl AgentError {
    /// The exit status that stands for it: of a command that is not there or cannot be executed as a shell gives it, else 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Launch(error) => error.exit_code(),
            _ => 2,
        }
    }

    /// It and its causes, for one line.
    pub fn whole(&self) -> String {
        enforcer_say::chain(self)
    }

    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    pub(super) fn file(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_the_commands_own_trouble_or_ours() {
        let code = |error: AgentError| error.exit_code();
        let missing = LaunchError::NotFound {
            command: "nothing".into(),
            in_path: true,
        };
        assert_eq!(code(missing.into()), 127);
        let closed = LaunchError::NotExecutable {
            path: "/x".into(),
            source: io::ErrorKind::PermissionDenied.into(),
            mend: "chmod +x it",
        };
        assert_eq!(code(closed.into()), 126);
        assert_eq!(code(AgentError::NotRoot), 2);
        assert_eq!(code(LaunchError::NoCgroup2.into()), 2);
        assert_eq!(code(StopError::Left(1).into()), 2);
    }

    #[test]
    fn a_cause_follows_what_it_keeps_from_being_done() {
        let source = || io::Error::other("no room");
        let file = AgentError::file(Path::new("/x"), "cannot be written")(source());
        assert_eq!(file.whole(), "/x cannot be written: no room");
        let state = AgentStateError::Lock(source());
        let changed = ChangeError::Unwritten(Box::new(state.into()));
        assert_eq!(
            AgentError::from(changed).whole(),
            "the trail cannot be written: the state's lock cannot be taken: no room"
        );
        assert_eq!(AgentError::from(source()).whole(), "no room");
    }
}

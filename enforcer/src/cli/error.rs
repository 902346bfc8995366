//! Why a command failed: one message for a person, and an exit status for a program.

use std::{error::Error, io};

use enforcer_agent::AgentError;
use enforcer_control::ControlError;
use enforcer_files::{directories::DirectoryError, own_files::OwnFileError};
use enforcer_hook::{install::InstallError, place::PlaceError, state::HookStateError};
use enforcer_launch::LaunchError;
use enforcer_policy::{PolicyError, compile::CompileError};
use enforcer_policy_files::{policy_file::PolicyFileError, table_cache::FreshError};
use enforcer_trail::{AuditError, Malformed};

use super::FAILURE;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It asks for what cannot be, or for what this user may not: the whole message, with the mend.
    #[error("{0}")]
    Refused(String),
    /// Something failed on the way.
    #[error("{what}")]
    While {
        /// What was being done, with what is known of the place.
        what: String,
        /// What failed.
        #[source]
        cause: Box<CliError>,
    },
    /// The agent's command could not be started, or not governed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Who is to run the command, or the command, cannot be used.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What else failed in a part of ours: its message says where, and how it is mended.
    #[error(transparent)]
    Part(Box<dyn Error + Send + Sync>),
}

/// Errors whose message is all that a command needs of them.
macro_rules! parts {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Part(Box::new(error))
            }
        })+
    };
}

parts!(
    AuditError,
    CompileError,
    ControlError,
    DirectoryError,
    FreshError,
    InstallError,
    Malformed,
    OwnFileError,
    PlaceError,
    PolicyError,
    PolicyFileError,
    HookStateError,
);

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            Self::Io(error.into())
        } else {
            Self::Part(Box::new(error))
        }
    }
}

impl CliError {
    /// The exit status: that of a command which cannot be started, where that is what failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Agent(error) => error.exit_code(),
            Self::Launch(error) => error.exit_code(),
            Self::While { cause, .. } => cause.exit_code(),
            Self::Refused(_) | Self::Io(_) | Self::Part(_) => FAILURE,
        }
    }

    /// Whether who read our output has seen enough (`| head`).
    pub fn reader_left(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::While { cause, .. } => cause.reader_left(),
            _ => false,
        }
    }

    /// The error and its causes in one line.
    pub fn message(&self) -> String {
        enforcer_say::chain(self)
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// `what` stands before the cause.
    ///
    /// # Errors
    ///
    /// What failed, with `what`.
    fn context(self, what: impl Into<String>) -> Result<T, CliError>;

    /// As [`Context::context`], for a text that has to be made first.
    ///
    /// # Errors
    ///
    /// What failed, with what `what` gives.
    fn with_context(self, what: impl FnOnce() -> String) -> Result<T, CliError>;
}

impl<T, E: Into<CliError>> Context<T> for Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T, CliError> {
        self.with_context(|| what.into())
    }

    fn with_context(self, what: impl FnOnce() -> String) -> Result<T, CliError> {
        self.map_err(|error| CliError::While {
            what: what(),
            cause: Box::new(error.into()),
        })
    }
}

/// Ends a command with [`CliError::Refused`].
macro_rules! refuse {
    ($($said:tt)+) => {
        return Err($crate::cli::error::CliError::Refused(format!($($said)+)))
    };
}
pub(super) use refuse;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_be_started_has_its_own_exit_status() {
        let missing = || LaunchError::NotFound {
            command: "nothing".into(),
            in_path: false,
        };
        let closed = || LaunchError::NotExecutable {
            path: "/x".into(),
            source: io::ErrorKind::PermissionDenied.into(),
            mend: "chmod +x it",
        };
        let of_launch = |error: LaunchError| CliError::from(error).exit_code();
        let of_agent = |error: LaunchError| CliError::from(AgentError::from(error)).exit_code();
        assert_eq!([of_agent(missing()), of_launch(missing())], [127; 2]);
        assert_eq!([of_agent(closed()), of_launch(closed())], [126; 2]);
        assert_eq!(CliError::from(AgentError::NotRoot).exit_code(), FAILURE);
        assert_eq!(CliError::Refused("another".to_owned()).exit_code(), FAILURE);
    }

    #[test]
    fn a_cause_is_told_once() {
        let closed = LaunchError::NotExecutable {
            path: "/x".into(),
            source: io::Error::other("closed"),
            mend: "chmod +x it",
        };
        assert_eq!(
            CliError::from(AgentError::from(closed)).message(),
            "command `/x` cannot be executed: closed; chmod +x it"
        );
    }

    #[test]
    fn what_failed_inside_decides() {
        let closed = || LaunchError::NotExecutable {
            path: "/x".into(),
            source: io::Error::other("closed"),
            mend: "chmod +x it",
        };
        let inside = Err::<(), _>(closed()).context("starting it").unwrap_err();
        assert_eq!(inside.exit_code(), 126);
        assert_eq!(
            inside.message(),
            "starting it: command `/x` cannot be executed: closed; chmod +x it"
        );
        let left = || io::Error::from(io::ErrorKind::BrokenPipe);
        let written = Err::<(), _>(left()).context("writing").unwrap_err();
        assert!(written.reader_left() && CliError::from(left()).reader_left());
        assert!(!inside.reader_left() && !CliError::from(io::Error::other("full")).reader_left());
    }
}

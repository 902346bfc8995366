//! What `run` can be asked to do.

use std::{ffi::OsString, path::PathBuf};

use crate::{decide::Mode, launch::Wanted};

/// How execs are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDeny {
    /// With EPERM, by LSM programs or the seccomp supervisor; what slips past them by SIGKILL, before its first instruction.
    Errno,
    /// By SIGKILL alone, before the first instruction; no LSM programs are loaded, so the level is partial.
    Kill,
}

/// How much of the enforcement a kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Level {
    /// The seccomp supervisor denies execs with EPERM, and what slips past it is killed before its first instruction;
    /// denied connects get EPERM.
    Partial,
    /// The kernel itself (LSM programs) denies execs with EPERM.
    Full,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// What `run` is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy's file.
    pub policy: PathBuf,
    /// The agent's name; `None` for what the launcher's environment says.
    pub agent: Option<String>,
    /// Where actions are approved.
    pub mode: Mode,
    /// Capabilities that the agent gets.
    pub capabilities: Vec<String>,
    /// For whom it works; `None` for who launches it.
    pub label_user: Option<String>,
    /// Whose agent it is.
    pub tenant: Option<String>,
    /// Decide and record, but let everything go on.
    pub observe: bool,
    /// Who it runs as.
    pub user: Option<String>,
    /// The trail; `None` for the usual place.
    pub audit: Option<PathBuf>,
    /// How execs are denied.
    pub on_deny: OnDeny,
    /// Refuse to start below this level.
    pub require: Option<Level>,
    /// Leave the tree running, and governed, when the command ends.
    pub keep: bool,
    /// Variables that the agent gets besides.
    pub env: Vec<Wanted>,
    /// Where requests are written as files, and answers are read.
    pub approvals_dir: Option<PathBuf>,
    /// No start line, no summary, and no line to processes that are denied.
    pub quiet: bool,
    /// The command.
    pub command: Vec<OsString>,
}

//! What `run` can be asked to do.

use std::{ffi::OsString, path::PathBuf};

use enforcer_decide::Mode;
use enforcer_launch::WantedVariable;
use serde::{Deserialize, Serialize};

/// How execs are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDeny {
    /// With EPERM, by LSM programs or the seccomp supervisor; what slips past them by SIGKILL, before its first instruction.
    Errno,
    /// By SIGKILL alone, before the first instruction; no LSM programs are loaded, so the level is partial.
    Kill,
}

/// How much of the enforcement a kernel gives.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
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
pub struct RunOptions {
    /// The policy's file.
    pub policy: PathBuf,
    /// Who acts.
    pub principal: PrincipalOptions,
    /// What runs.
    pub command: CommandOptions,
    /// How it is kept to the policy.
    pub governing: Governing,
    /// Where it is told.
    pub reports: Reports,
}

/// Who acts, in the words of whoever starts it.
#[derive(Clone, Debug)]
pub struct PrincipalOptions {
    /// The agent's name; `None` for what the launcher's environment says.
    pub agent: Option<String>,
    /// Where actions are approved.
    pub mode: Mode,
    /// Capabilities that the agent gets.
    pub capabilities: Vec<String>,
    /// For whom it works; `None` for who launches it.
    pub user: Option<String>,
    /// Whose agent it is.
    pub tenant: Option<String>,
}

/// What runs, and as whom.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// The command and its arguments.
    pub words: Vec<OsString>,
    /// Who it runs as.
    pub user: Option<String>,
    /// Variables that it gets besides.
    pub env: Vec<WantedVariable>,
}

/// How an agent is kept to its policy, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Governing {
    /// How execs are denied.
    pub on_deny: OnDeny,
    /// Refuse to start below this level.
    pub require: Option<Level>,
    /// Decide and record, but let everything go on.
    pub observe: bool,
    /// Leave the tree running, and governed, when the command ends.
    pub keep: bool,
}

impl Governing {
    /// Denied execs are killed.
    pub fn kills(self) -> bool {
        self.on_deny == OnDeny::Kill
    }

    /// Nobody stands by who could refuse or be asked: who goes on when the launcher has ended has no supervisor, and what
    /// is only observed needs none.
    pub fn alone(self) -> bool {
        self.keep || self.observe
    }
}

/// Where it is told what an agent does.
#[derive(Clone, Debug)]
pub struct Reports {
    /// The trail; `None` for the usual place.
    pub audit: Option<PathBuf>,
    /// Where requests are written as files, and answers are read.
    pub approvals: Option<PathBuf>,
    /// No start line, no summary, and no line to processes that are denied.
    pub quiet: bool,
}

//! What can go wrong on the way to a running agent.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Why an agent could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No cgroup v2 file system is mounted.
    #[error(
        "no cgroup v2 file system is mounted; mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`) or \
         boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NoCgroup2,
    /// A cgroup operation failed.
    #[error("cgroup {path}: {step}: {source}; {mend}", path = path.display())]
    Cgroup {
        /// The directory or file.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system says.
        source: io::Error,
        /// How to mend it.
        mend: &'static str,
    },
    /// The name of an agent's cgroup is not usable as a directory name.
    #[error(
        "cgroup id `{0}`: use 1 to 64 letters, digits, `-`, `_` or `.`, beginning with a letter or digit"
    )]
    BadCgroupId(String),
    /// The parent of all agents' cgroups can be changed by others.
    #[error(
        "cgroup {path} can be changed by a user other than root, so an agent could move out of it; remove \
         the directory (`rmdir`) and start again", path = .0.display()
    )]
    Delegated(PathBuf),
    /// Processes did not die.
    #[error(
        "cgroup {path}: {count} processes are still there {seconds} s after they were killed (pids {pids}); \
         they hang in the kernel, look at /proc/PID/stack", path = path.display()
    )]
    Undead {
        /// The cgroup.
        path: PathBuf,
        /// How many are left.
        count: usize,
        /// How long they were waited for.
        seconds: u64,
        /// Some of their pids.
        pids: String,
    },
    /// The user to run as is unknown or not usable.
    #[error("user `{user}` (from {origin}): {reason}; {mend}")]
    User {
        /// The user as given.
        user: String,
        /// Where the name comes from.
        origin: &'static str,
        /// What is wrong.
        reason: String,
        /// How to mend it.
        mend: &'static str,
    },
    /// The command is not there.
    #[error(
        "command `{}` was not found{}; check its name, or give its whole path",
        command.display(), if *in_path { " in any directory of PATH that the agent's user can search" } else { "" }
    )]
    NotFound {
        /// The command as given.
        command: OsString,
        /// Whether it was looked for in PATH.
        in_path: bool,
    },
    /// The command is there and cannot be executed.
    #[error("command `{}` cannot be executed: {source}; {mend}", path.display())]
    NotExecutable {
        /// The path that was tried.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
        /// How to mend it.
        mend: &'static str,
    },
    /// A word holds a NUL byte.
    #[error("{what} holds a NUL byte, which no program can be given; remove it")]
    Nul {
        /// Which word.
        what: String,
    },
    /// The agent's user cannot use the working directory.
    #[error(
        "working directory {}: user {user} cannot enter it: {source}; change to a directory of that user, or \
         choose another one with --user", path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The agent's user.
        user: String,
        /// What the system says.
        source: io::Error,
    },
    /// A path that is to be hidden or made read-only is not usable.
    #[error("{}: {reason}; {mend}", path.display())]
    Confine {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// How to mend it.
        mend: &'static str,
    },
    /// The seccomp filter could not be built.
    #[error(transparent)]
    Seccomp(#[from] enforcer_seccomp::SeccompError),
    /// A step in the agent's process failed before its program started.
    #[error("agent's process: {step}: {source}; {mend}")]
    Child {
        /// What was being done.
        step: String,
        /// What the system says.
        source: io::Error,
        /// How to mend it.
        mend: &'static str,
    },
    /// The process that makes the self-test's attempts came to an end of its own.
    #[error("the self-test's process ended: {0}; start again, and report it if it stays so")]
    Probe(String),
    /// A system call of the launcher failed.
    #[error("{call}: {source}; {mend}")]
    System {
        /// The call and what it was for.
        call: &'static str,
        /// What the system says.
        source: io::Error,
        /// How to mend it.
        mend: &'static str,
    },
}

impl LaunchError {
    /// The exit status that stands for the error: 127 and 126 as a shell gives them, else 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 2,
        }
    }

    /// A failed call of the launcher itself.
    pub(super) fn system(
        call: &'static str,
        mend: &'static str,
    ) -> impl Fn(nix::errno::Errno) -> Self {
        move |errno| Self::System {
            call,
            source: errno.into(),
            mend,
        }
    }
}

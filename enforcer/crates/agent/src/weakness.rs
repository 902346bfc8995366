//! What is weaker than it could be: on this machine, by how a run is governed, or by what its policy opens.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::enforcement::ProcessesOutside;

/// One thing that is weaker than the level says, or than a machine, a run or a policy can be. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Weakness {
    /// The agent may have as many processes as it likes.
    NoProcessLimit {
        /// Why there is no limit.
        why: String,
    },
    /// Processes outside can be traced, or sent signals.
    ProcessesOutside(ProcessesOutside),
    /// The level is full, and sockets that were made outside connect without being judged.
    OutsideSockets,
    /// Unix sockets are judged by the name of the call, and nobody looks where that leads.
    UnixByCallAlone {
        /// `--keep` is why; else the run was started with `--observe`.
        keep: bool,
    },
    /// The kernel does not judge unix sockets.
    UnixBySupervisor,
    /// Nobody judges unix sockets.
    UnixNotJudged,
    /// A hook of ours inside the agent is a program like any other.
    ForeignHook {
        /// Why it cannot be told from others.
        why: String,
    },
    /// A directory that the policy trusts is not trusted.
    Untrusted {
        /// The directory, as the policy names it.
        directory: String,
        /// Why, what comes of it, and how to mend it.
        why: String,
    },
    /// The filter leaves system calls open.
    SyscallsAllowed {
        /// Their group.
        group: String,
        /// The policy's reason.
        reason: String,
    },
    /// The agent may change what guards it.
    GuardOpened {
        /// Which files: their group.
        group: String,
        /// The policy's reason.
        reason: String,
    },
    /// What the policy asks about cannot be held for an answer.
    NotHeld {
        /// `--keep` is why; else the run was started with nobody who could.
        keep: bool,
        /// What is denied for that: `programs`, `addresses`, `datagrams to addresses`, `unix sockets`.
        what: Vec<String>,
    },
    /// Nobody can answer what the policy asks.
    Unanswerable {
        /// Why.
        why: String,
    },
    /// The user or a group that the agent runs as opens ways around it.
    Identity {
        /// Which, and what it opens.
        why: String,
    },
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcessLimit { why } => {
                write!(f, "no limit on the number of processes: {why}")
            }
            Self::ProcessesOutside(outside) => write!(f, "processes outside the agent: {outside}"),
            Self::OutsideSockets => f.write_str(
                "sockets that were made outside the agent are not judged: the LSM program for them was not seen to refuse",
            ),
            Self::UnixByCallAlone { keep: true } => f.write_str(
                "unix sockets are judged by the name in the call: with --keep nobody looks where a link leads, nor who listens",
            ),
            Self::UnixByCallAlone { keep: false } => f.write_str(
                "unix sockets are judged by the name in the call: in a run that was started with --observe nobody looks where a link leads, nor who listens",
            ),
            Self::UnixBySupervisor => f.write_str(
                "unix sockets are judged by the seccomp supervisor alone, and datagrams to them not at all: a thread that changes the address meanwhile gets past it (no LSM programs are in force, and cgroup hooks for them came with Linux 6.7)",
            ),
            Self::UnixNotJudged => f.write_str(
                "unix sockets are not judged: no LSM programs are in force, and cgroup hooks for them came with Linux 6.7",
            ),
            Self::ForeignHook { why } => write!(
                f,
                "a hook of enforcer inside the agent counts, and an open breaker keeps it from starting: {why}"
            ),
            Self::Untrusted { why, .. } | Self::Unanswerable { why } | Self::Identity { why } => {
                f.write_str(why)
            }
            Self::SyscallsAllowed { group, reason } => {
                write!(f, "the policy allows the system calls of `{group}`: {reason}")
            }
            Self::GuardOpened { group, reason } => write!(
                f,
                "the policy lets the agent change what guards it (`{group}`): {reason}"
            ),
            Self::NotHeld { keep: true, .. } => f.write_str(
                "with --keep nobody can be asked: what the policy asks about is denied",
            ),
            Self::NotHeld { keep: false, what } => write!(
                f,
                "what the policy asks about is denied for {}: the run was started with nobody to hold it for an answer",
                what.join(" and ")
            ),
        }
    }
}

/// Writes each weakness as what it is, and as a text for people.
pub fn told<S: Serializer>(weaknesses: &[Weakness], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Told<'a> {
        #[serde(flatten)]
        weakness: &'a Weakness,
        text: String,
    }
    serializer.collect_seq(weaknesses.iter().map(|weakness| Told {
        weakness,
        text: weakness.to_string(),
    }))
}

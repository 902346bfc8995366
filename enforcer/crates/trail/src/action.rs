//! What a line of the trail is made from: an action, how and where it was judged, and what it was about.

use std::net::IpAddr;

use enforcer_common::event as kernel;
use jiff::Timestamp;
use serde::Serialize;

use enforcer_policy::{Cause, Decision, Risk};

/// What kind of line it is. Readers know no other kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The action went on.
    Approval,
    /// The action did not happen.
    Denial,
    /// The breaker opened.
    CircuitBreakerTrip,
}

impl Event {
    /// The word in the trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Denial => "denial",
            Self::CircuitBreakerTrip => "circuit_breaker_trip",
        }
    }
}

/// What an enforcement point did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The action went on.
    Allowed,
    /// The system call failed with an errno.
    Errno,
    /// The process was killed.
    Killed,
}

impl Verdict {
    /// Reads a `VERDICT_` number of the kernel; anything unknown counts as an errno, so as a denial.
    pub fn from_number(number: u32) -> Self {
        match number {
            kernel::VERDICT_ALLOWED => Self::Allowed,
            kernel::VERDICT_KILLED => Self::Killed,
            _ => Self::Errno,
        }
    }

    /// The word in the trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Errno => "errno",
            Self::Killed => "killed",
        }
    }
}

/// Where an action was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the kernel commits to it (LSM).
    Lsm,
    /// On the kernel's own copy of the arguments.
    Exec,
    /// By a cgroup socket program.
    Cgroup,
    /// By the seccomp supervisor.
    Seccomp,
    /// A stage that this version does not know.
    Unknown,
}

impl Stage {
    /// Reads a `STAGE_` number of the kernel.
    pub fn from_number(number: u32) -> Self {
        match number {
            kernel::STAGE_LSM => Self::Lsm,
            kernel::STAGE_EXEC => Self::Exec,
            kernel::STAGE_CGROUP => Self::Cgroup,
            _ => Self::Unknown,
        }
    }

    /// The word in the trail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::Exec => "exec",
            Self::Cgroup => "cgroup",
            Self::Seccomp => "seccomp",
            Self::Unknown => "unknown",
        }
    }
}

/// What every action has, whatever it is.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// When it was judged.
    pub timestamp: Timestamp,
    /// The agent's name; empty is written as `unknown`.
    pub agent: &'a str,
    /// Why it was decided so.
    pub reason: &'a str,
    /// Whether the denial is for security (a rule denied it), not for want of a rule.
    pub security_risk: bool,
    /// What decided.
    pub cause: Cause,
    /// The rule that decided, if one did.
    pub rule: Option<&'a str>,
    /// What the policy says.
    pub decision: Decision,
    /// What was done.
    pub verdict: Verdict,
    /// Where it was judged.
    pub stage: Stage,
    /// The rule's risk.
    pub risk: Option<Risk>,
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Its real user.
    pub uid: u32,
    /// Its cgroup's id.
    pub cgroup: u64,
    /// The event's number in its slot; none for what the kernel was not asked.
    pub seq: Option<u64>,
    /// How long the judgement took, ns.
    pub latency_ns: Option<u32>,
    /// The request that was made for it.
    pub approval: Option<Approval<'a>>,
}

/// A request that was put to a person.
#[derive(Clone, Copy, Debug)]
pub struct Approval<'a> {
    /// Its id.
    pub request: &'a str,
    /// How it ended: `approved`, `denied`, `expired`, `cancelled` or `refused`.
    pub state: &'a str,
    /// Who answered.
    pub approver: Option<&'a str>,
    /// Why.
    pub reason: Option<&'a str>,
    /// How far an approval reaches.
    pub scope: Option<&'a str>,
}

/// What an exec has besides.
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    /// The text in raw form: the program, then for each argument a NUL and the argument.
    pub text: &'a [u8],
    /// Size of the whole argument area, bytes.
    pub argv_bytes: u32,
    /// Whether `text` is only the first part.
    pub truncated: bool,
    /// Path of the executable as given; empty if not known.
    pub exe: &'a [u8],
    /// The executable's own name in its directory, behind every link; empty if not known.
    pub name: &'a [u8],
}

/// What a connect, or a socket, has besides.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// The name that the address was looked up by, if known.
    pub host: Option<&'a str>,
    /// The address as judged. IPv4-mapped addresses are written as IPv4. None for a socket.
    pub address: Option<IpAddr>,
    /// The port. None for a socket.
    pub port: Option<u16>,
    /// IP protocol number.
    pub protocol: u32,
    /// Address family and type of the socket, where they are the reason (sockets that no host rule can judge).
    pub socket: Option<(u32, u32)>,
    /// Name of the file that the process executes; empty if not known.
    pub program: &'a [u8],
}

/// What a refused system call has besides.
#[derive(Clone, Copy, Debug)]
pub struct Syscall<'a> {
    /// Its name, as in the manual.
    pub name: &'a str,
    /// The group of `policies/built-in/syscall-groups.json` that refuses it.
    pub group: &'a str,
    /// How many calls just like it, of the same process, have no line of their own.
    pub left_out: u64,
}

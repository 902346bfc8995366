//! What a person is asked, and what can come of it. Plain values: they cross the channels between the supervisor,
//! which holds the action, and the approvals desk, which finds someone to answer.

use std::{net::IpAddr, time::Duration};

use enforcer_policy::Risk;

/// One action that waits for a person. The answer holds for exactly this action and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The agent's name, `unknown` if it has none.
    pub agent: String,
    /// Process, as the launcher's pid namespace numbers it.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// What it wants to do.
    pub request: Request,
    /// Its ancestors inside the agent, nearest first.
    pub parents: Vec<Parent>,
    /// Id of the rule that asks; `None` for a default.
    pub rule: Option<String>,
    /// Why it asks.
    pub reason: String,
    /// How much damage the action can do.
    pub risk: Risk,
    /// What could be done instead.
    pub suggestion: Option<String>,
}

/// An ancestor of the process that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Process id.
    pub pid: u32,
    /// Its command line, words joined by spaces, lossy.
    pub command: String,
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Starts a program.
    Exec(ExecRequest),
    /// Connects to an address, or sends a datagram to it.
    Connect(ConnectRequest),
    /// Connects to a unix socket: its path, or `@` and its abstract name.
    Unix(Vec<u8>),
}

/// An exec, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecRequest {
    /// The path as given to the kernel.
    pub path: Vec<u8>,
    /// The arguments, `argv[0]` first.
    pub argv: Vec<Vec<u8>>,
    /// The working directory.
    pub cwd: DirectoryIdentity,
    /// The file that the path leads to; for a script, the script.
    pub file: FileIdentity,
}

/// A directory, by its name and by what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirectoryIdentity {
    /// Its path when it was looked at.
    pub path: Vec<u8>,
    /// Device number, as `stat(2)` gives it.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// A file's content, as far as the kernel can vouch for it, and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The resolved path.
    pub path: Vec<u8>,
    /// Device number, as `stat(2)` gives it.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Time of the last change of content or attributes: seconds and nanoseconds since 1970.
    pub changed: (i64, u32),
    /// Size, bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

/// A connect, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectRequest {
    /// The address as given; IPv4 in IPv6 is IPv4 here.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// IP protocol number (6 TCP, 17 UDP).
    pub protocol: u16,
}

/// How far an approval reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// What is waiting now, once.
    #[default]
    Once,
    /// Exactly the same action again, until the agent ends or the time is up.
    Session,
    /// Whatever the same rule asks about, until the agent ends or the time is up.
    Rule,
}

impl Scope {
    /// The word that the command line and the trail use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Session => "session",
            Self::Rule => "rule",
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's id.
    pub request: String,
    /// How it ended.
    pub ending: Ending,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Someone said yes.
    Approved {
        /// Who.
        approver: String,
        /// Why.
        reason: String,
        /// How far it reaches.
        scope: Scope,
    },
    /// Someone said no.
    Denied {
        /// Who.
        approver: String,
        /// Why.
        reason: String,
    },
    /// Nobody answered in this time.
    Expired(Duration),
    /// The process is gone.
    Cancelled,
    /// It was not put to anybody: too many requests. Says how many are too many.
    Refused(String),
}

//! The events that the kernel programs write to the ring buffer.
//!
//! Every event starts with a [`Header`]; an exec is followed by [`ExecTail`] and its bytes, a connect by
//! [`ConnectTail`]. Integers are in host order.

/// An exec.
pub const KIND_EXEC: u32 = 1;
/// A connect, or a datagram sent to an address.
pub const KIND_CONNECT: u32 = 2;
/// A socket of a family or protocol that a host rule cannot judge.
pub const KIND_SOCKET: u32 = 3;
/// A task of the agent left the agent's cgroup.
pub const KIND_ESCAPE: u32 = 4;

/// A connect or datagram to a unix socket, judged by the socket's name.
pub const KIND_UNIX: u32 = 5;
/// A process outside the agent that a process of the agent reached for.
pub const KIND_PROCESS: u32 = 6;
/// A packet that would be led on to another address than the one judged.
pub const KIND_PACKET: u32 = 7;

/// The action went on.
pub const VERDICT_ALLOWED: u32 = 0;
/// The action failed with an errno.
pub const VERDICT_ERRNO: u32 = 1;
/// The process was killed before the new image's first instruction.
pub const VERDICT_KILLED: u32 = 2;

/// Judged before the kernel commits to the exec or connect (LSM).
pub const STAGE_LSM: u32 = 1;
/// Judged on the kernel's own copy of the arguments (`sched_process_exec`).
pub const STAGE_EXEC: u32 = 2;
/// Judged by a cgroup socket program.
pub const STAGE_CGROUP: u32 = 3;

/// A rule matched: `rank` says which.
pub const CAUSE_RULE: u32 = 1;
/// No rule matched: the policy's default.
pub const CAUSE_DEFAULT: u32 = 2;
/// The command that the operator gave to `run`.
pub const CAUSE_OPERATOR: u32 = 3;
/// The executable has no name in the file system, or was named through a descriptor.
pub const CAUSE_FILELESS: u32 = 4;
/// Arguments, path or address could not be read.
pub const CAUSE_UNREADABLE: u32 = 5;
/// A task left the agent's cgroup.
pub const CAUSE_ESCAPE: u32 = 6;
/// A socket family or protocol that a host rule cannot judge.
pub const CAUSE_FAMILY: u32 = 7;
/// A program that may start because what it starts is judged (a transparent shell).
pub const CAUSE_TRANSPARENT: u32 = 8;
/// The kernel side could not judge (no scratch memory, no policy): denied.
pub const CAUSE_INTERNAL: u32 = 9;
/// A person approved it: `approval` is the request's number. The decision stays `ASK`.
pub const CAUSE_APPROVED: u32 = 10;
/// A packet with a routing header or source route, with more extension headers than are looked through, or to a
/// loopback address by another interface.
pub const CAUSE_ROUTED: u32 = 11;
/// A process outside the agent would be traced, read or signalled.
pub const CAUSE_OUTSIDER: u32 = 12;
/// The path of a unix socket may only be connected to through the launcher's connector.
pub const CAUSE_CONNECTOR: u32 = 13;

/// The breaker is open.
pub const CAUSE_BREAKER: u32 = 14;
/// The agent's rate is used up.
pub const CAUSE_RATE: u32 = 15;
/// The rate of all agents of the user is used up.
pub const CAUSE_USER_RATE: u32 = 16;
/// Too many arguments, or too deep in the process tree: `rank` is a [`crate::limits::complexity_rank`].
pub const CAUSE_COMPLEXITY: u32 = 17;

/// Who listens is outside the agent and belongs to its own user.
pub const CAUSE_LISTENER: u32 = 18;
/// Who listens at the name of a datagram cannot be seen here.
pub const CAUSE_UNSEEN: u32 = 19;
/// The launcher's own hook, or the shell that starts it: it always starts, and counts nowhere ([`crate::own`]).
pub const CAUSE_HOOK: u32 = 20;

/// Whether a denial for this cause counts for the breaker: those by the policy's rules and defaults, and what cannot
/// be judged by them. What the breaker or a limit denies does not, nor what the kernel side could not do, nor a listener
/// outside the agent: programs look for their daemon again and again.
#[inline(always)]
pub const fn counts_for_breaker(cause: u32) -> bool {
    matches!(
        cause,
        CAUSE_RULE | CAUSE_DEFAULT | CAUSE_FILELESS | CAUSE_UNREADABLE | CAUSE_CONNECTOR
    )
}

/// Flag: the text of the exec is longer than what the event stores.
pub const FLAG_TRUNCATED: u32 = 1;
/// Flag: a script; the text is the script's, `exe` its interpreter.
pub const FLAG_SCRIPT: u32 = 2;
/// Flag: the executable lies in a trusted directory of the policy.
pub const FLAG_TRUSTED: u32 = 4;

/// Bytes of an exec's text that an event stores.
pub const EXEC_TEXT_MAX: usize = 4096;
/// Bytes of an executable's path that an event stores.
pub const EXEC_PATH_MAX: usize = 1024;
/// Bytes of an executable's own (dentry) name that an event stores.
pub const EXEC_NAME_MAX: usize = 64;

/// The start of every event.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Header {
    /// One of the `KIND_` constants.
    pub kind: u32,
    /// The agent's seat as the decision saw it ([`crate::seat`]).
    pub seat: u32,
    /// Number of the event in its slot, from 0, without gaps unless an event was lost.
    pub seq: u64,
    /// When the judgement ended, `CLOCK_BOOTTIME`, ns.
    pub boottime_ns: u64,
    /// The task's cgroup (v2) id.
    pub cgroup: u64,
    /// How long the judgement took, ns.
    pub latency_ns: u32,
    /// Thread group id: the process.
    pub pid: u32,
    /// The parent process.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// `ALLOW`, `ASK` or `DENY` of [`crate::rule`].
    pub decision: u32,
    /// One of the `VERDICT_` constants.
    pub verdict: u32,
    /// One of the `STAGE_` constants.
    pub stage: u32,
    /// One of the `CAUSE_` constants.
    pub cause: u32,
    /// Rank of the rule that decided; 0 if none did.
    pub rank: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// Number of the approved request; 0 none.
    pub approval: u64,
    /// Denials in a row, if this one opened the breaker; else 0.
    pub tripped: u64,
}

/// What follows the header of an exec; then come `text_len` bytes of text, `path_len` of the path as given
/// and `name_len` of the executable's own name.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ExecTail {
    /// Stored bytes of the text: the program, then for each argument a NUL and the argument.
    pub text_len: u32,
    /// Stored bytes of the path.
    pub path_len: u32,
    /// Stored bytes of the name.
    pub name_len: u32,
    /// Size of the whole argument area, `argv[0]` and final NUL included, in bytes.
    pub argv_bytes: u32,
}

/// Bytes of a program's name that the event of a connect or a socket stores, its NUL included.
pub const PROGRAM_MAX: usize = 32;

/// What follows the header of a connect or a refused socket.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ConnectTail {
    /// Address as judged; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Port, host order.
    pub port: u32,
    /// IP protocol.
    pub protocol: u32,
    /// Address family of the socket.
    pub family: u32,
    /// Type of the socket.
    pub socket_type: u32,
    /// Name of the file that the process executes, up to a NUL.
    pub program: [u8; PROGRAM_MAX],
}

/// Longest name of a unix socket with the `@` of an abstract one, bytes (`sun_path` of `unix(7)`).
pub const UNIX_NAME_MAX: usize = 108;

/// What follows the header of a unix connect or datagram; then come `name_len` bytes of name.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct UnixTail {
    /// Bytes of the name: a path, or `@` and an abstract name; 0 for a socket without one.
    pub name_len: u32,
    /// Type of the socket.
    pub socket_type: u32,
    /// Name of the file that the process executes, up to a NUL.
    pub program: [u8; PROGRAM_MAX],
}

/// What follows the header of an event about another process.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProcessTail {
    /// The process that was reached for.
    pub target: u32,
    /// One of the `REACH_` constants.
    pub reach: u32,
    /// Access mode (`PTRACE_MODE_` of the kernel) or number of the signal.
    pub detail: u32,
    /// Zero.
    pub reserved: u32,
}

/// To trace it, or to read what only a tracer may.
pub const REACH_TRACE: u32 = 1;
/// To signal it.
pub const REACH_SIGNAL: u32 = 2;

const _: () = assert!(size_of::<Header>() == 88);
const _: () = assert!(size_of::<UnixTail>() == 40);
const _: () = assert!(size_of::<ProcessTail>() == 16);
const _: () = assert!(size_of::<ExecTail>() == 16);
const _: () = assert!(size_of::<ConnectTail>() == 64);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: each is `repr(C)`, made of integers and bytes only, and has no padding (sizes asserted above).
    unsafe impl aya::Pod for super::Header {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ExecTail {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ConnectTail {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::UnixTail {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ProcessTail {}
}

//! Keys and values of the maps that hold a policy in the kernel.

use crate::{limits::LimitRules, table::GroupRef};

/// Groups that one program name can lead to.
pub const HEAD_GROUPS: usize = 5;
/// Groups that every program is tried on.
pub const SHARED_GROUPS: usize = 12;
/// Longest program name found by its hash, in bytes; longer ones can only match shared groups.
pub const HEAD_NAME_MAX: usize = 255;

/// `allow` as a number.
pub const ALLOW: u32 = 0;
/// `ask` as a number.
pub const ASK: u32 = 1;
/// `deny` as a number.
pub const DENY: u32 = 2;

/// The rank of a transparent program (a shell that may start because what it starts is judged).
pub const RANK_TRANSPARENT: u32 = 1;

/// Accept number of the path group: the path goes back up, or stays where it is, behind its beginning (`/opt/x/../y`): it says
/// nothing of the directory that it seems to be below, so no allow rule matches it.
pub const PATH_WINDING: u32 = 1;
/// Accept number of the path group: the executable lies in a trusted directory.
pub const PATH_TRUSTED: u32 = 2;
/// Accept number of the path group: the executable is named through a file descriptor.
pub const PATH_DESCRIPTOR: u32 = 3;

/// What a program's name leads to.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Head {
    /// The groups, `count` of them. They run over the text *after* the name.
    pub groups: [GroupRef; HEAD_GROUPS],
    /// How many groups there are.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
}

/// The fixed part of a policy: one element a generation.
///
/// A rule's *rank* is its place in the order of strictness: 0 is no rule, [`RANK_TRANSPARENT`] a transparent
/// program, then the allow rules, from `ask_from` the ask rules, from `deny_from` the deny rules; among equals
/// the earlier rule has the higher rank. The highest rank of all matches decides.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PolicyHeader {
    /// Groups that run over the whole text of every exec.
    pub shared: [GroupRef; SHARED_GROUPS],
    /// The group over the path of the executable ([`PATH_WINDING`], [`PATH_TRUSTED`], [`PATH_DESCRIPTOR`]).
    pub path: GroupRef,
    /// How many shared groups there are.
    pub shared_count: u32,
    /// First rank that asks.
    pub ask_from: u32,
    /// First rank that denies.
    pub deny_from: u32,
    /// Decision where no rule matches an exec.
    pub exec_default: u32,
    /// Decision on an executable without a name in the file system.
    pub fileless: u32,
    /// Decision on one that has a name and is started through a descriptor.
    pub descriptor: u32,
    /// Decision where no rule matches a connect.
    pub connect_default: u32,
    /// Decision on a TCP listener of the agent's user outside the agent, where no rule names the port.
    pub outside_tcp: u32,
    /// Seed of the name hashes.
    pub seed: u64,
    /// The groups that run over the name of a unix socket: its path, or `@` and its abstract name. Their ranks
    /// are an order of their own, as that of exec rules but without a transparent rank.
    pub unix: Head,
    /// Decision where no rule matches the name of a unix socket.
    pub unix_default: u32,
    /// First unix rank that asks.
    pub unix_ask_from: u32,
    /// First unix rank that denies.
    pub unix_deny_from: u32,
    /// Decision on a unix socket of the agent's user outside the agent, where no rule matches its name.
    pub outside_unix: u32,
    /// Breaker, rates and complexity.
    pub limits: LimitRules,
}

/// `IPPROTO_ICMP`, and `IPPROTO_ICMPV6`, which is judged as the same.
pub const ICMP: u32 = 1;
/// See [`ICMP`].
pub const ICMP_V6: u32 = 58;

/// The protocol that connect rules know a socket's by.
#[inline(always)]
pub const fn judged_protocol(protocol: u32) -> u32 {
    if protocol == ICMP_V6 { ICMP } else { protocol }
}

/// Key data of the connect tries, after the prefix length: protocol, port, address.
///
/// Integers are big-endian, because a trie compares from the first byte. Protocol 0 and port 0 stand for
/// any; lookups try the most exact form first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ConnectKey {
    /// Protocol (6 TCP, 17 UDP, 0 any), big-endian.
    pub protocol: u16,
    /// Port, big-endian; 0 any.
    pub port: u16,
    /// Address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// Bits of a [`ConnectKey`] before the address.
pub const CONNECT_KEY_BITS: u32 = 32;

/// What a connect entry says. Every entry carries the strictest rule that covers its whole range, so the
/// longest prefix is the answer for its form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectValue {
    /// Rank of the rule, in the order of the connect rules.
    pub rank: u32,
    /// [`ALLOW`], [`ASK`] or [`DENY`].
    pub decision: u32,
}

const _: () = assert!(size_of::<GroupRef>() == 16);
const _: () = assert!(size_of::<Head>() == 88);
const _: () = assert!(size_of::<PolicyHeader>() == 16 * (SHARED_GROUPS + 1) + 40 + 88 + 16 + 96);
const _: () = assert!(size_of::<ConnectKey>() == 20);
const _: () = assert!(size_of::<ConnectValue>() == 8);

#[cfg(feature = "user")]
mod pod {
    use super::{ConnectKey, ConnectValue, Head, PolicyHeader};
    // SAFETY: each is `repr(C)`, made of integers only, and has no padding (sizes asserted above).
    unsafe impl aya::Pod for Head {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PolicyHeader {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ConnectKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ConnectValue {}
}

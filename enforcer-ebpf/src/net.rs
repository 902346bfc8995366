//! Addresses and sockets, on the kernel's own copy.
//!
//! The unspecified address is judged as loopback and made so in that copy: the kernel would go to whatever local
//! address the socket is bound to.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    macros::{cgroup_sock, cgroup_sock_addr},
    maps::lpm_trie::Key,
    programs::{SockAddrContext, SockContext},
};
use enforcer_common::{
    address,
    event::{
        CAUSE_APPROVED, CAUSE_DEFAULT, CAUSE_FAMILY, CAUSE_INTERNAL, CAUSE_LISTENER, CAUSE_RULE,
        ConnectTail, Header, KIND_CONNECT, KIND_SOCKET, PROGRAM_MAX, STAGE_CGROUP, VERDICT_ALLOWED,
        VERDICT_ERRNO,
    },
    limits::Thing,
    rule::{ALLOW, ASK, CONNECT_KEY_BITS, ConnectKey, DENY, ICMP, ICMP_V6, judged_protocol},
    seat,
};

use crate::{
    event::{count, describe, next_seq, now, output},
    facts::Judgement,
    grant::connect_granted,
    limits::{BROKEN, Kind, Rates, admits, count_allowance, count_denial, within_rates},
    listener,
    maps::{CONNECTS, POLICIES, network, observed, offset, seat_of, slot_state},
    task::{self, forgotten, read_kernel_or_zero, unproven},
};

pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// `127.0.0.1`
const LOOPBACK: u32 = 0x7f00_0001;
/// The third word of an IPv4 address in IPv6.
const MAPPED: u32 = 0xffff;

/// Returned by a program on a cgroup: it may go on.
pub const PASS: i32 = 1;
/// Returned by a program on a cgroup: it fails with EPERM.
pub const REFUSE: i32 = 0;

/// An event of a connect or a socket.
#[repr(C)]
pub struct NetEvent {
    /// Header.
    pub header: Header,
    /// What was connected to.
    pub tail: ConnectTail,
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    judge_v4::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    judge_v4::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    judge_v6::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    judge_v6::<false>(ctx.sock_addr)
}

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let sock: *mut bpf_sock = ctx.sock;
    // SAFETY: the verifier turns these into reads of the context.
    let (family, kind, protocol) = unsafe { ((*sock).family, (*sock).type_, (*sock).protocol) };
    if (kind == SOCK_STREAM && protocol == IPPROTO_TCP)
        || (kind == SOCK_DGRAM && protocol == IPPROTO_UDP)
        || (kind == SOCK_DGRAM && is_echo(family, protocol))
    {
        return PASS;
    }
    // Whoever makes it is in the cgroup.
    let Some(seat) = task::slot_by_cgroup().and_then(seat_of) else {
        return REFUSE;
    };
    let aim = Aim {
        address: [0; 16],
        seat,
        port: 0,
        protocol,
        family,
        socket_type: kind,
        reserved: 0,
    };
    let judgement = Judgement {
        decision: DENY,
        cause: CAUSE_FAMILY,
        rank: 0,
    };
    record(&aim, KIND_SOCKET, judgement, 0, STAGE_CGROUP, now());
    if observed(seat) { PASS } else { REFUSE }
}

/// Whether it is a socket for ICMP echo: the kernel lets it send nothing else. What it sends is judged on its way out
/// ([`crate::packet`]): no program sees its datagrams before.
#[inline(always)]
fn is_echo(family: u32, protocol: u32) -> bool {
    (family == AF_INET && protocol == ICMP) || (family == AF_INET6 && protocol == ICMP_V6)
}

/// Whose a socket is that a program on an agent's cgroup runs for: the agent's of whoever uses it, else of whoever made
/// it. It may have been handed to a process outside.
#[inline(always)]
pub fn seat_of_socket(sock: u64) -> Option<u32> {
    match socket_seat(sock) {
        NO_SEAT => None,
        seat => Some(seat),
    }
}

/// No agent's: all bits are set in no seat.
const NO_SEAT: u32 = u32::MAX;

/// See [`seat_of_socket`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn socket_seat(sock: u64) -> u32 {
    let slot = task::slot_by_cgroup()
        .or_else(|| task::slot_of_cgroup(read_kernel_or_zero::<u64>(sock + offset!(sock_cgroup))));
    slot.and_then(seat_of).unwrap_or(NO_SEAT)
}

#[inline(always)]
fn judge_v4<const CONNECT: bool>(context: *mut bpf_sock_addr) -> i32 {
    let start = now();
    // SAFETY: the verifier turns these into reads of the context, and a write.
    let (ip, port, protocol, kind) = unsafe {
        // The kernel would take the address that the socket is bound to.
        if (*context).user_ip4 == 0 {
            ptr::write_volatile(ptr::addr_of_mut!((*context).user_ip4), LOOPBACK.to_be());
        }
        (
            (*context).user_ip4,
            (*context).user_port,
            (*context).protocol,
            (*context).type_,
        )
    };
    judge::<CONNECT>(
        context,
        v4_address(ip),
        u16::from_be(port as u16),
        protocol,
        AF_INET,
        kind,
        start,
    )
}

#[inline(always)]
fn judge_v6<const CONNECT: bool>(context: *mut bpf_sock_addr) -> i32 {
    let start = now();
    // SAFETY: the verifier turns these into reads of the context, and writes.
    let (words, port, protocol, kind) = unsafe {
        // What the kernel would take for the address that the socket is bound to, or its IPv4 loopback.
        if (*context).user_ip6[0] | (*context).user_ip6[1] | (*context).user_ip6[3] == 0 {
            let last = ptr::addr_of_mut!((*context).user_ip6[3]);
            if (*context).user_ip6[2] == MAPPED.to_be() {
                ptr::write_volatile(last, LOOPBACK.to_be());
            } else if (*context).user_ip6[2] == 0 {
                ptr::write_volatile(last, 1u32.to_be());
            }
        }
        (
            [
                (*context).user_ip6[0],
                (*context).user_ip6[1],
                (*context).user_ip6[2],
                (*context).user_ip6[3],
            ],
            (*context).user_port,
            (*context).protocol,
            (*context).type_,
        )
    };
    judge::<CONNECT>(
        context,
        v6_address(words),
        u16::from_be(port as u16),
        protocol,
        AF_INET6,
        kind,
        start,
    )
}

/// An IPv4 address (network order in memory) as the trie knows it.
#[inline(always)]
pub fn v4_address(ip: u32) -> [u8; 16] {
    address::normalise(address::from_v4(ip.to_ne_bytes()))
}

/// An IPv6 address (network order in memory) as the trie knows it.
#[inline(always)]
pub fn v6_address(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen plain bytes.
    address::normalise(unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) })
}

/// Where a connect or a datagram goes.
#[repr(C)]
pub struct Aim {
    /// The address, as the trie knows it.
    pub address: [u8; 16],
    /// Whose it is.
    pub seat: u32,
    /// Port, 0 for none.
    pub port: u32,
    /// Protocol of the socket.
    pub protocol: u32,
    /// Family of the socket.
    pub family: u32,
    /// Type of the socket.
    pub socket_type: u32,
    /// Zero.
    pub reserved: u32,
}

#[inline(always)]
fn judge<const CONNECT: bool>(
    context: *mut bpf_sock_addr,
    address: [u8; 16],
    port: u16,
    protocol: u32,
    family: u32,
    socket_type: u32,
    start: u64,
) -> i32 {
    // SAFETY: the verifier turns this into a read of the context.
    let sock = forgotten(unsafe { (*context).__bindgen_anon_1.sk } as u64);
    let Some(seat) = seat_of_socket(sock) else {
        return REFUSE;
    };
    let aim = Aim {
        address,
        seat,
        port: u32::from(port),
        protocol: judged_protocol(protocol),
        family,
        socket_type,
        reserved: 0,
    };
    let mut judgement = weigh(&aim);
    if CONNECT {
        let decision = by_listener(context, &aim, judgement.decision);
        if decision != ALLOW {
            judgement = Judgement {
                decision,
                cause: CAUSE_LISTENER,
                rank: 0,
            };
        }
    }
    if unproven(settle(&aim, judgement.packed(), start)) == 0 {
        REFUSE
    } else {
        PASS
    }
}

/// What becomes of a connect or a datagram that was judged: recorded, and passed, or refused (0).
///
/// A global function, as all that no context is needed for: the verifier walks it once for a program, whatever is known
/// where it is called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle(aim: *const Aim, judgement: u64, start: u64) -> u32 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return 0;
    };
    let seat = aim.seat;
    let mut judgement = Judgement::unpacked(judgement);
    let Some(state) = slot_state(seat) else {
        return 0;
    };
    let mut approval = 0;
    if !admits(state, seat) {
        judgement = BROKEN;
    } else if judgement.decision == ASK {
        approval = connect_granted(aim, 1);
        if approval != 0 {
            judgement.cause = CAUSE_APPROVED;
        }
    }
    if judgement.permits() {
        judgement = within_rates(judgement, seat, Kind::Connect, Rates::Take);
    }
    let recorded = record(aim, KIND_CONNECT, judgement, approval, STAGE_CGROUP, start);
    let passes = judgement.permits() && recorded;
    if passes {
        count_allowance(state, seat, judgement.cause);
    }
    u32::from(passes || observed(seat))
}

/// What the policy says of an allowed connect to this machine because of who listens there; else [`ALLOW`].
#[inline(never)]
fn by_listener(context: *mut bpf_sock_addr, aim: &Aim, decision: u32) -> u32 {
    if decision != ALLOW || aim.protocol != IPPROTO_TCP || !address::is_loopback(&aim.address) {
        return ALLOW;
    }
    let Some(header) = POLICIES.get(seat::generation(aim.seat)) else {
        return ALLOW;
    };
    let port = aim.port as u16;
    if header.outside_tcp == ALLOW || names_port(aim.seat, aim.address, port) {
        return ALLOW;
    }
    let sock = listener::of_tcp(context, &aim.address, port);
    if sock != 0 && listener::is_outside(sock, aim.seat) {
        return header.outside_tcp;
    }
    ALLOW
}

/// Whether a rule names the TCP port for the address.
#[inline(always)]
fn names_port(seat: u32, address: [u8; 16], port: u16) -> bool {
    let Some(connects) = CONNECTS.get(seat::generation(seat)) else {
        return false;
    };
    let mut key = Key::new(
        CONNECT_KEY_BITS + 128,
        ConnectKey {
            protocol: 0,
            port: port.to_be(),
            address,
        },
    );
    let any = network(connects, &key).rank != 0;
    key.data.protocol = (IPPROTO_TCP as u16).to_be();
    any || network(connects, &key).rank != 0
}

/// The strictest rule over the four forms of protocol and port.
#[inline(always)]
pub fn weigh(aim: &Aim) -> Judgement {
    Judgement::unpacked(weigh_address(aim))
}

/// See [`weigh`]; a packed [`Judgement`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weigh_address(aim: *const Aim) -> u64 {
    let internal = Judgement {
        decision: DENY,
        cause: CAUSE_INTERNAL,
        rank: 0,
    };
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return internal.packed();
    };
    let Some(header) = POLICIES.get(seat::generation(aim.seat)) else {
        return internal.packed();
    };
    let Some(connects) = CONNECTS.get(seat::generation(aim.seat)) else {
        return internal.packed();
    };
    let mut key = Key::new(
        CONNECT_KEY_BITS + 128,
        ConnectKey {
            protocol: 0,
            port: 0,
            address: aim.address,
        },
    );
    let mut rank = 0;
    let mut decision = header.connect_default;
    let mut form = 0u32;
    while form < 4 {
        key.data.protocol = if form & 1 != 0 {
            (aim.protocol as u16).to_be()
        } else {
            0
        };
        key.data.port = if form & 2 != 0 {
            (aim.port as u16).to_be()
        } else {
            0
        };
        let value = network(connects, &key);
        if value.rank > rank {
            rank = value.rank;
            decision = value.decision;
        }
        form += 1;
    }
    Judgement {
        decision,
        cause: if rank == 0 { CAUSE_DEFAULT } else { CAUSE_RULE },
        rank,
    }
    .packed()
}

/// Writes the event of a connect or a socket and counts it, a denial for the breaker, too; false when there was no room.
#[inline(always)]
pub fn record(
    aim: &Aim,
    kind: u32,
    judgement: Judgement,
    approval: u64,
    stage: u32,
    start: u64,
) -> bool {
    // Here, not behind the event: both take much of the stack.
    let tripped = if judgement.permits() {
        0
    } else {
        count_denial(
            aim.seat,
            judgement.cause,
            Thing::address(&aim.address, aim.protocol, aim.port),
        )
    };
    let what = u64::from(kind | stage << 16) | tripped << 32;
    write_event(aim, judgement.packed(), approval, start, what) != 0
}

/// See [`record`]; `what` is the kind, the stage, and in the upper half the denials in a row if this one opened the breaker.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_event(
    aim: *const Aim,
    judgement: u64,
    approval: u64,
    start: u64,
    what: u64,
) -> u32 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return 0;
    };
    let seat = aim.seat;
    let Some(state) = slot_state(seat) else {
        return 0;
    };
    let judgement = Judgement::unpacked(judgement);
    let mut event = NetEvent {
        header: Header::default(),
        tail: ConnectTail {
            address: aim.address,
            port: aim.port,
            protocol: aim.protocol,
            family: aim.family,
            socket_type: aim.socket_type,
            program: [0; PROGRAM_MAX],
        },
    };
    // SAFETY: as long as it takes.
    unsafe { task::program_of(task::current_address(), event.tail.program.as_mut_ptr()) };
    let kind = what as u32;
    describe(&mut event.header, kind & 0xffff, seat, kind >> 16);
    event.header.tripped = what >> 32;
    let allowed = judgement.permits() || observed(seat);
    event.header.approval = approval;
    event.header.decision = judgement.decision;
    event.header.cause = judgement.cause;
    event.header.rank = judgement.rank;
    event.header.verdict = if allowed {
        VERDICT_ALLOWED
    } else {
        VERDICT_ERRNO
    };
    let end = now();
    event.header.boottime_ns = end;
    event.header.latency_ns = (end - start) as u32;
    event.header.seq = next_seq(state);
    let recorded = output(
        seat,
        state,
        ptr::from_mut(&mut event).cast::<c_void>(),
        size_of::<NetEvent>() as u64,
    );
    // SAFETY: fields of a map value.
    count(unsafe {
        if allowed && recorded {
            ptr::addr_of_mut!((*state).connect_allowed)
        } else {
            ptr::addr_of_mut!((*state).connect_denied)
        }
    });
    u32::from(recorded)
}

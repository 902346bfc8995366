//! Packets on their way out: none may be led on to another address than the one that was judged, and none to a
//! loopback address may leave the machine (by `SO_BINDTODEVICE`, `IP_PKTINFO`, `IP_UNICAST_IF` and their like).
//!
//! An ICMP echo is judged here: its socket need not be connected, and no program sees what it sends before.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id, bpf_skb_load_bytes,
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use enforcer_common::{
    address,
    event::{
        CAUSE_ROUTED, ConnectTail, Header, KIND_CONNECT, KIND_PACKET, PROGRAM_MAX, STAGE_CGROUP,
        VERDICT_ALLOWED, VERDICT_ERRNO,
    },
    limits::Thing,
    rule::{DENY, ICMP, judged_protocol},
    seat,
};

use crate::{
    event::{count, next_seq, now, output, pid},
    facts::Judgement,
    limits::{BROKEN, Kind, Rates, admits, count_allowance, count_denial, within_rates},
    maps::{AGENTS, constant, observed, offset, seat_of, settings, slot_state},
    net::{self, AF_INET, AF_INET6, Aim, NetEvent, PASS, REFUSE, SOCK_DGRAM},
    task::{current_address, parent_pid, program_of, read_kernel, slot_of_task_cgroup},
};

/// The loopback device has this number in each network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK_DEVICE: u32 = 1;

/// `::ffff:127.0.0.0/104` without its last bytes.
const LOOPBACK_V4: u128 = 0x00ff_ff7f;

/// Bytes of the IPv4 header without options, and where its destination is (RFC 791).
const FIXED_BYTES_V4: u32 = 20;
const DESTINATION_V4_AT: u32 = 16;
/// A label of the system's own (CIPSO, FIPS 188): the one option that packets carry without a program asking for it.
const SECURITY_LABEL: u8 = 134;

/// Bytes of the fixed IPv6 header, and where its fields are (RFC 8200).
const FIXED_BYTES: u32 = 40;
const NEXT_HEADER_AT: u32 = 6;
const DESTINATION_AT: u32 = 24;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers that are looked through; RFC 8200 has a packet carry each at most once, one twice.
const HEADERS_MAX: u32 = 8;

/// Reads bytes of the packet, from its IP header on.
#[inline(always)]
fn load<const SIZE: usize>(packet: &SkBuffContext, at: u32) -> Option<[u8; SIZE]> {
    let mut bytes = [0; SIZE];
    // SAFETY: the target is as long as said; the helper checks the packet.
    let result = unsafe {
        bpf_skb_load_bytes(
            packet.skb.skb.cast(),
            at,
            bytes.as_mut_ptr().cast(),
            SIZE as u32,
        )
    };
    (result == 0).then_some(bytes)
}

/// Puts what a packet is sent to into `address`, and gives its family of addresses; 0 if it cannot be read. (No `Option`:
/// the verifier refuses to let what is not there be copied.)
#[inline(always)]
fn destination(packet: &SkBuffContext, address: &mut [u8; 16]) -> u32 {
    let Some([first]) = load::<1>(packet, 0) else {
        return 0;
    };
    match first >> 4 {
        4 => {
            let Some(bytes) = load::<4>(packet, DESTINATION_V4_AT) else {
                return 0;
            };
            *address = address::from_v4(bytes);
            AF_INET
        }
        6 => {
            let Some(bytes) = load::<16>(packet, DESTINATION_AT) else {
                return 0;
            };
            *address = bytes;
            AF_INET6
        }
        _ => 0,
    }
}

/// Whether an address is judged as one of this machine's own that no interface has.
#[inline(always)]
fn is_loopback(address: [u8; 16]) -> bool {
    let address = address::normalise(address);
    let address = u128::from_be_bytes(address);
    address == 1 || address >> 24 == LOOPBACK_V4
}

/// Whether the packet goes to the address that it names, which was judged; `false` also for what cannot be read.
#[inline(always)]
fn goes_where_it_says(packet: &SkBuffContext) -> bool {
    let mut to = [0; 16];
    let family = destination(packet, &mut to);
    if family == 0 {
        return false;
    }
    // SAFETY: the verifier turns this into a read of the context.
    let device = unsafe { (*packet.skb.skb).ifindex };
    if device != LOOPBACK_DEVICE && is_loopback(to) {
        return false;
    }
    if family == AF_INET {
        no_source_route(packet)
    } else {
        no_routing_header(packet)
    }
}

/// Whether an IPv4 packet has no option that leads it on (a source route). No other option is let through either, but for
/// a label alone: to walk them is long to verify, and nobody needs them.
#[inline(always)]
fn no_source_route(packet: &SkBuffContext) -> bool {
    let Some([first]) = load::<1>(packet, 0) else {
        return false;
    };
    let options = (u32::from(first & 0xf) * 4).saturating_sub(FIXED_BYTES_V4);
    if options == 0 {
        return true;
    }
    let Some([kind, length]) = load::<2>(packet, FIXED_BYTES_V4) else {
        return false;
    };
    // Padded to whole words.
    kind == SECURITY_LABEL && u32::from(length).div_ceil(4) * 4 == options
}

/// Whether an IPv6 packet has no header that leads it on.
#[inline(always)]
fn no_routing_header(packet: &SkBuffContext) -> bool {
    let Some([mut next]) = load::<1>(packet, NEXT_HEADER_AT) else {
        return false;
    };
    let mut at = FIXED_BYTES;
    let mut walked = 0;
    while walked < HEADERS_MAX {
        if next == ROUTING {
            return false;
        }
        if !matches!(
            next,
            HOP_BY_HOP | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
        ) {
            return true;
        }
        let Some([following, length, offset_high, offset_low]) = load::<4>(packet, at) else {
            return false;
        };
        let length = u32::from(length);
        if next == FRAGMENT {
            // Headers stand in the first fragment.
            if u16::from_be_bytes([offset_high, offset_low]) & 0xfff8 != 0 {
                return true;
            }
            at += 8;
        } else if next == AUTHENTICATION {
            at += (length + 2) * 4;
        } else {
            at += (length + 1) * 8;
        }
        next = following;
        walked += 1;
    }
    false
}

#[cgroup_skb(egress)]
pub fn packet_out(ctx: SkBuffContext) -> i32 {
    let start = now();
    if !goes_where_it_says(&ctx) {
        let routed = Judgement {
            decision: DENY,
            cause: CAUSE_ROUTED,
            rank: 0,
        };
        record(ctx.skb.skb, 0, routed.packed(), 0, start);
        return REFUSE;
    }
    if is_echo(&ctx) && !echo_may_go(&ctx, start) {
        return REFUSE;
    }
    PASS
}

/// Whether the packet comes from a socket for ICMP echo.
#[inline(always)]
fn is_echo(packet: &SkBuffContext) -> bool {
    // SAFETY: the verifier turns these into reads of the context and of the socket, which the helper checks.
    unsafe {
        let sock = (*packet.skb.skb).__bindgen_anon_2.sk;
        if sock.is_null() {
            return false;
        }
        let sock = bpf_sk_fullsock(sock);
        !sock.is_null() && judged_protocol((*sock).protocol) == ICMP
    }
}

/// What the rules say of an echo. It leaves in the time of whoever sends it.
#[inline(always)]
fn echo_may_go(packet: &SkBuffContext, start: u64) -> bool {
    let Some(seat) = seat_of_packet(packet) else {
        return false;
    };
    let mut to = [0; 16];
    let family = destination(packet, &mut to);
    if family == 0 || slot_of_task_cgroup(current_address()) != Some(seat::slot(seat)) {
        return false;
    }
    let Some(state) = slot_state(seat) else {
        return false;
    };
    let aim = Aim {
        address: address::normalise(to),
        seat,
        port: 0,
        protocol: ICMP,
        family,
        socket_type: SOCK_DGRAM,
        reserved: 0,
    };
    let mut judgement = net::weigh(&aim);
    if !admits(state, seat) {
        judgement = BROKEN;
    }
    if judgement.permits() {
        judgement = within_rates(judgement, seat, Kind::Connect, Rates::Take);
    }
    let tripped = if judgement.permits() {
        0
    } else {
        let thing = Thing::address(&aim.address, aim.protocol, aim.port);
        count_denial(seat, judgement.cause, thing)
    };
    // SAFETY: a field of a map value.
    let lost = || unsafe { ptr::read_volatile(ptr::addr_of!((*state).lost)) };
    let before = lost();
    record(packet.skb.skb, ICMP, judgement.packed(), tripped, start);
    // Told by the counter: a function's result was seen to be lost on its way on Linux 6.1. Another's loss only refuses more.
    let passes = judgement.permits() && lost() == before;
    if passes {
        count_allowance(state, seat, judgement.cause);
    }
    passes || observed(seat)
}

/// The seat of the agent whose packet it is.
#[inline(always)]
fn seat_of_packet(packet: &SkBuffContext) -> Option<u32> {
    let level = constant(&settings().agent_level) as i32;
    // SAFETY: the context's own packet.
    let agent = unsafe { bpf_skb_ancestor_cgroup_id(packet.skb.skb, level) };
    // SAFETY: entries are only ever added and removed as a whole.
    seat_of(unsafe { AGENTS.get(agent) }.copied()?)
}

/// Writes the event of a packet and counts it. `protocol` is 0 for one that does not go where it
/// says. A function of its own, so that its frame is not under that of others.
#[inline(never)]
fn record(packet: *mut __sk_buff, protocol: u32, judgement: u64, tripped: u64, start: u64) {
    let packet = &SkBuffContext::new(packet);
    let Some(seat) = seat_of_packet(packet) else {
        return;
    };
    let Some(state) = slot_state(seat) else {
        return;
    };
    let judgement = Judgement::unpacked(judgement);
    let mut address = [0; 16];
    let family = destination(packet, &mut address);
    let mut event = NetEvent {
        header: Header::default(),
        tail: ConnectTail {
            address,
            port: 0,
            protocol,
            family,
            socket_type: if protocol == 0 { 0 } else { SOCK_DGRAM },
            program: [0; PROGRAM_MAX],
        },
    };
    // What goes elsewhere than it says is dropped, whoever only observes.
    let allowed = judgement.permits() || protocol != 0 && observed(seat);
    event.header.kind = if protocol == 0 {
        KIND_PACKET
    } else {
        KIND_CONNECT
    };
    event.header.slot = seat::slot(seat);
    event.header.stage = STAGE_CGROUP;
    // SAFETY: the context's own packet.
    event.header.cgroup = unsafe { bpf_skb_cgroup_id(packet.skb.skb) };
    event.header.decision = judgement.decision;
    event.header.rank = judgement.rank;
    event.header.cause = judgement.cause;
    event.header.tripped = tripped;
    event.header.verdict = if allowed {
        VERDICT_ALLOWED
    } else {
        VERDICT_ERRNO
    };
    // A packet that was held back leaves in somebody else's time.
    let task = current_address();
    if slot_of_task_cgroup(task) == Some(seat::slot(seat)) {
        // SAFETY: as long as it takes.
        unsafe { program_of(task, event.tail.program.as_mut_ptr()) };
        event.header.pid = pid();
        event.header.ppid = parent_pid(task);
        event.header.uid = read_kernel::<u64>(task + offset!(task_cred))
            .and_then(|cred| read_kernel::<u32>(cred + offset!(cred_uid)))
            .unwrap_or(0);
    }
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
}

//! Packets on their way out: none may be led on to another address than the one that was judged, and none to a
//! loopback address may leave the machine (by `SO_BINDTODEVICE`, `IP_PKTINFO`, `IP_UNICAST_IF` and their like).
//!
//! An ICMP echo is judged here: its socket need not be connected, and no program sees what it sends before.

use aya_ebpf::{
    helpers::generated::{bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use enforcer_common::{
    address,
    event::{
        CAUSE_ROUTED, KIND_CONNECT, KIND_PACKET, STAGE_CGROUP, VERDICT_ALLOWED, VERDICT_ERRNO,
    },
    rule::{DENY, ICMP, judged_protocol},
    seat,
};

use crate::{
    event::{Actor, Told},
    judge::{
        facts::Judgement,
        gate::{self, Action, Passed, Stage},
        net::{self, AF_INET, AF_INET6, Aim},
    },
    maps::{AGENTS, constant, seat_of, settings, slot_state},
    task::{current_address, slot_of_task_cgroup},
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
pub fn destination(packet: &SkBuffContext, address: &mut [u8; 16]) -> u32 {
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
pub fn goes_where_it_says(packet: &SkBuffContext) -> bool {
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

/// What is said of a packet that does not go where it says.
pub const ROUTED: Passed = Passed {
    judgement: Judgement {
        decision: DENY,
        cause: CAUSE_ROUTED,
        rank: 0,
    },
    tripped: 0,
};

/// Whether the packet comes from a socket for ICMP echo.
#[inline(always)]
pub fn is_echo(packet: &SkBuffContext) -> bool {
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

/// Whether the current task is in the cgroup of the agent that has a slot.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_of(slot: u32) -> u32 {
    u32::from(slot_of_task_cgroup(current_address()) == Some(slot))
}

/// What the rules and the gate say of an echo; a packed [`Passed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_echo(to: *const Aim) -> u64 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(to) = (unsafe { to.as_ref() }) else {
        return Passed::REFUSED.packed();
    };
    let Some(state) = slot_state(to.seat) else {
        return Passed::REFUSED.packed();
    };
    let aim = Aim {
        address: address::normalise(to.address),
        ..*to
    };
    gate::pass(
        net::weigh(&aim),
        (aim.seat, state),
        Action::Connect,
        Stage::Last,
        || false,
        || aim.thing(),
    )
    .packed()
}

/// The seat of the agent whose packet it is.
#[inline(always)]
pub fn seat_of_packet(packet: &SkBuffContext) -> Option<u32> {
    let level = constant(&settings().agent_level) as i32;
    // SAFETY: the context's own packet.
    let agent = unsafe { bpf_skb_ancestor_cgroup_id(packet.skb.skb, level) };
    // SAFETY: entries are only ever added and removed as a whole.
    seat_of(unsafe { AGENTS.get(agent) }.copied()?)
}

/// What becomes of a packet that does not go where it says (its protocol is 0), or of an echo, that the current task has sent or
/// not: recorded, and passed, or refused (0).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn settle_packet(
    to: *const Aim,
    cgroup: u64,
    passed: u64,
    known: u32,
    start: u64,
) -> u32 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(to) = (unsafe { to.as_ref() }) else {
        return 0;
    };
    let Some(state) = slot_state(to.seat) else {
        return 0;
    };
    let told = || {
        let Passed { judgement, tripped } = Passed::unpacked(passed);
        Told {
            kind: if to.protocol == 0 {
                KIND_PACKET
            } else {
                KIND_CONNECT
            },
            stage: STAGE_CGROUP,
            verdict: if may_go(to, judgement) {
                VERDICT_ALLOWED
            } else {
                VERDICT_ERRNO
            },
            judgement,
            start: Some(start),
            approval: 0,
            tripped,
            flags: 0,
        }
    };
    let known = known != 0;
    // Of no task there is no program.
    let task = if known { current_address() } else { 0 };
    let actor = Actor::Sender { cgroup, known };
    let recorded = net::send(to, state, (actor, task), told);
    let Passed { judgement, .. } = Passed::unpacked(passed);
    if judgement.permits() && recorded {
        gate::gone_on(judgement, to.seat, state);
        return 1;
    }
    u32::from(to.protocol != 0 && seat::observed(to.seat))
}

/// Whether a packet may go. What goes elsewhere than it says is dropped, whoever only observes.
#[inline(always)]
fn may_go(to: &Aim, judgement: Judgement) -> bool {
    judgement.permits() || to.protocol != 0 && seat::observed(to.seat)
}

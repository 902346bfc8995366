//! Packets on their way out: none may be led on to another address than the one that was judged.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    helpers::generated::{bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use enforcer_common::{
    event::{CAUSE_ROUTED, ConnectTail, Header, KIND_PACKET, STAGE_CGROUP, VERDICT_ERRNO},
    rule::DENY,
};

use crate::{
    event::{count, next_seq, now, output, slot_state},
    maps::{AGENTS, constant, offset, settings},
    net::{NetEvent, PASS, REFUSE},
    task::{current_address, parent_pid, read_kernel, slot_of_task_cgroup},
};

const AF_INET6: u32 = 10;
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

/// Whether the packet has no header that leads it on; `false` also for what cannot be read.
#[inline(always)]
fn goes_where_it_says(packet: &SkBuffContext) -> bool {
    match load::<1>(packet, 0) {
        Some([first]) if first >> 4 == 6 => {}
        // The kernel itself refuses source routes of IPv4.
        Some(_) => return true,
        None => return false,
    }
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
    if goes_where_it_says(&ctx) {
        return PASS;
    }
    record(&ctx, start);
    REFUSE
}

/// Writes the event of a dropped packet.
#[inline(always)]
fn record(packet: &SkBuffContext, start: u64) {
    let level = constant(&settings().agent_level) as i32;
    // SAFETY: the context's own packet.
    let (agent, cgroup) = unsafe {
        (
            bpf_skb_ancestor_cgroup_id(packet.skb.skb, level),
            bpf_skb_cgroup_id(packet.skb.skb),
        )
    };
    // SAFETY: entries are only ever added and removed as a whole.
    let slot = unsafe { AGENTS.get(agent) }
        .copied()
        .unwrap_or(constant(&settings().sole_slot));
    let Some(state) = slot_state(slot) else {
        return;
    };
    let mut event = NetEvent {
        header: Header::default(),
        tail: ConnectTail {
            address: load::<16>(packet, DESTINATION_AT).unwrap_or([0; 16]),
            port: 0,
            protocol: u32::from(ROUTING),
            family: AF_INET6,
            socket_type: 0,
        },
    };
    event.header.kind = KIND_PACKET;
    event.header.slot = slot;
    event.header.stage = STAGE_CGROUP;
    event.header.cgroup = cgroup;
    event.header.decision = DENY;
    event.header.verdict = VERDICT_ERRNO;
    event.header.cause = CAUSE_ROUTED;
    // A packet that was held back leaves in somebody else's time.
    let task = current_address();
    if slot_of_task_cgroup(task) == Some(slot) {
        event.header.pid = read_kernel::<u32>(task + offset!(task_tgid)).unwrap_or(0);
        event.header.ppid = parent_pid(task);
        event.header.uid = read_kernel::<u64>(task + offset!(task_cred))
            .and_then(|cred| read_kernel::<u32>(cred + offset!(cred_uid)))
            .unwrap_or(0);
    }
    let end = now();
    event.header.boottime_ns = end;
    event.header.latency_ns = (end - start) as u32;
    event.header.seq = next_seq(state);
    output(
        state,
        ptr::from_mut(&mut event).cast::<c_void>(),
        size_of::<NetEvent>() as u64,
    );
    // SAFETY: a field of a map value.
    count(unsafe { ptr::addr_of_mut!((*state).connect_denied) });
}

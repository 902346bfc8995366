//! `cgroup/sock_create`: families and protocols that a host rule cannot judge.

use aya_ebpf::{bindings::bpf_sock, macros::cgroup_sock, programs::SockContext};
use enforcer_common::{
    event::{CAUSE_FAMILY, KIND_SOCKET, STAGE_CGROUP},
    rule::{DENY, ICMP, ICMP_V6},
    seat,
};

use crate::{
    event::now,
    judge::{
        facts::Judgement,
        net::{AF_INET, AF_INET6, Aim, IPPROTO_TCP, PASS, REFUSE, SOCK_DGRAM, record},
    },
    maps::seat_of,
    task,
};

const SOCK_STREAM: u32 = 1;
const IPPROTO_UDP: u32 = 17;

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
    let what = KIND_SOCKET | STAGE_CGROUP << 16;
    record(&aim, what, judgement, (0, 0), now());
    if seat::observed(seat) { PASS } else { REFUSE }
}

/// Whether it is a socket for ICMP echo: the kernel lets it send nothing else. What it sends is judged on its way out
/// ([`crate::judge::packet`]): no program sees its datagrams before.
#[inline(always)]
fn is_echo(family: u32, protocol: u32) -> bool {
    (family == AF_INET && protocol == ICMP) || (family == AF_INET6 && protocol == ICMP_V6)
}

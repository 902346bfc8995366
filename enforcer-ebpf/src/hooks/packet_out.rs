//! `cgroup_skb/egress`: packets on their way out ([`crate::judge::packet`]).

use aya_ebpf::{
    helpers::generated::bpf_skb_cgroup_id, macros::cgroup_skb, programs::SkBuffContext,
};
use enforcer_common::{rule::ICMP, seat};

use crate::{
    event::now,
    judge::{
        net::{Aim, PASS, REFUSE, SOCK_DGRAM},
        packet::{
            ROUTED, destination, goes_where_it_says, is_echo, is_of, judge_echo, seat_of_packet,
            settle_packet,
        },
    },
    task::unproven,
};

#[cgroup_skb(egress)]
pub fn packet_out(ctx: SkBuffContext) -> i32 {
    let start = now();
    let routed = !goes_where_it_says(&ctx);
    if !routed && !is_echo(&ctx) {
        return PASS;
    }
    let Some(seat) = seat_of_packet(&ctx) else {
        return REFUSE;
    };
    let mut address = [0; 16];
    let family = destination(&ctx, &mut address);
    let aim = Aim {
        address,
        seat,
        port: 0,
        protocol: if routed { 0 } else { ICMP },
        family,
        socket_type: if routed { 0 } else { SOCK_DGRAM },
        reserved: 0,
    };
    // A packet that was held back leaves in somebody else's time.
    let known = is_of(seat::slot(seat));
    let passed = if routed {
        ROUTED.packed()
    } else if family != 0 && known != 0 {
        judge_echo(&aim)
    } else {
        return REFUSE;
    };
    // SAFETY: the context's own packet.
    let cgroup = unsafe { bpf_skb_cgroup_id(ctx.skb.skb) };
    if unproven(settle_packet(&aim, cgroup, passed, known, start)) == 0 {
        REFUSE
    } else {
        PASS
    }
}

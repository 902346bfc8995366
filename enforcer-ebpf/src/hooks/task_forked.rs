//! `tp_btf/sched_process_fork`: marks on new tasks.

use aya_ebpf::{bindings::task_struct, macros::btf_tracepoint, programs::BtfTracePointContext};
use enforcer_common::seat;

use crate::{
    event::pid,
    judge::escape::{escaped, kill},
    maps::{depth_of, offset, set_mark},
    task::{self, Membership, current, read_kernel, slot_of_task_cgroup},
};

#[btf_tracepoint(function = "sched_process_fork")]
pub fn task_forked(ctx: BtfTracePointContext) -> i32 {
    let child = ctx.arg::<*mut task_struct>(1);
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => {
            // Whose agent is gone leaves nobody behind.
            kill();
            return 0;
        }
    };
    // A thread is as deep as its process.
    let forked = read_kernel::<u32>(child as u64 + offset!(task_tgid)) != Some(pid());
    let depth = depth_of(current()).saturating_add(u32::from(forked));
    if !set_mark(child, seat, depth) {
        // A child without a mark could walk away unseen.
        kill();
        return 0;
    }
    // A child that was cloned straight into another cgroup.
    if slot_of_task_cgroup(child as u64) != Some(seat::slot(seat)) {
        escaped(child as u64, seat, true);
    }
    0
}

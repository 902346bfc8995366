//! `tp_btf/cgroup_attach_task`: tasks that leave their agent's cgroup.

use aya_ebpf::{bindings::task_struct, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    judge::escape::escaped,
    maps::{Marked, mark_of, seat_of},
    task::{current, slot_of_task_cgroup},
};

#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attached(ctx: BtfTracePointContext) -> i32 {
    let task = ctx.arg::<*mut task_struct>(2);
    let Marked::Of(slot) = mark_of(task) else {
        return 0;
    };
    if slot_of_task_cgroup(task as u64) == Some(slot) {
        return 0;
    }
    let insider = !matches!(mark_of(current()), Marked::No);
    let Some(seat) = seat_of(slot) else {
        return 0;
    };
    escaped(task as u64, seat, insider);
    0
}

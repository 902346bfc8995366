//! Marks on tasks, and tasks that leave their agent's cgroup.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::task_struct, helpers::generated::bpf_send_signal, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use enforcer_common::{
    event::{CAUSE_ESCAPE, ExecTail, Header, KIND_ESCAPE, STAGE_EXEC, VERDICT_KILLED},
    rule::DENY,
    seat,
};

use crate::{
    event::{describe, next_seq, now, output, pid},
    maps::{Marked, depth_of, mark_of, offset, seat_of, set_mark, slot_state},
    task::{self, Membership, current, current_address, read_kernel, slot_of_task_cgroup},
};

const SIGKILL: u32 = 9;

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

/// Records an escape; the mover, if it is of an agent, dies here. User space kills the moved one.
#[inline(always)]
fn escaped(task: u64, seat: u32, kill_current: bool) {
    let Some(state) = slot_state(seat) else {
        return;
    };
    let mut event = (Header::default(), ExecTail::default());
    describe(&mut event.0, KIND_ESCAPE, seat, STAGE_EXEC);
    event.0.pid = read_kernel::<u32>(task + offset!(task_tgid)).unwrap_or(0);
    event.0.ppid = task::parent_pid(task);
    event.0.decision = DENY;
    event.0.verdict = VERDICT_KILLED;
    event.0.cause = CAUSE_ESCAPE;
    event.0.boottime_ns = now();
    event.0.seq = next_seq(state);
    output(
        seat,
        state,
        ptr::from_mut(&mut event).cast::<c_void>(),
        (size_of::<Header>() + size_of::<ExecTail>()) as u64,
    );
    if kill_current || task == current_address() {
        kill();
    }
}

/// Kills the current task.
pub fn kill() {
    // SAFETY: a plain helper call; it reaches the current task only.
    unsafe { bpf_send_signal(SIGKILL) };
}

//! Processes outside the agent: those of the agent may not trace, read or signal them.

use core::{ffi::c_void, ptr};

use aya_ebpf::{bindings::task_struct, macros::lsm, programs::LsmContext};
use enforcer_common::{
    event::{
        CAUSE_OUTSIDER, Header, KIND_PROCESS, ProcessTail, REACH_SIGNAL, REACH_TRACE, STAGE_LSM,
        VERDICT_ERRNO,
    },
    rule::DENY,
    seat,
};

use crate::{
    event::{describe, next_seq, now, output},
    maps::{Marked, mark_of, offset, slot_state},
    task::{self, Membership, read_kernel, slot_of_task_cgroup},
};

const EPERM: i32 = 1;
/// `PTRACE_MODE_NOAUDIT`: the kernel asks for itself, to leave fields of `/proc/PID/stat` out.
const NOAUDIT: u32 = 4;

/// Whether a task is of the agent.
#[inline(always)]
fn belongs(task: *mut task_struct, seat: u32) -> bool {
    let slot = seat::slot(seat);
    matches!(mark_of(task), Marked::Of(owner) if owner == slot)
        || slot_of_task_cgroup(task as u64) == Some(slot)
}

/// What tracing needs; also `/proc/PID/mem`, `/proc/PID/fd` and their like, `process_vm_writev` and `pidfd_getfd`.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let target = ctx.arg::<*mut task_struct>(0);
    let mode: u32 = ctx.arg(1);
    let earlier: i32 = ctx.arg(2);
    if earlier != 0 {
        return earlier;
    }
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => return -EPERM,
    };
    if belongs(target, seat) {
        return 0;
    }
    if mode & NOAUDIT == 0 {
        record(seat, target as u64, REACH_TRACE, mode);
    }
    -EPERM
}

/// Signals that processes send; what the kernel sends (`SIGCHLD`, the terminal's) does not come here.
#[lsm(hook = "task_kill")]
pub fn task_kill(ctx: LsmContext) -> i32 {
    let target = ctx.arg::<*mut task_struct>(0);
    let signal: u32 = ctx.arg(2);
    let earlier: i32 = ctx.arg(4);
    if earlier != 0 {
        return earlier;
    }
    // Signal 0 only asks whether the process is there.
    if signal == 0 {
        return 0;
    }
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => return -EPERM,
    };
    if belongs(target, seat) {
        return 0;
    }
    record(seat, target as u64, REACH_SIGNAL, signal);
    -EPERM
}

/// The event of a denial.
#[repr(C)]
struct ProcessEvent {
    header: Header,
    tail: ProcessTail,
}

#[inline(always)]
fn record(seat: u32, target: u64, reach: u32, detail: u32) {
    let Some(state) = slot_state(seat) else {
        return;
    };
    let mut event = ProcessEvent {
        header: Header::default(),
        tail: ProcessTail {
            target: read_kernel::<u32>(target + offset!(task_tgid)).unwrap_or(0),
            reach,
            detail,
            reserved: 0,
        },
    };
    describe(&mut event.header, KIND_PROCESS, seat, STAGE_LSM);
    event.header.decision = DENY;
    event.header.verdict = VERDICT_ERRNO;
    event.header.cause = CAUSE_OUTSIDER;
    event.header.boottime_ns = now();
    event.header.seq = next_seq(state);
    output(
        seat,
        state,
        ptr::from_mut(&mut event).cast::<c_void>(),
        size_of::<ProcessEvent>() as u64,
    );
}

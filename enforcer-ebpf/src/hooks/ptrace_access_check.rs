//! `lsm/ptrace_access_check`: tracing of processes outside the agent.

use aya_ebpf::{bindings::task_struct, macros::lsm, programs::LsmContext};
use enforcer_common::event::REACH_TRACE;

use crate::{
    judge::{
        EPERM,
        outsider::{belongs, record},
    },
    task::{self, Membership},
};

/// `PTRACE_MODE_NOAUDIT`: the kernel asks for itself, to leave fields of `/proc/PID/stat` out.
const NOAUDIT: u32 = 4;

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

//! `lsm/task_kill`: signals to processes outside the agent.

use aya_ebpf::{bindings::task_struct, macros::lsm, programs::LsmContext};
use enforcer_common::event::REACH_SIGNAL;

use crate::{
    judge::{
        EPERM,
        outsider::{belongs, record},
    },
    task::{self, Membership},
};

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

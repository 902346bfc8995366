//! The first judgement, where the kernel loads LSM programs: a clean errno before anything is committed.
//!
//! The arguments are read from the caller's own memory, where another thread may still change them. That is
//! why an allowance here is never the last word: `sched_process_exec` judges what really became of it.

use core::ffi::c_void;

use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::seat;

use crate::{
    event::{is_operator, now, pid},
    judge::{EPERM, exec::refuses_exec, kept},
    maps::slot_state,
    scratch::{claim_scratch, release_scratch},
    task::{self, Membership},
};

#[lsm(hook = "bprm_check_security")]
pub fn exec_check(ctx: LsmContext) -> i32 {
    let bprm = ctx.arg::<*const c_void>(0) as u64;
    let earlier: i32 = ctx.arg(1);
    if earlier != 0 {
        return earlier;
    }
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => return -EPERM,
    };
    let start = now();
    let Some(state) = slot_state(seat) else {
        return -EPERM;
    };
    let Some(scratch) = claim_scratch() else {
        // The stage behind has memory of its own and denies if it finds none.
        return 0;
    };
    let kept = kept::keep(bprm, scratch, seat, task::in_home_tree(state));
    // What is only observed is recorded by the stage behind, and what is to be killed is killed there.
    if is_operator(state, pid()) || seat::observed(seat) || seat::kills(seat) {
        release_scratch(scratch);
        return 0;
    }
    kept::take(scratch);
    // Without the script's name the stage behind would judge less than there is.
    let mut result = if kept { 0 } else { -EPERM };
    if refuses_exec(bprm, (seat, state), scratch, start) {
        result = -EPERM;
    }
    release_scratch(scratch);
    result
}

//! `tp_btf/sched_process_exec`: the judgement that nothing gets around ([`crate::judge::exec`]).

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use enforcer_common::seat;

use crate::{
    event::{now, pid},
    judge::{
        escape::kill,
        exec::{committed, deny_bare},
    },
    maps::{keep_mark, slot_state},
    scratch::{claim_scratch, release_scratch},
    task::{self, Membership},
};

#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec_committed(ctx: BtfTracePointContext) -> i32 {
    let bprm = ctx.arg::<*const c_void>(2) as u64;
    let (seat, escaped) = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) => (seat, false),
        Membership::Escaped(seat) => (seat, true),
        Membership::Orphaned => {
            // There is no policy that could decide, and no trail.
            kill();
            return 0;
        }
    };
    let start = now();
    let Some(state) = slot_state(seat) else {
        kill();
        return 0;
    };
    keep_mark(task::current(), seat);
    let Some(scratch) = claim_scratch() else {
        deny_bare(seat);
        return 0;
    };
    let judgement = committed(bprm, (seat, escaped), state, scratch, start);
    release_scratch(scratch);
    // Off unless user space asks for diagnostics at load: the verifier drops it then.
    debug!(
        &ctx,
        "exec: pid {} seat {} decision {} cause {} rank {}",
        pid(),
        seat::slot(seat),
        judgement.decision,
        judgement.cause,
        judgement.rank
    );
    0
}

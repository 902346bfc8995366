//! `tp_btf/sched_process_exec`: the judgement that nothing gets around.
//!
//! The new image is in place, the process has one thread, and `mm->arg_start..arg_end` is memory that no thread
//! of the old image can reach: what is judged here is what runs. A denial is SIGKILL before the first
//! instruction. (A process that may trace another can write into it at any time, before and after.)

use core::{ffi::c_void, ptr};

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use enforcer_common::{
    event::{
        CAUSE_APPROVED, CAUSE_ESCAPE, CAUSE_INTERNAL, CAUSE_OPERATOR, EXEC_TEXT_MAX, ExecTail,
        Header, KIND_EXEC, STAGE_EXEC, VERDICT_ALLOWED, VERDICT_KILLED,
    },
    limits::Thing,
    rule::{ALLOW, ASK, DENY},
    seat::{self, SlotState},
};

use crate::{
    event::{count, describe, next_seq, now, output, pid, take_operator},
    facts::{Facts, Judgement, KEPT_NAME, KEPT_PATH, judge_exec},
    grant::exec_granted,
    kept,
    lifecycle::kill,
    limits::{
        BROKEN, Kind, Rates, admits, arguments_of, count_allowance, count_denial,
        within_complexity, within_rates,
    },
    maps::{keep_mark, observed, offset, slot_state},
    scratch::{Scratch, claim_scratch, release_scratch},
    task::{self, Membership, read_kernel, unproven},
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

#[inline(always)]
fn committed(
    bprm: u64,
    (seat, escaped): (u32, bool),
    state: *mut SlotState,
    scratch: *mut Scratch,
    start: u64,
) -> Judgement {
    let facts = Facts {
        bprm,
        args: 0,
        args_end: 0,
    };
    let task = task::current_address();
    let facts = match read_kernel::<u64>(task + offset!(task_mm)) {
        Some(mm) => Facts {
            args: read_kernel::<u64>(mm + offset!(mm_arg_start)).unwrap_or(0),
            args_end: read_kernel::<u64>(mm + offset!(mm_arg_end)).unwrap_or(0),
            ..facts
        },
        None => facts,
    };
    // SAFETY: claimed scratch memory.
    unsafe {
        (*scratch).from_kernel = 0;
        // By way of memory: the verifier would walk all of the judgement for each answer.
        ptr::write_volatile(ptr::addr_of_mut!((*scratch).escaped), u32::from(escaped));
    }
    kept::take(scratch);
    let judgement = judge_exec(&facts, seat, state, scratch).packed();
    let arguments = arguments_of(bprm);
    Judgement::unpacked(settle_exec(scratch, seat, judgement, arguments, start))
}

/// What becomes of an exec that was judged, with so many arguments: killed or not, and recorded. Gives what was decided in
/// the end. A global function: its working memory on the stack lies beside that of the judgement, not on top of it, and the
/// verifier walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle_exec(
    scratch: *mut Scratch,
    seat: u32,
    judgement: u64,
    arguments: u32,
    start: u64,
) -> u64 {
    let mut judgement = Judgement::unpacked(judgement);
    let Some(state) = slot_state(seat) else {
        kill();
        return judgement.packed();
    };
    if scratch.is_null() {
        kill();
        return judgement.packed();
    }
    // SAFETY: claimed scratch memory.
    if unsafe { ptr::read_volatile(ptr::addr_of!((*scratch).escaped)) } != 0 {
        judgement = Judgement {
            decision: DENY,
            cause: CAUSE_ESCAPE,
            rank: 0,
        };
    } else if take_operator(state, pid()) {
        task::set_home_tree(state);
        judgement = Judgement {
            decision: ALLOW,
            cause: CAUSE_OPERATOR,
            rank: 0,
        };
    } else if !judgement.is_limited() {
        // The hook always starts.
    } else if !admits(state, seat) {
        judgement = BROKEN;
    } else {
        if judgement.decision == ASK && exec_granted(scratch, seat, true) {
            judgement.cause = CAUSE_APPROVED;
        }
        if judgement.permits() {
            // SAFETY: claimed scratch memory.
            let argv_bytes = unsafe { (*scratch).event.tail.argv_bytes };
            judgement = within_complexity(judgement, seat, arguments, argv_bytes);
        }
        if judgement.permits() {
            judgement = within_rates(judgement, seat, Kind::Exec, Rates::Take);
        }
    }
    let judgement = judgement.forgotten();
    let tripped = if judgement.permits() {
        0
    } else {
        count_denial(seat, judgement.cause, program(scratch))
    };
    let observed = unproven(u32::from(observed(seat))) != 0;
    // Who has left the agent's cgroup is out of sight: that is no matter of the policy.
    let passes = judgement.permits() || observed && judgement.cause != CAUSE_ESCAPE;
    let verdict = if passes {
        VERDICT_ALLOWED
    } else {
        VERDICT_KILLED
    };
    let recorded = record(
        scratch, seat, judgement, verdict, STAGE_EXEC, start, tripped,
    );
    if !passes || !recorded && !observed {
        kill();
        // SAFETY: a field of a map value.
        count(unsafe { ptr::addr_of_mut!((*state).exec_denied) });
    } else {
        // SAFETY: a field of a map value.
        count(unsafe { ptr::addr_of_mut!((*state).exec_allowed) });
        // SAFETY: claimed scratch memory.
        let unanswered = judgement.cause == CAUSE_APPROVED
            && unsafe { ptr::read_volatile(ptr::addr_of!((*scratch).grant.unanswered)) } != 0;
        if judgement.permits()
            && judgement.is_limited()
            && judgement.cause != CAUSE_OPERATOR
            && !unanswered
        {
            count_allowance(state, seat, judgement.cause);
        }
    }
    judgement.packed()
}

/// Denies without scratch memory. A global function, for its event has no room on the stack of a judgement.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn deny_bare(seat: u32) -> u32 {
    let Some(state) = slot_state(seat) else {
        kill();
        return 0;
    };
    let passes = observed(seat);
    let mut event = (Header::default(), ExecTail::default());
    describe(&mut event.0, KIND_EXEC, seat, STAGE_EXEC);
    event.0.decision = DENY;
    event.0.verdict = if passes {
        VERDICT_ALLOWED
    } else {
        VERDICT_KILLED
    };
    event.0.cause = CAUSE_INTERNAL;
    event.0.boottime_ns = now();
    event.0.seq = next_seq(state);
    output(
        seat,
        state,
        ptr::from_mut(&mut event).cast(),
        (size_of::<Header>() + size_of::<ExecTail>()) as u64,
    );
    if passes {
        return 1;
    }
    // SAFETY: a field of a map value.
    count(unsafe { ptr::addr_of_mut!((*state).exec_denied) });
    kill();
    0
}

/// The program of the exec in the scratch memory.
#[inline(always)]
pub fn program(scratch: *const Scratch) -> Thing {
    // SAFETY: claimed scratch memory.
    let inode = unsafe { (*scratch).own_inode };
    read_kernel::<u64>(inode + offset!(inode_number)).map_or(Thing::NONE, Thing::program)
}

/// Writes the event of a judgement; false when there was no room for it. `tripped` is what [`count_denial`] gave.
#[inline(always)]
pub fn record(
    scratch: *mut Scratch,
    seat: u32,
    judgement: Judgement,
    verdict: u32,
    stage: u32,
    start: u64,
    tripped: u64,
) -> bool {
    // SAFETY: claimed scratch memory.
    unsafe { (*scratch).event.header.tripped = tripped };
    write_exec(
        scratch,
        seat,
        judgement.packed(),
        start,
        verdict | stage << 16,
    ) != 0
}

/// See [`record`]; the verdict and, in the upper half, the stage.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_exec(
    scratch: *mut Scratch,
    seat: u32,
    judgement: u64,
    start: u64,
    verdict: u32,
) -> u32 {
    let Some(state) = slot_state(seat) else {
        return 0;
    };
    if scratch.is_null() {
        return 0;
    }
    let judgement = Judgement::unpacked(judgement);
    // SAFETY: map values; the length is clamped to the event.
    let recorded = unsafe {
        let event = ptr::addr_of_mut!((*scratch).event);
        let flags = (*event).header.flags;
        let tripped = (*event).header.tripped;
        describe(&mut (*event).header, KIND_EXEC, seat, verdict >> 16);
        (*event).header.flags = flags;
        (*event).header.decision = judgement.decision;
        (*event).header.cause = judgement.cause;
        (*event).header.rank = judgement.rank;
        (*event).header.approval = (*scratch).approval;
        (*event).header.tripped = tripped;
        (*event).header.verdict = verdict & 0xffff;
        let end = now();
        (*event).header.boottime_ns = end;
        (*event).header.latency_ns = (end - start) as u32;
        (*event).header.seq = next_seq(state);
        let tail = (*event).tail;
        let bytes = (tail.text_len & (EXEC_TEXT_MAX as u32 - 1))
            + (tail.path_len & KEPT_PATH)
            + (tail.name_len & KEPT_NAME);
        output(
            seat,
            state,
            event.cast(),
            (size_of::<Header>() + size_of::<ExecTail>()) as u64 + u64::from(bytes),
        )
    };
    u32::from(recorded)
}

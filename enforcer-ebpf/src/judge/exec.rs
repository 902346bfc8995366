//! The two judgements of an exec, and what becomes of it. The second is the one that nothing gets around.
//!
//! The new image is in place, the process has one thread, and `mm->arg_start..arg_end` is memory that no thread
//! of the old image can reach: what is judged here is what runs. A denial is SIGKILL before the first
//! instruction. (A process that may trace another can write into it at any time, before and after.)

use core::{mem::MaybeUninit, ptr};

use enforcer_common::{
    event::{
        CAUSE_APPROVED, CAUSE_ESCAPE, CAUSE_OPERATOR, CAUSE_UNREADABLE, EXEC_TEXT_MAX, ExecTail,
        Header, KIND_EXEC, STAGE_EXEC, STAGE_LSM, VERDICT_ALLOWED, VERDICT_ERRNO, VERDICT_KILLED,
    },
    limits::Thing,
    rule::{ALLOW, DENY},
    seat::{self, SlotState},
};

use crate::{
    event::{Actor, Told, count, output, pid, take_operator, write_header},
    judge::{
        escape::kill,
        facts::{Facts, INTERNAL, Judgement, KEPT_NAME, KEPT_PATH, judge_exec},
        gate::{self, Action, Passed, Stage},
        gather::gather,
        grant::exec_granted,
        kept,
        limits::arguments_of,
    },
    maps::{offset, slot_state},
    scratch::Scratch,
    task::{self, read_kernel, unproven},
    words,
};

/// Judges the exec that the current task is about to make; whether it is refused. What cannot be read is left to the judgement
/// of what it has made.
#[inline(always)]
pub fn refuses_exec(
    bprm: u64,
    (seat, state): (u32, *mut SlotState),
    scratch: *mut Scratch,
    start: u64,
) -> bool {
    let arguments = arguments_of(bprm);
    let Some(facts) = gather(bprm, scratch) else {
        return false;
    };
    let judgement = judge_exec(&facts, seat, state, scratch).forgotten();
    let action = Action::Exec {
        arguments,
        // SAFETY: claimed scratch memory.
        argv_bytes: unsafe { (*scratch).event.tail.argv_bytes },
    };
    // A grant is left for the stage behind, and for the interpreters still to come.
    let Passed { judgement, tripped } = gate::pass(
        judgement,
        (seat, state),
        action,
        Stage::Early,
        || exec_granted(scratch, seat, false),
        || program(scratch),
    );
    if judgement.permits() || judgement.cause == CAUSE_UNREADABLE {
        return false;
    }
    record(
        scratch,
        seat,
        judgement,
        VERDICT_ERRNO,
        STAGE_LSM,
        start,
        tripped,
    );
    // SAFETY: a field of a map value.
    count(unsafe { ptr::addr_of_mut!((*state).exec_denied) });
    true
}

/// Judges the exec that the current task has made, and does what follows.
#[inline(always)]
pub fn committed(
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
    }
    let action = Action::Exec {
        arguments,
        // SAFETY: claimed scratch memory.
        argv_bytes: unsafe { (*scratch).event.tail.argv_bytes },
    };
    let Passed { judgement, tripped } = gate::pass(
        judgement,
        (seat, state),
        action,
        Stage::Last,
        || exec_granted(scratch, seat, true),
        || program(scratch),
    );
    let observed = unproven(u32::from(seat::observed(seat))) != 0;
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
        if judgement.permits() && !unanswered {
            gate::gone_on(judgement, seat, state);
        }
    }
    judgement.packed()
}

/// Denies without scratch memory. A global function, for its event has no room on the stack of a judgement.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn deny_bare(seat: u32) -> u32 {
    let Some(state) = slot_state(seat) else {
        kill();
        return 0;
    };
    let passes = seat::observed(seat);
    send_bare(
        seat,
        state,
        Actor::Current,
        &Told {
            kind: KIND_EXEC,
            stage: STAGE_EXEC,
            verdict: if passes {
                VERDICT_ALLOWED
            } else {
                VERDICT_KILLED
            },
            judgement: INTERNAL,
            start: None,
            approval: 0,
            tripped: 0,
            flags: 0,
        },
    );
    if passes {
        return 1;
    }
    // SAFETY: a field of a map value.
    count(unsafe { ptr::addr_of_mut!((*state).exec_denied) });
    kill();
    0
}

/// Writes an event of an exec of which nothing is known.
#[inline(always)]
pub fn send_bare(seat: u32, state: *mut SlotState, actor: Actor, told: &Told) {
    let mut room = MaybeUninit::<(Header, ExecTail)>::uninit();
    let event = room.as_mut_ptr();
    // SAFETY: room on the stack, all of which is written.
    unsafe {
        words::clear(ptr::addr_of_mut!((*event).1));
        write_header(ptr::addr_of_mut!((*event).0), seat, state, actor, told);
    }
    output(
        seat,
        state,
        event.cast(),
        (size_of::<Header>() + size_of::<ExecTail>()) as u64,
    );
}

/// The program of the exec in the scratch memory.
#[inline(always)]
fn program(scratch: *const Scratch) -> Thing {
    // SAFETY: claimed scratch memory.
    let inode = unsafe { (*scratch).own_inode };
    read_kernel::<u64>(inode + offset!(inode_number)).map_or(Thing::NONE, Thing::program)
}

/// Writes the event of a judgement; false when there was no room for it. `tripped` is what [`count_denial`] gave.
#[inline(always)]
fn record(
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
        let told = Told {
            kind: KIND_EXEC,
            stage: verdict >> 16,
            verdict: verdict & 0xffff,
            judgement,
            start: Some(start),
            approval: (*scratch).approval,
            tripped: (*event).header.tripped,
            flags: (*event).header.flags,
        };
        let header = ptr::addr_of_mut!((*event).header);
        write_header(header, seat, state, Actor::Current, &told);
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

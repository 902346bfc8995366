//! Processes outside the agent: those of the agent may not trace, read or signal them.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::bindings::task_struct;
use enforcer_common::{
    event::{CAUSE_OUTSIDER, Header, KIND_PROCESS, ProcessTail, STAGE_LSM, VERDICT_ERRNO},
    rule::DENY,
    seat,
};

use crate::{
    event::{Actor, Told, output, write_header},
    judge::facts::Judgement,
    maps::{Marked, mark_of, offset, slot_state},
    task::{read_kernel, slot_of_task_cgroup},
};

/// Whether a task is of the agent.
#[inline(always)]
pub fn belongs(task: *mut task_struct, seat: u32) -> bool {
    let slot = seat::slot(seat);
    matches!(mark_of(task), Marked::Of(owner) if owner == slot)
        || slot_of_task_cgroup(task as u64) == Some(slot)
}

/// The event of a denial.
#[repr(C)]
struct ProcessEvent {
    header: Header,
    tail: ProcessTail,
}

/// Records that the agent reached for a process.
#[inline(always)]
pub fn record(seat: u32, target: u64, reach: u32, detail: u32) {
    let Some(state) = slot_state(seat) else {
        return;
    };
    let mut room = MaybeUninit::<ProcessEvent>::uninit();
    let event = room.as_mut_ptr();
    let told = Told {
        kind: KIND_PROCESS,
        stage: STAGE_LSM,
        verdict: VERDICT_ERRNO,
        judgement: Judgement {
            decision: DENY,
            cause: CAUSE_OUTSIDER,
            rank: 0,
        },
        start: None,
        approval: 0,
        tripped: 0,
        flags: 0,
    };
    // SAFETY: room on the stack, all of which is written.
    unsafe {
        (*event).tail = ProcessTail {
            target: read_kernel::<u32>(target + offset!(task_tgid)).unwrap_or(0),
            reach,
            detail,
            reserved: 0,
        };
        let header = ptr::addr_of_mut!((*event).header);
        write_header(header, seat, state, Actor::Current, &told);
    }
    output(seat, state, event.cast(), size_of::<ProcessEvent>() as u64);
}

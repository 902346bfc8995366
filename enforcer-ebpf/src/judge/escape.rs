//! Marks on tasks, and tasks that leave their agent's cgroup.

use aya_ebpf::helpers::generated::bpf_send_signal;
use enforcer_common::{
    event::{CAUSE_ESCAPE, KIND_ESCAPE, STAGE_EXEC, VERDICT_KILLED},
    rule::DENY,
};

use crate::{
    event::{Actor, Told},
    judge::{exec::send_bare, facts::Judgement},
    maps::slot_state,
    task::current_address,
};

const SIGKILL: u32 = 9;

/// Records an escape; the mover, if it is of an agent, dies here. User space kills the moved one.
#[inline(always)]
pub fn escaped(task: u64, seat: u32, kill_current: bool) {
    let Some(state) = slot_state(seat) else {
        return;
    };
    send_bare(
        seat,
        state,
        Actor::Other(task),
        &Told {
            kind: KIND_ESCAPE,
            stage: STAGE_EXEC,
            verdict: VERDICT_KILLED,
            judgement: Judgement {
                decision: DENY,
                cause: CAUSE_ESCAPE,
                rank: 0,
            },
            start: None,
            approval: 0,
            tripped: 0,
            flags: 0,
        },
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

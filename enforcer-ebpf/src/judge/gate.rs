//! The gate that every action comes to behind the rules: the breaker, what a person approved, the complexity, the rates, and
//! the count of denials in a row. In this order at every stage and for every kind of action.

use enforcer_common::{
    event::{CAUSE_APPROVED, CAUSE_UNREADABLE},
    limits::Thing,
    rule::ASK,
    seat::SlotState,
};

use crate::judge::{
    facts::{INTERNAL, Judgement},
    limits::{BROKEN, admits, count_allowance, count_denial, within_complexity, within_rates},
};

/// What comes to the gate.
#[derive(Clone, Copy)]
pub enum Action {
    /// An exec.
    Exec {
        /// Its arguments, the program's name among them.
        arguments: u32,
        /// Their bytes.
        argv_bytes: u32,
    },
    /// A connect, a datagram, an echo.
    Connect,
}

/// Which stage it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Another one is behind it, which takes from the rates and judges what this one cannot read.
    Early,
    /// The last one.
    Last,
}

/// What passed the gate, or did not.
pub struct Passed {
    /// What it is in the end.
    pub judgement: Judgement,
    /// The denials in a row, if this one opened the breaker; else 0.
    pub tripped: u64,
}

impl Passed {
    /// What cannot be judged.
    pub const REFUSED: Self = Self {
        judgement: INTERNAL,
        tripped: 0,
    };

    /// In one number, for global functions. Not of an exec, whose rank can have more than 24 bits; of a connect it is that of
    /// a rule, of which the text of a policy has not so many.
    #[inline(always)]
    pub fn packed(&self) -> u64 {
        let Judgement {
            decision,
            cause,
            rank,
        } = self.judgement;
        self.tripped << 32
            | u64::from(rank & 0xff_ffff) << 8
            | u64::from(cause & 0x3f) << 2
            | u64::from(decision & 3)
    }

    /// What [`Self::packed`] gave.
    #[inline(always)]
    pub fn unpacked(packed: u64) -> Self {
        let low = packed as u32;
        Self {
            judgement: Judgement {
                decision: low & 3,
                cause: low >> 2 & 0x3f,
                rank: low >> 8,
            },
            tripped: packed >> 32,
        }
    }
}

/// Takes an action that the rules have judged through the gate. `granted` says whether a person approved it, `thing` what it
/// is about.
#[inline(always)]
pub fn pass(
    mut judgement: Judgement,
    (seat, state): (u32, *mut SlotState),
    action: Action,
    stage: Stage,
    granted: impl FnOnce() -> bool,
    thing: impl FnOnce() -> Thing,
) -> Passed {
    if !judgement.is_limited() {
        // Whatever the breaker and the limits say.
    } else if !admits(state, seat) {
        judgement = BROKEN;
    } else {
        if judgement.decision == ASK && granted() {
            judgement.cause = CAUSE_APPROVED;
        }
        if let Action::Exec {
            arguments,
            argv_bytes,
        } = action
            && judgement.permits()
        {
            judgement = within_complexity(judgement, seat, arguments, argv_bytes);
        }
        if judgement.permits() {
            judgement = within_rates(judgement, seat, action, stage);
        }
    }
    let judgement = judgement.forgotten();
    let left = stage == Stage::Early && judgement.cause == CAUSE_UNREADABLE;
    let tripped = if judgement.permits() || left {
        0
    } else {
        count_denial(seat, judgement.cause, thing())
    };
    Passed { judgement, tripped }
}

/// Notes that an action has gone on: it ends a row of denials.
#[inline(always)]
pub fn gone_on(judgement: Judgement, seat: u32, state: *mut SlotState) {
    if judgement.is_limited() {
        count_allowance(state, seat, judgement.cause);
    }
}

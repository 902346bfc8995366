//! What the breaker and the rates make of a call that the supervisor sees first. The kernel's last stage counts what
//! goes on; here a call that would be denied there is not put to anybody, and gets a clean errno.

use enforcer_common::{
    event::{CAUSE_BREAKER, CAUSE_INTERNAL, CAUSE_RATE, CAUSE_USER_RATE},
    limits::Breaker,
};

use super::supervisor::Shared;
use enforcer_common::limits::ActionClass;
use enforcer_decide::Outcome;
use enforcer_kernel::limits::Exceeded;
use enforcer_policy::{Decision, Judgement};
use enforcer_seccomp::target;

impl Shared {
    /// What the breaker, or else a rate, makes of what the rules say of a thread's call; `None` if they leave it so.
    pub fn limited(&self, tid: u32, kind: ActionClass, by_rules: &Outcome) -> Option<Outcome> {
        let limiter = &self.limiter;
        if !matches!(limiter.breaker(), Breaker::Closed { .. }) {
            // Who cannot be looked at is not let try.
            if !target::who(tid).is_ok_and(|who| limiter.admits(who.tgid)) {
                return Some(self.denied_by(CAUSE_BREAKER, kind));
            }
        }
        if by_rules.decision == Decision::Deny {
            return None;
        }
        let exceeded = limiter.look(kind).err()?;
        Some(self.denied_by(cause(exceeded), kind))
    }

    /// Takes from the rates what no later stage takes, and notes the allowance; else what it is denied for.
    pub fn taken(&self, pid: u32, kind: ActionClass) -> Option<Outcome> {
        let limiter = &self.limiter;
        if !limiter.admits(pid) {
            return Some(self.denied_by(CAUSE_BREAKER, kind));
        }
        if let Err(exceeded) = limiter.take(kind) {
            return Some(self.denied_by(cause(exceeded), kind));
        }
        limiter.allowed(pid);
        None
    }

    fn denied_by(&self, cause: u32, kind: ActionClass) -> Outcome {
        let judgement = Judgement {
            decision: Decision::Deny,
            rank: 0,
            cause,
        };
        match kind {
            ActionClass::Exec => self.ruling.wording.exec_outcome(judgement),
            ActionClass::Connect => self.ruling.wording.connect_outcome(judgement),
        }
    }
}

fn cause(exceeded: Exceeded) -> u32 {
    match exceeded {
        Exceeded::Agent => CAUSE_RATE,
        Exceeded::User => CAUSE_USER_RATE,
        Exceeded::Failed => CAUSE_INTERNAL,
    }
}

//! What the breaker and the rates make of a call that the supervisor sees first. The kernel's last stage counts what
//! goes on; here a call that would be denied there is not put to anybody, and gets a clean errno.

use std::net::SocketAddr;

use enforcer_common::{
    event::{CAUSE_BREAKER, CAUSE_INTERNAL, CAUSE_RATE, CAUSE_USER_RATE},
    limits::Breaker,
};

use super::{lines::Wanted, supervisor::Shared};
use crate::{
    audit::Verdict,
    decide::{Decision, Judgement, Outcome, wording::OUTSIDE_LISTENER},
    kernel::limits::{Exceeded, Kind},
    seccomp::target::{self, Who},
};

impl Shared {
    /// What the breaker, or else a rate, makes of what the rules say of a thread's call; `None` if they leave it so.
    pub fn limited(&self, tid: u32, kind: Kind, by_rules: &Outcome) -> Option<Outcome> {
        let limiter = &self.with.limiter;
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
    pub fn taken(&self, pid: u32, kind: Kind) -> Option<Outcome> {
        let limiter = &self.with.limiter;
        if !limiter.admits(pid) {
            return Some(self.denied_by(CAUSE_BREAKER, kind));
        }
        if let Err(exceeded) = limiter.take(kind) {
            return Some(self.denied_by(cause(exceeded), kind));
        }
        limiter.allowed(pid);
        None
    }

    fn denied_by(&self, cause: u32, kind: Kind) -> Outcome {
        let judgement = Judgement {
            decision: Decision::Deny,
            rank: 0,
            cause,
        };
        match kind {
            Kind::Exec => self.with.wording.exec_outcome(judgement),
            Kind::Connect => self.with.wording.connect_outcome(judgement),
        }
    }

    /// Has a connect fail, and says so. `tripped`: the denials in a row, if this one opened the breaker.
    pub fn refuse_connect(
        &self,
        id: u64,
        who: Who,
        wanted: Wanted<'_>,
        outcome: &Outcome,
        tripped: Option<u64>,
    ) -> anyhow::Result<()> {
        let what = match wanted {
            Wanted::Unix(name) => [b"connect ", name].concat(),
            Wanted::Connect { address, port, .. } => {
                format!("connect {}", SocketAddr::new(address, port)).into_bytes()
            }
            Wanted::Exec { text, .. } => text.to_vec(),
            Wanted::Syscall(call) => call.name.as_bytes().to_vec(),
        };
        // Programs look for their daemon again and again; who has read it once knows.
        if outcome.rule.as_deref() != Some(OUTSIDE_LISTENER) || self.told.is_new(who.tgid, &what) {
            self.tell_denial(who, &what, outcome, outcome.suggestion.as_deref());
        }
        let caller = &self.caller(who);
        self.with
            .recorder
            .answered(caller, wanted, outcome, None, Verdict::Errno, tripped)?;
        self.refuse(id, libc::EPERM);
        Ok(())
    }
}

fn cause(exceeded: Exceeded) -> u32 {
    match exceeded {
        Exceeded::Agent => CAUSE_RATE,
        Exceeded::User => CAUSE_USER_RATE,
        Exceeded::Failed => CAUSE_INTERNAL,
    }
}

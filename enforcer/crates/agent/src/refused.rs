//! System calls that the filter refuses and that leave a line in the trail. They wait for the supervisor only to be
//! written down: none ever goes on.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{account::CallOutcome, error::Result, supervisor::Shared, wanted::Wanted};
use enforcer_decide::{Outcome, suggest};
use enforcer_policy::{Cause, Decision, Risk, model::Form};
use enforcer_seccomp::{
    Notification, OtherCall, RefusedCall, SeccompError, SyscallGroups, groups,
    target::{self, ThreadOwner},
};
use enforcer_trail::Syscall;

/// The same call of the same process leaves no second line within this time.
const AGAIN: Duration = Duration::from_secs(1);
/// How many processes and calls are remembered for that; more than this at once are forgotten together.
const REMEMBERED: usize = 4096;
/// From this many on, each new one looks for those whose time is over.
const MANY: usize = 64;

/// What is refused, and what of it was written down lately.
#[derive(Debug)]
pub struct Refusals {
    groups: &'static SyscallGroups,
    loosened: Vec<String>,
    recent: Mutex<Recent>,
}

impl Refusals {
    /// Refusals of the table that is shipped, but for the groups that the policy allows.
    ///
    /// # Errors
    ///
    /// The table is malformed, or a group that is allowed is none.
    pub fn new(loosened: Vec<String>) -> Result<Self, SeccompError> {
        let refusals = Self {
            groups: SyscallGroups::shipped()?,
            loosened,
            recent: Mutex::default(),
        };
        refusals.of(&OtherCall {
            number: -1,
            arguments: [0; 6],
        })?;
        Ok(refusals)
    }

    fn of(&self, call: &OtherCall) -> Result<Option<RefusedCall<'static>>, SeccompError> {
        self.groups
            .refused(&self.loosened, call.number, &call.arguments)
    }

    fn recent<T>(&self, work: impl FnOnce(&mut Recent) -> T) -> T {
        // A panic while it was held can only have left a count behind.
        work(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lines of the last second, by process and call.
#[derive(Debug, Default)]
struct Recent(HashMap<(u32, &'static str), Line>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    written: Instant,
    who: ThreadOwner,
    refused: RefusedCall<'static>,
    /// Calls since then that have no line.
    left_out: u64,
}

impl Recent {
    /// How many calls were left out before this one, if it is to have a line.
    fn line(
        &mut self,
        now: Instant,
        who: ThreadOwner,
        refused: RefusedCall<'static>,
    ) -> Option<u64> {
        let line = Line {
            written: now,
            who,
            refused,
            left_out: 0,
        };
        let Some(before) = self.0.get_mut(&(who.tgid, refused.call)) else {
            self.0.insert((who.tgid, refused.call), line);
            return Some(0);
        };
        if now.saturating_duration_since(before.written) < AGAIN {
            before.left_out += 1;
            return None;
        }
        let left_out = before.left_out;
        *before = line;
        Some(left_out)
    }

    /// Forgets what is over; gives those of which calls were left out.
    fn over(&mut self, now: Instant) -> Vec<Line> {
        let all = self.0.len() >= REMEMBERED;
        if self.0.len() < MANY {
            return Vec::new();
        }
        self.forget(|line| all || now.saturating_duration_since(line.written) >= AGAIN)
    }

    fn forget(&mut self, is_over: impl Fn(&Line) -> bool) -> Vec<Line> {
        let over = self.0.extract_if(|_, line| is_over(line));
        over.map(|(_, line)| line)
            .filter(|line| line.left_out > 0)
            .collect()
    }
}

impl Shared {
    /// Refuses a call, and writes it down.
    pub fn refuse_call(&self, notification: &Notification, call: &OtherCall) -> Result<()> {
        let id = notification.id;
        let Some(refused) = self.refusals.of(call)? else {
            // The filter sends nothing else here.
            self.calls.refuse(id, libc::EPERM);
            return Ok(());
        };
        let who = target::who(notification.tid).unwrap_or_default();
        // What was read belongs to this call only if its caller still waits in it.
        if !self.calls.is_valid(id) {
            return Ok(());
        }
        let now = Instant::now();
        let (line, over) = self
            .refusals
            .recent(|recent| (recent.line(now, who, refused), recent.over(now)));
        self.write_left_out(over)?;
        if let Some(left_out) = line {
            let outcome = self.outcome_of(refused);
            self.account
                .refuse(&refused_line(who, refused, &outcome, left_out))?;
        }
        self.calls.refuse(id, refused.errno);
        Ok(())
    }

    /// Writes down what was left out and has no next line: the run ends.
    pub fn end_refusals(&self) -> Result<()> {
        let rest = self.refusals.recent(|recent| recent.forget(|_| true));
        self.write_left_out(rest)
    }

    /// One line for the calls that were left out of each: it stands for one of them and counts the others.
    fn write_left_out(&self, lines: Vec<Line>) -> Result<()> {
        for line in lines {
            let outcome = self.outcome_of(line.refused);
            let more = refused_line(line.who, line.refused, &outcome, line.left_out - 1);
            self.account.record(&more)?;
        }
        Ok(())
    }

    fn outcome_of(&self, refused: RefusedCall<'_>) -> Outcome {
        outcome(refused, self.ruling.engine.policy().form)
    }
}

/// What a line says of a refused call that stands for `left_out` others.
fn refused_line<'a>(
    who: ThreadOwner,
    refused: RefusedCall<'a>,
    outcome: &'a Outcome,
    left_out: u64,
) -> CallOutcome<'a> {
    let call = Syscall {
        name: refused.call,
        group: refused.group,
        left_out,
    };
    CallOutcome::refused(who, Wanted::Syscall(call), outcome)
}

fn outcome(refused: RefusedCall<'_>, form: Form) -> Outcome {
    let suggestion = suggest::in_form(form, &groups::suggestion(refused.group));
    Outcome {
        decision: Decision::Deny,
        cause: Cause::Syscall,
        rule: Some(format!("{}{}", groups::RULE, refused.group)),
        reason: refused.why.to_owned(),
        risk: Risk::High,
        suggestion: Some(suggestion.clone()),
        suggestions: vec![suggestion],
        security_risk: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIOCSTI: RefusedCall<'static> = RefusedCall {
        call: "ioctl",
        group: "terminal-input",
        why: "types",
        errno: libc::EPERM,
    };
    const PTRACE: RefusedCall<'static> = RefusedCall {
        call: "ptrace",
        ..TIOCSTI
    };

    fn who(tgid: u32) -> ThreadOwner {
        ThreadOwner {
            tgid,
            ..ThreadOwner::default()
        }
    }

    #[test]
    fn a_flood_leaves_a_line_a_second_that_counts_the_rest() {
        let mut recent = Recent::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(recent.line(at(0), who(1), TIOCSTI), Some(0));
        assert_eq!(recent.line(at(1), who(1), TIOCSTI), None);
        assert_eq!(recent.line(at(999), who(1), TIOCSTI), None);
        // Another process, another call.
        assert_eq!(recent.line(at(999), who(2), TIOCSTI), Some(0));
        assert_eq!(recent.line(at(999), who(1), PTRACE), Some(0));
        assert_eq!(recent.line(at(1000), who(1), TIOCSTI), Some(2));
        assert_eq!(recent.line(at(1001), who(1), TIOCSTI), None);
        assert_eq!(recent.line(at(2500), who(1), TIOCSTI), Some(1));
        assert_eq!(recent.line(at(2501), who(2), TIOCSTI), Some(0));
        assert_eq!(recent.line(at(2502), who(2), TIOCSTI), None);
        // At the end only what has no line yet is left.
        let rest = recent.forget(|_| true);
        assert_eq!(rest.len(), 1);
        assert_eq!((rest[0].who.tgid, rest[0].left_out), (2, 1));
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut recent = Recent::default();
        let start = Instant::now();
        let mut written = 0;
        let mut left_out = 0;
        for tgid in 0..3 * REMEMBERED as u32 {
            written += usize::from(recent.line(start, who(tgid), PTRACE).is_some());
            left_out += usize::from(recent.line(start, who(tgid), PTRACE).is_none());
            written += recent.over(start).len();
            assert!(recent.0.len() < REMEMBERED);
        }
        written += recent.forget(|_| true).len();
        assert_eq!(written, 2 * left_out, "every call is told of");
        for tgid in 0..MANY as u32 {
            recent.line(start, who(tgid), PTRACE);
        }
        assert!(recent.over(start + AGAIN / 2).is_empty());
        assert_eq!(recent.0.len(), MANY);
        recent.over(start + AGAIN);
        assert!(recent.0.is_empty());
    }

    #[test]
    fn what_the_policy_allows_is_not_refused() {
        let ptrace = OtherCall {
            number: libc::SYS_ptrace as i32,
            arguments: [0; 6],
        };
        let shut = Refusals::new(Vec::new()).unwrap();
        assert_eq!(shut.of(&ptrace).unwrap().unwrap().group, "ptrace");
        let open = Refusals::new(vec!["ptrace".to_owned()]).unwrap();
        assert_eq!(open.of(&ptrace).unwrap(), None);
        Refusals::new(vec!["ptrase".to_owned()]).unwrap_err();
    }
}

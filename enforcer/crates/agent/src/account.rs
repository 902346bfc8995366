//! Who hears of what the supervisor decides: the trail, and the process itself.

use std::{sync::Arc, time::Duration};

use super::{
    error::Result, lines::Caller, listeners::ToldListeners, record::Recorder, tell::Telling,
    wanted::Wanted,
};
use enforcer_decide::{
    Outcome,
    approval::{Answer, Ending},
    line, wording,
};
use enforcer_launch::CgroupRoot;
use enforcer_policy::Cause;
use enforcer_seccomp::target::{self, ThreadOwner};
use enforcer_trail::Verdict;

/// How long an errno waits for its reason to be written where the process sees it.
const TELLING: Duration = Duration::from_millis(20);

/// What the supervisor did about a call.
#[derive(Clone, Debug)]
pub struct CallOutcome<'a> {
    /// Whose it is.
    pub who: ThreadOwner,
    /// What it wanted.
    pub wanted: Wanted<'a>,
    /// What was decided.
    pub outcome: &'a Outcome,
    /// How the request ended, if there was one.
    pub answer: Option<&'a Answer>,
    /// What became of it.
    pub verdict: Verdict,
    /// The denials in a row, if this one opened the breaker.
    pub tripped: Option<u64>,
}

impl<'a> CallOutcome<'a> {
    /// A call that fails, by the policy or a limit alone.
    pub fn refused(who: ThreadOwner, wanted: Wanted<'a>, outcome: &'a Outcome) -> Self {
        Self {
            who,
            wanted,
            outcome,
            answer: None,
            verdict: Verdict::Errno,
            tripped: None,
        }
    }

    /// The same, where this denial may have opened the breaker.
    #[must_use]
    pub fn tripping(self, tripped: Option<u64>) -> Self {
        Self { tripped, ..self }
    }
}

/// Where it is written and told.
#[derive(Debug)]
pub struct Account {
    /// The trail.
    pub recorder: Recorder,
    /// Who tells the process.
    pub telling: Arc<Telling>,
    /// Where the cgroup is that a line names.
    pub cgroups: CgroupRoot,
    /// Who was told of listeners outside.
    pub listeners: ToldListeners,
}

impl Account {
    /// Writes it down.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn record(&self, done: &CallOutcome<'_>) -> Result<()> {
        self.recorder.answered(&self.caller(done.who), done)
    }

    /// Writes down that a call does not go on, then tells its process why.
    ///
    /// # Errors
    ///
    /// The trail cannot be written; the process is told all the same.
    pub fn refuse(&self, done: &CallOutcome<'_>) -> Result<()> {
        let recorded = self.record(done);
        self.tell(done);
        recorded
    }

    /// Tells a process why its call fails.
    pub fn tell(&self, done: &CallOutcome<'_>) {
        let CallOutcome { who, outcome, .. } = *done;
        let what = done.wanted.text();
        let reason = match done.answer.map(|answer| &answer.ending) {
            // Who is gone hears nothing.
            Some(Ending::Cancelled) => return,
            Some(ending) => &wording::ending(ending, outcome),
            None => &outcome.reason,
        };
        // Programs look for their daemon again and again; who has read it once knows.
        let outside = matches!(outcome.cause, Cause::Listener | Cause::Unseen);
        if outside && !self.listeners.is_new(who.tgid, &what) {
            return;
        }
        let line = line::blocked_line(&what, reason, outcome.suggestion.as_deref());
        self.telling.denial(who.tgid, who.ppid, &line, TELLING);
    }

    /// A process, as the trail names it.
    fn caller(&self, who: ThreadOwner) -> Caller {
        Caller {
            pid: who.tgid,
            ppid: who.ppid,
            uid: who.uid,
            cgroup: self.cgroups.id_of(who.tgid).ok(),
            program: target::program(who.tgid).unwrap_or_default(),
        }
    }
}

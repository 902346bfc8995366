//! Execs that wait for a person after the exec is done: their process stands before the first instruction of the new
//! program ([`ExecStops`](enforcer_launch::ExecStops)), and whoever started it goes on.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use super::{
    account::CallOutcome,
    editions::Edition,
    error::Result,
    held::{GRANT, boot_ns, changed},
    supervisor::Shared,
    wanted::Put,
};
use enforcer_decide::approval::{Answer, Ending, ExecRequest};
use enforcer_kernel::events::KernelEvent;
use enforcer_policy::Waiting;
use enforcer_seccomp::target::ThreadOwner;
use enforcer_trail::Verdict;

/// Programs that do nothing else while they wait for a child: an exec of theirs waits before it is done, and a denial is
/// an errno, which they report better than a signal.
const PATIENT: [&str; 12] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "busybox", "xargs", "find", "make",
];

/// Flag of a process that was forked and has executed nothing since (`PF_FORKNOEXEC`, linux/sched.h).
const FORKED: u64 = 0x40;

/// Most lines that are kept back, and most numbers of execs that never happened.
const KEPT: usize = 8192;

/// An exec that may wait long, and is parked meanwhile.
#[derive(Debug)]
pub struct Parking {
    /// The notification.
    id: u64,
    who: ThreadOwner,
    exec: ExecRequest,
    script: bool,
}

/// Which notifications were parked, and by which grant.
#[derive(Debug, Default)]
pub struct ParkedExecs(HashMap<u64, u64>);

impl ParkedExecs {
    /// The grant's number of a notification that was parked.
    pub fn take(&mut self, id: u64) -> Option<u64> {
        self.0.remove(&id)
    }
}

impl Shared {
    /// What is needed to park a call when it turns out to wait; `None` for one that waits where it is.
    pub(super) fn parking(&self, put: &Put) -> Option<Parking> {
        let (found, exec) = put.exec()?;
        let held = &put.held;
        let parks = self.ruling.waiting == Waiting::Auto
            && held.tid == held.who.tgid
            && is_forked(held.who.tgid)
            && !is_patient(held.who.tgid)
            && is_alone(held.who.tgid);
        parks.then(|| Parking {
            id: held.id,
            who: held.who,
            exec: exec.clone(),
            script: found.action.script.is_some(),
        })
    }

    /// Lets an exec be done and stops its process behind it. Where that fails the call waits where it is.
    pub(super) fn park(
        self: &Arc<Self>,
        parking: &Parking,
        number: u64,
        parked: &mut ParkedExecs,
    ) -> Result<()> {
        let pid = parking.who.tgid;
        if !self.calls.is_valid(parking.id) {
            return Ok(());
        }
        if let Err(error) = self.approving.stops.stop(pid) {
            tracing::warn!(%error, pid, "an exec that waits for approval holds up its caller");
            return Ok(());
        }
        let now = boot_ns()?;
        self.approving.grants.sweep(now)?;
        let expires_ns = now + u64::try_from(GRANT.as_nanos()).unwrap_or(u64::MAX);
        let (key, mut grant) = self.exec_grant(
            parking.who,
            &parking.exec,
            parking.script,
            number,
            expires_ns,
        );
        grant.unanswered = 1;
        self.account.recorder.park(number);
        self.approving.grants.allow_exec(&key, &grant)?;
        parked.0.insert(parking.id, number);
        self.calls.listener.allow(parking.id)?;
        Ok(())
    }

    /// Carries out the answer to a parked exec; `number` is its grant's.
    pub(super) fn settle_parked(&self, put: &Put, mut answer: Answer, number: u64) -> Result<()> {
        let held = &put.held;
        let pid = held.who.tgid;
        answer = self.under_the_policy_of_now(held, answer);
        // A script is read by its interpreter, which has not begun.
        if matches!(answer.ending, Ending::Approved { .. })
            && let Some((found, exec)) = put.exec()
            && let Some(why) = changed(held, found, exec)
        {
            answer.ending = Ending::Refused(why);
        }
        if matches!(answer.ending, Ending::Approved { .. }) {
            // On record before it runs.
            self.account.recorder.approve_parked(number, answer)?;
            self.limiter.allowed(pid);
            self.approving.stops.release(pid);
            return Ok(());
        }
        self.account.recorder.drop_parked(number)?;
        let tripped = self.count_denial(held, &answer);
        let killed = CallOutcome {
            verdict: Verdict::Killed,
            ..self.unapproved(held, &answer).tripping(tripped)
        };
        let recorded = self.account.refuse(&killed);
        self.approving.stops.kill(pid);
        recorded
    }
}

/// Whether a process is a copy of its parent, which may wait for its exec. One that has executed a program already gives
/// itself up for the next.
fn is_forked(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| flags(&stat))
        .is_some_and(|flags| flags & FORKED != 0)
}

/// The flags in a `/proc/PID/stat` (proc(5)): the name before them may hold anything.
fn flags(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(6)?.parse().ok()
}

/// Whether a process's program waits for its children anyway.
fn is_patient(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| is_patient_program(&program))
}

fn is_patient_program(program: &Path) -> bool {
    program
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| PATIENT.contains(&name))
}

/// Whether a process has one thread: the exec of another would take its number away.
fn is_alone(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() == 1)
}

/// Lines of execs that are done and not approved yet, by the number of their grant.
#[derive(Debug, Default)]
pub struct ParkedLines(BTreeMap<u64, Line>);

#[derive(Debug)]
enum Line {
    /// The kernel has yet to tell of it.
    Expected,
    /// The kernel has told, of a decision of this policy.
    Kept(Box<KernelEvent>, Arc<Edition>),
    /// Another line tells of it.
    Elsewhere,
}

impl ParkedLines {
    /// An exec of this number will be done.
    pub fn expect(&mut self, request: u64) {
        self.insert(request, Line::Expected);
    }

    fn insert(&mut self, request: u64, line: Line) {
        self.0.insert(request, line);
        while self.0.len() > KEPT {
            self.0.pop_first();
        }
    }

    /// Keeps an event whose line has to wait, or none is wanted of; gives back any other.
    pub fn keep(
        &mut self,
        event: KernelEvent,
        edition: Arc<Edition>,
    ) -> Option<(KernelEvent, Arc<Edition>)> {
        let request = event.header.approval;
        match self.0.get(&request) {
            None => Some((event, edition)),
            Some(Line::Expected | Line::Kept(..)) => {
                self.insert(request, Line::Kept(Box::new(event), edition));
                None
            }
            Some(Line::Elsewhere) => {
                self.0.remove(&request);
                None
            }
        }
    }

    /// The event, if the kernel has told of it; nothing is kept back any more.
    pub fn take(&mut self, request: u64) -> Option<(KernelEvent, Arc<Edition>)> {
        match self.0.remove(&request) {
            Some(Line::Kept(event, edition)) => Some((*event, edition)),
            _ => None,
        }
    }

    /// No line is wanted, whether the kernel has told or will tell.
    pub fn forget(&mut self, request: u64) {
        if let Some(Line::Expected) = self.0.remove(&request) {
            self.insert(request, Line::Elsewhere);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_a_program() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194368 85 0 0 0 0 0 0 0 20 0 1 0";
        assert_eq!(flags(stat).map(|flags| flags & FORKED), Some(FORKED));
        assert_eq!(flags("7 (x) S 1 7"), None);
        assert!(!is_forked(std::process::id()));
    }

    #[test]
    fn shells_are_patient() {
        for patient in ["/usr/bin/bash", "/bin/dash", "/usr/bin/make", "/busybox"] {
            assert!(is_patient_program(Path::new(patient)), "{patient}");
        }
        for busy in ["/usr/bin/node", "/usr/bin/python3.11", "/x/bashful", "/"] {
            assert!(!is_patient_program(Path::new(busy)), "{busy}");
        }
    }

    #[test]
    fn this_process_has_threads() {
        std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || receive.recv());
            assert!(!is_alone(std::process::id()));
            drop(send);
        });
    }
}

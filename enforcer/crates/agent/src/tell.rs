//! Who hears of a denial: the process itself, on its own stderr, and whoever asks the desk for the last ones.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::lines::Denied;
use enforcer_approvals::Asker;
use enforcer_launch::StderrNotifier;

/// A line is not said again to the same process within this time: programs try a refused address, or the same
/// program in the next directory, again and again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the kernel's event of a denied exec may take to come.
const EVENT: Duration = Duration::from_secs(10);
/// How many lines are remembered for both.
const REMEMBERED: usize = 64;

/// A line that was told.
#[derive(Debug)]
struct Said {
    at: Instant,
    pid: u32,
    line: String,
    /// Whether it is the reason of a denial.
    denial: bool,
}

/// Tells processes of what was denied.
#[derive(Debug)]
pub struct Telling {
    /// None if nothing is to be told.
    notifier: Option<StderrNotifier>,
    /// Keeps the last lines for whoever asks later.
    desk: Option<Asker>,
    /// The supervisor sees execs, and tells why one is denied before that happens.
    execs_told: bool,
    /// What was told to whom, and when.
    recent: Mutex<VecDeque<Said>>,
    /// Processes that did not take a line in time, and when. The supervisor serves others, too.
    stuck: Mutex<VecDeque<(Instant, u32)>>,
}

impl Telling {
    /// Tells by `notifier`; nothing without one. `execs_told`: the supervisor tells of denied execs.
    pub fn new(notifier: Option<StderrNotifier>, desk: Option<Asker>, execs_told: bool) -> Self {
        Self {
            notifier,
            desk,
            execs_told,
            recent: Mutex::default(),
            stuck: Mutex::default(),
        }
    }

    /// Whether anything is to be told.
    pub fn tells(&self) -> bool {
        self.notifier.is_some()
    }

    /// Tells of what the kernel denied, if the supervisor has not told of it before. The kernel has answered already: nobody
    /// waits for the line.
    pub fn denied(&self, denied: &Denied) {
        // The kernel may word an exec otherwise: whose path was read through a link, for one.
        let told = denied.exec && self.execs_told && self.was_told(denied.pid);
        if !told {
            self.denial(denied.pid, denied.ppid, &denied.line, Duration::ZERO);
        }
    }

    /// Tells of a denial; returns when it is written, or after `wait`.
    pub fn denial(&self, pid: u32, parent: u32, line: &str, wait: Duration) {
        if self.is_new(pid, line, true) {
            if let Some(desk) = &self.desk {
                desk.note_denial(line);
            }
            self.write(pid, parent, line, wait);
        }
    }

    /// Writes a line to a process, or to its parent if it is gone.
    pub fn line(&self, pid: u32, parent: u32, line: &str, wait: Duration) {
        if self.is_new(pid, line, false) {
            self.write(pid, parent, line, wait);
        }
    }

    fn write(&self, pid: u32, parent: u32, line: &str, wait: Duration) {
        let Some(notifier) = &self.notifier else {
            return;
        };
        let wait = if self.is_stuck(pid) {
            Duration::ZERO
        } else {
            wait
        };
        if !notifier.tell(pid, Some(parent), line, wait) && !wait.is_zero() {
            let mut stuck = self.stuck();
            if stuck.len() >= REMEMBERED {
                stuck.pop_front();
            }
            stuck.push_back((Instant::now(), pid));
        }
    }

    fn stuck(&self) -> MutexGuard<'_, VecDeque<(Instant, u32)>> {
        // As below.
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line has just waited for this process in vain.
    fn is_stuck(&self, pid: u32) -> bool {
        self.stuck()
            .iter()
            .any(|(at, stuck)| *stuck == pid && at.elapsed() < AGAIN)
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Said>> {
        // Whoever panicked while holding it has left a whole list.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process has just been told of a denial.
    fn was_told(&self, pid: u32) -> bool {
        self.recent()
            .iter()
            .any(|said| said.pid == pid && said.denial && said.at.elapsed() < EVENT)
    }

    /// Whether this process was not told just that a moment ago; it is from now on.
    fn is_new(&self, pid: u32, line: &str, denial: bool) -> bool {
        let mut recent = self.recent();
        let is_new = !recent
            .iter()
            .any(|said| said.pid == pid && said.line == line && said.at.elapsed() < AGAIN);
        if is_new {
            if recent.len() >= REMEMBERED {
                recent.pop_front();
            }
            recent.push_back(Said {
                at: Instant::now(),
                pid,
                line: line.to_owned(),
                denial,
            });
        }
        is_new
    }
}

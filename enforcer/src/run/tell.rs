//! Who hears of a denial: the process itself, on its own stderr, and whoever asks the desk for the last ones.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::lines::Denied;
use crate::{approvals::Asker, launch::Teller};

/// A line is not said again to the same process within this time: programs try a refused address, or the same
/// program in the next directory, again and again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many lines are remembered for that.
const REMEMBERED: usize = 64;

/// Tells processes of what was denied.
#[derive(Debug)]
pub struct Telling {
    /// None if nothing is to be told.
    teller: Option<Teller>,
    /// Keeps the last lines for whoever asks later.
    desk: Option<Asker>,
    /// Refused execs are told by the supervisor, before the errno.
    execs_told: bool,
    recent: Mutex<VecDeque<(Instant, u32, String)>>,
}

impl Telling {
    /// Tells by `teller`; nothing without one. `execs_told`: the supervisor tells of refused execs.
    pub fn new(teller: Option<Teller>, desk: Option<Asker>, execs_told: bool) -> Self {
        Self {
            teller,
            desk,
            execs_told,
            recent: Mutex::default(),
        }
    }

    /// Whether anything is to be told.
    pub fn tells(&self) -> bool {
        self.teller.is_some()
    }

    /// Tells of what the kernel denied. It has answered already: nobody waits for the line.
    pub fn denied(&self, denied: &Denied) {
        if !(denied.refused_exec && self.execs_told) {
            self.denial(denied.pid, denied.ppid, &denied.line, Duration::ZERO);
        }
    }

    /// Tells of a denial; returns when it is written, or after `wait`.
    pub fn denial(&self, pid: u32, parent: u32, line: &str, wait: Duration) {
        if let Some(desk) = &self.desk {
            desk.note_denial(line);
        }
        self.line(pid, parent, line, wait);
    }

    /// Writes a line to a process, or to its parent if it is gone.
    pub fn line(&self, pid: u32, parent: u32, line: &str, wait: Duration) {
        if let Some(teller) = &self.teller
            && self.is_new(pid, line)
        {
            teller.tell(pid, Some(parent), line, wait);
        }
    }

    fn is_new(&self, pid: u32, line: &str) -> bool {
        // Whoever panicked while holding it has left a whole list.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some((at, ..)) = recent.front()
            && (now.duration_since(*at) > AGAIN || recent.len() >= REMEMBERED)
        {
            recent.pop_front();
        }
        let said = recent
            .iter()
            .any(|(_, told, said)| *told == pid && said == line);
        if !said {
            recent.push_back((now, pid, line.to_owned()));
        }
        !said
    }
}

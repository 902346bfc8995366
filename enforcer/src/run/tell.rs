//! Who hears of a denial: the process itself, on its own stderr.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::record::Denied;
use crate::{approvals::Asker, launch::Teller};

/// A line is not said again to the same process within this time: programs try a refused address again and again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many lines are remembered for that.
const REMEMBERED: usize = 64;

/// Tells processes of what the kernel denied them.
#[derive(Debug)]
pub struct Telling {
    teller: Option<Arc<Teller>>,
    /// Keeps the last lines for whoever asks later.
    desk: Option<Asker>,
    /// Refused execs are told by the supervisor, before the errno.
    execs_told: bool,
    recent: VecDeque<(Instant, u32, String)>,
}

impl Telling {
    /// Tells by `teller`; nothing without one. `execs_told`: the supervisor has told of refused execs already.
    pub fn new(teller: Option<Arc<Teller>>, desk: Option<Asker>, execs_told: bool) -> Self {
        Self {
            teller,
            desk,
            execs_told,
            recent: VecDeque::new(),
        }
    }

    /// Tells of one denial.
    pub fn tell(&mut self, denied: Denied) {
        if denied.refused_exec && self.execs_told {
            return;
        }
        if let Some(desk) = &self.desk {
            desk.note_denial(&denied.line);
        }
        let Some(teller) = &self.teller else {
            return;
        };
        let now = Instant::now();
        while self
            .recent
            .front()
            .is_some_and(|(at, _, _)| now.duration_since(*at) > AGAIN)
            || self.recent.len() > REMEMBERED
        {
            self.recent.pop_front();
        }
        let said = self
            .recent
            .iter()
            .any(|(_, pid, line)| *pid == denied.pid && *line == denied.line);
        if !said {
            // The kernel has answered already: nobody waits for the line.
            teller.tell(denied.pid, Some(denied.ppid), &denied.line, Duration::ZERO);
            self.recent.push_back((now, denied.pid, denied.line));
        }
    }
}

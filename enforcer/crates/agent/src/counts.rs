//! How many actions have been recorded.

use super::wanted::Wanted;
use enforcer_trail::Verdict;

/// What has been recorded so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Execs, allowed or not.
    pub execs: u64,
    /// Connects and sockets, allowed or not.
    pub connects: u64,
    /// Execs that did not happen.
    pub execs_denied: u64,
    /// Connects and sockets that did not.
    pub connects_denied: u64,
    /// Whatever did not happen.
    pub denied: u64,
    /// What happened though the policy does not allow it: it was only observed.
    pub observed: u64,
}

impl Counts {
    pub fn note_wanted(&mut self, wanted: &Wanted<'_>, verdict: Verdict) {
        let denied = verdict != Verdict::Allowed;
        match wanted {
            Wanted::Exec { .. } => self.note(true, denied),
            Wanted::Connect(_) | Wanted::Unix(_) => self.note(false, denied),
            Wanted::Syscall(_) => self.denied += u64::from(denied),
        }
    }

    pub fn note(&mut self, exec: bool, denied: bool) {
        let (all, refused) = if exec {
            (&mut self.execs, &mut self.execs_denied)
        } else {
            (&mut self.connects, &mut self.connects_denied)
        };
        *all += 1;
        *refused += u64::from(denied);
        self.denied += u64::from(denied);
    }
}

//! Execs that were refused a moment ago: nobody is asked about the same once more.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::wanted::Put;
use enforcer_decide::approval::{Answer, ExecRequest, Request};

/// How long a refusal holds for the same process trying the same program by another path, as a shell does that
/// goes through `PATH`.
const REFUSED: Duration = Duration::from_secs(2);
/// How many refusals are remembered for that.
const REMEMBERED: usize = 32;

/// What was refused a moment ago.
#[derive(Debug, Default)]
pub struct RefusedLately(VecDeque<(Instant, u32, ExecRequest, Answer)>);

impl RefusedLately {
    /// Notes a refusal of an exec.
    pub fn remember(&mut self, put: &Put, answer: &Answer) {
        if let Request::Exec(exec) = &put.request {
            if self.0.len() >= REMEMBERED {
                self.0.pop_front();
            }
            let refusal = (
                Instant::now(),
                put.held.who.tgid,
                exec.clone(),
                answer.clone(),
            );
            self.0.push_back(refusal);
        }
    }

    /// The refusal that this process has just been given, if only the directory of the program differs: a search through
    /// `PATH` may come upon two copies.
    pub fn find(&self, put: &Put) -> Option<Answer> {
        let pid = put.held.who.tgid;
        let Request::Exec(exec) = &put.request else {
            return None;
        };
        self.0
            .iter()
            .rev()
            .find(|(at, refused_pid, refused, _)| {
                at.elapsed() < REFUSED
                    && *refused_pid == pid
                    && refused.argv == exec.argv
                    && base_name(&refused.path) == base_name(&exec.path)
                    && refused.cwd == exec.cwd
            })
            .map(|(_, _, _, answer)| answer.clone())
    }
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

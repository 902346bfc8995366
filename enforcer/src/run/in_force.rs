//! What is in force: one value, made by the self-test alone, from what it saw refuse.

use crate::{
    kernel::{instance::UnixJudgement, record::Seen},
    launch::{Fence, FenceLevel},
};

use super::Level;

/// The mechanisms that were seen to refuse, of those that some kernels lack, or show and never run. Without the others
/// nothing starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    programs: Vec<&'static str>,
    landlock: Landlock,
}

/// What the agent's Landlock domain was seen to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Landlock {
    /// To trace a process outside.
    pub tracing: bool,
    /// To send one a signal.
    pub signals: bool,
}

impl InForce {
    pub(super) fn new(programs: Vec<&'static str>, landlock: Landlock) -> Self {
        Self { programs, landlock }
    }

    /// What a host was seen to refuse when it was loaded.
    pub(super) fn of(seen: Seen) -> Self {
        let landlock = Landlock {
            tracing: seen.tracing,
            signals: seen.signals,
        };
        Self::new(seen.programs, landlock)
    }

    /// The same, for the host that remembers it.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            programs: self.programs.clone(),
            tracing: self.landlock.tracing,
            signals: self.landlock.signals,
        }
    }

    /// What is in force for an agent whose denied execs are killed: none is refused before.
    #[must_use]
    pub(super) fn killing(mut self) -> Self {
        self.programs.retain(|name| *name != "exec_check");
        self
    }

    /// The kernel programs.
    pub fn programs(&self) -> &[&'static str] {
        &self.programs
    }

    /// Whether this kernel program is among them.
    pub fn has(&self, program: &str) -> bool {
        self.programs.contains(&program)
    }

    /// Whether denied execs get an errno from the kernel itself. What else is weaker than it could be does not change the
    /// level, and is said beside it.
    pub fn level(&self) -> Level {
        if self.has("exec_check") {
            Level::Full
        } else {
            Level::Partial
        }
    }

    /// How the kernel judges connects to unix sockets.
    pub fn unix(&self) -> UnixJudgement {
        UnixJudgement::of(&self.programs)
    }

    /// Whether processes outside the agent cannot be traced.
    pub fn tracing(&self) -> bool {
        self.landlock.tracing || self.has("ptrace_access_check")
    }

    /// Whether they cannot be sent signals.
    pub fn signals(&self) -> bool {
        self.landlock.signals || self.has("task_kill")
    }

    /// How much keeps an agent from processes outside.
    pub fn fence(&self) -> FenceLevel {
        match (self.tracing(), self.signals()) {
            (true, true) => FenceLevel::Full,
            (false, false) => FenceLevel::None,
            _ => FenceLevel::Partial,
        }
    }

    /// What keeps an agent from processes outside, or why nothing does.
    pub fn describe_fence(&self, fence: &Fence) -> String {
        let by = |lsm: &str, landlock| match (self.has(lsm), landlock) {
            (true, true) => "refused (LSM, Landlock)",
            (true, false) => "refused (LSM)",
            (false, true) => "refused (Landlock)",
            (false, false) => "not refused",
        };
        let claimed = fence.level;
        let Landlock { tracing, signals } = self.landlock;
        let why = if claimed >= FenceLevel::Partial && !tracing
            || claimed == FenceLevel::Full && !signals
        {
            format!("{}: but that was not seen", fence.why)
        } else {
            fence.why.clone()
        };
        format!(
            "tracing is {}, signals are {}; {why}",
            by("ptrace_access_check", tracing),
            by("task_kill", signals)
        )
    }

    /// What is weaker than the level says, or than a kernel can be.
    pub fn weaknesses(&self, fence: &Fence) -> Vec<String> {
        let mut weaker = Vec::new();
        if self.fence() < FenceLevel::Full {
            weaker.push(format!(
                "processes outside the agent: {}",
                self.describe_fence(fence)
            ));
        }
        if self.level() == Level::Full && !self.has("socket_connect") {
            weaker.push(
                "sockets that were made outside the agent are not judged: the LSM program for them was not seen to refuse"
                    .to_owned(),
            );
        }
        weaker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_in_force_that_was_not_seen() {
        let none = InForce::new(Vec::new(), Landlock::default());
        assert_eq!(none.level(), Level::Partial);
        assert_eq!(none.unix(), UnixJudgement::Absent);
        assert_eq!(none.fence(), FenceLevel::None);
        let fence = Fence::probe(false);
        let [outside] = &none.weaknesses(&fence)[..] else {
            panic!("{:?}", none.weaknesses(&fence));
        };
        assert!(outside.contains("tracing is not refused, signals are not refused"));
        assert!(fence.level == FenceLevel::None || outside.ends_with("not seen"));
    }

    #[test]
    fn one_of_two_programs_is_no_judgement_of_unix_sockets() {
        let of =
            |programs: &[&'static str]| InForce::new(programs.to_vec(), Landlock::default()).unix();
        assert_eq!(of(&["unix_stream_connect"]), UnixJudgement::Absent);
        assert_eq!(
            of(&["unix_stream_connect", "unix_may_send"]),
            UnixJudgement::Bound
        );
        assert_eq!(of(&["unix_connect"]), UnixJudgement::Absent);
        assert_eq!(of(&["unix_connect", "unix_sendmsg"]), UnixJudgement::Called);
    }

    #[test]
    fn one_mechanism_of_two_is_enough() {
        let seen = InForce::new(
            vec!["exec_check", "task_kill", "socket_connect"],
            Landlock {
                tracing: true,
                signals: false,
            },
        );
        assert_eq!(seen.fence(), FenceLevel::Full);
        assert_eq!(seen.level(), Level::Full);
        assert_eq!(seen.weaknesses(&Fence::probe(false)), [""; 0]);
    }
}

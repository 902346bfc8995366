//! What is in force: one value, made by the self-test alone, from what it saw refuse.

use enforcer_kernel::{instance::UnixJudgement, record::SeenToRefuse};

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
    pub(super) fn of(seen: SeenToRefuse) -> Self {
        let landlock = Landlock {
            tracing: seen.tracing,
            signals: seen.signals,
        };
        Self::new(seen.programs, landlock)
    }

    /// The same, for the host that remembers it.
    pub(super) fn seen(&self) -> SeenToRefuse {
        SeenToRefuse {
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

    /// What the agent's Landlock domain refuses.
    pub(super) fn landlock(&self) -> Landlock {
        self.landlock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

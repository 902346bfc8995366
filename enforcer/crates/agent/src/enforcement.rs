//! What is in force for one agent, or would be for one on this machine: a value that is made here alone, of what was seen
//! to refuse, how the run is governed, and what its policy says. Whoever tells of it prints this, whoever asks for a level
//! looks at this.

use std::fmt;

use enforcer_kernel::instance::UnixJudgement;
use enforcer_launch::{Identity, LandlockDomain, LandlockLevel, OwnProgram, PidsLimit};
use enforcer_policy::{Policy, approvals};
use enforcer_policy_files::ground::Untrusted;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    InForce, Level,
    error::{AgentError, Result},
    first::{FirstJudge, FirstJudgement, Means},
    options::{Governing, OnDeny},
    weakness::{self, Weakness},
};

/// What stands between an agent and what its policy denies, while its launcher runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// How much it is.
    pub level: Level,
    /// Nothing is blocked: the rest says what would be.
    pub observed: bool,
    /// How denied execs end.
    pub execs: Execs,
    /// How denied connects end.
    pub connects: Connects,
    /// How connects to unix sockets are judged.
    pub unix_sockets: UnixSockets,
    /// Whether the connects of sockets that were made outside the agent are judged.
    pub outside_sockets: OutsideSockets,
    /// What keeps the agent from processes outside.
    pub processes_outside: ProcessesOutside,
    /// How many processes it may have; `None` for any number.
    pub process_limit: Option<u64>,
    /// Who judges its execs first.
    pub first_judgement: FirstJudge,
    #[serde(serialize_with = "weakness::told")]
    weaknesses: Vec<Weakness>,
}

/// How denied execs end. What is denied runs no instruction in any case: the kill stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Execs {
    /// With EPERM, by an LSM program.
    RefusedByLsm,
    /// With EPERM, by the seccomp supervisor; what slips past it by SIGKILL.
    RefusedBySupervisor,
    /// By SIGKILL.
    Killed,
}

/// How denied connects end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connects {
    /// With EPERM, by the programs on the agent's cgroup: without them nothing starts.
    RefusedByCgroup,
}

/// How connects to unix sockets are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnixSockets {
    /// By the name that the other socket is bound to (LSM).
    ByBoundName,
    /// By the name of the call (cgroup hooks); the connector connects to paths, to the file that was judged.
    ByCalledNameAndConnector,
    /// By the name of the call alone.
    ByCalledName,
    /// By the supervisor, which reads what the caller can still change; datagrams not at all.
    BySupervisor,
    /// Not at all.
    NotJudged,
}

/// Whether the connects of sockets that were made outside the agent are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutsideSockets {
    /// They are, by who connects (LSM).
    RefusedByLsm,
    /// They are not.
    NotJudged,
}

/// What refuses an agent something that it tries on a process outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutsideGuard {
    /// Both, each by itself.
    LsmAndLandlock,
    /// An LSM program.
    Lsm,
    /// The agent's Landlock domain.
    Landlock,
    /// Nothing of ours.
    None,
}

/// What keeps an agent from processes outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessesOutside {
    /// From tracing them.
    pub tracing: OutsideGuard,
    /// From sending them signals.
    pub signals: OutsideGuard,
    /// What the kernel says of Landlock, or why it gives no more.
    pub landlock: String,
}

/// What this machine gives an agent.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What was seen to refuse.
    pub in_force: InForce,
    /// What keeps it from processes outside.
    pub domain: LandlockDomain,
    /// The limit on its processes.
    pub process_limit: PidsLimit,
}

/// Who an agent runs as, as far as something is weaker for that. By default an ordinary user.
#[derive(Clone, Debug, Default)]
pub struct AgentUser {
    /// The user who can never answer. Of root it is the agent's processes that cannot, not the user.
    name: Option<String>,
    identity: Vec<String>,
    foreign_hook: Option<String>,
}

impl AgentUser {
    /// This user, to whom the launcher's own program is itself, or a program like any other.
    pub fn of(identity: &Identity, own: &Result<OwnProgram, String>) -> Self {
        let ordinary = !identity.is_root();
        Self {
            name: identity.name.clone().filter(|_| ordinary),
            identity: identity.weaknesses(),
            foreign_hook: own.as_ref().err().filter(|_| ordinary).cloned(),
        }
    }
}

/// What an enforcement is made of besides a policy. It stays as it is while an agent runs.
#[derive(Clone, Debug)]
pub struct Basis {
    /// What the machine gives.
    pub machine: Machine,
    /// What the agent starts goes on without its launcher.
    pub keep: bool,
    /// What first judgements are made with.
    pub means: Means,
    /// Groups of system calls that the agent's filter leaves open.
    pub open: Vec<String>,
    /// Who it runs as.
    pub who: AgentUser,
}

impl Basis {
    /// For a run on this machine. `tells`: whoever is denied something is told why.
    pub fn new(mut machine: Machine, governing: Governing, tells: bool) -> Self {
        if governing.kills() {
            machine.in_force = machine.in_force.killing();
        }
        let means = Means {
            lsm: machine.in_force.has("exec_check"),
            unix: machine.in_force.unix(),
            on_deny: governing.on_deny,
            alone: governing.alone(),
            tells,
        };
        Self {
            machine,
            keep: governing.keep,
            means,
            open: Vec::new(),
            who: AgentUser::default(),
        }
    }

    /// For a run as it is without options, of an ordinary user.
    pub fn plain(machine: Machine) -> Self {
        let governing = Governing {
            on_deny: OnDeny::Errno,
            require: None,
            observe: false,
            keep: false,
        };
        Self::new(machine, governing, true)
    }

    /// What is in force under a policy that decides with these first judgements. `untrusted`: directories that it trusts and
    /// the agent's user can change.
    pub fn enforcement(
        &self,
        policy: &Policy,
        first: FirstJudgement,
        observed: bool,
        untrusted: &[Untrusted],
    ) -> Enforcement {
        let in_force = &self.machine.in_force;
        let mut enforcement = Enforcement {
            level: in_force.level(),
            observed,
            execs: match (in_force.level(), first.refuses) {
                (Level::Full, _) => Execs::RefusedByLsm,
                (Level::Partial, true) => Execs::RefusedBySupervisor,
                (Level::Partial, false) => Execs::Killed,
            },
            connects: Connects::RefusedByCgroup,
            unix_sockets: match (in_force.unix(), first.connector) {
                (UnixJudgement::Bound, _) => UnixSockets::ByBoundName,
                (UnixJudgement::Called, true) => UnixSockets::ByCalledNameAndConnector,
                (UnixJudgement::Called, false) => UnixSockets::ByCalledName,
                (UnixJudgement::Absent, true) => UnixSockets::BySupervisor,
                (UnixJudgement::Absent, false) => UnixSockets::NotJudged,
            },
            outside_sockets: if in_force.has("socket_connect") {
                OutsideSockets::RefusedByLsm
            } else {
                OutsideSockets::NotJudged
            },
            processes_outside: ProcessesOutside::of(in_force, &self.machine.domain),
            process_limit: match self.machine.process_limit {
                PidsLimit::Set(limit) => Some(limit),
                PidsLimit::Unavailable(_) => None,
            },
            first_judgement: first.judge(),
            weaknesses: Vec::new(),
        };
        let of_machine = self.of_mechanisms(&enforcement);
        let of_policy = self.of_policy(policy, untrusted);
        let of_answers = self.of_answers(policy, first).filter(|_| !observed);
        let of_identity =
            (self.who.identity.iter()).map(|why| Weakness::Identity { why: why.clone() });
        let weaknesses = of_machine.into_iter().chain(of_policy).chain(of_answers);
        enforcement.weaknesses = weaknesses.chain(of_identity).collect();
        enforcement
    }

    /// What is weaker about the mechanisms.
    fn of_mechanisms(&self, enforcement: &Enforcement) -> Vec<Weakness> {
        let mut weaker = Vec::new();
        if let PidsLimit::Unavailable(why) = &self.machine.process_limit {
            weaker.push(Weakness::NoProcessLimit { why: why.clone() });
        }
        let outside = &enforcement.processes_outside;
        if outside.level() < LandlockLevel::Full {
            weaker.push(Weakness::ProcessesOutside(outside.clone()));
        }
        if enforcement.level == Level::Full
            && enforcement.outside_sockets == OutsideSockets::NotJudged
        {
            weaker.push(Weakness::OutsideSockets);
        }
        weaker.extend(match enforcement.unix_sockets {
            UnixSockets::ByBoundName | UnixSockets::ByCalledNameAndConnector => None,
            UnixSockets::ByCalledName if enforcement.observed => None,
            UnixSockets::ByCalledName => Some(Weakness::UnixByCallAlone { keep: self.keep }),
            UnixSockets::BySupervisor => Some(Weakness::UnixBySupervisor),
            UnixSockets::NotJudged => Some(Weakness::UnixNotJudged),
        });
        let foreign = self.who.foreign_hook.clone();
        weaker.extend(foreign.map(|why| Weakness::ForeignHook { why }));
        weaker
    }

    /// What the policy opens, or trusts in vain. What it would open and the filter of a running agent does not stays shut.
    fn of_policy(&self, policy: &Policy, untrusted: &[Untrusted]) -> Vec<Weakness> {
        let untrusted = untrusted.iter().map(|one| Weakness::Untrusted {
            directory: one.directory.clone(),
            why: one.to_string(),
        });
        let hatches = policy.syscalls.allow.iter();
        let syscalls = hatches
            .filter(|hatch| self.open.contains(&hatch.name))
            .map(|hatch| Weakness::SyscallsAllowed {
                group: hatch.name.clone(),
                reason: hatch.reason.clone(),
            });
        let guard = policy
            .guard
            .allow
            .iter()
            .map(|group| Weakness::GuardOpened {
                group: group.name.clone(),
                reason: group.reason.clone(),
            });
        untrusted.chain(syscalls).chain(guard).collect()
    }

    /// Why what the policy asks about is denied, if it is.
    fn of_answers(&self, policy: &Policy, first: FirstJudgement) -> Option<Weakness> {
        first.not_held(policy, self.keep).or_else(|| {
            approvals::unanswerable(policy, self.who.name.as_deref())
                .map(|why| Weakness::Unanswerable { why })
        })
    }
}

impl Enforcement {
    /// What is weaker than it could be.
    pub fn weaknesses(&self) -> &[Weakness] {
        &self.weaknesses
    }

    /// Whether it is as much as was asked for.
    ///
    /// # Errors
    ///
    /// It is less.
    pub(super) fn suffices(&self, required: Option<Level>) -> Result<()> {
        let level = self.level;
        match required {
            Some(required) if level < required => Err(AgentError::TooLittle { level, required }),
            _ => Ok(()),
        }
    }

    /// How denied actions end, in words.
    pub fn describe(&self) -> String {
        let Connects::RefusedByCgroup = self.connects;
        format!("{}; denied connects fail with EPERM", self.execs.describe())
    }

    /// Reads what another build may have written: what this one does not know is not told of.
    pub(super) fn read_kept<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Self>, D::Error> {
        let kept = serde_json::Value::deserialize(deserializer)?;
        Ok(serde_json::from_value(kept).ok())
    }
}

impl Execs {
    fn describe(self) -> &'static str {
        match self {
            Self::RefusedByLsm => "denied execs fail with EPERM",
            Self::RefusedBySupervisor => {
                "denied execs fail with EPERM, what slips past that is killed before its first instruction (no LSM program refuses them)"
            }
            Self::Killed => {
                "denied execs are killed before their first instruction (no LSM program refuses them)"
            }
        }
    }
}

impl UnixSockets {
    /// Whether the kernel itself judges them.
    pub fn in_kernel(self) -> bool {
        !matches!(self, Self::BySupervisor | Self::NotJudged)
    }

    /// How it is done, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ByBoundName => "by the name that the socket is bound to (LSM)",
            Self::ByCalledNameAndConnector => {
                "by the name of the call (cgroup hooks); a helper process connects to paths once they are judged"
            }
            Self::ByCalledName => "by the name of the call (cgroup hooks)",
            Self::BySupervisor | Self::NotJudged => {
                "not judged in the kernel: no LSM programs are in force for them, and it has no cgroup hooks (Linux 6.7)"
            }
        }
    }
}

impl OutsideGuard {
    fn of(lsm: bool, landlock: bool) -> Self {
        match (lsm, landlock) {
            (true, true) => Self::LsmAndLandlock,
            (true, false) => Self::Lsm,
            (false, true) => Self::Landlock,
            (false, false) => Self::None,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::LsmAndLandlock => "refused (LSM, Landlock)",
            Self::Lsm => "refused (LSM)",
            Self::Landlock => "refused (Landlock)",
            Self::None => "not refused",
        }
    }
}

impl ProcessesOutside {
    fn of(in_force: &InForce, domain: &LandlockDomain) -> Self {
        let seen = in_force.landlock();
        let unseen = domain.level >= LandlockLevel::Partial && !seen.tracing
            || domain.level == LandlockLevel::Full && !seen.signals;
        let but = if unseen {
            ": but that was not seen"
        } else {
            ""
        };
        Self {
            tracing: OutsideGuard::of(in_force.has("ptrace_access_check"), seen.tracing),
            signals: OutsideGuard::of(in_force.has("task_kill"), seen.signals),
            landlock: format!("{}{but}", domain.why),
        }
    }

    /// How much it is.
    pub fn level(&self) -> LandlockLevel {
        match (self.tracing, self.signals) {
            (OutsideGuard::None, OutsideGuard::None) => LandlockLevel::None,
            (OutsideGuard::None, _) | (_, OutsideGuard::None) => LandlockLevel::Partial,
            _ => LandlockLevel::Full,
        }
    }
}

impl fmt::Display for ProcessesOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tracing is {}, signals are {}; {}",
            self.tracing.describe(),
            self.signals.describe(),
            self.landlock
        )
    }
}

#[cfg(test)]
#[path = "enforcement_tests.rs"]
mod tests;

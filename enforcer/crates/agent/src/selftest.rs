//! The self-test of a start, and of `doctor`: forbidden things are attempted under programs that are loaded and attached
//! just as the agent's are, one mechanism at a time, so that none is taken for another.
//!
//! A mechanism is in force when *it* refused: the attempt failed, and the program gave an event of it. (`EPERM` alone can
//! be somebody else's, and a program that is loaded and attached need not ever run.) Where one that every kernel has lets
//! something pass, nothing may call itself enforcing.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::Duration,
};

use super::error::{AgentError, Result};
use super::in_force::{InForce, Landlock};
use enforcer_kernel::{
    agent::{Agent, AgentPlan},
    attach::NamedLink,
    instance::{Instance, UNIX_HOOKS, UNIX_LSM, UnixJudgement},
};
use enforcer_launch::{Act, Attempt, LandlockDomain, LandlockLevel, LaunchError, Probe};
use enforcer_policy::compile::{CompileError, Tables, compile_closed};

/// What each LSM program is seen by.
const LSM: [(&str, Act); 6] = [
    ("socket_connect", Act::Connect4),
    ("unix_stream_connect", Act::UnixStream),
    ("unix_may_send", Act::UnixDatagram),
    ("ptrace_access_check", Act::Trace),
    ("task_kill", Act::Signal),
    // The last: what is not refused takes the process with it.
    ("exec_check", Act::Exec),
];

/// What each of the cgroup's programs on unix sockets is seen by.
const HOOKS: [(&str, Act); 2] = [
    (UNIX_HOOKS[0], Act::UnixStream),
    (UNIX_HOOKS[1], Act::UnixDatagram),
];

/// What the cgroup's programs on addresses must refuse.
const ADDRESSES: [Act; 5] = [
    Act::Connect4,
    Act::Connect6,
    Act::Send4,
    Act::Send6,
    Act::Socket,
];

/// Bytes of the self-test's event ring. Nobody reads it: what it has no room for is counted and denied all the same.
const RING_BYTES: u32 = 1 << 12;

/// Why nothing may call itself enforcing.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// What is to be refused is not known.
    #[error("the self-test's policy")]
    Policy(#[source] CompileError),
    /// Nothing could be attempted.
    #[error("the self-test could not be run")]
    NotRun(#[source] LaunchError),
    /// Something passed that the cgroup's programs must stop on every kernel.
    #[error(
        "self-test: {} that the policy denies was not stopped ({attempt}{}); nothing is enforced, so nothing was started. Run `enforcer doctor`",
        act.describe(), unjudged(*told)
    )]
    Passed {
        /// What was attempted.
        act: Act,
        /// What became of it.
        attempt: Attempt,
        /// Whether a program gave an event of it.
        told: bool,
    },
    /// An exec was not killed.
    #[error(
        "self-test: an exec that the policy denies was not killed before its first instruction ({attempt}{}); nothing is enforced, so nothing was started. Run `enforcer doctor`",
        unjudged(*told)
    )]
    Executed {
        /// What became of it.
        attempt: Attempt,
        /// Whether a program gave an event of it.
        told: bool,
    },
}

/// The self-test's tables: everything is denied.
///
/// # Errors
///
/// Never for a sound build.
fn tables() -> Result<Tables> {
    compile_closed(0).map_err(|error| SelfTestError::Policy(error).into())
}

/// Attempts everything in the cgroup of this directory, which is empty and governed by nothing. What did not refuse is
/// detached, and what stands in for it is put in its place; what did is the answer.
///
/// # Errors
///
/// One passed that every kernel must refuse, or it could not be attempted.
pub fn prove(instance: &mut Instance, cgroup: &Path, domain: &LandlockDomain) -> Result<InForce> {
    let tables = tables()?;
    let agent = instance.admit(&AgentPlan {
        ring_bytes: RING_BYTES,
        ..AgentPlan::new(&tables)
    })?;
    let place = Place {
        cgroup,
        agent: &agent,
        id: fs::metadata(cgroup)
            .map_err(AgentError::file(cgroup, "cannot be looked at"))?
            .ino(),
    };
    let (landlock, mut seen) = place.without_lsm(instance, domain)?;
    seen.extend(place.lsm(instance)?);
    settle_unix(&place, instance, &mut seen)?;
    agent.free()?;
    Ok(InForce::new(seen, landlock))
}

/// A cgroup to attempt things in.
struct Place<'a> {
    cgroup: &'a Path,
    id: u64,
    /// What everything is denied to.
    agent: &'a Agent,
}

impl Place<'_> {
    fn govern(&self, instance: &mut Instance) -> Result<Vec<NamedLink>> {
        let cgroup =
            File::open(self.cgroup).map_err(AgentError::file(self.cgroup, "cannot be opened"))?;
        Ok(instance.govern(self.agent, cgroup, self.id)?)
    }

    fn probe(&self, domain: Option<&LandlockDomain>) -> Result<Probe> {
        Probe::start(self.cgroup, domain).map_err(|error| SelfTestError::NotRun(error).into())
    }

    /// The agent's Landlock domain, the programs of the cgroup, and the kill of an exec that nothing refused.
    fn without_lsm(
        &self,
        instance: &mut Instance,
        domain: &LandlockDomain,
    ) -> Result<(Landlock, Vec<&'static str>)> {
        instance.detach_lsm();
        // Detached again when the links are dropped.
        let _links = self.govern(instance)?;
        let mut probe = self.probe(Some(domain))?;
        let landlock = landlock(self.agent, &mut probe, domain)?;
        for act in ADDRESSES {
            let (attempt, told) = attempt(self.agent, &mut probe, act)?;
            let refused = attempt == Attempt::Failed(libc::EPERM) && told;
            if !refused && !never_had(act, attempt) {
                return Err(SelfTestError::Passed { act, attempt, told }.into());
            }
        }
        let mut seen = Vec::new();
        if instance.unix_hooks().is_some() {
            seen = refusing(self.agent, &mut probe, &HOOKS)?;
            if seen.len() < HOOKS.len() {
                instance.drop_unix_hooks();
                seen.clear();
            }
        }
        match attempt(self.agent, &mut probe, Act::Exec)? {
            (Attempt::Killed, true) => Ok((landlock, seen)),
            (attempt, told) => Err(SelfTestError::Executed { attempt, told }.into()),
        }
    }

    /// The LSM programs, alone.
    fn lsm(&self, instance: &mut Instance) -> Result<Vec<&'static str>> {
        let loaded: Vec<(&'static str, Act)> = LSM
            .into_iter()
            .filter(|(name, _)| instance.has_loaded(name))
            .collect();
        if loaded.is_empty() {
            return Ok(Vec::new());
        }
        instance.attach_lsm()?;
        self.agent.recognise(self.id)?;
        let seen = refusing(self.agent, &mut self.probe(None)?, &loaded)?;
        for (name, _) in loaded {
            if !seen.contains(&name) {
                instance.detach(name);
            }
        }
        Ok(seen)
    }
}

/// Puts the cgroup's programs on unix sockets in the place of LSM programs that do not refuse.
fn settle_unix(
    place: &Place<'_>,
    instance: &mut Instance,
    seen: &mut Vec<&'static str>,
) -> Result<()> {
    match UnixJudgement::of(seen) {
        UnixJudgement::Bound => {
            // The name that a socket is bound to says more than the name of the call.
            instance.drop_unix_hooks();
            seen.retain(|name| !UNIX_HOOKS.contains(name));
            return Ok(());
        }
        UnixJudgement::Called => return Ok(()),
        UnixJudgement::Absent => {}
    }
    // They were left out for the sake of LSM programs that loaded.
    if instance.unix_hooks().is_none() {
        instance.load_unix_hooks()?;
    }
    if instance.unix_hooks().is_none() {
        return Ok(());
    }
    for name in UNIX_LSM {
        instance.detach(name);
        seen.retain(|seen| *seen != name);
    }
    let _links = place.govern(instance)?;
    let refusing = refusing(place.agent, &mut place.probe(None)?, &HOOKS)?;
    if refusing.len() == HOOKS.len() {
        seen.extend(refusing);
    } else {
        instance.drop_unix_hooks();
    }
    Ok(())
}

/// Has the probe attempt something; what became of it, and whether a program gave an event of it.
fn attempt(agent: &Agent, probe: &mut Probe, act: Act) -> Result<(Attempt, bool)> {
    let before = agent.events()?;
    let attempt = probe.attempt(act).map_err(SelfTestError::NotRun)?;
    Ok((attempt, agent.events()? > before))
}

/// How often an attempt is made again that a detached program still refused, and how long after each.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Has the probe attempt something that no program of ours is to see. The kernel takes a program off a moment after its
/// link is gone: what one still gave an event of is attempted again.
fn beside_programs(agent: &Agent, probe: &mut Probe, act: Act) -> Result<Attempt> {
    let mut tries = 0;
    loop {
        match attempt(agent, probe, act)? {
            (_, true) if tries < TRIES => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            (attempt, _) => return Ok(attempt),
        }
    }
}

/// The programs that refuse what they are seen by.
fn refusing(
    agent: &Agent,
    probe: &mut Probe,
    programs: &[(&'static str, Act)],
) -> Result<Vec<&'static str>> {
    let mut seen = Vec::new();
    for (name, act) in programs {
        if attempt(agent, probe, *act)? == (Attempt::Failed(libc::EPERM), true) {
            seen.push(*name);
        }
    }
    Ok(seen)
}

/// What is said beside an attempt that no program gave an event of.
fn unjudged(told: bool) -> &'static str {
    if told {
        ""
    } else {
        ", and no program judged it"
    }
}

/// Whether the kernel has no such sockets at all, or gives them to nobody: then nothing gets past the programs.
fn never_had(act: Act, attempt: Attempt) -> bool {
    match (act, attempt) {
        (Act::Connect6 | Act::Send6, Attempt::Failed(errno)) => errno == libc::EAFNOSUPPORT,
        (Act::Socket, Attempt::Failed(_)) => true,
        _ => false,
    }
}

/// What the Landlock domain refuses that passed without it.
fn landlock(agent: &Agent, probe: &mut Probe, domain: &LandlockDomain) -> Result<Landlock> {
    if domain.level == LandlockLevel::None {
        return Ok(Landlock::default());
    }
    let could = [Act::Trace, Act::Signal].map(|act| beside_programs(agent, probe, act));
    if probe.attempt(Act::Landlock)? != Attempt::Passed {
        return Ok(Landlock::default());
    }
    let can = [Act::Trace, Act::Signal].map(|act| probe.attempt(act));
    let mut refused = could.into_iter().zip(can).map(|(could, can)| {
        Ok::<_, AgentError>(could? == Attempt::Passed && can? == Attempt::Failed(libc::EPERM))
    });
    Ok(Landlock {
        tracing: refused.next().transpose()?.unwrap_or(false),
        signals: refused.next().transpose()?.unwrap_or(false),
    })
}

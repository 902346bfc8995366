//! What runs on this machine: hosts, and the agents that have a slot in one. And its end.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use enforcer_common::seat::{self, SLOTS};
use nix::unistd::Pid;
use serde::Serialize;

use super::{
    APPROVALS_DB, breaker, change_line,
    enforcement::Enforcement,
    error::{AgentError, Result},
    hosts, leftover,
    lines::UNNAMED,
    scene::KILL_PATIENCE,
    state::{AgentRecord, STATE_ROOT, Seated, StateDirectory},
};
use enforcer_approvals::Store;
use enforcer_control::{
    AgentCounts, BreakerStatus, Counted, SOCKET_NAME, client, protocol::Operation,
};
use enforcer_kernel::{
    KernelError,
    agent::Agent,
    attach::bpf_mounted,
    host::{self, Host, LockedHosts},
};
use enforcer_launch::{AgentCgroup, CgroupRoot};
use enforcer_trail::Record;

/// What is on this machine.
#[derive(Clone, Debug, Serialize)]
pub struct MachineStatus {
    /// Kernel programs that are loaded: one host for each build that has agents, and that of the last start.
    pub hosts: Vec<HostStatus>,
    /// The agents.
    pub agents: Vec<AgentStatus>,
}

/// A host.
#[derive(Clone, Debug, Serialize)]
pub struct HostStatus {
    /// Its name: the directory of its pins.
    pub name: String,
    /// Which kernel programs: the first bytes of their digest, hexadecimal.
    pub build: String,
    /// Whether this build of `enforcer` joins it.
    pub current: bool,
    /// What it enforces: `full` or `partial`; nothing if it is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<&'static str>,
    /// Mechanisms that some kernels lack and that were seen to refuse when it was loaded.
    pub in_force: Vec<&'static str>,
    /// Slots that are taken.
    pub used: u32,
    /// Slots in all.
    pub slots: u32,
    /// Why it is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// Whether the process that started an agent still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LauncherState {
    /// It does.
    Running,
    /// It does, and does not answer: it is stopped, or hangs.
    Silent,
    /// It is gone: the agent is governed, and the next start takes it down once it is empty.
    Gone,
}

/// Who has counted what an agent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CountedBy {
    /// Its launcher: all that it has recorded.
    Launcher,
    /// The kernel programs, where the launcher does not answer: what the supervisor refused is in the trail alone.
    Kernel,
}

/// An agent.
#[derive(Clone, Debug, Serialize)]
pub struct AgentStatus {
    /// Its id.
    pub id: String,
    /// Its name; `unknown` if it was given none.
    pub name: String,
    /// For whom it works.
    pub user: Option<String>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// The file of its policy, when that was read.
    pub policy: PathBuf,
    /// SHA-256 of the text that decides, hexadecimal; the file may be another by now.
    pub policy_sha256: String,
    /// Its trail.
    pub trail: PathBuf,
    /// What is in force for it, with its launcher; nothing while it is being started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Every exec of it fails with ENOSYS: its launcher, which judged them first, is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub execs_fail: bool,
    /// Why it is not let in any more: all that it does is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What it was given, and what the policy gives it by its name.
    pub capabilities: Vec<String>,
    /// `enforce`, or `observe`.
    pub governed: &'static str,
    /// Where its actions are approved: `everywhere`, `subagent_only` or `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether its launcher runs.
    pub launcher: LauncherState,
    /// The id of its cgroup, by which lines of the trail name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// Its processes.
    pub processes: Vec<i32>,
    /// Requests that wait for a person; none where nobody takes the answer any more.
    pub waiting: usize,
    /// Where it is in the kernel; nothing while it is being started.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<InKernel>,
}

/// What the kernel knows of an agent.
#[derive(Clone, Debug, Serialize)]
pub struct InKernel {
    /// The name of its host.
    pub host: String,
    /// Its slot there.
    pub slot: u32,
    /// The generation of tables that decides: a name of theirs, no count.
    pub generation: u32,
    /// Who has counted execs and connects.
    pub counted_by: CountedBy,
    /// Execs.
    pub execs: Counted,
    /// Connects.
    pub connects: Counted,
    /// What went on though the policy does not allow it, as far as the launcher has recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<u64>,
    /// Events that found no room; their actions were denied.
    pub lost: u64,
    /// Its breaker and its rates.
    pub breaker: BreakerStatus,
}

/// Why something does not end.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Processes of the agent do not.
    #[error("{0} of its processes are still there")]
    Left(usize),
    /// Its launcher does not.
    #[error(
        "its processes are gone, but its launcher does not end{}: it is stopped, or waits for something; `kill -CONT` lets a stopped one go on, and what is left of one that was killed the next `enforcer run` or `enforcer stop` cleans up",
        pid.as_ref().map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    LauncherHangs {
        /// Its process.
        pid: Option<String>,
    },
    /// An agent is governed by the programs that are to go.
    #[error("agent {0} runs; its kernel programs stay")]
    Runs(String),
    /// A host cannot be taken down.
    #[error("host {name}")]
    Host {
        /// Its name.
        name: String,
        /// What the kernel says.
        source: KernelError,
    },
}

/// Looks at everything.
///
/// # Errors
///
/// The cgroups cannot be found.
pub fn status() -> Result<MachineStatus> {
    let root = CgroupRoot::find()?;
    let cgroups = root.list_existing()?;
    let store = Store::open_existing(Path::new(APPROVALS_DB)).ok().flatten();
    let agents = StateDirectory::existing()
        .iter()
        .filter_map(|id| agent(id, &cgroups, store.as_ref()))
        .collect();
    Ok(MachineStatus {
        hosts: host::all().iter().map(|name| host_status(name)).collect(),
        agents,
    })
}

fn host_status(name: &str) -> HostStatus {
    let opened = Host::open(name);
    let host = opened.as_ref().ok();
    HostStatus {
        name: name.to_owned(),
        build: host.map(Host::build).unwrap_or_default(),
        current: host.is_some_and(Host::is_current),
        level: host.map(|host| hosts::in_force(host).level().as_str()),
        in_force: host.map(|host| host.seen().programs).unwrap_or_default(),
        used: host.and_then(|host| host.used().ok()).unwrap_or(0),
        slots: SLOTS,
        broken: opened.as_ref().err().map(ToString::to_string),
    }
}

/// One agent; `None` if it has ended meanwhile.
fn agent(id: &str, cgroups: &[AgentCgroup], store: Option<&Store>) -> Option<AgentStatus> {
    let facts = StateDirectory::facts(id).ok()?;
    let seated = seated(id, &facts);
    let cgroup = cgroups.iter().find(|cgroup| cgroup.name() == id);
    let processes = cgroup.map_or_else(Vec::new, |cgroup| {
        processes(cgroup, seated.as_ref().map(|(_, agent)| agent))
    });
    let waiting = store
        .and_then(|store| store.history_of(id, u32::MAX).ok())
        .map_or(0, |requests| {
            requests
                .iter()
                .filter(|request| request.state == enforcer_control::RequestState::Pending)
                .count()
        });
    let (mut kernel, observed) = seated
        .and_then(|(seated, agent)| in_kernel(id, &facts, seated, &agent))
        .unzip();
    let (launcher, counts) = launcher(id);
    if let (Some(kernel), Some(counts)) = (&mut kernel, counts) {
        kernel.counted_by = CountedBy::Launcher;
        kernel.execs = counts.execs;
        kernel.connects = counts.connects;
        kernel.observed = Some(counts.observed);
    }
    let by_launcher = |enforcement: &Enforcement| enforcement.first_judgement.is_supervised();
    Some(AgentStatus {
        execs_fail: launcher == LauncherState::Gone
            && facts.enforcement.as_ref().is_some_and(by_launcher),
        refused: facts.decides.changes.refused.map(|(reason, _)| reason),
        cgroup: cgroup.and_then(|cgroup| fs::metadata(cgroup.path()).ok().map(|it| it.ino())),
        id: id.to_owned(),
        governed: change_line::governed(observed.unwrap_or(facts.observed)),
        mode: StateDirectory::handover(id).map(|handover| handover.mode),
        policy_sha256: change_line::digest(&facts.decides.policy_text),
        capabilities: facts.decides.capabilities.into_iter().collect(),
        name: facts.agent.unwrap_or_else(|| UNNAMED.to_owned()),
        user: facts.user,
        tenant: facts.tenant,
        policy: facts.decides.policy_path,
        trail: facts.audit,
        enforcement: facts.enforcement,
        launcher,
        processes,
        waiting: match launcher {
            LauncherState::Running | LauncherState::Silent => waiting,
            LauncherState::Gone => 0,
        },
        kernel,
    })
}

/// Whether an agent's launcher runs, and what it has recorded, if it says so.
fn launcher(id: &str) -> (LauncherState, Option<AgentCounts>) {
    if !StateDirectory::is_held(id) {
        return (LauncherState::Gone, None);
    }
    let socket = Path::new(STATE_ROOT).join(id).join(SOCKET_NAME);
    match client::request(&socket, &Operation::Counts) {
        Ok(reply) => (LauncherState::Running, reply.counts),
        Err(error) if error.is_silent() => (LauncherState::Silent, None),
        // It is only just starting, or was started with `--keep`.
        Err(_) => (LauncherState::Running, None),
    }
}

/// An agent's place among the kernel programs, and the agent there.
fn seated(id: &str, facts: &AgentRecord) -> Option<(Seated, Agent)> {
    let seated = StateDirectory::seated(id)?;
    let host = Host::open(&seated.host).ok()?;
    let agent = host.agent(seated.place, &facts.limits().ok()?).ok()??;
    Some((seated, agent))
}

/// The agent's processes, without the one that connects for it: that is the launcher's.
fn processes(cgroup: &AgentCgroup, agent: Option<&Agent>) -> Vec<i32> {
    let connector = agent.and_then(|agent| agent.connector().ok()?);
    let all = cgroup.procs().unwrap_or_default().into_iter();
    all.map(Pid::as_raw)
        .filter(|pid| Some(pid.unsigned_abs()) != connector)
        .collect()
}

/// What the kernel knows of an agent, and whether it is only observed.
fn in_kernel(
    id: &str,
    facts: &AgentRecord,
    seated: Seated,
    agent: &Agent,
) -> Option<(InKernel, bool)> {
    let state = agent.state().ok()?;
    let name = facts.agent.as_deref().unwrap_or(UNNAMED);
    let observed = seat::observed(state.word);
    let kernel = InKernel {
        host: seated.host,
        slot: seated.place.slot,
        generation: seat::generation(state.word),
        counted_by: CountedBy::Kernel,
        execs: Counted {
            allowed: state.exec_allowed,
            denied: state.exec_denied,
        },
        connects: Counted {
            allowed: state.connect_allowed,
            denied: state.connect_denied,
        },
        observed: None,
        lost: state.lost,
        breaker: breaker::standing(&agent.limiter().ok()?, (name, id), observed),
    };
    Some((kernel, observed))
}

/// How long a launcher may take to end when its agent has ended.
const ENDING: Duration = Duration::from_secs(10);
const LOOK_EACH: Duration = Duration::from_millis(20);

/// The ids of all agents.
pub fn all() -> Vec<String> {
    StateDirectory::existing()
}

/// The ids of the agents that are meant by a name or an id. Those without a name are called as everywhere.
pub fn named(wanted: &str) -> Vec<String> {
    let lower = wanted.to_lowercase();
    let is_called = |facts: &AgentRecord| {
        let name = facts.agent.as_deref().unwrap_or(UNNAMED);
        name.to_lowercase() == lower
    };
    StateDirectory::existing()
        .into_iter()
        .filter(|id| id == wanted || StateDirectory::facts(id).is_ok_and(|it| is_called(&it)))
        .collect()
}

/// How an agent was ended.
#[derive(Debug)]
pub struct Stopped {
    /// How many processes it had.
    pub processes: usize,
    /// Why its trail does not say who ended it.
    pub unwritten: Option<AgentError>,
}

/// Ends an agent on behalf of `by`, and writes that down: kills all its processes, waits for its launcher to write what is to
/// be written, or does that in its place. An agent is ended also where that cannot be recorded.
///
/// # Errors
///
/// Something of it cannot be ended.
pub fn stop(id: &str, by: &str) -> Result<Stopped> {
    let root = CgroupRoot::find()?;
    let cgroup = root
        .list_existing()?
        .into_iter()
        .find(|cgroup| cgroup.name() == id);
    // They go with its state. Without any it has only just begun, and there is no trail.
    let facts = StateDirectory::facts(id).ok();
    let agent = facts.as_ref().and_then(|facts| seated(id, facts));
    let processes = cgroup.as_ref().map_or(0, |cgroup| {
        processes(cgroup, agent.as_ref().map(|(_, agent)| agent)).len()
    });
    let line = facts.map(|facts| (change_line::stopped(&facts, id, processes, by), facts));
    let ended = end(id, &root);
    // Behind its last events. A trail that hangs holds up nothing that is to be ended.
    let unwritten = line.and_then(|(line, facts)| note(id, &facts, &line).err());
    ended.map(|()| Stopped {
        processes,
        unwritten,
    })
}

fn end(id: &str, root: &CgroupRoot) -> Result<()> {
    let begun = Instant::now();
    loop {
        // Each time: a launcher that is only just starting lets its command go after this, into a cgroup that it may not have
        // made yet.
        let cgroups = root.list_existing()?;
        if let Some(cgroup) = cgroups.iter().find(|cgroup| cgroup.name() == id)
            && !cgroup.is_empty()?
        {
            cgroup.kill_all(KILL_PATIENCE)?;
        }
        if !StateDirectory::existing().iter().any(|state| state == id) {
            return Ok(());
        }
        if !StateDirectory::is_held(id) {
            if let Some(left) = leftover::take_down(id, root)? {
                return Err(StopError::Left(left).into());
            }
        } else if begun.elapsed() > ENDING {
            // The process that an id names is the launcher.
            let pid = id.rsplit('-').nth(1).map(str::to_owned);
            return Err(StopError::LauncherHangs { pid }.into());
        }
        sleep(LOOK_EACH);
    }
}

/// Writes a line into an agent's trail.
fn note(id: &str, facts: &AgentRecord, line: &Record) -> Result<()> {
    let masking = facts.decides.policy().map(|policy| policy.masking);
    let stamp = facts.stamp(masking.unwrap_or_default());
    let mut writer = leftover::open_trail(id, &facts.audit)?.stamped(stamp);
    writer.append(line)?;
    Ok(writer.flush()?)
}

/// Takes the kernel programs down, when no agent runs any more.
///
/// # Errors
///
/// One still runs.
pub fn unload() -> Result<usize> {
    if !bpf_mounted()? {
        return Ok(0);
    }
    let held = LockedHosts::wait()?;
    let states = StateDirectory::existing();
    if let Some(id) = states.first() {
        return Err(StopError::Runs(id.clone()).into());
    }
    let hosts = host::all();
    let mut failed = None;
    for name in &hosts {
        if let Err(source) = host::take_down(&held, name) {
            // One that is not ours keeps no other.
            failed.get_or_insert(StopError::Host {
                name: name.clone(),
                source,
            });
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(hosts.len()),
    }
}

//! What runs on this machine: hosts, and the agents that have a slot in one. And its end.

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use enforcer_common::seat::{OBSERVED, SLOTS, generation};
use serde::Serialize;

use super::{
    APPROVALS_DB, breaker, hosts, leftover,
    scene::KILL_PATIENCE,
    state::{Facts, State},
};
use crate::{
    approvals::{self, BreakerStatus, Store},
    kernel::host::{self, Held, Host},
    launch::{AgentCgroup, CgroupRoot},
};

/// What is on this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
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
pub enum Launcher {
    /// It does.
    Running,
    /// It is gone: the agent is governed, and the next start takes it down once it is empty.
    Gone,
}

/// Numbers of one kind of action.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counted {
    /// Allowed.
    pub allowed: u64,
    /// Denied by the kernel programs; what the supervisor refused before them is in the trail alone.
    pub denied: u64,
}

/// An agent.
#[derive(Clone, Debug, Serialize)]
pub struct AgentStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// For whom it works.
    pub user: Option<String>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Its policy's file when it was started.
    pub policy: PathBuf,
    /// Its trail.
    pub trail: PathBuf,
    /// `enforce`, or `observe`.
    pub mode: &'static str,
    /// Whether its launcher runs.
    pub launcher: Launcher,
    /// Its processes.
    pub processes: Vec<i32>,
    /// Requests that wait for a person.
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
    /// The generation of tables that decides.
    pub generation: u32,
    /// Execs.
    pub execs: Counted,
    /// Connects.
    pub connects: Counted,
    /// Events that found no room; their actions were denied.
    pub lost: u64,
    /// Its breaker and its rates.
    pub breaker: BreakerStatus,
}

/// Looks at everything.
///
/// # Errors
///
/// The cgroups cannot be found.
pub fn status() -> anyhow::Result<Status> {
    let root = CgroupRoot::find()?;
    let cgroups = root.list_existing()?;
    let store = Store::open_existing(Path::new(APPROVALS_DB)).ok().flatten();
    let agents = State::existing()
        .iter()
        .filter_map(|id| agent(id, &cgroups, store.as_ref()))
        .collect();
    Ok(Status {
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
    let facts = State::facts(id).ok()?;
    let processes = cgroups
        .iter()
        .find(|cgroup| cgroup.name() == id)
        .and_then(|cgroup| cgroup.procs().ok())
        .unwrap_or_default();
    let waiting = store
        .and_then(|store| store.history_of(id, u32::MAX).ok())
        .map_or(0, |requests| {
            requests
                .iter()
                .filter(|request| request.state == approvals::State::Pending)
                .count()
        });
    let (kernel, observed) = in_kernel(id, &facts).unzip();
    Some(AgentStatus {
        id: id.to_owned(),
        mode: if observed.unwrap_or(facts.observed) {
            "observe"
        } else {
            "enforce"
        },
        name: facts.agent,
        user: facts.user,
        tenant: facts.tenant,
        policy: facts.policy_path,
        trail: facts.audit,
        launcher: if State::is_held(id) {
            Launcher::Running
        } else {
            Launcher::Gone
        },
        processes: processes.iter().map(|pid| pid.as_raw()).collect(),
        waiting,
        kernel,
    })
}

/// What the kernel knows of an agent, and whether it is only observed.
fn in_kernel(id: &str, facts: &Facts) -> Option<(InKernel, bool)> {
    let seated = State::seated(id)?;
    let agent = Host::open(&seated.host)
        .ok()?
        .agent(seated.place, &facts.limits().ok()?)
        .ok()??;
    let state = agent.state().ok()?;
    let name = facts.agent.as_deref().unwrap_or(super::lines::UNNAMED);
    let kernel = InKernel {
        host: seated.host,
        slot: seated.place.slot,
        generation: generation(state.word),
        execs: Counted {
            allowed: state.exec_allowed,
            denied: state.exec_denied,
        },
        connects: Counted {
            allowed: state.connect_allowed,
            denied: state.connect_denied,
        },
        lost: state.lost,
        breaker: breaker::standing(&agent.limiter().ok()?, name, id),
    };
    Some((kernel, agent.flags().ok()? & OBSERVED != 0))
}

/// How long a launcher may take to end when its agent has ended.
const ENDING: Duration = Duration::from_secs(10);
const LOOK_EACH: Duration = Duration::from_millis(20);

/// The ids of all agents.
pub fn all() -> Vec<String> {
    State::existing()
}

/// The ids of the agents that are meant by a name or an id.
pub fn named(wanted: &str) -> Vec<String> {
    let lower = wanted.to_lowercase();
    State::existing()
        .into_iter()
        .filter(|id| {
            id == wanted
                || State::facts(id)
                    .is_ok_and(|facts| facts.agent.is_some_and(|name| name.to_lowercase() == lower))
        })
        .collect()
}

/// Ends an agent: kills all its processes, waits for its launcher to write what is to be written, or does that in its
/// place. Gives how many processes it had.
///
/// # Errors
///
/// Something of it cannot be ended.
pub fn stop(id: &str) -> anyhow::Result<usize> {
    let root = CgroupRoot::find()?;
    let cgroup = root
        .list_existing()?
        .into_iter()
        .find(|cgroup| cgroup.name() == id);
    let mut processes = 0;
    if let Some(cgroup) = &cgroup {
        processes = cgroup.procs().map_or(0, |procs| procs.len());
        cgroup.kill_all(KILL_PATIENCE)?;
    }
    let begun = Instant::now();
    while State::existing().iter().any(|state| state == id) {
        if !State::is_held(id) {
            if let Some(left) = leftover::take_down(id, &root)? {
                bail!("{left} of its processes are still there");
            }
        } else if begun.elapsed() > ENDING {
            bail!("its launcher does not end; its processes are gone");
        }
        sleep(LOOK_EACH);
    }
    Ok(processes)
}

/// Takes the kernel programs down, when no agent runs any more.
///
/// # Errors
///
/// One still runs.
pub fn unload() -> anyhow::Result<usize> {
    let held = Held::wait()?;
    let states = State::existing();
    if let Some(id) = states.first() {
        bail!("agent {id} runs; its kernel programs stay");
    }
    let hosts = host::all();
    for name in &hosts {
        host::take_down(&held, name).with_context(|| format!("host {name}"))?;
    }
    Ok(hosts.len())
}

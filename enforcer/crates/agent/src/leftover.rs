//! Agents whose launcher is gone: their last events are written, and what is empty is taken down.

use std::{fs, path::Path};

use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};

use super::{
    APPROVALS_DB,
    error::Result,
    lines::Escaped,
    record::{EventSource, Recorder},
    state::{Seated, StateDirectory},
    trail::Trail,
};
use enforcer_approvals::Store;
use enforcer_control::words::counted;
use enforcer_kernel::{
    KernelError,
    agent::SlotPlace,
    host::{self, Host, LockedHosts},
};
use enforcer_launch::{AGENT_LEVEL, AgentCgroup, CgroupRoot};
use enforcer_say::say;
use enforcer_trail::{Approval, Record, Writer};

/// Cleans up after launchers that are gone. What cannot be cleaned up is said and left; it stays governed. Events
/// whose own trail is no more go to a file of their own in the usual place.
pub fn clean_up(root: &CgroupRoot, quiet: bool) {
    for id in StateDirectory::existing() {
        match take_down(&id, root) {
            Ok(Some(processes)) if !quiet => say!(
                "enforcer: agent {id} of an earlier run is still governed: {}",
                counted(processes as u64, "process")
            ),
            Ok(_) => {}
            Err(error) => say!("enforcer: left-over agent {id}: {}", error.whole()),
        }
    }
    // Before the states: who has a cgroup has had a state for longer.
    let cgroups = match root.list_existing() {
        Ok(cgroups) => cgroups,
        Err(error) => {
            say!("enforcer: left-over agents: {error}");
            return;
        }
    };
    // Made by a launcher that died before it wrote a state, or after it removed it.
    let states = StateDirectory::existing();
    for cgroup in cgroups {
        let owner = cgroup.name().trim_end_matches(".probe");
        if !states.iter().any(|id| id == owner) && cgroup.is_empty().unwrap_or(false) {
            let _ = cgroup.remove();
        }
    }
    if let Err(error) = clear_hosts() {
        say!("enforcer: left-over agents: {error}");
    }
}

/// Takes away what no agent has in the kernel any more, and hosts that nobody uses.
fn clear_hosts() -> Result<(), KernelError> {
    let held = LockedHosts::wait()?;
    // With the hosts in hand: who takes a slot has written that down before.
    let states = StateDirectory::existing();
    let seated: Vec<Seated> = states
        .iter()
        .filter_map(|id| StateDirectory::seated(id))
        .collect();
    for host in host::all() {
        let Ok(host) = Host::open(&host) else {
            continue;
        };
        let name = host.name();
        let places: Vec<SlotPlace> = seated
            .iter()
            .filter(|seated| seated.host == name)
            .map(|seated| seated.place)
            .collect();
        host.free_others(&held, &places)?;
        host.trim(&held)?;
    }
    let used: Vec<String> = seated.into_iter().map(|seated| seated.host).collect();
    host::take_down_unused(&held, AGENT_LEVEL, &used);
    Ok(())
}

/// Writes a left-over agent's buffered events and takes it down if it is empty. How many processes it has, if
/// it is not; `None` also if its launcher still runs.
pub(super) fn take_down(id: &str, root: &CgroupRoot) -> Result<Option<usize>> {
    let Some((state, facts)) = StateDirectory::take_over(id)? else {
        return Ok(None);
    };
    // Looked up with the state in hand: a list from before might not have it yet, and to take away the pins of an
    // agent that runs would set it free.
    let cgroup = root
        .list_existing()?
        .into_iter()
        .find(|cgroup| cgroup.name() == id);
    let seated = StateDirectory::seated(id);
    // A host that is gone has taken its agents along.
    let host = seated
        .as_ref()
        .map(|seated| Host::open(&seated.host))
        .and_then(Result::ok);
    let mut agent = None;
    // Without facts the launcher died before it had made anything else.
    if let (Some(facts), Some(host), Some(seated)) = (&facts, &host, &seated) {
        agent = host.agent(seated.place, &facts.limits()?)?;
    }
    if let (Some(facts), Some(agent)) = (facts, &agent) {
        let editions = facts.editions()?;
        let feed = agent.feed()?;
        let writer = open_trail(id, &facts.audit)?;
        let recorder = Recorder::new(
            EventSource::new(feed, state.tally()),
            editions,
            writer,
            facts.agent.clone(),
            cgroup.as_ref().map_or(0, AgentCgroup::id),
        );
        recorder.resume();
        let seen = recorder.drain()?;
        for escaped in seen.escaped {
            kill_process(escaped, cgroup.as_ref());
        }
        end_requests(id, facts.agent.as_deref(), &recorder)?;
    }
    if let Some(cgroup) = cgroup {
        if !cgroup.is_empty()? {
            return Ok(Some(cgroup.procs()?.len()));
        }
        cgroup.remove()?;
    }
    if let Some(agent) = &agent {
        agent.free()?;
    }
    state.remove()?;
    Ok(None)
}

/// Opens an agent's trail, or a file of its own in the usual place if that is no more: else it could never be taken down, and
/// each start would say so again. Not the trail of the run that starts: that tells of its own agent only.
pub(super) fn open_trail(id: &str, trail: &Path) -> Result<Writer> {
    match Writer::open(trail) {
        Ok(writer) => Ok(writer),
        Err(error) => {
            let spare = Trail::spare(id)?;
            say!(
                "enforcer: left-over agent {id}: {error}; its last events go to {}",
                spare.display()
            );
            Ok(Writer::open(&spare)?)
        }
    }
}

/// Requests that the launcher left unanswered become denials, in the store and in the trail.
fn end_requests(id: &str, agent: Option<&str>, recorder: &Recorder) -> Result<()> {
    let Some(store) = Store::open_existing(Path::new(APPROVALS_DB))? else {
        return Ok(());
    };
    let now = Timestamp::now();
    for request in store.abandon(id, now)? {
        recorder.line(&Record::unanswered(
            now,
            agent.unwrap_or_default(),
            (
                if request.kind == "exec" {
                    "exec"
                } else {
                    "connect"
                },
                &request.command,
            ),
            (request.rule.as_deref(), request.risk.parse().ok()),
            &request.ending(),
            Approval {
                request: &request.id,
                state: "denied",
                approver: None,
                reason: request.outcome.answer_reason.as_deref(),
                scope: None,
            },
        ))?;
    }
    Ok(())
}

/// Kills a process that left its agent's cgroup, unless it came back or its number is another process' by now.
pub fn kill_process(escaped: Escaped, cgroup: Option<&AgentCgroup>) {
    let Ok(pid) = i32::try_from(escaped.pid) else {
        return;
    };
    let pid = Pid::from_raw(pid);
    let inside = cgroup
        .and_then(|cgroup| cgroup.procs().ok())
        .is_some_and(|procs| procs.contains(&pid));
    let same = started_ns(pid).is_some_and(|started| started <= escaped.boottime_ns);
    if same && !inside && pid.as_raw() > 1 {
        // Gone already is as good.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// When a process was started, `CLOCK_BOOTTIME`, ns, rounded down to the kernel's tick; `None` if it is gone.
fn started_ns(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): the name, in parentheses, may hold anything; the 22nd field is the 20th behind it.
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(ticks * (1_000_000_000 / u64::try_from(per_second).ok()?.max(1)))
}

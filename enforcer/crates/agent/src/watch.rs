//! From letting the agent go to its end: one loop over its signals, its events and its first process.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use nix::unistd::Pid;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until},
};

use super::{
    error::{AgentError, Result},
    leftover,
    record::Recorder,
    scene::KILL_PATIENCE,
    tell::Telling,
};
use enforcer_kernel::{agent::Agent, memory::give_back_now};
use enforcer_launch::{
    AgentCgroup, Child, ExitStatus, Pending, Signals, Terminal, Watched, reap_strangers,
};

/// Time between two looks at the events. Being woken for each would cost the agent ten times what judging does;
/// an event after a pause is seen at once, and the kernel wakes nobody for those behind it.
const GATHER: Duration = Duration::from_millis(10);
/// When what only the start needed is given back: most short runs have ended by then.
const SETTLED: Duration = Duration::from_secs(1);

/// What the loop works with.
#[derive(Debug)]
pub struct SupervisorLoop<'a> {
    /// The launcher's signals.
    pub signals: &'a Signals,
    /// The agent's cgroup.
    pub cgroup: &'a AgentCgroup,
    /// Whether what outlives the command goes on.
    pub keep: bool,
    /// Where the supervisor says that it cannot go on.
    pub failures: UnboundedReceiver<AgentError>,
    /// Who tells processes of their denials.
    pub telling: Arc<Telling>,
    /// The agent among the kernel programs, and the process that connects for it.
    pub connector: Option<(Agent, Pid)>,
}

/// Lets the agent go and records what it does until it has ended.
///
/// # Errors
///
/// The agent cannot be started, or what it does cannot be recorded or judged any more; its tree is gone then.
pub fn supervise(
    pending: Pending,
    mut watch: SupervisorLoop<'_>,
    recorder: &Recorder,
) -> Result<ExitStatus> {
    let child = match pending.go(Terminal::detect()) {
        Ok(child) => child,
        Err(error) => {
            recorder.drain()?;
            return Err(error.into());
        }
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(AgentError::system("the event loop cannot be made"))
        .and_then(|runtime| runtime.block_on(watch.until_ended(child, recorder)));
    // Whatever went wrong, the tree does not outlive its record.
    if ended.is_err() || !watch.keep {
        watch.cgroup.kill_all(KILL_PATIENCE)?;
    }
    let ended = ended?;
    // The mover of an escaped process may have been the command itself, which ended before this event was read.
    watch.drain(recorder)?;
    Ok(ended)
}

impl SupervisorLoop<'_> {
    /// Writes the events that are there, and sees to what they say.
    fn drain(&mut self, recorder: &Recorder) -> Result<()> {
        let seen = recorder.drain()?;
        for escaped in seen.escaped {
            // The kernel has killed whoever moved it; the moved one is ours to kill.
            leftover::kill_process(escaped, Some(self.cgroup));
        }
        for denied in seen.denied {
            self.telling.denied(&denied);
        }
        Ok(())
    }

    /// A process of the launcher's has ended. The agent can end its connector, and then wait for its number.
    fn ended(&self, pid: Pid) -> bool {
        match &self.connector {
            Some((agent, connector)) if *connector == pid => match agent.without_connector() {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "the connector's number is kept from others");
                    false
                }
            },
            _ => true,
        }
    }

    /// Runs until the agent's first process has ended.
    ///
    /// The agent may stop this process with itself (Ctrl-Z): whatever else waits then, waits with it.
    async fn until_ended(&mut self, mut child: Child, recorder: &Recorder) -> Result<ExitStatus> {
        let watched = |fd: BorrowedFd<'_>| {
            Watched::new(fd).map_err(AgentError::system("a descriptor cannot be watched"))
        };
        let ready = recorder
            .fd()
            .map_err(AgentError::system("a descriptor cannot be had"))?;
        let events = watched(ready.as_fd())?;
        let ended = watched(child.pidfd())?;
        let signalled = watched(self.signals.fd())?;
        let mut drained = Instant::now();
        let mut due = None;
        let settled = drained + SETTLED;
        let mut holds_more = true;
        loop {
            tokio::select! {
                ready = signalled.readable() => {
                    ready?;
                    while let Some(received) = self.signals.next()? {
                        child.on_signal(received);
                    }
                    if let Some(status) = child.on_change()? {
                        return Ok(status);
                    }
                    reap_strangers(child.pid(), |pid| self.ended(pid));
                }
                ready = events.readable(), if due.is_none() => {
                    ready?;
                    due = Some(drained + GATHER);
                }
                () = sleep_until(due.unwrap_or(drained)), if due.is_some() => {
                    due = None;
                    self.drain(recorder)?;
                    drained = Instant::now();
                }
                ready = ended.readable() => {
                    ready?;
                    if let Some(status) = child.on_change()? {
                        return Ok(status);
                    }
                }
                () = sleep_until(settled), if holds_more => {
                    holds_more = false;
                    give_back_now();
                }
                Some(failure) = self.failures.recv() => return Err(failure),
            }
        }
    }
}

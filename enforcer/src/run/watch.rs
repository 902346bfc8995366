//! From letting the agent go to its end: one loop over its signals, its events and its first process.

use std::{os::fd::BorrowedFd, time::Duration};

use anyhow::Context;
use tokio::time::{Instant, sleep_until};

use super::{consume::Consumer, leftover, scene::KILL_PATIENCE};
use crate::launch::{AgentCgroup, Child, ExitStatus, Pending, Signals, Terminal, Watched};

/// Time between two looks at the events. Being woken for each would cost the agent ten times what judging does;
/// an event after a pause is seen at once, and the kernel wakes nobody for those behind it.
const GATHER: Duration = Duration::from_millis(10);

/// Lets the agent go and records what it does until it has ended.
pub fn supervise(
    pending: Pending,
    signals: &Signals,
    consumer: &mut Consumer,
    cgroup: &AgentCgroup,
    keep: bool,
) -> anyhow::Result<ExitStatus> {
    let child = match pending.go(Terminal::detect()) {
        Ok(child) => child,
        Err(error) => {
            consumer.drain()?;
            return Err(error.into());
        }
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("the event loop cannot be made")
        .and_then(|runtime| runtime.block_on(watch(child, signals, consumer, cgroup)));
    // Whatever went wrong, the tree does not outlive its record.
    if ended.is_err() || !keep {
        cgroup.kill_all(KILL_PATIENCE)?;
    }
    let ended = ended?;
    for escaped in consumer.finish()? {
        // Its mover may have been the command itself, which ended before this event was read.
        leftover::kill_process(escaped, Some(cgroup));
    }
    Ok(ended)
}

/// Runs until the agent's first process has ended.
///
/// One thread, three descriptors: the agent may stop this process with itself (Ctrl-Z), so nothing else may
/// be going on.
async fn watch(
    mut child: Child,
    signals: &Signals,
    consumer: &mut Consumer,
    cgroup: &AgentCgroup,
) -> anyhow::Result<ExitStatus> {
    let watched = |fd: BorrowedFd<'_>| Watched::new(fd).context("a descriptor cannot be watched");
    let events = watched(consumer.fd())?;
    let ended = watched(child.pidfd())?;
    let signalled = watched(signals.fd())?;
    let mut drained = Instant::now();
    let mut due = None;
    loop {
        tokio::select! {
            ready = signalled.readable() => {
                ready?;
                while let Some(received) = signals.next()? {
                    child.on_signal(received);
                }
                if let Some(status) = child.on_change()? {
                    return Ok(status);
                }
            }
            ready = events.readable(), if due.is_none() => {
                ready?;
                due = Some(drained + GATHER);
            }
            () = sleep_until(due.unwrap_or(drained)), if due.is_some() => {
                due = None;
                for escaped in consumer.drain()? {
                    // The kernel has killed whoever moved it; the moved one is ours to kill.
                    leftover::kill_process(escaped, Some(cgroup));
                }
                drained = Instant::now();
            }
            ready = ended.readable() => {
                ready?;
                if let Some(status) = child.on_change()? {
                    return Ok(status);
                }
            }
        }
    }
}

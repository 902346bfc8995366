//! From the kernel's events to the trail.

use std::{
    io::{self, IsTerminal},
    os::fd::BorrowedFd,
    path::Path,
};

use anyhow::Context;
use enforcer_common::event::{FLAG_TRUNCATED, Header};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::{
    audit::{Action, Connect, Exec, Record, Stage, Verdict, Writer},
    decide::{Decision, Engine, Judgement, Outcome},
    kernel::events::{Body, Event, Feed},
};

/// The agent's slot in its own instance.
const SLOT: u32 = 0;
/// An agent without a name is recorded as the hooks record it.
const UNNAMED: &str = "unknown";
/// Lines before a flush: a batch that is written at once.
const BATCH: usize = 256;

/// What has been recorded so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    execs: u64,
    connects: u64,
    denied: u64,
}

impl Counts {
    fn note(&mut self, body: &Body, decision: Decision) {
        match body {
            Body::Exec(_) => self.execs += 1,
            Body::Connect(_) | Body::Socket(_) => self.connects += 1,
            Body::Escape => {}
        }
        if decision != Decision::Allow {
            self.denied += 1;
        }
    }
}

/// A process that left its agent's cgroup.
#[derive(Clone, Copy, Debug)]
pub struct Escaped {
    /// The process.
    pub pid: u32,
    /// When it left, `CLOCK_BOOTTIME`, ns.
    pub boottime_ns: u64,
}

/// Reads an instance's events and writes them to the trail.
#[derive(Debug)]
pub struct Consumer {
    feed: Feed,
    engine: Engine,
    writer: Writer,
    agent: Option<String>,
    counts: Counts,
    lost: u64,
    next_seq: u64,
}

impl Consumer {
    /// A consumer from the instance's first event on.
    pub fn new(feed: Feed, engine: Engine, writer: Writer, agent: Option<String>) -> Self {
        Self {
            feed,
            engine,
            writer,
            agent,
            counts: Counts::default(),
            lost: 0,
            next_seq: 0,
        }
    }

    /// Readable when there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.feed.fd()
    }

    /// Writes all events that are there; the processes that left the agent's cgroup come back.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn drain(&mut self) -> anyhow::Result<Vec<Escaped>> {
        let mut escaped = Vec::new();
        let mut pending = 0;
        let offset = boot_offset()?;
        while let Some(event) = self.feed.next_event() {
            let event = event.context(
                "the kernel programs wrote an event that this version does not know; restart with the version that loaded them",
            )?;
            if matches!(event.body, Body::Escape) {
                escaped.push(Escaped {
                    pid: event.header.pid,
                    boottime_ns: event.header.boottime_ns,
                });
            }
            self.next_seq = self.next_seq.max(event.header.seq + 1);
            if event.header.slot == SLOT {
                let record = self.record(&event, offset);
                self.writer.append(&record)?;
                pending += 1;
                if pending % BATCH == 0 {
                    self.writer.flush()?;
                }
            }
        }
        self.note_losses()?;
        self.writer.flush()?;
        Ok(escaped)
    }

    /// Writes what is left; as [`Consumer::drain`].
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn finish(&mut self) -> anyhow::Result<Vec<Escaped>> {
        self.drain()
    }

    /// Gives up: a trail that was made for this run and in which nothing was written is taken away.
    pub fn abandon(self) {
        // What went wrong is told already; an empty file that stays does no harm.
        let _ = self.writer.abandon();
    }

    /// A gap in the numbers becomes a record that says how many are missing.
    fn note_losses(&mut self) -> anyhow::Result<()> {
        let lost = self.feed.counters(SLOT)?.lost;
        if lost > self.lost {
            let record = Record::gap(
                Timestamp::now(),
                self.name(),
                lost - self.lost,
                self.next_seq,
            );
            self.lost = lost;
            self.writer.append(&record)?;
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.agent.as_deref().unwrap_or(UNNAMED)
    }

    fn record(&mut self, event: &Event, offset: i128) -> Record {
        let header = &event.header;
        let judgement = Judgement {
            decision: Decision::from_number(header.decision),
            rank: header.rank,
            cause: header.cause,
        };
        let outcome = match &event.body {
            Body::Exec(_) | Body::Escape => self.engine.exec_outcome(judgement),
            Body::Connect(_) | Body::Socket(_) => self.engine.connect_outcome(judgement),
        };
        self.counts.note(&event.body, judgement.decision);
        let action = self.action(header, &outcome, judgement.decision, offset);
        match &event.body {
            Body::Exec(facts) => {
                let exec = Exec {
                    text: &facts.text,
                    argv_bytes: facts.argv_bytes,
                    truncated: header.flags & FLAG_TRUNCATED != 0,
                    exe: &facts.path,
                };
                Record::exec(&action, &exec)
            }
            Body::Connect(facts) => {
                let connect = Connect {
                    host: None,
                    address: Some(facts.address.to_canonical()),
                    port: Some(facts.port),
                    protocol: facts.protocol,
                    socket: None,
                };
                Record::connect(&action, &connect)
            }
            Body::Socket(facts) => {
                Record::socket(&action, facts.family, facts.socket_type, facts.protocol)
            }
            Body::Escape => Record::escape(&action),
        }
    }
}

impl Consumer {
    fn action<'a>(
        &'a self,
        header: &Header,
        outcome: &'a Outcome,
        decision: Decision,
        offset: i128,
    ) -> Action<'a> {
        Action {
            timestamp: at(header.boottime_ns, offset),
            agent: self.name(),
            reason: &outcome.reason,
            security_risk: outcome.security_risk,
            rule: outcome.rule.as_deref(),
            decision,
            verdict: Verdict::from_number(header.verdict),
            stage: Stage::from_number(header.stage),
            risk: Some(outcome.risk),
            pid: header.pid,
            ppid: header.ppid,
            uid: header.uid,
            cgroup: header.cgroup,
            seq: header.seq,
            latency_ns: header.latency_ns,
        }
    }

    /// Goes on after another consumer that is gone: what the kernel counted as lost before is not its business.
    pub fn resume(&mut self) {
        self.lost = self.feed.counters(SLOT).map_or(0, |state| state.lost);
    }

    /// Says on stderr what happened, and where it is written.
    pub fn summary(&self, audit: &Path) {
        let Counts {
            execs,
            connects,
            denied,
        } = self.counts;
        let shown = if denied > 0 && io::stderr().is_terminal() {
            format!("\x1b[31m{denied} denied\x1b[0m")
        } else {
            format!("{denied} denied")
        };
        eprintln!(
            "enforcer: {execs} execs, {connects} connects, {shown}; trail: {}",
            audit.display()
        );
    }
}

/// What to add to a `CLOCK_BOOTTIME` reading to have UTC, in nanoseconds.
fn boot_offset() -> anyhow::Result<i128> {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).context("CLOCK_BOOTTIME cannot be read")?;
    let boot = i128::from(boot.tv_sec()) * 1_000_000_000 + i128::from(boot.tv_nsec());
    Ok(Timestamp::now().as_nanosecond() - boot)
}

fn at(boottime_ns: u64, offset: i128) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(boottime_ns) + offset)
        .unwrap_or_else(|_| Timestamp::now())
}

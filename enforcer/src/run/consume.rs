//! From the kernel's events to the trail.

use std::{
    io::{self, IsTerminal},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
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

/// Reads an instance's events and writes them to the trail.
#[derive(Debug)]
pub struct Consumer {
    feed: Feed,
    engine: Engine,
    writer: Writer,
    agent: Option<String>,
    cgroup: PathBuf,
    counts: Counts,
    lost: u64,
    next_seq: u64,
}

impl Consumer {
    /// A consumer from the instance's first event on.
    pub fn new(
        feed: Feed,
        engine: Engine,
        writer: Writer,
        agent: Option<String>,
        cgroup: PathBuf,
    ) -> Self {
        Self {
            feed,
            engine,
            writer,
            agent,
            cgroup,
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
    pub fn drain(&mut self) -> anyhow::Result<Vec<u32>> {
        let mut escaped = Vec::new();
        let mut pending = 0;
        let offset = boot_offset()?;
        while let Some(event) = self.feed.next() {
            let event = event.context(
                "the kernel programs wrote an event that this version does not know; restart with the version that loaded them",
            )?;
            if matches!(event.body, Body::Escape) {
                escaped.push(event.header.pid);
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

    /// Writes what is left.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.drain().map(|_| ())
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
        if judgement.decision != Decision::Allow {
            self.counts.denied += 1;
        }
        let action = self.action(header, &outcome, judgement.decision, offset);
        match &event.body {
            Body::Exec(facts) => {
                self.counts.execs += 1;
                let exec = Exec {
                    text: &facts.text,
                    argv_bytes: facts.argv_bytes,
                    truncated: header.flags & FLAG_TRUNCATED != 0,
                    exe: &facts.path,
                };
                Record::exec(&action, &exec)
            }
            Body::Connect(facts) => {
                self.counts.connects += 1;
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
                self.counts.connects += 1;
                Record::socket(&action, facts.family, facts.socket_type, facts.protocol)
            }
            Body::Escape => Record::escape(&action),
        }
    }
}

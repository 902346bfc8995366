//! From the kernel's events to the trail.

use std::{
    fs,
    io::{self, IsTerminal},
    mem::take,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use anyhow::Context;
use enforcer_common::event::{FLAG_TRUNCATED, Header};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::{
    audit::{Action, Connect, Entry, Exec, Reader, Record, Stage, Verdict, Writer},
    decide::{Decision, Judgement, Outcome, Wording},
    kernel::events::{Body, Event, Feed},
};

/// The agent's slot in its own instance.
const SLOT: u32 = 0;
/// Family of unix sockets.
const AF_UNIX: u32 = 1;
/// An agent without a name is recorded as the hooks record it.
const UNNAMED: &str = "unknown";

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
            Body::Connect(_) | Body::Socket(_) | Body::Packet(_) | Body::Unix(_) => {
                self.connects += 1;
            }
            Body::Escape | Body::Process(_) => {}
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
    recorder: Recorder,
    /// How many losses the trail tells of.
    lost: u64,
    /// Where `lost` is kept for a consumer after this one.
    tally: PathBuf,
}

/// Makes events into lines of the trail.
#[derive(Debug)]
struct Recorder {
    wording: Wording,
    writer: Writer,
    agent: Option<String>,
    counts: Counts,
    next_seq: u64,
    /// The next event may stand in the trail already.
    resumed: bool,
}

impl Consumer {
    /// A consumer of an instance's events. `tally` is a file in the agent's state; it need not exist.
    pub fn new(
        feed: Feed,
        wording: Wording,
        writer: Writer,
        agent: Option<String>,
        tally: PathBuf,
    ) -> Self {
        let lost = fs::read_to_string(&tally).ok();
        Self {
            feed,
            recorder: Recorder {
                wording,
                writer,
                agent,
                counts: Counts::default(),
                next_seq: 0,
                resumed: false,
            },
            lost: lost.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            tally,
        }
    }

    /// Goes on after another consumer, which may have died between writing an event and taking it off the ring.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        self.recorder.resumed = true;
        self
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
        let offset = boot_offset()?;
        // An event leaves the ring when its line is in the file: whoever kills us in between loses none.
        while let Some(written) = self
            .feed
            .next_with(|event| self.recorder.write(event, offset, &mut escaped))
        {
            written?;
        }
        self.note_losses()?;
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
        let _ = self.recorder.writer.abandon();
    }

    /// A gap in the numbers becomes a record that says how many are missing.
    fn note_losses(&mut self) -> anyhow::Result<()> {
        let lost = self.feed.counters(SLOT)?.lost;
        if lost > self.lost {
            let recorder = &mut self.recorder;
            let record = Record::gap(
                Timestamp::now(),
                recorder.name(),
                lost - self.lost,
                recorder.next_seq,
            );
            self.lost = lost;
            recorder.writer.append(&record)?;
            recorder.writer.flush()?;
            fs::write(&self.tally, lost.to_string())
                .with_context(|| format!("{} cannot be written", self.tally.display()))?;
        }
        Ok(())
    }

    /// Says on stderr what happened, and where it is written.
    pub fn summary(&self, audit: &Path) {
        let Counts {
            execs,
            connects,
            denied,
        } = self.recorder.counts;
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

impl Recorder {
    fn name(&self) -> &str {
        self.agent.as_deref().unwrap_or(UNNAMED)
    }

    /// Writes one event; its process is added to `escaped` if it left the agent's cgroup.
    fn write(
        &mut self,
        event: Option<Event>,
        offset: i128,
        escaped: &mut Vec<Escaped>,
    ) -> anyhow::Result<()> {
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
        if event.header.slot != SLOT
            || (take(&mut self.resumed) && self.is_written(&event.header)?)
        {
            return Ok(());
        }
        let record = self.record(&event, offset);
        self.writer.append(&record)?;
        self.writer.flush()?;
        Ok(())
    }

    /// Whether the trail has this event. No other instance has had the same cgroup.
    fn is_written(&self, header: &Header) -> anyhow::Result<bool> {
        let own = [
            ("seq", header.seq.to_string()),
            ("cgroup", header.cgroup.to_string()),
            ("pid", header.pid.to_string()),
        ];
        // Most lines need not be parsed.
        let number = format!("\"seq\":{}", header.seq);
        let (found, _) = Reader::new(self.writer.path()).last(1, |line: &[u8]| {
            String::from_utf8_lossy(line).contains(&number)
                && Entry::parse(line).is_ok_and(|entry| {
                    own.iter()
                        .all(|(key, value)| entry.parameter(key) == *value)
                })
        })?;
        Ok(!found.is_empty())
    }

    fn record(&mut self, event: &Event, offset: i128) -> Record {
        let header = &event.header;
        let judgement = Judgement {
            decision: Decision::from_number(header.decision),
            rank: header.rank,
            cause: header.cause,
        };
        let outcome = match &event.body {
            Body::Exec(_) | Body::Escape | Body::Process(_) => self.wording.exec_outcome(judgement),
            Body::Connect(_) | Body::Socket(_) | Body::Packet(_) => {
                self.wording.connect_outcome(judgement)
            }
            // Their ranks are an order of their own.
            Body::Unix(_) => self.wording.connect_outcome(Judgement {
                rank: 0,
                ..judgement
            }),
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
                    name: &facts.name,
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
            Body::Packet(facts) => {
                let connect = Connect {
                    host: None,
                    address: Some(facts.address.to_canonical()),
                    port: None,
                    protocol: facts.protocol,
                    socket: Some((facts.family, facts.socket_type)),
                };
                Record::connect(&action, &connect)
            }
            Body::Unix(facts) => {
                let name = String::from_utf8_lossy(&facts.name);
                let connect = Connect {
                    host: Some(&name),
                    address: None,
                    port: None,
                    protocol: 0,
                    socket: Some((AF_UNIX, facts.socket_type)),
                };
                Record::connect(&action, &connect)
            }
            Body::Process(facts) => {
                let process = format!("process {}", facts.target);
                let connect = Connect {
                    host: Some(&process),
                    address: None,
                    port: None,
                    protocol: 0,
                    socket: None,
                };
                Record::connect(&action, &connect)
            }
        }
    }
}

impl Recorder {
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

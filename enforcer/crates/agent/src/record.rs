//! Lines of the trail: from the kernel's events, and from what the supervisor answers before the kernel is asked.
//! One writer for both, so that each line is in the file before its event leaves the ring or its answer goes out, and
//! behind the lines of all that came before it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal},
    mem::take,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::{
    account::CallOutcome,
    counts::Counts,
    editions::{Edition, Editions},
    error::{AgentError, Result},
    lines::{Caller, DrainedEvents, Lines, boot_offset},
    parked::ParkedLines,
};

use enforcer_control::words::counted;
use enforcer_decide::approval::Answer;
use enforcer_kernel::events::Feed;
use enforcer_say::say;
use enforcer_trail::{Record, Writer};

/// Most answers that are remembered until the kernel tells of their actions: as many as it has room for grants.
const EXPECTED: usize = 8192;

/// Makes lines and writes them. Clones share one trail.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Inner>>);

/// Where the kernel's events come from.
#[derive(Debug)]
pub struct EventSource {
    /// The ring buffer and the counters.
    pub feed: Feed,
    /// How many losses the trail tells of.
    lost: u64,
    /// Where `lost` is kept for a recorder after this one.
    tally: PathBuf,
}

impl EventSource {
    /// Events of `feed`. `tally` is a file in the agent's state; it need not exist.
    pub fn new(feed: Feed, tally: PathBuf) -> Self {
        let lost = fs::read_to_string(&tally).ok();
        Self {
            feed,
            lost: lost.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            tally,
        }
    }
}

#[derive(Debug)]
struct Inner {
    source: EventSource,
    lines: Lines,
    seen: DrainedEvents,
}

impl Recorder {
    /// A recorder for the agent of this name and cgroup.
    pub fn new(
        source: EventSource,
        editions: Editions,
        writer: Writer,
        agent: Option<String>,
        cgroup: u64,
    ) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            source,
            lines: Lines {
                editions,
                writer,
                agent,
                cgroup,
                counts: Counts::default(),
                next_seq: 0,
                resumed: false,
                approved: BTreeMap::new(),
                parked: ParkedLines::default(),
                announces: false,
                hooked: false,
            },
            seen: DrainedEvents::default(),
        })))
    }

    /// Goes on after another recorder, which may have died between writing an event and taking it off the ring.
    pub fn resume(&self) {
        self.inner().lines.resumed = true;
    }

    /// Says on stderr, from now on, when the breaker opens.
    pub fn announce_trips(&self) {
        self.inner().lines.announces = true;
    }

    // A panic while it was held leaves whole values behind: every change is one assignment.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readable when there are events. A duplicate: the original is read under a lock.
    ///
    /// # Errors
    ///
    /// Descriptors are exhausted.
    pub fn fd(&self) -> io::Result<OwnedFd> {
        self.inner().source.feed.fd().try_clone_to_owned()
    }

    /// Writes all events that are there by now. Gives what came of these and of those that were written on the way to
    /// another line.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn drain(&self) -> Result<DrainedEvents> {
        let mut inner = self.inner();
        inner.drain()?;
        Ok(take(&mut inner.seen))
    }

    /// Another policy is about to decide.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn expect_policy(&self, generation: u32, edition: Edition) -> Result<()> {
        let mut inner = self.inner();
        inner.drain()?;
        inner.lines.editions.expect(generation, edition);
        Ok(())
    }

    /// Writes that an expected policy decides, just before it does, behind all that the kernel tells of by now.
    ///
    /// # Errors
    ///
    /// The trail cannot be written: then it never says so.
    pub fn announce(&self, generation: u32, observed: bool, record: &Record) -> Result<()> {
        let mut inner = self.inner();
        inner.drain()?;
        inner
            .lines
            .write_or_forget(record, Some((generation, observed)))
    }

    /// It decides.
    pub fn go_over(&self, generation: u32, observed: bool) {
        self.inner().lines.editions.go_over(generation, observed);
    }

    /// Writes what the supervisor did.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn answered(&self, caller: &Caller, done: &CallOutcome<'_>) -> Result<()> {
        let mut inner = self.inner();
        inner.drain()?;
        let lines = &mut inner.lines;
        lines.counts.note_wanted(&done.wanted, done.verdict);
        let record = lines.supervised(caller, done);
        lines.write_with_trip(&record, Timestamp::now(), done.tripped)
    }

    /// Remembers an answer until the kernel tells of its action.
    pub fn expect(&self, request: u64, answer: Answer) {
        let approved = &mut self.inner().lines.approved;
        approved.insert(request, answer);
        while approved.len() > EXPECTED {
            approved.pop_first();
        }
    }

    /// Keeps back the line of an exec that the kernel is let do, until it is settled.
    pub fn park(&self, request: u64) {
        self.inner().lines.parked.expect(request);
    }

    /// Writes the line of a parked exec that was approved, now or when the kernel tells of it.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn approve_parked(&self, request: u64, answer: Answer) -> Result<()> {
        let mut inner = self.inner();
        inner.drain()?;
        let Inner { lines, seen, .. } = &mut *inner;
        lines.approved.insert(request, answer);
        match lines.parked.take(request) {
            Some((event, edition)) => lines.settled(&event, &edition, boot_offset()?, seen),
            None => Ok(()),
        }
    }

    /// Forgets a parked exec that was not approved: another line tells of it.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn drop_parked(&self, request: u64) -> Result<()> {
        let mut inner = self.inner();
        inner.drain()?;
        inner.lines.parked.forget(request);
        Ok(())
    }

    /// Writes a request that its supervisor left unanswered.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn line(&self, record: &Record) -> Result<()> {
        self.inner().lines.write(record)
    }

    /// Writes what somebody does, just before it is done, behind all that the kernel tells of by now.
    ///
    /// # Errors
    ///
    /// The trail cannot be written: then it never says so.
    pub fn behind_events(&self, record: &Record) -> Result<()> {
        let mut inner = self.inner();
        inner.drain()?;
        inner.lines.write_or_forget(record, None)
    }

    /// Writes a tool call that a hook has reported; `tripped`: the denials in a row, if this one opened the breaker.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn tool_call(&self, record: &Record, tripped: Option<u64>) -> Result<()> {
        let mut inner = self.inner();
        inner.drain()?;
        inner.lines.hooked = true;
        inner
            .lines
            .write_with_trip(record, Timestamp::now(), tripped)
    }

    /// What is recorded by now.
    pub fn counts(&self) -> Counts {
        self.inner().lines.counts
    }

    /// Whether the agent is only observed now.
    pub fn observed(&self) -> bool {
        self.inner().lines.editions.observed()
    }

    /// Says on stderr what happened, and where it is written.
    pub fn summary(&self, audit: &Path) {
        let Counts {
            execs,
            connects,
            denied,
            observed,
            ..
        } = self.counts();
        let observed = match observed {
            0 => String::new(),
            count => format!(", {count} that the policy does not allow went on (only observed)"),
        };
        let shown = if denied > 0 && io::stderr().is_terminal() {
            format!("\x1b[31m{denied} denied\x1b[0m")
        } else {
            format!("{denied} denied")
        };
        say!(
            "enforcer: {}, {}, {shown}{observed}; trail: {}",
            counted(execs, "exec"),
            counted(connects, "connect"),
            audit.display()
        );
    }

    /// Gives up: a trail that was made for this run and in which nothing was written is taken away.
    pub fn abandon(self) {
        // What went wrong is told already; an empty file that stays does no harm. Another clone keeps the file.
        if let Ok(inner) = Arc::try_unwrap(self.0) {
            let inner = inner.into_inner().unwrap_or_else(PoisonError::into_inner);
            let _ = inner.lines.writer.abandon();
        }
    }
}

impl Inner {
    fn drain(&mut self) -> Result<()> {
        let offset = boot_offset()?;
        let Self {
            source,
            lines,
            seen,
        } = self;
        // An event leaves the ring when its line is in the file: whoever kills us in between loses none.
        source
            .feed
            .drain(|event| lines.event(event, offset, seen))?;
        // A gap in the numbers becomes a line that says how many are missing.
        let lost = source.feed.counters()?.lost;
        if lost > source.lost {
            let record = Record::gap(
                Timestamp::now(),
                lines.name(),
                lost - source.lost,
                lines.next_seq,
            );
            lines.write(&record)?;
            source.lost = lost;
            fs::write(&source.tally, lost.to_string())
                .map_err(AgentError::file(&source.tally, "cannot be written"))?;
        }
        Ok(())
    }
}

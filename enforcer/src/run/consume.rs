//! From the ring buffer to the trail.

use std::{
    fs,
    io::{self, IsTerminal},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::record::{Counts, Recorder, SLOT, Seen, boot_offset};
use crate::kernel::events::Feed;

/// Reads an instance's events and has them recorded.
#[derive(Debug)]
pub struct Consumer {
    feed: Feed,
    recorder: Recorder,
    /// How many losses the trail tells of.
    lost: u64,
    /// Where `lost` is kept for a consumer after this one.
    tally: PathBuf,
}

impl Consumer {
    /// A consumer of an instance's events. `tally` is a file in the agent's state; it need not exist.
    pub fn new(feed: Feed, recorder: Recorder, tally: PathBuf) -> Self {
        let lost = fs::read_to_string(&tally).ok();
        Self {
            feed,
            recorder,
            lost: lost.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            tally,
        }
    }

    /// Readable when there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.feed.fd()
    }

    /// Writes all events that are there.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn drain(&mut self) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let offset = boot_offset()?;
        // An event leaves the ring when its line is in the file: whoever kills us in between loses none.
        while let Some(written) = self
            .feed
            .next_with(|event| self.recorder.event(event, offset, &mut seen))
        {
            written?;
        }
        self.note_losses()?;
        Ok(seen)
    }

    /// Gives up: a trail that was made for this run and in which nothing was written is taken away.
    pub fn abandon(self) {
        self.recorder.abandon();
    }

    /// A gap in the numbers becomes a record that says how many are missing.
    fn note_losses(&mut self) -> anyhow::Result<()> {
        let lost = self.feed.counters(SLOT)?.lost;
        if lost > self.lost {
            self.recorder.gap(lost - self.lost)?;
            self.lost = lost;
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
        } = self.recorder.counts();
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

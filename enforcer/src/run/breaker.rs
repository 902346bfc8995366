//! The breaker of a run, for the people who look after it: by the control socket while the launcher lives, else by the
//! maps that it has pinned.

use std::{fs, path::PathBuf, sync::OnceLock};

use anyhow::Context;
use enforcer_common::limits::Breaker;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{lines::boot_offset, record::Recorder, state::State};
use crate::{
    approvals::{BreakerControl, BreakerState, BreakerStatus, RateStatus},
    audit::{Event, Record, Stamp, Writer},
    kernel::{
        host::Host,
        limits::{Kind, Limiter},
    },
    policy::compile::lower_limits,
};

/// The tool that a trail line names when a breaker is closed by a person.
const TOOL: &str = "breaker";

/// A running launcher's hold on its breaker.
#[derive(Debug)]
pub struct Control {
    /// The run's id.
    pub id: String,
    /// The agent's name.
    pub agent: String,
    /// The breaker and the rates.
    pub limiter: Limiter,
    /// Where a reset is written; it comes when the trail is open.
    pub recorder: OnceLock<Recorder>,
}

impl BreakerControl for Control {
    fn status(&self) -> BreakerStatus {
        standing(&self.limiter, &self.agent, &self.id)
    }

    fn reset(&self, approver: &str) -> Result<BreakerStatus, String> {
        let Some(recorder) = self.recorder.get() else {
            return Err("the run is only just starting; try again".to_owned());
        };
        let before = self.status();
        recorder
            .behind_events(&record(&before, approver))
            .map_err(|error| {
                format!("the trail cannot be written, so nothing was reset: {error:#}")
            })?;
        self.limiter.reset();
        Ok(before)
    }
}

/// How a breaker and its rates stand.
pub(super) fn standing(limiter: &Limiter, agent: &str, id: &str) -> BreakerStatus {
    let limits = limiter.limits();
    let (state, denials, since_ms, trial) = match limiter.breaker() {
        Breaker::Closed { denials } => (BreakerState::Closed, denials.into(), None, None),
        Breaker::Open { since_ms } => (
            BreakerState::Open,
            limiter.tripped_at(),
            Some(since_ms),
            None,
        ),
        Breaker::HalfOpen { since_ms, pid } => (
            BreakerState::HalfOpen,
            limiter.tripped_at(),
            Some(since_ms),
            Some(pid),
        ),
    };
    let rates = limiter
        .rates()
        .into_iter()
        .map(|standing| RateStatus {
            of: match standing.kind {
                Kind::Exec => "exec",
                Kind::Connect => "connect",
            }
            .to_owned(),
            per_user: standing.of_user,
            used: standing.used,
            count: standing.rate.count,
            window_s: standing.rate.window_ns / 1_000_000_000,
        })
        .collect();
    BreakerStatus {
        agent: agent.to_owned(),
        id: id.to_owned(),
        state,
        denials,
        limit: limits.breaker.denials,
        since: since_ms.and_then(when),
        half_open_after_s: Some(limits.breaker.half_open_ms / 1000).filter(|after| *after > 0),
        trial,
        rates,
    }
}

/// A reading of `CLOCK_BOOTTIME` as UTC.
fn when(boot_ms: u64) -> Option<Timestamp> {
    let ns = boot_offset().ok()? + i128::from(boot_ms) * 1_000_000;
    let at = Timestamp::from_nanosecond(ns).ok()?;
    // Milliseconds are all that is kept.
    at.round(jiff::Unit::Millisecond).ok()
}

/// The line that tells of a reset.
fn record(before: &BreakerStatus, approver: &str) -> Record {
    let mut parameters = Map::new();
    parameters.insert("run".to_owned(), before.id.clone().into());
    let state = serde_json::to_value(before.state).unwrap_or(Value::Null);
    parameters.insert("state".to_owned(), state);
    parameters.insert("denials".to_owned(), before.denials.into());
    Record::tool_call(
        Timestamp::now(),
        Event::Approval,
        &before.agent,
        TOOL,
        &format!("Circuit breaker reset by {approver}"),
        false,
        &parameters,
    )
}

/// The breaker of a run that no launcher answers for (`--keep`, a launcher that was killed). Root's alone.
#[derive(Debug)]
pub struct Kept {
    agent: String,
    id: String,
    limiter: Limiter,
    audit: PathBuf,
    stamp: Stamp,
}

impl Kept {
    /// The runs that have pinned maps, as far as they can be read, but for those that have `answered` themselves.
    pub fn others(answered: &[String]) -> Vec<Self> {
        State::existing()
            .iter()
            .filter(|id| !answered.contains(id))
            .filter_map(|id| Self::open(id).ok())
            .collect()
    }

    fn open(id: &str) -> anyhow::Result<Self> {
        let facts = State::facts(id)?;
        let parsed = crate::policy::parse(&facts.policy_text).context("its policy")?;
        let limits = lower_limits(&parsed.policy.limits, &parsed.policy.breaker);
        let seated = State::seated(id).context("it is not in the kernel")?;
        let limiter = Host::open(&seated.host)?
            .agent(seated.place, &limits)?
            .context("it is not in the kernel any more")?
            .limiter()?;
        let stamp = facts.stamp(parsed.policy.masking);
        Ok(Self {
            agent: facts
                .agent
                .unwrap_or_else(|| super::lines::UNNAMED.to_owned()),
            id: id.to_owned(),
            limiter,
            audit: facts.audit,
            stamp,
        })
    }

    /// How it stands.
    pub fn status(&self) -> BreakerStatus {
        standing(&self.limiter, &self.agent, &self.id)
    }

    /// Closes it on behalf of `approver` and writes that down. Gives how it stood.
    ///
    /// # Errors
    ///
    /// The trail cannot be written; nothing was changed then.
    pub fn reset(&self, approver: &str) -> anyhow::Result<BreakerStatus> {
        let before = self.status();
        // A trail that is gone is not made anew here: its directory may be anybody's by now.
        fs::metadata(&self.audit)
            .with_context(|| format!("the trail {} cannot be written", self.audit.display()))?;
        let mut writer = Writer::open(&self.audit)?.stamped(self.stamp.clone());
        writer.append(&record(&before, approver))?;
        writer.flush()?;
        self.limiter.reset();
        Ok(before)
    }
}

/// How the operator is told of a breaker that is open when the run ends.
pub fn open_at_the_end(limiter: &Limiter, agent: &str) -> Option<String> {
    if matches!(limiter.breaker(), Breaker::Closed { .. }) {
        return None;
    }
    Some(format!(
        "enforcer: the circuit breaker of {agent} is open since {} denials in a row; `enforcer breaker reset {agent}` closes that of a run that goes on, a new run starts with a closed one",
        limiter.tripped_at()
    ))
}

/// How long ago something was, for people: whole seconds.
pub fn ago(since: Timestamp) -> SignedDuration {
    SignedDuration::from_secs(Timestamp::now().duration_since(since).as_secs().max(0))
}

//! The breaker of a run, for the people who look after it: by the control socket while the launcher lives, else by the
//! maps that it has pinned.

use std::{fs, path::PathBuf, sync::OnceLock};

use enforcer_common::{limits::Breaker, seat};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{
    error::{AgentError, Result},
    lines::boot_offset,
    record::Recorder,
    state::StateDirectory,
};
use enforcer_common::limits::ActionClass;
use enforcer_control::{BreakerControl, BreakerStatus, RateStatus, words::counted};
use enforcer_decide::breaker::BreakerState;
use enforcer_kernel::{host::Host, limits::Limiter};
use enforcer_policy::compile::limit_rules;
use enforcer_trail::{Event, Record, Stamp, Writer};

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
        let observed = self.recorder.get().is_some_and(Recorder::observed);
        standing(&self.limiter, (&self.agent, &self.id), observed)
    }

    fn reset(&self, approver: &str) -> Result<BreakerStatus, String> {
        let Some(recorder) = self.recorder.get() else {
            return Err("the run is only just starting; try again".to_owned());
        };
        let before = self.status();
        recorder
            .behind_events(&record(&before, approver))
            .map_err(|error| {
                format!(
                    "the trail cannot be written, so nothing was reset: {}",
                    error.whole()
                )
            })?;
        self.limiter.reset();
        Ok(before)
    }
}

/// How rates stand.
pub(super) fn rates(limiter: &Limiter) -> Vec<RateStatus> {
    let rates = limiter.rates().into_iter();
    rates
        .map(|standing| RateStatus {
            of: match standing.class {
                ActionClass::Exec => "exec",
                ActionClass::Connect => "connect",
            }
            .to_owned(),
            per_user: standing.of_user,
            used: standing.used,
            count: standing.rate.count,
            window_s: standing.rate.window_ns / 1_000_000_000,
        })
        .collect()
}

/// How the breaker of an agent, by name and id, and its rates stand.
pub(super) fn standing(
    limiter: &Limiter,
    (agent, id): (&str, &str),
    observed: bool,
) -> BreakerStatus {
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
    BreakerStatus {
        agent: agent.to_owned(),
        id: id.to_owned(),
        state,
        denials,
        limit: limits.breaker.denials,
        since: since_ms.and_then(when),
        half_open_after_s: Some(limits.breaker.half_open_ms / 1000).filter(|after| *after > 0),
        trial,
        observed,
        rates: rates(limiter),
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
    observed: bool,
    audit: PathBuf,
    stamp: Stamp,
}

impl Kept {
    /// The runs that have pinned maps, as far as they can be read, but for those that have `answered` themselves.
    pub fn others(answered: &[String]) -> Vec<Self> {
        StateDirectory::existing()
            .iter()
            .filter(|id| !answered.contains(id))
            .filter_map(|id| Self::open(id))
            .collect()
    }

    fn open(id: &str) -> Option<Self> {
        let facts = StateDirectory::facts(id).ok()?;
        let policy = facts.decides.policy().ok()?;
        let limits = limit_rules(&policy.limits, &policy.breaker);
        let seated = StateDirectory::seated(id)?;
        let agent = Host::open(&seated.host)
            .ok()?
            .agent(seated.place, &limits)
            .ok()??;
        let limiter = agent.limiter().ok()?;
        let stamp = facts.stamp(policy.masking);
        Some(Self {
            agent: facts
                .agent
                .unwrap_or_else(|| super::lines::UNNAMED.to_owned()),
            id: id.to_owned(),
            limiter,
            observed: seat::observed(agent.state().ok()?.word),
            audit: facts.audit,
            stamp,
        })
    }

    /// How it stands.
    pub fn status(&self) -> BreakerStatus {
        standing(&self.limiter, (&self.agent, &self.id), self.observed)
    }

    /// Closes it on behalf of `approver` and writes that down. Gives how it stood.
    ///
    /// # Errors
    ///
    /// The trail cannot be written; nothing was changed then.
    pub fn reset(&self, approver: &str) -> Result<BreakerStatus> {
        let before = self.status();
        // A trail that is gone is not made anew here: its directory may be anybody's by now.
        fs::metadata(&self.audit).map_err(|source| AgentError::TrailGone {
            trail: self.audit.clone(),
            source,
        })?;
        let mut writer = Writer::open(&self.audit)?.stamped(self.stamp.clone());
        writer.append(&record(&before, approver))?;
        writer.flush()?;
        self.limiter.reset();
        Ok(before)
    }
}

/// How the operator is told that the breaker of an agent has opened. `hooked`: a hook of the agent's has been seen.
pub(super) fn opened(denials: u64, agent: &str, observed: bool, hooked: bool) -> Vec<String> {
    let count = counted(denials, "denial");
    if observed {
        return vec![format!(
            "circuit breaker open after {count} in a row: everything would be denied from now on; nothing is blocked, the agent is only observed"
        )];
    }
    let mut lines = vec![format!(
        "circuit breaker open after {count} in a row: everything is denied; `enforcer breaker reset {agent}` closes it"
    )];
    if !hooked {
        lines.push(
            "this agent has started no hook of enforcer: what it does in its own process (files, what it is connected to already) goes on; to stop that, end it"
                .to_owned(),
        );
    }
    lines
}

/// How the operator is told of a breaker that is open when the run ends.
pub fn open_at_the_end(limiter: &Limiter, agent: &str, observed: bool) -> Option<String> {
    if matches!(limiter.breaker(), Breaker::Closed { .. }) {
        return None;
    }
    let count = counted(limiter.tripped_at(), "denial");
    Some(if observed {
        format!(
            "enforcer: the circuit breaker of {agent} is open since {count} in a row; nothing was blocked, the agent was only observed"
        )
    } else {
        format!(
            "enforcer: the circuit breaker of {agent} is open since {count} in a row; `enforcer breaker reset {agent}` closes that of a run that goes on, a new run starts with a closed one"
        )
    })
}

/// How long ago something was, for people: whole seconds.
pub fn ago(since: Timestamp) -> SignedDuration {
    SignedDuration::from_secs(Timestamp::now().duration_since(since).as_secs().max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_only_observed_is_denied_nothing() {
        let said = opened(10, "reviewer", true, false).join("\n");
        assert!(said.contains("would be denied") && said.contains("nothing is blocked"));
        assert!(
            !said.contains("is denied") && !said.contains("end it"),
            "{said}"
        );
        let said = opened(1, "reviewer", false, false).join("\n");
        assert!(
            said.contains("after 1 denial in a row: everything is denied"),
            "{said}"
        );
        assert!(said.contains("breaker reset reviewer") && said.contains("end it"));
        assert_eq!(opened(10, "reviewer", false, true).len(), 1);
    }
}

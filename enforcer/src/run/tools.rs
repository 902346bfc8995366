//! What hooks inside the agent report: one breaker, one set of rates and one trail with what the kernel sees, and the
//! last word.
//!
//! What a hook allows is judged and counted again when it really runs, so an allowance takes nothing from the rates
//! here: it is only refused where they are used up already.

use std::sync::{Arc, LazyLock};

use enforcer_common::limits::Thing;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::breaker::Control;
use crate::{
    approvals::{
        Reporter, ToolDesk,
        protocol::{ToolAnswer, ToolKind, ToolReport},
    },
    audit::{self, Record},
    decide::{
        Decision, Outcome,
        approval::{Answer, Ending},
        tool, wording,
    },
    kernel::limits::{Exceeded, Kind},
    policy::model::Rate,
};

/// Takes the reports of one run's hooks.
#[derive(Debug)]
pub struct Tools {
    control: Arc<Control>,
    rates: Rates,
}

/// The rates of the policy, for reasons.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The policy's limits.
    pub limits: crate::policy::model::Limits,
    /// The user whose agents share a rate.
    pub user: String,
}

/// What is answered and written.
struct Ended {
    answered: Decision,
    /// Where it is another than the hook's own.
    reason: Option<String>,
    tripped: Option<u64>,
}

impl Tools {
    /// Reports of the run that this breaker belongs to.
    pub fn new(control: Arc<Control>, rates: Rates) -> Self {
        Self { control, rates }
    }

    fn settle(&self, reporter: Reporter, report: &ToolReport, approved: Option<&Answer>) -> Ended {
        let limiter = &self.control.limiter;
        let denied = |reason: String| Ended {
            answered: Decision::Deny,
            reason: Some(reason),
            tripped: None,
        };
        if !limiter.admits(reporter.pid) {
            return denied(wording::BREAKER_OPEN.to_owned());
        }
        let (answered, reason) = match approved {
            Some(answer) if matches!(answer.ending, Ending::Approved { .. }) => {
                let asked = Outcome {
                    decision: report.decision,
                    ..tool::denied(report.reason.clone())
                };
                (
                    Decision::Allow,
                    Some(wording::ending(&answer.ending, &asked)),
                )
            }
            // A hook can make it stricter, never looser.
            _ => (report.answered.max(report.decision), None),
        };
        if report.refused {
            return Ended {
                answered,
                reason,
                tripped: None,
            };
        }
        match answered {
            Decision::Ask => Ended {
                answered,
                reason,
                tripped: None,
            },
            Decision::Deny => Ended {
                answered,
                reason,
                tripped: limiter.denied(reporter.pid, Thing::NONE),
            },
            Decision::Allow => {
                let kind = match report.kind {
                    ToolKind::Exec => Some(Kind::Exec),
                    ToolKind::Connect => Some(Kind::Connect),
                    ToolKind::Other => None,
                };
                if let Some(kind) = kind
                    && let Err(exceeded) = limiter.look(kind)
                {
                    return denied(self.rates.exceeded(kind, exceeded));
                }
                limiter.allowed(reporter.pid);
                Ended {
                    answered,
                    reason,
                    tripped: None,
                }
            }
        }
    }
}

impl Rates {
    fn exceeded(&self, kind: Kind, exceeded: Exceeded) -> String {
        let limits = &self.limits;
        let of = |rate: Option<Rate>, words: &dyn Fn(Rate) -> String| {
            rate.map_or_else(|| "The rates cannot be read".to_owned(), words)
        };
        match (exceeded, kind) {
            (Exceeded::Agent, Kind::Exec) => of(limits.exec, &wording::rate_exceeded),
            (Exceeded::Agent, Kind::Connect) => of(limits.connect, &wording::rate_exceeded),
            (Exceeded::User, kind) => {
                let rate = match kind {
                    Kind::Exec => limits.user_exec,
                    Kind::Connect => limits.user_connect,
                };
                of(rate, &|rate| wording::user_rate_exceeded(rate, &self.user))
            }
            (Exceeded::Failed, _) => "The rates cannot be read".to_owned(),
        }
    }
}

impl ToolDesk for Tools {
    fn tool(
        &self,
        reporter: Reporter,
        report: &ToolReport,
        approved: Option<&Answer>,
    ) -> ToolAnswer {
        let ended = self.settle(reporter, report, approved);
        let reason = ended.reason.as_deref().unwrap_or(&report.reason);
        let agent = &self.control.agent;
        let line = record(agent, reporter, report, ended.answered, reason);
        let written = match self.control.recorder.get() {
            Some(recorder) => recorder.tool_call(&line, ended.tripped),
            None => Err(anyhow::anyhow!("the run is only just starting")),
        };
        if let Err(error) = written {
            tracing::error!(%error, "a hook's report cannot be recorded; the call is denied");
            return ToolAnswer {
                decision: Decision::Deny,
                reason: "The call cannot be recorded, so it is denied".to_owned(),
            };
        }
        ToolAnswer {
            decision: match ended.reason {
                // Unchanged: the hook knows how its agent is told.
                None => report.decision,
                Some(_) => ended.answered,
            },
            reason: ended.reason.unwrap_or_default(),
        }
    }
}

/// What a hook tells of a call. All else in a line is what the launcher knows: a report that sets it is forged.
const TOLD: [&str; 6] = ["command", "paths", "urls", "format", "session", "cwd"];
/// Names of tools in lines that no hook reports.
const OURS: [&str; 4] = ["exec", "connect", "syscall", "breaker"];
/// What the name of a tool is called among what was dropped.
static TOOL: LazyLock<String> = LazyLock::new(|| "tool".to_owned());
/// Names of what was dropped that a line has.
const MOST_DROPPED: usize = 32;

/// Whether a value is a text, or a list of texts.
fn is_text(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(items) => items.iter().all(Value::is_string),
        _ => false,
    }
}

fn record(
    agent: &str,
    reporter: Reporter,
    report: &ToolReport,
    answered: Decision,
    reason: &str,
) -> Record {
    let (event, verdict) = match answered {
        Decision::Allow => (audit::Event::Approval, "allowed"),
        Decision::Ask => (audit::Event::Denial, "asked"),
        Decision::Deny => (audit::Event::Denial, "denied"),
    };
    let (told, mut dropped): (Vec<_>, Vec<_>) = (report.parameters.iter())
        .partition(|(key, value)| TOLD.contains(&key.as_str()) && is_text(value));
    let mut parameters: Map<String, Value> = told
        .into_iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut tool = report.tool.as_str();
    if OURS.contains(&tool.trim()) {
        dropped.push((&*TOOL, &Value::Null));
        tool = "unknown";
    }
    if !dropped.is_empty() {
        let names = dropped
            .iter()
            .take(MOST_DROPPED)
            .map(|(key, _)| key.as_str());
        parameters.insert("dropped".to_owned(), names.collect::<Vec<_>>().into());
    }
    if let Some(rule) = &report.rule {
        parameters.insert("rule".to_owned(), rule.as_str().into());
    }
    for (key, value) in [
        ("decision", report.decision.as_str()),
        ("verdict", verdict),
        ("stage", "hook"),
        ("risk", report.risk.as_str()),
    ] {
        parameters.insert(key.to_owned(), value.into());
    }
    parameters.insert("pid".to_owned(), reporter.pid.into());
    parameters.insert("uid".to_owned(), reporter.uid.into());
    Record::tool_call(
        Timestamp::now(),
        event,
        agent,
        tool,
        reason,
        report.security_risk && answered != Decision::Allow,
        &parameters,
    )
}

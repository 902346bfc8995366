//! What hooks inside the agent report: one breaker, one set of rates and one trail with what the kernel sees, and the
//! last word.
//!
//! What a hook allows is judged and counted again when it really runs, so an allowance takes nothing from the rates
//! here: it is only refused where they are used up already.

use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use enforcer_common::limits::Thing;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{breaker::Control, change_line, error::AgentError};
use enforcer_common::limits::ActionClass;
use enforcer_control::{
    Reporter, ToolDesk,
    protocol::{CallClass, ToolAnswer, ToolReport},
};
use enforcer_decide::{
    Outcome,
    approval::{Answer, Ending},
    tool, wording,
};
use enforcer_kernel::limits::Exceeded;
use enforcer_policy::{Cause, Decision, model::Rate};
use enforcer_trail::Record;

/// Takes the reports of one run's hooks.
#[derive(Debug)]
pub struct ToolReports {
    control: Arc<Control>,
    rates: RwLock<Rates>,
}

/// The rates of the policy, for reasons.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The policy's limits.
    pub limits: enforcer_policy::model::Limits,
    /// The user whose agents share a rate.
    pub user: String,
}

/// What is answered and written.
struct Ended {
    answered: Decision,
    /// Where they are others than the hook's own.
    other: Option<(Cause, String)>,
    tripped: Option<u64>,
}

impl ToolReports {
    /// Reports of the run that this breaker belongs to.
    pub fn new(control: Arc<Control>, rates: Rates) -> Self {
        Self {
            control,
            rates: RwLock::new(rates),
        }
    }

    /// Names other rates in reasons from now on.
    pub fn replace_rates(&self, rates: Rates) {
        *self.rates.write().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    fn settle(&self, reporter: Reporter, report: &ToolReport, approved: Option<&Answer>) -> Ended {
        let limiter = &self.control.limiter;
        let denied = |cause, reason| Ended {
            answered: Decision::Deny,
            other: Some((cause, reason)),
            tripped: None,
        };
        if !limiter.admits(reporter.pid) {
            return denied(Cause::Breaker, wording::BREAKER_OPEN.to_owned());
        }
        let (answered, other) = match approved {
            Some(answer) if matches!(answer.ending, Ending::Approved { .. }) => {
                let asked = Outcome {
                    decision: report.decision,
                    ..tool::denied(report.cause, report.reason.clone())
                };
                (
                    Decision::Allow,
                    Some((Cause::Approved, wording::ending(&answer.ending, &asked))),
                )
            }
            // A hook can make it stricter, never looser.
            _ => (report.answered.max(report.decision), None),
        };
        if report.refused {
            return Ended {
                answered,
                other,
                tripped: None,
            };
        }
        match answered {
            Decision::Ask => Ended {
                answered,
                other,
                tripped: None,
            },
            Decision::Deny => Ended {
                answered,
                other,
                tripped: limiter.denied(reporter.pid, Thing::NONE),
            },
            Decision::Allow => {
                let kind = match report.kind {
                    CallClass::Exec => Some(ActionClass::Exec),
                    CallClass::Connect => Some(ActionClass::Connect),
                    CallClass::Other => None,
                };
                if let Some(kind) = kind
                    && let Err(exceeded) = limiter.look(kind)
                {
                    let rates = self.rates.read().unwrap_or_else(PoisonError::into_inner);
                    let (cause, reason) = rates.exceeded(kind, exceeded);
                    return denied(cause, reason);
                }
                limiter.allowed(reporter.pid);
                Ended {
                    answered,
                    other,
                    tripped: None,
                }
            }
        }
    }
}

impl Rates {
    fn exceeded(&self, kind: ActionClass, exceeded: Exceeded) -> (Cause, String) {
        let limits = &self.limits;
        let of = |rate: Option<Rate>, words: &dyn Fn(Rate) -> String| {
            rate.map_or_else(|| "The rates cannot be read".to_owned(), words)
        };
        let (own, of_user) = match kind {
            ActionClass::Exec => (limits.exec, limits.user_exec),
            ActionClass::Connect => (limits.connect, limits.user_connect),
        };
        match exceeded {
            Exceeded::Agent => (Cause::Rate, of(own, &wording::rate_exceeded)),
            Exceeded::User => (
                Cause::UserRate,
                of(of_user, &|rate| {
                    wording::user_rate_exceeded(rate, &self.user)
                }),
            ),
            Exceeded::Failed => (Cause::Internal, "The rates cannot be read".to_owned()),
        }
    }
}

impl ToolDesk for ToolReports {
    fn tool(
        &self,
        reporter: Reporter,
        report: &ToolReport,
        approved: Option<&Answer>,
    ) -> ToolAnswer {
        let ended = self.settle(reporter, report, approved);
        let (cause, reason) = match &ended.other {
            Some((cause, reason)) => (Some(*cause), reason.as_str()),
            None => (None, report.reason.as_str()),
        };
        let agent = &self.control.agent;
        let line = record(agent, reporter, report, ended.answered, (cause, reason));
        let written = match self.control.recorder.get() {
            Some(recorder) => recorder.tool_call(&line, ended.tripped),
            None => Err(AgentError::JustStarting),
        };
        if let Err(error) = written {
            tracing::error!(%error, "a hook's report cannot be recorded; the call is denied");
            return ToolAnswer {
                decision: Decision::Deny,
                cause: Some(Cause::Internal),
                reason: "The call cannot be recorded, so it is denied".to_owned(),
            };
        }
        match ended.other {
            // Unchanged: the hook knows how its agent is told.
            None => ToolAnswer {
                decision: report.decision,
                cause: None,
                reason: String::new(),
            },
            Some((cause, reason)) => ToolAnswer {
                decision: ended.answered,
                cause: Some(cause),
                reason,
            },
        }
    }
}

/// What a hook tells of a call. All else in a line is what the launcher knows: a report that sets it is forged.
const TOLD: [&str; 6] = ["command", "paths", "urls", "format", "session", "cwd"];
/// Names of tools in lines that no hook reports.
const OURS: [&str; 5] = ["exec", "connect", "syscall", "breaker", change_line::TOOL];
/// What the launcher and the kernel alone can have decided by.
const OUR_CAUSES: [Cause; 11] = [
    Cause::Approved,
    Cause::Operator,
    Cause::Escape,
    Cause::Outsider,
    Cause::Syscall,
    Cause::Family,
    Cause::Routed,
    Cause::Connector,
    Cause::Listener,
    Cause::Unseen,
    Cause::Breaker,
];
/// What a cause is called among what was dropped.
static CAUSE: LazyLock<String> = LazyLock::new(|| "cause".to_owned());
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
    (cause, reason): (Option<Cause>, &str),
) -> Record {
    let (event, verdict) = match answered {
        Decision::Allow => (enforcer_trail::Event::Approval, "allowed"),
        Decision::Ask => (enforcer_trail::Event::Denial, "asked"),
        Decision::Deny => (enforcer_trail::Event::Denial, "denied"),
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
    let told = if OUR_CAUSES.contains(&report.cause) {
        dropped.push((&*CAUSE, &Value::Null));
        Cause::Internal
    } else {
        report.cause
    };
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
        ("cause", cause.unwrap_or(told).as_str()),
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

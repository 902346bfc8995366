//! What hooks inside the agent report: one trail with what the kernel saw, and the last word.

use jiff::Timestamp;

use super::record::Recorder;
use crate::{
    approvals::{
        Reporter, ToolDesk,
        protocol::{ToolAnswer, ToolReport},
    },
    audit::{self, Record},
    decide::{
        Decision, Outcome,
        approval::{Answer, Ending},
        tool, wording,
    },
};

/// Takes the reports of one run's hooks.
#[derive(Debug)]
pub struct Tools {
    recorder: Recorder,
    agent: String,
}

impl Tools {
    /// Reports of this agent go to this trail.
    pub fn new(recorder: Recorder, agent: String) -> Self {
        Self { recorder, agent }
    }
}

impl ToolDesk for Tools {
    fn tool(
        &self,
        reporter: Reporter,
        report: &ToolReport,
        approved: Option<&Answer>,
    ) -> ToolAnswer {
        let (answered, reason) = match approved {
            Some(answer) if matches!(answer.ending, Ending::Approved { .. }) => {
                let outcome = Outcome {
                    decision: report.decision,
                    ..tool::denied(report.reason.clone())
                };
                (Decision::Allow, wording::ending(&answer.ending, &outcome))
            }
            _ => (report.answered, report.reason.clone()),
        };
        let record = record(&self.agent, reporter, report, answered, &reason);
        if let Err(error) = self.recorder.line(&record) {
            tracing::error!(%error, "a hook's report cannot be recorded; the call is denied");
            return ToolAnswer {
                decision: Decision::Deny,
                reason: "The call cannot be recorded, so it is denied".to_owned(),
            };
        }
        if approved.is_some() {
            ToolAnswer {
                decision: answered,
                reason,
            }
        } else {
            ToolAnswer {
                decision: report.decision,
                reason: String::new(),
            }
        }
    }
}

fn record(
    agent: &str,
    reporter: Reporter,
    report: &ToolReport,
    answered: Decision,
    reason: &str,
) -> Record {
    let event = match answered {
        Decision::Allow => audit::Event::Approval,
        Decision::Ask | Decision::Deny => audit::Event::Denial,
    };
    let verdict = match answered {
        Decision::Allow => "allowed",
        Decision::Ask => "asked",
        Decision::Deny => "denied",
    };
    let mut parameters = report.parameters.clone();
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
        &report.tool,
        reason,
        report.security_risk && answered != Decision::Allow,
        &parameters,
    )
}

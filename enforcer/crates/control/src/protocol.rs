//! What goes over the control socket: one JSON request a line, one JSON reply a line; a watch is answered by a line
//! for each thing that happens.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    AgentChange, AgentChanged, AgentCounts, BreakerStatus, ControlError, RequestRecord,
    RequestState, record::Conclusion,
};
use enforcer_decide::approval::Scope;
use enforcer_policy::{Cause, Decision, Risk};

/// Bytes of a request's line.
pub const MAX_REQUEST: usize = 64 * 1024;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// The pending requests, or all of this run. Long command lines are cut: `show` has the whole.
    List {
        /// Those that have ended, too.
        #[serde(default)]
        all: bool,
    },
    /// One request.
    Show {
        /// Its id, or the start of it.
        id: String,
    },
    /// A person's answer.
    Answer {
        /// The request's id, or the start of it.
        id: String,
        /// Yes or no.
        approve: bool,
        /// Why.
        #[serde(default)]
        reason: String,
        /// How far an approval reaches: `once`, `session` or `rule`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// How long it reaches, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_s: Option<u64>,
        /// Who became root to answer; only root is believed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// All that is pending, then whatever happens, a line each ([`DeskEvent`]).
    Watch,
    /// The agent's last denials; its own user may ask this.
    Last,
    /// A tool call that a hook inside the agent has judged; its own user reports it.
    Tool {
        /// What was judged.
        report: Box<ToolReport>,
    },
    /// The breaker and the rates; with `reset` the breaker is closed. The agent's own user may look.
    Breaker {
        /// Whether to close it.
        #[serde(default)]
        reset: bool,
        /// Who became root to do it; only root is believed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// What is recorded of the agent, in numbers.
    Counts,
    /// A change of how the agent is governed. Root's alone.
    Change {
        /// What is changed.
        change: Box<AgentChange>,
        /// Who became root to do it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

/// What a tool call counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallClass {
    /// A command.
    Exec,
    /// Something on the web.
    Connect,
    /// Neither.
    Other,
}

/// A tool call, judged by a hook in its own process. Its texts are the agent's: they are shown and recorded, never
/// parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolReport {
    /// The tool.
    pub tool: String,
    /// What the policy says.
    pub decision: Decision,
    /// What the agent is told, if nothing else is decided here: where it cannot ask, a denial.
    pub answered: Decision,
    /// What decided.
    pub cause: Cause,
    /// Why.
    pub reason: String,
    /// Id of the rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How much damage the call can do.
    pub risk: Risk,
    /// Whether the trail marks it.
    pub security_risk: bool,
    /// What it counts as.
    pub kind: CallClass,
    /// Whether it was refused before any rule (mode, trust): that counts nowhere.
    pub refused: bool,
    /// What the trail says of it.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// The words of the one command that it is, if that is asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<String>>,
    /// The working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// What a hook has to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolAnswer {
    /// The decision.
    pub decision: Decision,
    /// What decided, where it is not what the hook told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why, where it is another than the hook's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What kind of error a reply tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplyFault {
    /// No such request.
    NotFound,
    /// The request has ended already.
    Ended,
    /// The request is not well formed or does not fit.
    Bad,
    /// The peer may not do this.
    Refused,
    /// Too many connections.
    Busy,
    /// The desk failed.
    Failed,
}

/// A reply. What does not belong to the request is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What kind of error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ReplyFault>,
    /// The error, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was listed or shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Vec<RequestRecord>>,
    /// The ids that an answer ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Vec<String>>,
    /// The last denials, the newest last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denials: Option<Vec<String>>,
    /// What a hook has to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolAnswer>,
    /// The breaker; how it was, if it was reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
    /// How the agent is governed from a change on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<AgentChanged>,
    /// What is recorded of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<AgentCounts>,
}

impl Reply {
    /// A reply that tells of an error.
    pub fn fault(fault: ReplyFault, error: impl Into<String>) -> Self {
        Self {
            fault: Some(fault),
            error: Some(error.into()),
            ..Self::default()
        }
    }
}

impl From<ControlError> for Reply {
    fn from(error: ControlError) -> Self {
        let fault = match &error {
            ControlError::Protocol(_) => ReplyFault::Bad,
            ControlError::Refused(_) => ReplyFault::Refused,
            ControlError::UnknownApprover { .. }
            | ControlError::Gone { .. }
            | ControlError::Silent { .. }
            | ControlError::Io { .. } => ReplyFault::Failed,
        };
        Self::fault(fault, error.to_string())
    }
}

/// What has happened at a desk: a line of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum DeskEvent {
    /// A request is pending.
    New {
        /// The request.
        request: Box<RequestRecord>,
    },
    /// A request has ended.
    Ended {
        /// Its id.
        id: String,
        /// How.
        state: RequestState,
        /// When, by whom, why.
        #[serde(flatten)]
        outcome: Conclusion,
    },
}

/// Reads the word of a scope.
pub fn scope(word: &str) -> Option<Scope> {
    [Scope::Once, Scope::Session, Scope::Rule]
        .into_iter()
        .find(|scope| scope.as_str() == word)
}

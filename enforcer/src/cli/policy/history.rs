//! A trail as the policy tools read it: its lines as actions.

use std::path::{Path, PathBuf};

use serde_json::Map;

use crate::cli::audit::{clean, subject};
use crate::cli::error::{CliError, Context};
use enforcer_decide::{
    Engine, Outcome,
    recorded::{self, Recorded, ReplayOutcome},
};
use enforcer_policy::Decision;
use enforcer_trail::{Entry, Reader};

/// One line of a trail.
pub(super) struct Line {
    /// Its number among the lines that were read, from 1.
    pub(super) number: usize,
    /// When it was judged, as the trail has it.
    pub(super) timestamp: String,
    /// `exec`, `connect`, or a tool's name.
    pub(super) tool: String,
    /// The command, the address, or what else was judged.
    pub(super) subject: String,
    /// What the policy said then.
    pub(super) decision: Decision,
    /// The rule that said it; empty for none.
    pub(super) rule: String,
    /// What it was.
    pub(super) recorded: Recorded,
    /// The line itself.
    pub(super) entry: Entry,
}

/// The lines of a trail.
pub(super) struct History {
    /// Those that could be read, oldest first.
    pub(super) lines: Vec<Line>,
    /// How many could not.
    pub(super) malformed: usize,
}

impl History {
    /// Reads a trail, its rotated files first. `agent` leaves out the lines of other agents.
    pub(super) fn read(file: &Path, agent: Option<&str>) -> Result<Self, CliError> {
        let (lines, _) = Reader::new(file)
            .last(usize::MAX, |_| true)
            .with_context(|| format!("the trail {} cannot be used", file.display()))?;
        let mut history = Self {
            lines: Vec::new(),
            malformed: 0,
        };
        for (number, line) in (1..).zip(lines) {
            match Entry::parse(&line) {
                Err(_) => history.malformed += 1,
                Ok(entry) if agent.is_some_and(|agent| entry.text("agent") != agent) => {}
                Ok(entry) => history.lines.push(Line::new(number, entry)),
            }
        }
        Ok(history)
    }

    /// What there is to say of the trail as a whole.
    pub(super) fn malformed(&self) -> Option<String> {
        (self.malformed > 0).then(|| {
            format!(
                "{} could not be read",
                super::counted(self.malformed, "malformed line")
            )
        })
    }
}

impl Line {
    fn new(number: usize, entry: Entry) -> Self {
        let none = Map::new();
        let parameters = entry.parameters().unwrap_or(&none);
        let tool = entry.text("tool");
        Self {
            number,
            timestamp: clean(&entry.text("timestamp")),
            subject: subject(&entry),
            decision: recorded::decision(&entry.text("event"), parameters),
            rule: clean(&entry.parameter("rule")),
            recorded: Recorded::read(&tool, parameters),
            tool: clean(&tool),
            entry,
        }
    }

    /// What a policy says of it now.
    pub(super) fn judge(&self, engine: &Engine) -> ReplayOutcome {
        self.recorded.judge(engine)
    }
}

/// A decision with the rule that made it, for a person: `deny [rule]`, `allow`.
pub(super) fn decided(decision: Decision, rule: &str) -> String {
    if rule.is_empty() {
        format!("{decision} (no rule)")
    } else {
        format!("{decision} [{rule}]")
    }
}

/// An outcome as [`decided`] shows it.
pub(super) fn outcome(outcome: &Outcome) -> String {
    decided(
        outcome.decision,
        outcome.rule.as_deref().unwrap_or_default(),
    )
}

/// Where the trail is, unless it is named.
pub(super) fn default_trail() -> PathBuf {
    PathBuf::from(enforcer_trail::DEFAULT_PATH)
}

//! `enforcer hook`: the front end that an agent asks before each tool call. A composition root: it reads the agent's
//! event, judges it by the same policy and engine as everything else, and answers in the agent's own contract.
//!
//! Agents go on when their hook fails: so whatever goes wrong here ends in an answer that denies, with a reason.

#![forbid(unsafe_code)]

mod alone;
pub mod choice;
mod claude;
mod codex;
pub mod consent;
mod cursor;
pub mod doctor;
pub mod format;
mod gemini;
mod guard;
pub mod input;
mod inside;
pub mod install;
pub mod judge;
mod launcher;
mod names;
pub mod place;
pub mod probe;
pub mod project;
mod qwen;
mod resolve;
pub mod shared;
pub mod state;
mod tables;
mod trail;

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::Value;

use enforcer_control::protocol::ToolReport;
use enforcer_decide::{Mode, Outcome, Principal, Refusal, admit, tool, wording};
use enforcer_launch::Identity;
use enforcer_policy::{Cause, Decision, Policy, PolicyError, Sources};
use enforcer_policy_files::ground::Ground;

pub use format::Format;
use format::{HookAnswer, Shape};
use input::ToolCall;
use judge::Judged;
use launcher::Launcher;
use project::EventPlace;
use tables::PolicySource;
pub use tables::prepare;

/// Longest text of an answer, in characters.
const TEXT_MAX: usize = 2000;
/// Longest string of a report to the launcher, in bytes.
const REPORTED_MAX: usize = 4096;

/// What `enforcer hook` was called with.
#[derive(Clone, Debug, Default)]
pub struct HookOptions {
    /// Whose hook it is; else the event tells.
    pub format: Option<Format>,
    /// The policy.
    pub policy: Option<PathBuf>,
    /// The mode.
    pub mode: Option<Mode>,
    /// The agent's name; else `CLAUDE_AGENT_NAME`, else the event tells.
    pub agent: Option<String>,
    /// For whom the agent works.
    pub user: Option<String>,
    /// Whose agent it is.
    pub tenant: Option<String>,
    /// What it may do besides.
    pub capabilities: BTreeSet<String>,
    /// The trail.
    pub audit: Option<PathBuf>,
}

/// What the hook says and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// The exit status.
    pub code: u8,
}

impl Answered {
    /// A denial where nobody knows in whose words: every agent takes exit status 2 for one, and standard error for the
    /// reason.
    pub fn by_status(reason: &str) -> Self {
        Self {
            stdout: String::new(),
            stderr: format!("enforcer: {}\n", printable(reason)),
            code: 2,
        }
    }

    fn deny(shape: Option<&Shape>, reason: &str) -> Self {
        match shape {
            Some(shape) => shape.answer(HookAnswer {
                decision: Decision::Deny,
                text: &printable(reason),
            }),
            None => Self::by_status(reason),
        }
    }
}

/// Reads an event from standard input, judges it, and gives the answer. It never fails: what cannot be judged is denied.
pub fn answer(options: HookOptions) -> Answered {
    let shape = options.format.map(Format::shape);
    guard::bounded(shape, move |told| {
        let event = input::read(std::io::stdin().lock(), input::PATIENCE)
            .map_err(|why| input::InputFault {
                shape: options.format.map(Format::shape),
                why: format!("The hook's event cannot be judged: {why}"),
            })
            .and_then(|bytes| input::parse(&bytes, options.format));
        match event {
            Ok(event) => {
                told.tell(&event.shape);
                decide(&options, &event)
            }
            Err(fault) => Answered::deny(fault.shape.as_ref(), &fault.why),
        }
    })
}

/// What becomes of an event, before it is put into the agent's words.
#[derive(Clone, Debug)]
struct Ending {
    outcome: Outcome,
    /// What the agent is told: stricter than the outcome where it cannot ask.
    answered: Decision,
    note: Option<String>,
}

impl Ending {
    fn of(outcome: Outcome, shape: &Shape) -> Self {
        let asks = shape.asks && shape.event != cursor::READ_EVENT;
        let answered = match outcome.decision {
            Decision::Ask if !asks => Decision::Deny,
            other => other,
        };
        Self {
            note: (answered != outcome.decision).then(|| {
                let why = match &shape.unattended {
                    Some(mode) => format!("in the mode `{}` nobody is asked", printable(mode)),
                    None => "this agent's hook has no way to ask".to_owned(),
                };
                format!(
                    "This needs a person's approval, and {why}: tell the user, who can do it, or have the operator \
                     allow it in the policy"
                )
            }),
            outcome,
            answered,
        }
    }

    fn refused(refusal: &Refusal, note: Option<String>, shape: &Shape) -> Self {
        let decision = match refusal {
            Refusal::Tenant { .. } => Decision::Deny,
            Refusal::Disabled | Refusal::NotSubagent | Refusal::Untrusted { .. } => Decision::Ask,
        };
        let hint = note.unwrap_or_else(|| refusal.suggestion());
        let outcome = Outcome {
            decision,
            suggestion: Some(hint.clone()),
            suggestions: vec![hint],
            ..tool::denied(Cause::Admission, refusal.to_string())
        };
        Self {
            note: None,
            ..Self::of(outcome, shape)
        }
    }

    fn denied(reason: String) -> Self {
        Self {
            outcome: tool::denied(Cause::Internal, reason),
            answered: Decision::Deny,
            note: None,
        }
    }

    fn text(&self) -> String {
        let mut text = printable(&self.outcome.reason);
        // How a request is approved helps only where one waits at the desk.
        let said = match (self.answered, self.outcome.decision) {
            (Decision::Allow, _) => String::new(),
            (_, Decision::Deny) => self.outcome.suggestions.join("; "),
            _ => self.outcome.suggestion.clone().unwrap_or_default(),
        };
        if !said.is_empty() {
            text.push_str(". Instead: ");
            text.push_str(&printable(&said));
        }
        if let Some(note) = &self.note {
            text.push_str(". ");
            text.push_str(note);
        }
        text
    }

    fn answer(&self, shape: &Shape) -> Answered {
        shape.answer(HookAnswer {
            decision: self.answered,
            text: &self.text(),
        })
    }
}

fn decide(options: &HookOptions, event: &ToolCall) -> Answered {
    let ending = match launcher::find() {
        Ok(Some(launcher)) => below(&launcher, options, event),
        Ok(None) => alone::alone(options, event),
        Err(why) => Err(why),
    };
    ending.unwrap_or_else(Ending::denied).answer(&event.shape)
}

/// The agent's name: as given, else of the environment, else of the event.
fn agent(options: &HookOptions, event: &ToolCall) -> Option<String> {
    let variable = std::env::var("CLAUDE_AGENT_NAME").ok();
    [&options.agent, &variable, &event.agent]
        .into_iter()
        .flatten()
        .find_map(|raw| Principal::agent_name(raw))
}

/// The user that the agent runs as is who calls.
fn ground() -> Option<Ground> {
    Identity::current()
        .ok()
        .map(|identity| Ground::of(&identity))
}

/// The policy, with what it means for this user.
fn policy_of(source: &PolicySource, ground: Option<&Ground>) -> Result<Policy, String> {
    let policy = source.policy().map_err(|faults: Vec<PolicyError>| {
        let first = faults.first().map(|fault| fault.in_file(&source.name));
        format!(
            "The policy cannot be used: {}; `enforcer policy check` shows all",
            first.unwrap_or_default()
        )
    });
    policy.map(|mut policy| {
        if let Some(ground) = ground {
            ground.settle(&mut policy);
        }
        policy
    })
}

/// Inside an agent: policy, names, state and trail are the launcher's.
fn below(launcher: &Launcher, options: &HookOptions, event: &ToolCall) -> Result<Ending, String> {
    let scene = EventPlace::of(event)?;
    let root = place::root().ok();
    let source = PolicySource::new(
        Sources::alone(launcher.policy.as_str()),
        "of the run".to_owned(),
        root.as_deref(),
    );
    let ground = ground();
    let policy = policy_of(&source, ground.as_ref())?;
    let mut principal = launcher.facts.principal();
    // Whoever calls can only make it stricter.
    match (principal.mode, options.mode) {
        (_, Some(Mode::Disabled)) => principal.mode = Mode::Disabled,
        (Mode::Everywhere, Some(stricter)) => principal.mode = stricter,
        _ => {}
    }
    let judged = judge::judge(
        event,
        &policy,
        || source.engine(policy.clone(), &principal),
        &scene,
        ground.as_ref(),
        || scene.grounds(&policy.guard, &[]),
    );
    let (ending, judged) = match admit(&principal, &policy) {
        Err(refusal) if judged.outcome.decision != Decision::Deny => (
            Ending::refused(&refusal, None, &event.shape),
            Judged {
                words: None,
                // The rules said nothing against it.
                counts: false,
                ..judged
            },
        ),
        _ => (Ending::of(judged.outcome.clone(), &event.shape), judged),
    };
    // What the run counts and records is what its agent does, and a probe does nothing.
    if probe::is_one(event) {
        return Ok(ending);
    }
    let answer = launcher.report(report(event, &ending, judged))?;
    if answer.decision == ending.outcome.decision && answer.reason.is_empty() {
        return Ok(ending);
    }
    // What the rules advise is not about what the launcher says.
    let cause = answer.cause.unwrap_or(ending.outcome.cause);
    let advice = (cause == Cause::Breaker).then(|| wording::BREAKER_ADVICE.to_owned());
    let outcome = Outcome {
        decision: answer.decision,
        cause,
        reason: answer.reason,
        suggestion: advice.clone(),
        suggestions: advice.into_iter().collect(),
        ..ending.outcome
    };
    Ok(Ending::of(outcome, &event.shape))
}

/// What the launcher is told. Long texts are cut: a report has its bounds.
fn report(event: &ToolCall, ending: &Ending, judged: Judged) -> ToolReport {
    let Judged {
        kind,
        mut parameters,
        words,
        counts,
        ..
    } = judged;
    parameters.insert("format".to_owned(), event.shape.format.as_str().into());
    let outcome = &ending.outcome;
    let words = words.filter(|words| {
        outcome.decision == Decision::Ask
            && words.iter().map(String::len).sum::<usize>() <= REPORTED_MAX
            && words.len() <= 256
    });
    ToolReport {
        tool: cut(&event.tool),
        decision: outcome.decision,
        answered: ending.answered,
        cause: outcome.cause,
        reason: cut(&outcome.reason),
        rule: outcome.rule.as_deref().map(cut),
        risk: outcome.risk,
        security_risk: outcome.security_risk,
        kind,
        // A limit counts no more than a refusal does.
        refused: !counts,
        parameters: parameters
            .into_iter()
            .map(|(key, value)| (key, shortened(value)))
            .collect(),
        words,
        cwd: event.cwd.as_deref().map(cut),
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(REPORTED_MAX);
    // Secrets are hidden before it leaves; what is cut in two would not be known as one any more.
    let clean = enforcer_redact::text(text.as_bytes());
    if end == text.len() {
        return clean;
    }
    format!("{}…", &clean[..clean.floor_char_boundary(REPORTED_MAX)])
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(text) => cut(&text).into(),
        Value::Array(items) => items.into_iter().take(4).map(shortened).collect(),
        other => other,
    }
}

/// A text as an answer has it: one line, without control characters, bounded.
fn printable(text: &str) -> String {
    let text = enforcer_redact::text(text.as_bytes());
    let text = text.trim();
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.trim_end_matches('.').to_owned(),
    }
}

//! `enforcer hook`: the front end that an agent asks before each tool call. A composition root: it reads the agent's
//! event, judges it by the same policy and engine as everything else, and answers in the agent's own contract.
//!
//! Agents go on when their hook fails: so whatever goes wrong here ends in an answer that denies, with a reason.

pub mod choice;
mod claude;
mod codex;
pub mod consent;
mod cursor;
pub mod format;
mod gemini;
mod guard;
pub mod input;
pub mod install;
pub mod judge;
mod launcher;
pub mod place;
pub mod project;
mod resolve;
pub mod shared;
pub mod state;
mod tables;
mod trail;

use std::{collections::BTreeSet, path::PathBuf, process};

use nix::unistd::{getppid, getuid};
use serde_json::{Map, Value};

use crate::{
    approvals::protocol::{ToolKind, ToolReport},
    audit::Stamp,
    decide::{
        Decision, Mode, Outcome, Refusal, Risk, Subject, admit, breaker::Standing, redact, tool,
        wording,
    },
    ground::Ground,
    launch::Identity,
    policy::{Policy, PolicyError},
};

pub use format::Format;
use format::{Shape, Verdict};
use input::Event;
use judge::Judged;
use launcher::Launcher;
use project::Scene;
use state::{Kind, Settled, StateError, States};
use tables::Source;
pub use tables::prepare;

/// Longest text of an answer, in characters.
const TEXT_MAX: usize = 2000;
/// Longest string of a report to the launcher, in bytes.
const REPORTED_MAX: usize = 4096;

/// What `enforcer hook` was called with.
#[derive(Clone, Debug, Default)]
pub struct Options {
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
            Some(shape) => shape.answer(Verdict {
                decision: Decision::Deny,
                text: &printable(reason),
            }),
            None => Self::by_status(reason),
        }
    }
}

/// Reads an event from standard input, judges it, and gives the answer. It never fails: what cannot be judged is denied.
pub fn answer(options: Options) -> Answered {
    let shape = options.format.map(Format::shape);
    guard::bounded(shape, move |told| {
        let event = input::read(std::io::stdin().lock(), input::PATIENCE)
            .map_err(|why| input::Fault {
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
        let asks = shape.format.asks() && shape.event != cursor::READ_EVENT;
        let answered = match outcome.decision {
            Decision::Ask if !asks => Decision::Deny,
            other => other,
        };
        Self {
            note: (answered != outcome.decision).then(|| {
                "This needs a person's approval, and this agent's hook has no way to ask: tell the user, who can do \
                 it, or have the operator allow it in the policy"
                    .to_owned()
            }),
            outcome,
            answered,
        }
    }

    fn refused(refusal: &Refusal, note: Option<String>, shape: &Shape) -> Self {
        let decision = match refusal {
            Refusal::Tenant { .. } => Decision::Deny,
            Refusal::Disabled | Refusal::NotSubagent | Refusal::Untrusted(_) => Decision::Ask,
        };
        let hint = note.unwrap_or_else(|| refusal.suggestion());
        let outcome = Outcome {
            decision,
            suggestion: Some(hint.clone()),
            suggestions: vec![hint],
            ..tool::denied(refusal.to_string())
        };
        Self {
            note: None,
            ..Self::of(outcome, shape)
        }
    }

    fn denied(reason: String) -> Self {
        Self {
            outcome: tool::denied(reason),
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
        shape.answer(Verdict {
            decision: self.answered,
            text: &self.text(),
        })
    }
}

fn decide(options: &Options, event: &Event) -> Answered {
    let ending = match launcher::find() {
        Ok(Some(launcher)) => below(&launcher, options, event),
        Ok(None) => alone(options, event),
        Err(why) => Err(why),
    };
    ending.unwrap_or_else(Ending::denied).answer(&event.shape)
}

/// The agent's name: as given, else of the environment, else of the event.
fn agent(options: &Options, event: &Event) -> Option<String> {
    let variable = std::env::var("CLAUDE_AGENT_NAME").ok();
    [&options.agent, &variable, &event.agent]
        .into_iter()
        .flatten()
        .find_map(|raw| Subject::agent_name(raw))
}

/// Without a launcher: state and trail of the user's own.
fn alone(options: &Options, event: &Event) -> Result<Ending, String> {
    let chosen = consent::choose(options.mode);
    let scene = Scene::of(event)?;
    let root = place::root().map_err(|error| error.to_string())?;
    let (file, text) = choice::read(options.policy.as_deref(), &scene.projects)?;
    let source = Source::new(text, file.display().to_string(), Some(&root));
    let ground = ground();
    let policy = policy_of(&source, ground.as_ref())?;
    let subject = Subject {
        agent: agent(options, event),
        tenant: options.tenant.clone(),
        capabilities: options.capabilities.clone(),
        mode: chosen.mode,
        ..Subject::default()
    };
    let subject = match &options.user {
        Some(user) => Subject {
            user: user.clone(),
            ..subject
        },
        None => subject,
    };
    let trail = trail::path(options.audit.as_deref()).map_err(|error| error.to_string())?;
    let alone = Alone {
        states: States::open(&root).map_err(unusable)?,
        policy: &policy,
        subject: &subject,
        trail: &trail,
        event,
    };
    if let Some(ending) = alone.open_breaker()? {
        return Ok(ending);
    }
    if let Err(refusal) = admit(&subject, &policy) {
        let ending = Ending::refused(&refusal, chosen.note, &event.shape);
        return alone.record(ending, Map::new(), &[]);
    }
    let own = [file, trail.clone()];
    let judged = judge::judge(
        event,
        &policy,
        || source.engine(policy.clone(), &subject),
        &scene,
        ground.as_ref(),
        || scene.grounds(&own),
    );
    alone.settle(judged)
}

/// The user that the agent runs as is who calls.
fn ground() -> Option<Ground> {
    Identity::current()
        .ok()
        .map(|identity| Ground::of(&identity))
}

/// The policy, with what it means for this user.
fn policy_of(source: &Source, ground: Option<&Ground>) -> Result<Policy, String> {
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

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unusable(error: StateError) -> String {
    format!("The hook's state cannot be used, so nothing is allowed: {error}")
}

/// A call without a launcher.
struct Alone<'a> {
    states: States,
    policy: &'a Policy,
    subject: &'a Subject,
    trail: &'a std::path::Path,
    event: &'a Event,
}

impl Alone<'_> {
    fn agent(&self) -> &str {
        self.subject.agent.as_deref().unwrap_or(state::UNNAMED)
    }

    /// The ending where the breaker is open: nothing else is looked at then.
    fn open_breaker(&self) -> Result<Option<Ending>, String> {
        let mut held = self
            .states
            .hold(self.subject.agent.as_deref())
            .map_err(unusable)?;
        let standing = held.standing(&self.policy.breaker).map_err(unusable)?;
        drop(held);
        if standing == Standing::Open {
            return self.record(opened(), Map::new(), &[]).map(Some);
        }
        Ok(None)
    }

    /// Counts what the rules say, and records what comes of it.
    fn settle(&self, judged: Judged) -> Result<Ending, String> {
        let ending = Ending::of(judged.outcome, &self.event.shape);
        let limits = &self.policy.limits;
        let shared = limits.user_exec.is_some() || limits.user_connect.is_some();
        let mut held = self
            .states
            .hold(self.subject.agent.as_deref())
            .map_err(unusable)?;
        // Always after the agent's own: two calls cannot wait for each other.
        let mut user = shared
            .then(|| self.states.hold_user())
            .transpose()
            .map_err(unusable)?;
        let settled = held
            .settle(
                user.as_mut(),
                self.policy,
                judged.counts.then_some(ending.answered),
                judged.kind,
                &self.subject.user,
            )
            .map_err(unusable)?;
        let (ending, trip) = match settled {
            Settled::AsJudged { trip } => (ending, trip),
            Settled::Open => (opened(), None),
            Settled::Limited(reason) => (
                Ending {
                    outcome: tool::denied(reason),
                    answered: Decision::Deny,
                    note: None,
                },
                None,
            ),
        };
        // Under the lock, so that the line of the breaker follows that of its denial.
        let more: Vec<_> = trip
            .map(|denials| trail::trip(self.agent(), denials))
            .into_iter()
            .collect();
        let recorded = self.record(ending, judged.parameters, &more);
        held.save().map_err(unusable)?;
        if let Some(user) = user {
            user.save().map_err(unusable)?;
        }
        recorded
    }

    /// Writes the line; what cannot be recorded is denied.
    fn record(
        &self,
        ending: Ending,
        parameters: Map<String, Value>,
        more: &[crate::audit::Record],
    ) -> Result<Ending, String> {
        let mut parameters = parameters;
        parameters.insert("format".to_owned(), self.event.shape.format.as_str().into());
        if let Some(session) = &self.event.session {
            parameters.insert("session".to_owned(), session.as_str().into());
        }
        if let Some(cwd) = &self.event.cwd {
            parameters.insert("cwd".to_owned(), cwd.as_str().into());
        }
        parameters.insert("pid".to_owned(), process::id().into());
        parameters.insert("ppid".to_owned(), getppid().as_raw().into());
        parameters.insert("uid".to_owned(), getuid().as_raw().into());
        let parameters = trail::judgement(parameters, &ending.outcome, ending.answered);
        let line = trail::line(
            self.agent(),
            &self.event.tool,
            &ending.outcome,
            ending.answered,
            &parameters,
        );
        let mut lines = vec![line];
        lines.extend_from_slice(more);
        trail::append(
            self.trail,
            Stamp::of(self.subject, self.policy.masking),
            &lines,
        )
        .map_err(|error| format!("The call cannot be recorded, so it is denied: {error}"))?;
        Ok(ending)
    }
}

fn opened() -> Ending {
    let outcome = Outcome {
        risk: Risk::High,
        suggestions: vec!["only the operator can close it: enforcer hook breaker reset".to_owned()],
        ..tool::denied(wording::BREAKER_OPEN.to_owned())
    };
    Ending {
        outcome,
        answered: Decision::Deny,
        note: None,
    }
}

/// Inside an agent: policy, names, state and trail are the launcher's.
fn below(launcher: &Launcher, options: &Options, event: &Event) -> Result<Ending, String> {
    let scene = Scene::of(event)?;
    let root = place::root().ok();
    let source = Source::new(
        launcher.policy.clone(),
        "of the run".to_owned(),
        root.as_deref(),
    );
    let ground = ground();
    let policy = policy_of(&source, ground.as_ref())?;
    let mut subject = launcher.facts.subject();
    // Whoever calls can only make it stricter.
    match (subject.mode, options.mode) {
        (_, Some(Mode::Disabled)) => subject.mode = Mode::Disabled,
        (Mode::Everywhere, Some(stricter)) => subject.mode = stricter,
        _ => {}
    }
    let (ending, judged) = if let Err(refusal) = admit(&subject, &policy) {
        (Ending::refused(&refusal, None, &event.shape), None)
    } else {
        let judged = judge::judge(
            event,
            &policy,
            || source.engine(policy.clone(), &subject),
            &scene,
            ground.as_ref(),
            || scene.grounds(&[]),
        );
        let ending = Ending::of(judged.outcome.clone(), &event.shape);
        (ending, Some(judged))
    };
    let answer = launcher.report(report(event, &ending, judged))?;
    if answer.decision == ending.outcome.decision && answer.reason.is_empty() {
        return Ok(ending);
    }
    let outcome = Outcome {
        decision: answer.decision,
        reason: answer.reason,
        ..ending.outcome
    };
    Ok(Ending::of(outcome, &event.shape))
}

/// What the launcher is told. Long texts are cut: a report has its bounds.
fn report(event: &Event, ending: &Ending, judged: Option<Judged>) -> ToolReport {
    // A limit counts no more than a refusal does.
    let refused = judged.as_ref().is_none_or(|judged| !judged.counts);
    let (kind, parameters, words) = match judged {
        Some(judged) => (judged.kind, judged.parameters, judged.words),
        None => (Kind::Other, Map::new(), None),
    };
    let mut parameters = parameters;
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
        reason: cut(&outcome.reason),
        rule: outcome.rule.as_deref().map(cut),
        risk: outcome.risk,
        security_risk: outcome.security_risk,
        kind: match kind {
            Kind::Exec => ToolKind::Exec,
            Kind::Connect => ToolKind::Connect,
            Kind::Other => ToolKind::Other,
        },
        refused,
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
    let clean = redact::text(text.as_bytes());
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
    let text = redact::text(text.as_bytes());
    let text = text.trim();
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.trim_end_matches('.').to_owned(),
    }
}

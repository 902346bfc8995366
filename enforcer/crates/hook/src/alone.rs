//! A hook without a launcher above it: state and trail are the user's own.

use std::{path::Path, process};

use nix::unistd::{getppid, getuid};
use serde_json::{Map, Value};

use super::{
    Ending, HookOptions, agent, choice, consent, ground,
    input::ToolCall,
    judge::{self, Judged},
    place, policy_of, probe,
    project::EventPlace,
    state::{HookStateError, Settled, States},
    tables::PolicySource,
    trail,
};
use enforcer_decide::{Outcome, Principal, admit, breaker::BreakerState, tool, wording};
use enforcer_policy::{Cause, Decision, Policy, Risk};
use enforcer_policy_files::rule_files;
use enforcer_trail::{AuditError, Record, Stamp, Writer};

/// Without a launcher: state and trail of the user's own.
pub(super) fn alone(options: &HookOptions, event: &ToolCall) -> Result<Ending, String> {
    let chosen = consent::choose(options.mode);
    let scene = EventPlace::of(event)?;
    let root = place::root().map_err(|error| error.to_string())?;
    let (file, texts) = choice::read(options.policy.as_deref(), &scene.projects)?;
    let files = rule_files::files(&file, &texts);
    let source = PolicySource::new(texts, file.display().to_string(), Some(&root));
    let ground = ground();
    let policy = policy_of(&source, ground.as_ref())?;
    let principal = Principal {
        agent: agent(options, event),
        tenant: options.tenant.clone(),
        capabilities: options.capabilities.clone(),
        mode: chosen.mode,
        ..Principal::default()
    };
    let principal = match &options.user {
        Some(user) => Principal {
            user: user.clone(),
            ..principal
        },
        None => principal,
    };
    let trail = trail::path(options.audit.as_deref()).map_err(|error| error.to_string())?;
    let alone = Alone {
        states: States::open(&root).map_err(unusable)?,
        policy: &policy,
        principal: &principal,
        trail: &trail,
        event,
    };
    if let Some(ending) = alone.open_breaker()? {
        return Ok(ending);
    }
    let refusal = admit(&principal, &policy).err();
    let own = [files, vec![trail.clone()]].concat();
    let judged = judge::judge(
        event,
        &policy,
        || source.engine(policy.clone(), &principal),
        &scene,
        ground.as_ref(),
        || scene.grounds(&policy.guard, &own),
    );
    match refusal {
        // What the rules deny stays denied: a question could be answered with yes.
        Some(refusal) if judged.outcome.decision != Decision::Deny => {
            let ending = Ending::refused(&refusal, chosen.note, &event.shape);
            alone.record(ending, judged.parameters, &[])
        }
        _ => alone.settle(judged),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unusable(error: HookStateError) -> String {
    format!("The hook's state cannot be used, so nothing is allowed: {error}")
}

/// A call without a launcher.
struct Alone<'a> {
    states: States,
    policy: &'a Policy,
    principal: &'a Principal,
    trail: &'a Path,
    event: &'a ToolCall,
}

impl Alone<'_> {
    /// The name in state and trail: the agent's own, else the word for whose hook it is. The latter names nobody to
    /// the policy, where an agent with a name is a subagent.
    fn agent(&self) -> &str {
        let unnamed = self.event.shape.format.as_str();
        self.principal.agent.as_deref().unwrap_or(unnamed)
    }

    /// The ending where the breaker is open: nothing else is looked at then.
    fn open_breaker(&self) -> Result<Option<Ending>, String> {
        let mut held = self.states.hold(Some(self.agent())).map_err(unusable)?;
        let standing = held.standing(&self.policy.breaker).map_err(unusable)?;
        drop(held);
        if standing == BreakerState::Open {
            let named = judge::named(self.event, self.policy);
            return self.record(opened(), named, &[]).map(Some);
        }
        Ok(None)
    }

    /// Counts what the rules say, and records what comes of it.
    fn settle(&self, judged: Judged) -> Result<Ending, String> {
        let ending = Ending::of(judged.outcome, &self.event.shape);
        if probe::is_one(self.event) {
            return self.record(ending, judged.parameters, &[]);
        }
        let limits = &self.policy.limits;
        let shared = limits.user_exec.is_some() || limits.user_connect.is_some();
        let mut held = self.states.hold(Some(self.agent())).map_err(unusable)?;
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
                &self.principal.user,
            )
            .map_err(unusable)?;
        let (ending, trip) = match settled {
            Settled::AsJudged { trip } => (ending, trip),
            Settled::Open => (opened(), None),
            Settled::Limited(cause, reason) => (
                Ending {
                    outcome: tool::denied(cause, reason),
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
        more: &[Record],
    ) -> Result<Ending, String> {
        if probe::is_one(self.event) {
            // Whether the line could be written is part of the question.
            return match Writer::open(self.trail) {
                Ok(_) => Ok(ending),
                Err(error) => Err(unrecorded(&error)),
            };
        }
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
            Stamp::of(self.principal, self.policy.masking),
            &lines,
        )
        .map_err(|error| unrecorded(&error))?;
        Ok(ending)
    }
}

fn unrecorded(error: &AuditError) -> String {
    format!("The call cannot be recorded, so it is denied: {error}")
}

fn opened() -> Ending {
    let outcome = Outcome {
        risk: Risk::High,
        suggestions: vec![
            "stop and tell the user whose agent this is, who can close it: enforcer hook breaker reset"
                .to_owned(),
        ],
        ..tool::denied(Cause::Breaker, wording::BREAKER_OPEN.to_owned())
    };
    Ending {
        outcome,
        answered: Decision::Deny,
        note: None,
    }
}

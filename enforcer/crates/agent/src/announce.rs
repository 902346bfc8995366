//! What the operator is told at the start.

use std::path::Path;

use super::{enforcement::Enforcement, lines::UNNAMED, listeners, plan::RunPlan};
use enforcer_launch::Identity;
use enforcer_policy::{Decision, Policy};
use enforcer_say::say;

/// What a start has come to.
#[derive(Debug)]
pub struct Start<'a> {
    plan: &'a RunPlan<'a>,
    policy: &'a Policy,
    enforcement: &'a Enforcement,
    id: &'a str,
    audit: &'a Path,
}

impl<'a> Start<'a> {
    /// A plan and its policy, as that decides; what is in force; the run's id and trail.
    pub fn new(
        plan: &'a RunPlan<'a>,
        policy: &'a Policy,
        enforcement: &'a Enforcement,
        (id, audit): (&'a str, &'a Path),
    ) -> Self {
        Self {
            plan,
            policy,
            enforcement,
            id,
            audit,
        }
    }

    /// The start lines: what is in force, for whom, and what is weaker than it could be.
    pub fn announce(&self) {
        if self.enforcement.observed {
            say!(
                "enforcer: OBSERVING ONLY: the policy decides and is recorded, but NOTHING that it denies or asks about is blocked; leave --observe away to enforce it"
            );
        } else {
            say!(
                "enforcer: enforcing ({}): {}",
                self.enforcement.level.as_str(),
                self.enforcement.describe()
            );
            say!(
                "enforcer: first judgement: {}",
                self.enforcement.first_judgement.describe()
            );
        }
        say!(
            "enforcer: agent {} [{}] as {}{}, policy {}, trail {}",
            self.plan
                .terms
                .principal
                .agent
                .as_deref()
                .unwrap_or(UNNAMED),
            self.id,
            self.identity().display_name(),
            self.labels(),
            self.plan.options.policy.display(),
            self.audit.display()
        );
        for daemon in self.daemons() {
            say!("enforcer: {daemon}");
        }
        for weakness in self.enforcement.weaknesses() {
            say!("enforcer: weaker: {weakness}");
        }
    }

    /// Known daemons of the agent's user that run outside, and what comes of that.
    fn daemons(&self) -> Vec<String> {
        let outcome = match (self.enforcement.observed, self.policy.connect.outside.unix) {
            (true, _) => "what the agent has it do is NOT governed; end it",
            (_, Decision::Allow) => {
                "what the agent has it do is NOT governed; end it, or write `deny` at `connect.outside_listeners.unix` of the policy"
            }
            (false, Decision::Ask) => "whether the agent may connect to it is asked",
            (false, Decision::Deny) => {
                "unless a connect rule allows it, the agent may not connect to it; start it below the agent instead"
            }
        };
        listeners::daemons(self.identity().uid)
            .into_iter()
            .map(|(what, socket)| {
                format!(
                    "a daemon of {}'s runs outside the agent ({what}, {}): {outcome}",
                    self.identity().display_name(),
                    enforcer_redact::text(&socket)
                )
            })
            .collect()
    }

    /// For whom it works, and what it was given: `, for kim of acme, capabilities deploy`.
    fn labels(&self) -> String {
        let shown = |text: &str| enforcer_redact::text(text.as_bytes());
        let mut labels = format!(", for {}", shown(&self.plan.terms.principal.user));
        if let Some(tenant) = &self.plan.terms.principal.tenant {
            labels.push_str(" of ");
            labels.push_str(&shown(tenant));
        }
        let capabilities = self.plan.terms.principal.capabilities_under(self.policy);
        if !capabilities.is_empty() {
            let names: Vec<String> = capabilities.iter().map(|name| shown(name)).collect();
            labels.push_str(", capabilities ");
            labels.push_str(&names.join(" "));
        }
        labels
    }

    fn identity(&self) -> &Identity {
        &self.plan.command.identity
    }
}

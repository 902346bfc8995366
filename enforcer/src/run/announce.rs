//! What the operator is told at the start.

use std::path::Path;

use super::{InForce, Level, Options, first::FirstJudgement, listeners};
use crate::{
    decide::{Decision, Subject, redact},
    ground::Untrusted,
    kernel::instance::UnixJudgement,
    launch::{Fence, Identity, PidsLimit},
    policy::{Policy, approvals},
    say::say,
};

/// What a start has come to.
#[derive(Debug)]
pub struct Start<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// The policy.
    pub policy: &'a Policy,
    /// Who the agent runs as.
    pub identity: &'a Identity,
    /// What was seen to refuse.
    pub in_force: &'a InForce,
    /// Where execs and connects are judged first.
    pub first: FirstJudgement,
    /// What keeps the agent from processes outside.
    pub fence: &'a Fence,
    /// The trail.
    pub audit: &'a Path,
    /// The agent's name.
    pub agent: &'a str,
    /// Who acts.
    pub subject: &'a Subject,
    /// The run's id.
    pub id: &'a str,
    /// The limit on processes.
    pub process_limit: &'a PidsLimit,
    /// Why this program is to the agent's hooks like any other.
    pub own: Option<&'a str>,
    /// Directories that the policy trusts and the agent's user can change.
    pub untrusted: &'a [Untrusted],
}

impl Start<'_> {
    /// The start lines: what is in force, for whom, and what is weaker than it could be.
    pub fn announce(&self) {
        if self.options.observe {
            say!(
                "enforcer: OBSERVING ONLY: the policy decides and is recorded, but NOTHING that it denies or asks about is blocked; leave --observe away to enforce it"
            );
        } else {
            say!(
                "enforcer: enforcing ({}): {}; denied connects fail with EPERM",
                self.in_force.level().as_str(),
                self.execs()
            );
            say!("enforcer: first judgement: {}", self.first.describe());
        }
        say!(
            "enforcer: agent {} [{}] as {}{}, policy {}, trail {}",
            self.agent,
            self.id,
            self.identity.display_name(),
            self.labels(),
            self.options.policy.display(),
            self.audit.display()
        );
        for daemon in self.daemons() {
            say!("enforcer: {daemon}");
        }
        for weakness in self.weaknesses() {
            say!("enforcer: weaker: {weakness}");
        }
    }

    /// Known daemons of the agent's user that run outside, and what comes of that.
    fn daemons(&self) -> Vec<String> {
        let outcome = match (self.options.observe, self.policy.connect.outside.unix) {
            (true, _) => "what the agent has it do is NOT governed; end it",
            (_, Decision::Allow) => {
                "what the agent has it do is NOT governed; end it, or write `deny` at `connect.outside_listeners.unix` of the policy"
            }
            (false, Decision::Ask) => "whether the agent may connect to it is asked",
            (false, Decision::Deny) => {
                "unless a connect rule allows it, the agent may not connect to it; start it below the agent instead"
            }
        };
        listeners::daemons(self.identity.uid)
            .into_iter()
            .map(|(what, socket)| {
                format!(
                    "a daemon of {}'s runs outside the agent ({what}, {}): {outcome}",
                    self.identity.display_name(),
                    redact::text(&socket)
                )
            })
            .collect()
    }

    /// For whom it works, and what it was given: `, for kim of acme, capabilities deploy`.
    fn labels(&self) -> String {
        let shown = |text: &str| redact::text(text.as_bytes());
        let mut labels = format!(", for {}", shown(&self.subject.user));
        if let Some(tenant) = &self.subject.tenant {
            labels.push_str(" of ");
            labels.push_str(&shown(tenant));
        }
        let capabilities = self.subject.capabilities_under(self.policy);
        if !capabilities.is_empty() {
            let names: Vec<String> = capabilities.iter().map(|name| shown(name)).collect();
            labels.push_str(", capabilities ");
            labels.push_str(&names.join(" "));
        }
        labels
    }

    /// The user who can never answer. Of root it is the agent's processes that cannot, not the user.
    fn agent_user(&self) -> Option<&str> {
        let name = self.identity.name.as_deref();
        name.filter(|_| !self.identity.is_root())
    }

    fn execs(&self) -> &'static str {
        match (self.in_force.level(), self.first.refuses) {
            (Level::Full, _) => "denied execs fail with EPERM",
            (Level::Partial, true) => {
                "denied execs fail with EPERM, what slips past that is killed before its first instruction (no LSM program refuses them)"
            }
            (Level::Partial, false) => {
                "denied execs are killed before their first instruction (no LSM program refuses them)"
            }
        }
    }

    /// What is weaker about unix sockets.
    fn unix(&self) -> Option<&'static str> {
        match (self.in_force.unix(), self.first.connector) {
            (UnixJudgement::Bound, _) | (UnixJudgement::Called, true) => None,
            (UnixJudgement::Called, false) if self.options.observe => None,
            (UnixJudgement::Called, false) => Some(
                "unix sockets are judged by the name in the call: with --keep nobody looks where a link leads, nor who listens",
            ),
            (UnixJudgement::Absent, true) => Some(
                "unix sockets are judged by the seccomp supervisor alone, and datagrams to them not at all: a thread that changes the address meanwhile gets past it (no LSM programs are in force, and cgroup hooks for them came with Linux 6.7)",
            ),
            (UnixJudgement::Absent, false) => Some(
                "unix sockets are not judged: no LSM programs are in force, and cgroup hooks for them came with Linux 6.7",
            ),
        }
    }

    fn weaknesses(&self) -> Vec<String> {
        let mut weaker = Vec::new();
        if let PidsLimit::Unavailable(why) = self.process_limit {
            weaker.push(format!("no limit on the number of processes: {why}"));
        }
        weaker.extend(self.in_force.weaknesses(self.fence));
        weaker.extend(self.unix().map(str::to_owned));
        if let Some(why) = self.own.filter(|_| !self.identity.is_root()) {
            weaker.push(format!(
                "a hook of enforcer inside the agent counts, and an open breaker keeps it from starting: {why}"
            ));
        }
        weaker.extend(self.untrusted.iter().map(ToString::to_string));
        for hatch in &self.policy.syscalls.allow {
            weaker.push(format!(
                "the policy allows the system calls of `{}`: {}",
                hatch.name, hatch.reason
            ));
        }
        for group in &self.policy.guard.allow {
            weaker.push(format!(
                "the policy lets the agent change what guards it (`{}`): {}",
                group.name, group.reason
            ));
        }
        if self.options.observe {
            weaker.extend(self.identity.weaknesses());
            return weaker;
        }
        let asks = approvals::asks(self.policy);
        if self.options.keep && (asks.exec || asks.connect || asks.unix) {
            weaker.push(
                "with --keep nobody can be asked: what the policy asks about is denied".to_owned(),
            );
        } else if let Some(why) = approvals::unanswerable(self.policy, self.agent_user()) {
            weaker.push(why);
        }
        weaker.extend(self.identity.weaknesses());
        weaker
    }
}

//! What the operator is told at the start.

use std::path::Path;

use super::{Level, Options, first::FirstJudgement};
use crate::{
    decide::{Subject, redact},
    ground::Untrusted,
    kernel::instance::UnixJudgement,
    launch::{Fence, FenceLevel, Identity, PidsLimit},
    policy::{Policy, approvals},
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
    /// What the kernel gives.
    pub level: Level,
    /// Where execs and connects are judged first.
    pub first: FirstJudgement,
    /// How unix sockets are judged.
    pub unix: UnixJudgement,
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
    /// Directories that the policy trusts and the agent's user can change.
    pub untrusted: &'a [Untrusted],
}

impl Start<'_> {
    /// The start lines: what is in force, for whom, and what is weaker than it could be.
    pub fn announce(&self) {
        if self.options.observe {
            eprintln!(
                "enforcer: OBSERVING ONLY: the policy decides and is recorded, but NOTHING that it denies or asks about is blocked; leave --observe away to enforce it"
            );
        } else {
            eprintln!(
                "enforcer: enforcing ({}): {}; denied connects fail with EPERM",
                self.level.as_str(),
                self.execs()
            );
            eprintln!("enforcer: first judgement: {}", self.first.describe());
        }
        eprintln!(
            "enforcer: agent {} [{}] as {}{}, policy {}, trail {}",
            self.agent,
            self.id,
            self.identity.display_name(),
            self.labels(),
            self.options.policy.display(),
            self.audit.display()
        );
        for weakness in self.weaknesses() {
            eprintln!("enforcer: weaker: {weakness}");
        }
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
        match (self.level, self.first.refuses) {
            (Level::Full, _) => "denied execs fail with EPERM",
            (Level::Partial, true) => {
                "denied execs fail with EPERM, what slips past that is killed before its first instruction (this kernel loads no LSM programs)"
            }
            (Level::Partial, false) => {
                "denied execs are killed before their first instruction (this kernel loads no LSM programs)"
            }
        }
    }

    fn weaknesses(&self) -> Vec<String> {
        let mut weaker = Vec::new();
        if let PidsLimit::Unavailable(why) = self.process_limit {
            weaker.push(format!("no limit on the number of processes: {why}"));
        }
        if self.fence.level < FenceLevel::Full {
            weaker.push(format!("processes outside the agent: {}", self.fence.why));
        }
        if self.unix == UnixJudgement::Absent {
            weaker.push(
                "unix sockets are not judged: this kernel loads no LSM programs and has no cgroup hooks for them (Linux 6.7)"
                    .to_owned(),
            );
        }
        if self.unix == UnixJudgement::Called && !self.first.connector && !self.options.observe {
            weaker.push(
                "unix sockets are judged by the name in the call: with --keep nobody looks where a link leads"
                    .to_owned(),
            );
        }
        weaker.extend(self.untrusted.iter().map(ToString::to_string));
        for hatch in &self.policy.syscalls.allow {
            weaker.push(format!(
                "the policy allows the system calls of `{}`: {}",
                hatch.name, hatch.reason
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

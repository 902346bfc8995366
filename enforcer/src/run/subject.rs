//! Whose run it is: the subject, from what the operator says and from the launcher's environment; and what happens to
//! one that is not let in.

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use jiff::Timestamp;

use super::{Options, lines::UNNAMED, trail::Trail};
use crate::{
    audit::{Record, Stamp},
    decide::{Refusal, Subject, subject::DEFAULT_USER},
    launch::Identity,
    policy::Policy,
    say::say,
};

/// The exit status of a run that is not let in: found, but not allowed to start.
pub const REFUSED: u8 = 126;

/// Who the run acts for.
pub fn subject(options: &Options) -> Subject {
    let environment = || std::env::var("CLAUDE_AGENT_NAME").unwrap_or_default();
    let agent = options.agent.clone().unwrap_or_else(environment);
    Subject {
        agent: Subject::agent_name(&agent),
        user: options
            .label_user
            .clone()
            .or_else(launching_user)
            .unwrap_or_else(|| DEFAULT_USER.to_owned()),
        tenant: options.tenant.clone(),
        capabilities: options.capabilities.iter().cloned().collect(),
        mode: options.mode,
    }
}

/// The user who calls us, also through `sudo`; not the one that the agent runs as.
fn launching_user() -> Option<String> {
    let identity = Identity::resolve(None, |name| std::env::var_os(name)).ok()?;
    identity.name
}

/// Writes down and says that a subject is not let in.
///
/// # Errors
///
/// The trail cannot be written.
pub fn refuse(
    refusal: &Refusal,
    subject: &Subject,
    policy: &Policy,
    command: &[OsString],
    mut trail: Trail,
) -> anyhow::Result<u8> {
    let reason = refusal.to_string();
    let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
    let record = Record::refusal(
        Timestamp::now(),
        subject.agent.as_deref().unwrap_or(UNNAMED),
        &words.join(&0),
        &reason,
    );
    let mut writer = trail.start()?.stamped(Stamp::of(subject, policy.masking));
    writer.append(&record)?;
    writer.flush()?;
    say!(
        "enforcer: refused: {reason}. Instead: {}",
        refusal.suggestion()
    );
    Ok(REFUSED)
}

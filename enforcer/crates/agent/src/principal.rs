//! Whose run it is: the principal, from what the operator says and from the launcher's environment; and what happens to
//! one that is not let in.

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use jiff::Timestamp;

use super::{PrincipalOptions, error::Result, lines::UNNAMED, trail::Trail};
use enforcer_decide::{Principal, Refusal, principal::DEFAULT_USER};
use enforcer_launch::Identity;
use enforcer_policy::Policy;
use enforcer_say::say;
use enforcer_trail::{Record, Stamp};

/// The exit status of a run that is not let in: found, but not allowed to start.
pub const REFUSED: u8 = 126;

/// Who the run acts for.
pub fn of(options: &PrincipalOptions) -> Principal {
    let environment = || std::env::var("CLAUDE_AGENT_NAME").unwrap_or_default();
    let agent = options.agent.clone().unwrap_or_else(environment);
    Principal {
        agent: Principal::agent_name(&agent),
        user: options
            .user
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

/// Writes down and says that a principal is not let in.
///
/// # Errors
///
/// The trail cannot be written.
pub fn refuse(
    refusal: &Refusal,
    principal: &Principal,
    policy: &Policy,
    command: &[OsString],
    mut trail: Trail,
) -> Result<u8> {
    let reason = refusal.to_string();
    let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
    let record = Record::refusal(
        Timestamp::now(),
        principal.agent.as_deref().unwrap_or(UNNAMED),
        &words.join(&0),
        &reason,
    )
    .suggesting(Some(&refusal.suggestion()));
    let mut writer = trail.start()?.stamped(Stamp::of(principal, policy.masking));
    writer.append(&record)?;
    writer.flush()?;
    say!(
        "enforcer: refused: {reason}. Instead: {}",
        refusal.suggestion()
    );
    Ok(REFUSED)
}

//! What the operator is told at the start.

use std::path::Path;

use super::{Level, OnDeny, Options};
use crate::launch::{Identity, PidsLimit};

/// The start lines: what is in force, for whom, and what is weaker than it could be.
pub fn announce(
    options: &Options,
    identity: &Identity,
    level: Level,
    audit: &Path,
    agent: Option<&str>,
    id: &str,
    process_limit: &PidsLimit,
) {
    let execs = match (level, options.on_deny) {
        (Level::Full, _) => "denied execs fail with EPERM",
        (Level::Partial, OnDeny::Kill) => "denied execs are killed before their first instruction",
        (Level::Partial, OnDeny::Errno) => {
            "denied execs are killed before their first instruction (this kernel loads no LSM programs)"
        }
    };
    eprintln!(
        "enforcer: enforcing ({}): {execs}; denied connects fail with EPERM",
        level.as_str()
    );
    eprintln!(
        "enforcer: agent {} [{id}] as {}, policy {}, trail {}",
        agent.unwrap_or("unknown"),
        identity.display_name(),
        options.policy.display(),
        audit.display()
    );
    if let PidsLimit::Unavailable(why) = process_limit {
        eprintln!("enforcer: weaker: no limit on the number of processes: {why}");
    }
    for weakness in identity.weaknesses() {
        eprintln!("enforcer: weaker: {weakness}");
    }
}

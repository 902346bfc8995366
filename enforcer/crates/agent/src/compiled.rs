//! A policy made ready for one agent: compiled, its examples proven, its groups of system calls known.

use std::path::Path;

use super::error::Result;
use enforcer_approvals::{RequestLimits, RequestRate};
use enforcer_decide::{Engine, Principal, examples};
use enforcer_policy::{Parsed, Policy, model::Approvals};
use enforcer_policy_files::{
    policy_file::PolicyFileError,
    table_cache::{self, FreshError, TableCache},
};
use enforcer_seccomp::{SyscallGroups, groups};

/// A compiled policy.
pub struct Compiled {
    /// What decides.
    pub engine: Engine,
    /// What keys the hashes of its program names.
    pub seed: u64,
    /// Its tables are not kept yet, or not that its examples hold.
    pub fresh: bool,
}

/// Takes the policy's tables from where they are kept, else compiles it under a fresh secret seed; proves its examples, if
/// that is not known of these tables.
///
/// # Errors
///
/// The policy cannot be compiled, or an example of it does not hold.
pub fn compile(
    parsed: &Parsed,
    file: &Path,
    principal: &Principal,
    cache: &TableCache,
) -> Result<Compiled> {
    let capabilities = principal.capabilities_under(&parsed.policy);
    let kept = cache.tables(&parsed.policy, &capabilities);
    let fresh = kept.is_none() || !cache.is_proven(&parsed.policy, &capabilities);
    let refuse = |errors| PolicyFileError::Invalid {
        path: file.display().to_string(),
        errors,
    };
    let engine = match kept {
        Some(tables) => Engine::with_tables(parsed.policy.clone(), capabilities, tables),
        None => compiled(parsed, &parsed.policy, file, principal)?,
    };
    if fresh {
        let errors = examples::prove(parsed, Some(&engine));
        if !errors.is_empty() {
            return Err(refuse(errors).into());
        }
    }
    Ok(Compiled {
        seed: engine.tables().header.seed,
        engine,
        fresh,
    })
}

/// Compiles a policy that was read from a file, perhaps changed since, under a fresh secret seed.
///
/// # Errors
///
/// It cannot be compiled.
pub fn compiled(
    parsed: &Parsed,
    policy: &Policy,
    file: &Path,
    principal: &Principal,
) -> Result<Engine> {
    match table_cache::compiled(policy, &principal.capabilities_under(policy)) {
        Err(FreshError::Compile(error)) => Err(PolicyFileError::Invalid {
            path: file.display().to_string(),
            errors: vec![parsed.error_of(&error)],
        }
        .into()),
        made => Ok(made?),
    }
}

/// The groups of system calls that the agent may use: what the policy allows, and where processes outside cannot be traced
/// (`in_domain`) what is about those alone.
///
/// # Errors
///
/// The policy names a group that there is not.
pub fn loosened(
    parsed: &Parsed,
    file: &Path,
    groups: &SyscallGroups,
    in_domain: bool,
) -> Result<Vec<String>> {
    let errors = groups::unknown(parsed);
    if !errors.is_empty() {
        return Err(PolicyFileError::Invalid {
            path: file.display().to_string(),
            errors,
        }
        .into());
    }
    let syscalls = &parsed.policy.syscalls;
    let mut loosened: Vec<String> = syscalls.allow.iter().map(|it| it.name.clone()).collect();
    if in_domain {
        let given = groups
            .open_in_domain()
            .filter(|name| !syscalls.deny.iter().any(|denied| denied.name == *name));
        loosened.extend(given.map(str::to_owned));
    }
    loosened.sort_unstable();
    loosened.dedup();
    Ok(loosened)
}

/// What the desk puts up with.
pub fn limits(approvals: &Approvals) -> RequestLimits {
    RequestLimits {
        timeout: approvals.timeout,
        rate: RequestRate {
            count: approvals.rate.0,
            window: approvals.rate.1,
        },
        max_pending: approvals.max_pending as usize,
    }
}

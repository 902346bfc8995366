//! What is to become of a run, known before anything of it is made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    RunOptions,
    command::ResolvedCommand,
    error::{AgentError, Result},
    own_terms::Changes,
    state::{AgentRecord, Decides},
    terms::{Proven, Terms},
};
use enforcer_policy_files::shipped;

/// A run that may be made. Whatever makes something of it takes this.
#[derive(Debug)]
pub struct RunPlan<'a> {
    /// What was asked for.
    pub options: &'a RunOptions,
    /// What is to run.
    pub command: ResolvedCommand,
    /// What it is held to.
    pub terms: Terms,
}

impl RunPlan<'_> {
    /// What is written down of it for later starts.
    ///
    /// # Errors
    ///
    /// The policy's path leads nowhere by now.
    pub fn record(&self, proven: &Proven, audit: &Path) -> Result<AgentRecord> {
        let Terms {
            policy, principal, ..
        } = &self.terms;
        Ok(AgentRecord {
            agent: principal.agent.clone(),
            user: Some(principal.user.clone()),
            tenant: principal.tenant.clone(),
            observed: self.options.governing.observe,
            audit: audit.to_owned(),
            enforcement: None,
            decides: Decides {
                generation: None,
                policy_path: resolved(&policy.path)?,
                policy_text: policy.parsed.text().to_owned(),
                capabilities: proven.engine.capabilities().clone(),
                seed: proven.seed,
                changes: Changes::default(),
            },
            before: None,
        })
    }
}

/// A policy's path without links; a policy that comes along has none.
pub fn resolved(policy: &Path) -> Result<PathBuf> {
    if shipped::is_built_in(policy) {
        return Ok(policy.to_owned());
    }
    fs::canonicalize(policy).map_err(AgentError::system("the policy's path cannot be resolved"))
}

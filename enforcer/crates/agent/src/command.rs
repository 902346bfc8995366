//! What is to run, as whom and where. It is looked at first: for a command that cannot start nothing need be read or made.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    CommandOptions,
    error::{AgentError, Result},
    plan::resolved,
    state,
};
use enforcer_files::directories;
use enforcer_launch::{Confinement, Environment, Identity, current_directory, find_program};
use enforcer_policy_files::{policy_file::LoadedPolicy, rule_files, shipped};
use enforcer_say::say;

/// A command that could start now.
#[derive(Debug)]
pub struct ResolvedCommand {
    /// Who it runs as.
    pub identity: Identity,
    /// Where.
    pub directory: PathBuf,
    /// Its variables.
    pub variables: Vec<(OsString, OsString)>,
    /// The file that is executed.
    pub program: PathBuf,
    /// The command and its arguments, as they were given.
    pub words: Vec<OsString>,
}

impl ResolvedCommand {
    /// Finds all of it.
    ///
    /// # Errors
    ///
    /// There is no such user or program, or the user cannot work in this directory.
    pub fn find(options: &CommandOptions) -> Result<Self> {
        let identity = Identity::resolve(options.user.as_deref(), |name| std::env::var_os(name))?;
        let directory = current_directory(&identity)?;
        let Some(command) = options.words.first() else {
            return Err(AgentError::NoCommand);
        };
        let environment = Environment::of(&identity, std::env::vars_os(), &options.env)?;
        for name in &environment.missing {
            say!("enforcer: warning: --env {name}: there is no such variable here");
        }
        let program = find_program(command, environment.get("PATH"), &directory, &identity)?;
        Ok(Self {
            identity,
            directory,
            variables: environment.variables,
            program,
            words: options.words.clone(),
        })
    }

    /// What is hidden from it where it has uid 0, such as the trail, and what is read-only for it: the policy, and its rule sets.
    ///
    /// # Errors
    ///
    /// The mounts for that cannot be planned.
    pub fn confinement(&self, audit: &Path, policy: &LoadedPolicy) -> Result<Option<Confinement>> {
        if !self.identity.is_root() {
            return Ok(None);
        }
        let mut hide = vec![PathBuf::from(state::STATE_ROOT)];
        hide.push(PathBuf::from(directories::STATE.path));
        // The usual place holds nothing but trails; another place may be a directory that the agent works in.
        if audit.starts_with(directories::TRAILS.path) {
            hide.push(PathBuf::from(directories::TRAILS.path));
        } else {
            hide.push(audit.to_owned());
        }
        let mut policy_files = vec![policy.path.clone()];
        // The directory, not the files: one that is not there would count if it were.
        if !policy.parsed.sources().included().is_empty() {
            let rules = policy.path.with_file_name(rule_files::DIRECTORY);
            policy_files.extend(Some(rules).filter(|rules| rules.exists()));
        }
        let policy = policy_files
            .iter()
            .filter(|file| !shipped::is_built_in(file))
            .map(|file| resolved(file))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Confinement::plan(&hide, &policy, &self.directory)?))
    }
}

//! `enforcer reload`: another policy for agents that run, or the same file read anew.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::agent::{MeantAgents, make};
use crate::cli::error::{CliError, Context};
use enforcer_control::AgentChange;
use enforcer_policy_files::shipped;

const EXAMPLES: &str = "\
Examples:
  sudo enforcer reload
  sudo enforcer reload reviewer
  sudo enforcer reload reviewer --policy /etc/enforcer/policies/strict.json
  sudo enforcer reload --json | jq -r '.[].policy_sha256'

AGENT is an agent's name (`--agent`), then all its runs are meant, or the id of one run (`enforcer status`
lists both); without one every agent reads its own policy's file anew. The whole policy is read, checked and
compiled before anything changes: with a bad file, which is named, all stays as it was. Then the new policy
decides from the next exec and connect on; what was allowed before goes on. Approvals that were to reach
further than once are forgotten, the breaker and unchanged rates stand as they stood. What cannot be changed
of a running agent is its system-call filter: a policy that refuses more groups there needs a new start.

Exit status: 0 done, 1 no such agent runs, 2 bad use, not root, or an agent's policy was not replaced, 3 an
agent's launcher took the request and has not answered: which policy it has `enforcer status` shows. Of
several the highest.";

/// Has running agents go by their policy's file as it is now, or by another.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReloadArgs {
    /// Names of agents, or ids of runs [default: all]
    #[arg(value_name = "AGENT")]
    agents: Vec<String>,
    /// Take this policy instead of the file that they have
    #[arg(long, value_name = "FILE", requires = "agents")]
    policy: Option<PathBuf>,
    /// How they are governed then, as a JSON array
    #[arg(long)]
    json: bool,
}

/// Runs `enforcer reload`.
///
/// # Errors
///
/// Not root, or standard output cannot be written.
pub fn run(args: &ReloadArgs) -> Result<ExitCode, CliError> {
    let policy = args.policy.as_ref().map(|file| absolute(file));
    let policy = policy.transpose()?;
    let change = AgentChange {
        reload: true,
        policy,
        ..AgentChange::default()
    };
    let wanted = if args.agents.is_empty() {
        MeantAgents::All
    } else {
        MeantAgents::Named(&args.agents)
    };
    make("reload", &wanted, &change, args.json)
}

/// The path as the launcher, which is somewhere else, understands it.
fn absolute(file: &Path) -> Result<PathBuf, CliError> {
    if shipped::is_built_in(file) {
        return Ok(file.to_owned());
    }
    std::path::absolute(file).with_context(|| format!("policy {}", file.display()))
}

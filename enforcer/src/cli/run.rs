//! `enforcer run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::error::CliError;
use enforcer_agent::{
    CommandOptions, DEFAULT_AUDIT, Governing, Level, OnDeny, PrincipalOptions, Reports, RunOptions,
};
use enforcer_decide::{
    Mode,
    principal::{Name, TenantName},
};
use enforcer_launch::WantedVariable;
use enforcer_policy::capability::Capability;
use enforcer_policy_files::shipped::{INSTALLED, default_policy};

/// Arguments of `enforcer run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The policy's file, which the agent's user must not be able to write, or one that comes along (`built-in:strict`)
    #[arg(long, value_name = "FILE", help = format!("The policy's file, which the agent's user must not be able to write, or one that comes along (`built-in:strict`) [default: {INSTALLED}, else built-in:coding-agent]"))]
    pub policy: Option<PathBuf>,
    /// The agent's name in the trail [default: `CLAUDE_AGENT_NAME`]
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Where actions are approved: everywhere, `subagent_only` (agents that the policy trusts) or disabled
    #[arg(long, value_name = "MODE", default_value = "everywhere")]
    pub mode: Mode,
    /// Give the agent a capability that rules of the policy require; can be repeated
    #[arg(long, value_name = "NAME")]
    pub capability: Vec<Capability>,
    /// For whom the agent works, in the trail [default: who launches it]
    #[arg(long, value_name = "NAME")]
    pub label_user: Option<Name>,
    /// Whose agent it is: a policy with `tenants` is for theirs only, and each tenant has a trail of its own
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<TenantName>,
    /// Run the command as this user [default: who called sudo, else the current user]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// The audit trail.
    #[arg(long, value_name = "FILE", help = format!("The audit trail [default: {DEFAULT_AUDIT}]"))]
    pub audit: Option<PathBuf>,
    /// How denied execs fail
    #[arg(long, value_enum, default_value = "errno")]
    pub on_deny: OnDeny,
    /// Do not start where less is in force than this level
    #[arg(long, value_enum)]
    pub require: Option<Level>,
    /// Decide and record, but never block: for writing a policy. Nothing is enforced
    #[arg(long, conflicts_with_all = ["keep", "approvals_dir"])]
    pub observe: bool,
    /// Leave processes that outlive the command running, governed, instead of killing them
    #[arg(long)]
    pub keep: bool,
    /// Give the agent this variable: NAME=VALUE, or NAME alone for the value that you have, also where sudo takes it out
    /// of the environment (API keys); can be repeated
    #[arg(long, short = 'e', value_name = "NAME[=VALUE]", value_parser = WantedVariable::parse)]
    pub env: Vec<WantedVariable>,
    /// Write each request for approval to this directory as <id>.proposal.json, and read answers from
    /// <id>.response.json
    #[arg(long, value_name = "DIR")]
    pub approvals_dir: Option<PathBuf>,
    /// Print no start line, no warnings, no summary, and no lines to denied processes
    #[arg(long, short)]
    pub quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Runs `enforcer run`; the exit status is the command's, or 128 + the signal that ended it.
///
/// # Errors
///
/// When the command cannot be governed.
pub fn run(args: RunArgs) -> Result<ExitCode, CliError> {
    let status = enforcer_agent::run(&RunOptions {
        policy: args.policy.unwrap_or_else(default_policy),
        principal: PrincipalOptions {
            agent: args.agent,
            mode: args.mode,
            capabilities: (args.capability.into_iter())
                .map(Capability::into_string)
                .collect(),
            user: args.label_user.map(Name::into_string),
            tenant: args.tenant.map(TenantName::into_string),
        },
        command: CommandOptions {
            words: args.command,
            user: args.user,
            env: args.env,
        },
        governing: Governing {
            on_deny: args.on_deny,
            require: args.require,
            observe: args.observe,
            keep: args.keep,
        },
        reports: Reports {
            audit: args.audit,
            approvals: args.approvals_dir,
            quiet: args.quiet,
        },
    })?;
    Ok(ExitCode::from(status))
}

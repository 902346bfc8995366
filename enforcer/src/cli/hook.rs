//! `enforcer hook`: answers an agent's pre-tool hook, and what belongs to it.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Subcommand;

use crate::cli::error::{CliError, Context};
use enforcer_decide::{Mode, Principal, principal::Name};
use enforcer_hook::{Format, HookOptions, consent, place, state::States};
use enforcer_policy::capability::Capability;
use enforcer_policy_files::policy_file;
use enforcer_say::say;

mod doctor;
mod install;

use doctor::{DoctorArgs, doctor};
use install::{InstallArgs, install};

/// Arguments of `enforcer hook`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct HookArgs {
    #[command(subcommand)]
    command: Option<HookCommand>,
    #[command(flatten)]
    answer: AnswerArgs,
}

const EXAMPLES: &str = "\
Reads one event (JSON) from standard input, answers in the agent's own contract on standard output. Whatever goes
wrong is a denial with a reason: in the contract's words with exit status 0, or, where nobody can tell whose event it
is, with exit status 2 and the reason on standard error.

Examples:
  echo '{\"hook_event_name\":\"PreToolUse\",\"tool_name\":\"Bash\",\"tool_input\":{\"command\":\"ls\"}}' | \\
    enforcer hook --policy policies/coding-agent.json --mode everywhere
  enforcer hook install claude --project --dry-run
  sudo enforcer hook install claude --managed --policy /etc/enforcer/policies/claude-code.json
  enforcer hook doctor
  enforcer hook consent yes
  enforcer hook breaker status";

#[derive(Clone, Debug, clap::Args)]
struct AnswerArgs {
    /// Whose hook it is [default: told by the event]
    #[arg(long, value_enum, value_name = "AGENT")]
    format: Option<Format>,
    /// The policy [default: `ENFORCER_POLICY`, else .enforcer/policy.json of the project, else
    /// /etc/enforcer/policies/coding-agent.json, else what comes along (`built-in:coding-agent`); inside `enforcer run` always that of the run]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where calls are approved: everywhere, `subagent_only`, disabled [default: `MCP_AUTO_APPROVE`, else the saved
    /// consent]
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
    /// The agent's name [default: `CLAUDE_AGENT_NAME`, else told by the event]
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// For whom the agent works
    #[arg(long, value_name = "USER")]
    user: Option<Name>,
    /// Whose agent it is
    #[arg(long, value_name = "TENANT")]
    tenant: Option<Name>,
    /// A capability that the agent has, besides those that the policy gives to its name
    #[arg(long = "capability", value_name = "NAME")]
    capabilities: Vec<Capability>,
    /// The audit trail [default: `$XDG_STATE_HOME/enforcer/audit.jsonl`; inside `enforcer run` always that of the run]
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum HookCommand {
    /// Put the hook into an agent's settings; shows the difference
    Install(InstallArgs),
    /// Take it out again
    Uninstall(InstallArgs),
    /// Prove for each agent that it asks its hook, and that the hook answers
    Doctor(DoctorArgs),
    /// See or close the breakers of agents that only their hooks see
    Breaker {
        #[command(subcommand)]
        command: BreakerCommand,
    },
    /// Say whether calls that the policy allows go on without a question
    Consent {
        /// What to say; shows what was said when absent
        #[arg(value_enum)]
        answer: Option<Consent>,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum BreakerCommand {
    /// What is known of each agent
    Status {
        /// Only this agent
        agent: Option<String>,
        /// The policy, for when an open breaker tries again
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Print one JSON object an agent
        #[arg(long)]
        json: bool,
    },
    /// Close an agent's breaker and forget its rates. Exit status: 0 done, 1 nothing is known of this agent
    Reset {
        /// The agent, in upper or lower case [default: those without a name of their own: claude, codex, gemini, qwen, cursor]
        agent: Option<String>,
        /// All agents
        #[arg(long, conflicts_with = "agent")]
        all: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Consent {
    /// They go on
    Yes,
    /// The user is asked about each
    No,
    /// Ask again at the next call
    Forget,
}

/// Runs `enforcer hook`.
///
/// # Errors
///
/// Only what is not an answer to an agent fails.
pub fn run(args: HookArgs) -> Result<ExitCode, CliError> {
    match args.command {
        None => Ok(answer(args.answer)),
        Some(HookCommand::Install(args)) => install(&args, true),
        Some(HookCommand::Uninstall(args)) => install(&args, false),
        Some(HookCommand::Doctor(args)) => doctor(&args),
        Some(HookCommand::Breaker { command }) => breaker(&command),
        Some(HookCommand::Consent { answer }) => consent(answer),
    }
}

fn answer(args: AnswerArgs) -> ExitCode {
    let text = |name: Name| name.into_string();
    let answered = enforcer_hook::answer(HookOptions {
        format: args.format,
        policy: args.policy,
        mode: args.mode,
        agent: args.agent.as_deref().and_then(Principal::agent_name),
        user: args.user.map(text),
        tenant: args.tenant.map(text),
        capabilities: (args.capabilities.into_iter())
            .map(Capability::into_string)
            .collect(),
        audit: args.audit,
    });
    let mut out = enforcer_say::out();
    let written = out
        .write_all(answered.stdout.as_bytes())
        .and_then(|()| out.flush());
    let _ = enforcer_say::err().write_all(answered.stderr.as_bytes());
    if written.is_err() {
        // Without an answer most agents would go on.
        let _ = enforcer_say::err().write_all(b"enforcer: the hook's answer cannot be written\n");
        return ExitCode::from(2);
    }
    ExitCode::from(answered.code)
}

fn breaker(command: &BreakerCommand) -> Result<ExitCode, CliError> {
    let states = States::open(&place::root()?)?;
    match command {
        BreakerCommand::Status {
            agent,
            policy,
            json,
        } => {
            let rules = match policy {
                Some(path) => policy_file::load(path, None)?.parsed.policy.breaker,
                None => enforcer_policy::model::BreakerSettings::default(),
            };
            let mut out = enforcer_say::out();
            let known = states.status(agent.as_deref(), &rules)?;
            if known.is_empty() && !json {
                writeln!(out, "no agent is known")?;
            }
            for status in known {
                if *json {
                    serde_json::to_writer(&mut out, &status)?;
                    writeln!(out)?;
                } else {
                    let clean = super::audit::clean(&status.agent);
                    writeln!(
                        out,
                        "{clean}: {}, {} denials in a row",
                        status.state, status.denials
                    )?;
                }
            }
        }
        BreakerCommand::Reset { agent, all } => {
            if *all {
                states.reset_all()?;
            } else if let Some(agent) = agent {
                if !states.reset(agent)? {
                    say!(
                        "enforcer: nothing is known of an agent `{}`; `enforcer hook breaker status` lists all",
                        super::audit::clean(agent)
                    );
                    return Ok(ExitCode::FAILURE);
                }
            } else {
                states.reset_unnamed()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn consent(answer: Option<Consent>) -> Result<ExitCode, CliError> {
    let root = place::directory(&place::root()?, "")?;
    match answer {
        None => {
            let said = match consent::read(&root).map_err(CliError::Refused)? {
                Some(consent) if consent.auto_approve => "yes",
                Some(_) => "no",
                None => "not asked yet",
            };
            writeln!(enforcer_say::out(), "{said}").context("the answer cannot be written")?;
        }
        Some(Consent::Forget) => consent::forget(&root)?,
        Some(said) => {
            consent::write(&root, said == Consent::Yes, consent::ConsentSource::Command)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

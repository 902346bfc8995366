//! `enforcer hook`: answers an agent's pre-tool hook, and what belongs to it.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;

use crate::{
    decide::{Mode, Subject, subject::Name},
    hook::{
        self, Format, Options, consent,
        install::{Plan, REQUIREMENT, Reach, Requirement},
        place, prepare,
        state::States,
    },
    policy_file, say,
};

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
  enforcer hook consent yes
  enforcer hook breaker status";

#[derive(Clone, Debug, clap::Args)]
struct AnswerArgs {
    /// Whose hook it is [default: told by the event]
    #[arg(long, value_enum, value_name = "AGENT")]
    format: Option<Format>,
    /// The policy [default: `ENFORCER_POLICY`, else .enforcer/policy.json of the project, else
    /// /etc/enforcer/policies/coding-agent.json; inside `enforcer run` always that of the run]
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
    capabilities: Vec<Name>,
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

#[derive(Clone, Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own on the command line"
)]
struct InstallArgs {
    /// The agent
    #[arg(value_enum)]
    agent: Format,
    /// The settings of the project in this directory [default]
    #[arg(long)]
    project: bool,
    /// The user's own settings
    #[arg(long, conflicts_with = "project")]
    user: bool,
    /// The settings of the machine, which count before a user's and which no user can write. Needs root
    #[arg(long, conflicts_with_all = ["project", "user"])]
    managed: bool,
    /// The policy that the hook shall judge by
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Show the difference and change nothing
    #[arg(long)]
    dry_run: bool,
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
    /// Close an agent's breaker and forget its rates
    Reset {
        /// The agent [default: the one without a name]
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
pub fn run(args: HookArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => Ok(answer(args.answer)),
        Some(HookCommand::Install(args)) => install(&args, true),
        Some(HookCommand::Uninstall(args)) => install(&args, false),
        Some(HookCommand::Breaker { command }) => breaker(&command),
        Some(HookCommand::Consent { answer }) => consent(answer),
    }
}

fn answer(args: AnswerArgs) -> ExitCode {
    let text = |name: Name| name.into_string();
    let answered = hook::answer(Options {
        format: args.format,
        policy: args.policy,
        mode: args.mode,
        agent: args.agent.as_deref().and_then(Subject::agent_name),
        user: args.user.map(text),
        tenant: args.tenant.map(text),
        capabilities: args.capabilities.into_iter().map(text).collect(),
        audit: args.audit,
    });
    let mut out = say::out();
    let written = out
        .write_all(answered.stdout.as_bytes())
        .and_then(|()| out.flush());
    let _ = say::err().write_all(answered.stderr.as_bytes());
    if written.is_err() {
        // Without an answer most agents would go on.
        let _ = say::err().write_all(b"enforcer: the hook's answer cannot be written\n");
        return ExitCode::from(2);
    }
    ExitCode::from(answered.code)
}

fn install(args: &InstallArgs, installs: bool) -> anyhow::Result<ExitCode> {
    // A hook with a policy that cannot be used would deny everything.
    let policy = match &args.policy {
        Some(policy) => Some((policy, policy_file::load(policy, None)?)),
        None => None,
    };
    let reach = if args.managed {
        Reach::Managed
    } else if args.user {
        Reach::User
    } else {
        Reach::Project
    };
    let plan = Plan::new(args.agent, reach, args.policy.as_deref())?;
    let change = if installs {
        plan.install()?
    } else {
        plan.uninstall()?
    };
    let requirement = plan.requirement(installs)?;
    let mut out = say::out();
    let file = change.file().display();
    if let Some(Requirement { says, change }) = &requirement {
        write!(out, "{}", change.diff())?;
        if installs && !says {
            writeln!(
                out,
                "{} is there and does not turn hooks on: users can turn them off, until it has\n{REQUIREMENT}",
                change.file().display()
            )?;
        }
        if !args.dry_run {
            change.make()?;
        }
    }
    if !change.is_needed() {
        let said = if installs {
            "has the hook already"
        } else {
            "has no hook of enforcer"
        };
        writeln!(out, "{file} {said}")?;
        return Ok(ExitCode::SUCCESS);
    }
    write!(out, "{}", change.diff())?;
    if args.dry_run {
        writeln!(out, "nothing was changed (--dry-run)")?;
        return Ok(ExitCode::SUCCESS);
    }
    change.make()?;
    if installs {
        if let Some((file, loaded)) = &policy {
            prepare(file, loaded.parsed.text());
        }
        writeln!(
            out,
            "{file} is written; to let the policy approve calls without a question: enforcer hook consent yes"
        )?;
    } else {
        writeln!(out, "{file} is as it was without the hook")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn breaker(command: &BreakerCommand) -> anyhow::Result<ExitCode> {
    let states = States::open(&place::root()?)?;
    match command {
        BreakerCommand::Status {
            agent,
            policy,
            json,
        } => {
            let rules = match policy {
                Some(path) => policy_file::load(path, None)?.parsed.policy.breaker,
                None => crate::policy::model::Breaker::default(),
            };
            let mut out = say::out();
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
            } else {
                states.reset(agent.as_deref())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn consent(answer: Option<Consent>) -> anyhow::Result<ExitCode> {
    let root = place::directory(&place::root()?, "")?;
    match answer {
        None => {
            let said = match consent::read(&root).map_err(anyhow::Error::msg)? {
                Some(consent) if consent.auto_approve => "yes",
                Some(_) => "no",
                None => "not asked yet",
            };
            writeln!(say::out(), "{said}").context("the answer cannot be written")?;
        }
        Some(Consent::Forget) => consent::forget(&root)?,
        Some(said) => {
            consent::write(&root, said == Consent::Yes, consent::Source::Command)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

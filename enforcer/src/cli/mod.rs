//! The command line: one command a file. Each parses its arguments, calls the library and gives an exit code.

use std::{io, os::fd::AsFd, process::ExitCode};

use clap::{Parser, Subcommand};
use nix::unistd::geteuid;

use enforcer_decide::{Engine, examples};
use enforcer_files::directories::{self, DirectoryError, OwnDirectory};
use enforcer_launch::{exec_stop, outlive_file_size_limit};
use enforcer_policy::{Parsed, PolicyError, compile::CompileError};
use enforcer_say::say;
use enforcer_seccomp::groups;

pub mod agent;
pub mod approvals;
pub mod audit;
pub mod breaker;
pub mod doctor;
pub mod error;
pub mod explain;
pub mod hook;
pub mod policy;
pub mod reload;
pub mod run;
pub mod status;
pub mod stop;

use error::Context;

/// Exit status for bad use, a bad policy, or a machine that cannot enforce.
const FAILURE: u8 = 2;

/// Keeps an AI agent's process tree inside its policy.
///
/// Every exec and connect of everything below the agent is judged in the kernel against one policy; what breaks
/// it is refused or killed before it runs one instruction; every decision is one line of the audit trail.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sudo enforcer run --policy /etc/enforcer/policies/coding-agent.json -- claude
  enforcer explain --policy policies/coding-agent.json -- git push --force
  enforcer policy check policies/strict.json
  sudo enforcer approvals watch
  sudo enforcer breaker status
  sudo enforcer status
  sudo enforcer reload reviewer
  sudo enforcer agent set reviewer --grant deploy
  sudo enforcer stop reviewer
  sudo enforcer audit tail -n 20
  sudo enforcer doctor";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command and everything it starts under a policy
    Run(run::RunArgs),
    /// Say what a policy decides, and why, without running anything
    Explain(explain::ExplainArgs),
    /// Check policies and print their schema
    Policy(policy::PolicyArgs),
    /// See and answer what waits for a person
    Approvals(approvals::ApprovalsArgs),
    /// Answer an agent's pre-tool hook, or install it
    Hook(Box<hook::HookArgs>),
    /// See and close the circuit breaker of running agents
    Breaker(breaker::BreakerArgs),
    /// Show the agents that run, and the kernel programs that judge them
    Status(status::StatusArgs),
    /// Have running agents go by their policy's file as it is now, or by another
    Reload(reload::ReloadArgs),
    /// Change how running agents are governed
    Agent(agent::AgentArgs),
    /// End agents
    Stop(stop::StopArgs),
    /// Read the audit trail
    Audit(audit::AuditArgs),
    /// Say what this kernel can enforce, found by attempting what must be refused
    Doctor(doctor::DoctorArgs),
    /// Hold processes at their exec for the launcher that is at standard input
    #[command(name = exec_stop::COMMAND, hide = true)]
    ExecStop,
}

/// The `enforcer` command: parses the arguments, runs, and turns errors into one message and a status.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    outlive_file_size_limit();
    let filter = tracing_subscriber::EnvFilter::from_env("ENFORCER_LOG");
    tracing_subscriber::fmt()
        // It would say so by `eprintln!`.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let result = match command {
        Command::Run(args) => run::run(args),
        Command::Explain(args) => explain::run(&args),
        Command::Policy(args) => policy::run(&args, &prove_policy),
        Command::Approvals(args) => approvals::run(&args),
        Command::Hook(args) => hook::run(*args),
        Command::Breaker(args) => breaker::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Audit(args) => audit::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args),
        Command::ExecStop => exec_stop::serve(io::stdin().as_fd())
            .map(|()| ExitCode::SUCCESS)
            .context("this command is started by `enforcer run` alone"),
    };
    let code = result.unwrap_or_else(|error| {
        for line in error.message().lines() {
            say!("enforcer: {line}");
        }
        ExitCode::from(error.exit_code())
    });
    enforcer_say::finish();
    code
}

/// As root, makes sure of directories of ours (`needed`), and that others are not too open if they are there; says what it
/// has done. Who is not root finds them as they are.
fn on_our_directories(
    needed: &[OwnDirectory],
    there: &[OwnDirectory],
) -> Result<(), DirectoryError> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let mut done = vec![directories::prepare(needed)?];
    for place in there {
        done.push(directories::mend(*place)?);
    }
    for line in done.into_iter().flatten() {
        say!("enforcer: {line}");
    }
    Ok(())
}

/// What a policy must pass once its text is good: its tables, and the examples of its rules. Gives the faults.
pub fn prove_policy(parsed: &Parsed) -> Vec<PolicyError> {
    let engine = match Engine::new(parsed.policy.clone(), 0) {
        Ok(engine) => Some(engine),
        Err(CompileError::Collision { .. }) => None,
        Err(error) => return vec![parsed.error_of(&error)],
    };
    let mut faults = examples::prove(parsed, engine.as_ref());
    faults.extend(groups::unknown(parsed));
    faults
}

/// Who became root by `sudo`, for the trail.
fn sudo_user() -> Option<String> {
    std::env::var("SUDO_USER")
        .ok()
        .filter(|user| user != "root")
}

/// Who acts as root, for lines of the trail that this process writes itself.
fn acting_root() -> String {
    sudo_user().map_or_else(|| "root".to_owned(), |by| format!("root for {by}"))
}

//! The command line: one command a file. Each parses its arguments, calls the library and gives an exit code.

use std::{cell::RefCell, collections::HashMap, io, os::fd::AsFd, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use nix::unistd::geteuid;

use crate::{
    decide::{Engine, ExecAction, RuleCheck},
    directories::{self, DirectoryError, Place},
    launch::{LaunchError, exec_stop, outlive_file_size_limit},
    policy::{Parsed, PolicyError, compile::CompileError, validate},
    say::{self, say},
    seccomp::Hatches,
};

pub mod approvals;
pub mod audit;
pub mod breaker;
pub mod doctor;
pub mod explain;
pub mod hook;
pub mod policy;
pub mod run;
pub mod status;
pub mod stop;

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
        Command::Stop(args) => stop::run(&args),
        Command::Audit(args) => audit::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args),
        Command::ExecStop => exec_stop::serve(io::stdin().as_fd())
            .map(|()| ExitCode::SUCCESS)
            .context("this command is started by `enforcer run` alone"),
    };
    let code = result.unwrap_or_else(|error| {
        for line in message(&error).lines() {
            say!("enforcer: {line}");
        }
        ExitCode::from(
            error
                .downcast_ref::<LaunchError>()
                .map_or(FAILURE, LaunchError::exit_code),
        )
    });
    say::finish();
    code
}

/// Whether who read our output has seen enough (`| head`).
fn reader_left(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// As root, makes sure of directories of ours (`needed`), and that others are not too open if they are there; says what it
/// has done. Who is not root finds them as they are.
fn on_our_directories(needed: &[Place], there: &[Place]) -> Result<(), DirectoryError> {
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

/// An error and its causes in one line. Many of our messages hold the cause already, before the mend: a cause that has
/// been told is not told again.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// What a policy must pass once its text is good: its tables, and the examples of its rules. Gives the faults.
pub fn prove_policy(parsed: &Parsed) -> Vec<PolicyError> {
    let engine = match Engine::new(parsed.policy.clone(), 0) {
        Ok(engine) => Some(engine),
        Err(CompileError::Collision { .. }) => None,
        Err(error) => return vec![fault(parsed, &error)],
    };
    let mut faults = prove_examples(parsed, engine.as_ref());
    faults.extend(unknown_hatches(parsed));
    faults
}

/// System calls that a policy allows by a name that no group of them has, or denies though they are refused anyway.
pub fn unknown_hatches(parsed: &Parsed) -> Vec<PolicyError> {
    let Ok(hatches) = Hatches::shipped() else {
        return Vec::new();
    };
    let known: Vec<&str> = hatches.names().collect();
    let open: Vec<&str> = hatches.open_where_fenced().collect();
    let syscalls = &parsed.policy.syscalls;
    let mut errors = Vec::new();
    for (key, choices, names) in [
        ("allow", &syscalls.allow, &known),
        ("deny", &syscalls.deny, &open),
    ] {
        for (index, choice) in choices.iter().enumerate() {
            let name = choice.name.as_str();
            if names.contains(&name) {
                continue;
            }
            let what = if known.contains(&name) {
                format!("the system calls of `{name}` are refused anyway")
            } else {
                format!("there is no group of system calls `{name}`")
            };
            let mend = format!("name one of: {}", names.join(", "));
            errors.push(parsed.error_at_syscall(key, index, what, mend));
        }
    }
    errors
}

/// The examples of a policy's rules: the faults. The policy's `engine`, if there is one, spares most rules tables of
/// their own.
pub fn prove_examples(parsed: &Parsed, engine: Option<&Engine>) -> Vec<PolicyError> {
    let dirs = &parsed.policy.exec.trusted_dirs;
    // A rule's own tables are made once for all its examples.
    let checks: RefCell<HashMap<String, Option<RuleCheck>>> = RefCell::default();
    validate::examples(parsed, &|rule, words| {
        let argv = words.iter().map(|word| word.clone().into_bytes()).collect();
        let action = ExecAction::from_words(argv);
        if let Some(matches) = engine.and_then(|engine| engine.alone(rule, &action)) {
            return matches;
        }
        checks
            .borrow_mut()
            .entry(rule.id.clone())
            .or_insert_with(|| RuleCheck::new(rule, dirs).ok())
            .as_ref()
            .is_some_and(|check| check.matches(&action))
    })
}

/// A compile error at the rule it speaks of.
pub fn fault(parsed: &Parsed, error: &CompileError) -> PolicyError {
    if let CompileError::Pattern {
        rule,
        pattern,
        why,
        mend,
    } = error
        && let Some(index) = parsed.policy.exec.rules.iter().position(|r| r.id == *rule)
    {
        return parsed.error_at_rule(index, format!("pattern `{pattern}`: {why}"), *mend);
    }
    if let CompileError::Unix {
        rule,
        pattern,
        why,
        mend,
    } = error
        && let Some(index) = (parsed.policy.connect.rules.iter()).position(|r| r.id == *rule)
    {
        return parsed.error_at_connect_rule(index, format!("pattern `{pattern}`: {why}"), *mend);
    }
    PolicyError::whole(error.to_string(), "see the policy reference")
}

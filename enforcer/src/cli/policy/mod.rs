//! `enforcer policy`: what can be known of a policy before an agent runs under it.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::cli::error::{CliError, Context};
use enforcer_control::words;
use enforcer_decide::Engine;
use enforcer_launch::Identity;
use enforcer_policy::{Parsed, PolicyError, schema};
use enforcer_policy_files::{
    ground::Ground,
    policy_file::{self, PolicyFileError},
    shipped::default_policy,
};

mod check;
mod diff;
mod history;
mod replay;
mod show;
mod suggest;
mod test;

/// Arguments of `enforcer policy`.
#[derive(Clone, Debug, clap::Args)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// The commands of `enforcer policy`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Check a policy: its text, its patterns, its examples, and rules that contradict or shadow one another
    ///
    /// Exit status 2 if the policy cannot be used. Warnings do not change the status.
    Check {
        /// The policy's file, or one that comes along (`built-in:strict`) [default: the policy of `run`]
        file: Option<PathBuf>,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
        /// Check for agents that run as this user, as `run --user`: whose home `~` is, whose directories are not trusted
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Try a policy: the examples of its rules, and files of cases
    Test(test::TestArgs),
    /// Say in what two policies differ, and what that changes for what was recorded
    Diff(diff::DiffArgs),
    /// Judge a recorded trail by a policy: what would have been decided
    Replay(replay::ReplayArgs),
    /// Write a policy that allows what was recorded, and nothing else
    Suggest(suggest::SuggestArgs),
    /// Show a policy with all that it includes: its digest, its rules, and the file that each comes from
    Show(show::ShowArgs),
    /// Print the JSON Schema of the native form
    Schema {
        /// That of the rule sets that policies include
        #[arg(long)]
        rule_set: bool,
    },
}

/// What else a policy must pass once its text is good: the tables and the examples. Gives the faults.
pub type Prove<'a> = &'a dyn Fn(&Parsed) -> Vec<PolicyError>;

/// Runs `enforcer policy`. Faults of a policy are the command's output, not its failure.
///
/// # Errors
///
/// When a policy or a trail cannot be used, or the output cannot be written.
pub fn run(args: &PolicyArgs, prove: Prove<'_>) -> Result<ExitCode, CliError> {
    let (mut out, mut err) = (enforcer_say::out(), enforcer_say::err());
    let status = match &args.command {
        PolicyCommand::Check { file, json, user } => {
            let identity = Identity::resolve(user.as_deref(), |name| std::env::var_os(name))?;
            let ground = Ground::of(&identity);
            let file = file.clone().unwrap_or_else(default_policy);
            written(check::check(
                &file, &ground, *json, prove, &mut out, &mut err,
            ))
        }
        PolicyCommand::Test(args) => test::run(args, &mut out, &mut err),
        PolicyCommand::Diff(args) => diff::run(args, &mut out, &mut err),
        PolicyCommand::Replay(args) => replay::run(args, &mut out, &mut err),
        PolicyCommand::Suggest(args) => suggest::run(args, prove, &mut out, &mut err),
        PolicyCommand::Show(args) => show::run(args, &mut out, &mut err),
        PolicyCommand::Schema { rule_set } => {
            let schema = if *rule_set {
                schema::rule_set_schema()
            } else {
                schema::native_schema()
            };
            written(writeln!(out, "{schema:#}").map(|()| 0))
        }
    };
    match status {
        Ok(status) => Ok(ExitCode::from(status)),
        // The reader has seen enough (`| head`); not success, because it may not have been told everything.
        Err(error) if error.reader_left() => Ok(ExitCode::FAILURE),
        Err(error) => Err(error),
    }
}

fn written(result: io::Result<u8>) -> Result<u8, CliError> {
    result.context("the output cannot be written")
}

/// Reads and compiles a policy. Faults are told as `policy check` tells them.
fn engine(file: &std::path::Path) -> Result<Engine, CliError> {
    Ok(read(file)?.1)
}

/// Reads and compiles a policy as [`engine`] does; gives both.
fn read(file: &std::path::Path) -> Result<(Parsed, Engine), CliError> {
    let parsed = policy_file::load(file, None)?.parsed;
    match Engine::new(parsed.policy.clone(), 0) {
        Ok(engine) => Ok((parsed, engine)),
        Err(error) => Err(PolicyFileError::Invalid {
            path: file.display().to_string(),
            errors: vec![parsed.error_of(&error)],
        }
        .into()),
    }
}

/// A count with its noun.
fn counted(count: usize, noun: &str) -> String {
    words::counted(count as u64, noun)
}

#[cfg(test)]
mod history_tests;

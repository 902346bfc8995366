//! `enforcer policy`: what can be known of a policy before an agent runs under it.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;

use crate::{
    decide::Engine,
    ground::Ground,
    launch::Identity,
    policy::{Parsed, PolicyError, schema},
    policy_file::{self, PolicyFileError},
    say,
};

mod check;
mod diff;
mod history;
mod replay;
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
        /// The policy's file
        file: PathBuf,
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
    /// Print the JSON Schema of the native form
    Schema,
}

/// What else a policy must pass once its text is good: the tables and the examples. Gives the faults.
pub type Prove<'a> = &'a dyn Fn(&Parsed) -> Vec<PolicyError>;

/// Runs `enforcer policy`. Faults of a policy are the command's output, not its failure.
///
/// # Errors
///
/// When a policy or a trail cannot be used, or the output cannot be written.
pub fn run(args: &PolicyArgs, prove: Prove<'_>) -> anyhow::Result<ExitCode> {
    let (mut out, mut err) = (say::out(), say::err());
    let status = match &args.command {
        PolicyCommand::Check { file, json, user } => {
            let identity = Identity::resolve(user.as_deref(), |name| std::env::var_os(name))?;
            let ground = Ground::of(&identity);
            written(check::check(
                file, &ground, *json, prove, &mut out, &mut err,
            ))
        }
        PolicyCommand::Test(args) => test::run(args, &mut out, &mut err),
        PolicyCommand::Diff(args) => diff::run(args, &mut out, &mut err),
        PolicyCommand::Replay(args) => replay::run(args, &mut out, &mut err),
        PolicyCommand::Suggest(args) => suggest::run(args, prove, &mut out, &mut err),
        PolicyCommand::Schema => {
            written(writeln!(out, "{:#}", schema::native_schema()).map(|()| 0))
        }
    };
    match status {
        Ok(status) => Ok(ExitCode::from(status)),
        // The reader has seen enough (`| head`); not success, because it may not have been told everything.
        Err(error) if super::reader_left(&error) => Ok(ExitCode::FAILURE),
        Err(error) => Err(error),
    }
}

fn written(result: io::Result<u8>) -> anyhow::Result<u8> {
    result.context("the output cannot be written")
}

/// Reads and compiles a policy. Faults are told as `policy check` tells them.
fn engine(file: &std::path::Path) -> anyhow::Result<Engine> {
    let parsed = policy_file::load(file, None)?.parsed;
    match Engine::new(parsed.policy.clone(), 0) {
        Ok(engine) => Ok(engine),
        Err(error) => Err(PolicyFileError::Invalid {
            path: file.display().to_string(),
            errors: vec![super::fault(&parsed, &error)],
        }
        .into()),
    }
}

/// `1 line`, `2 lines`.
fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod history_tests;

//! `enforcer stop`: ends agents.

use std::{io::Write, process::ExitCode};

use clap::Args;
use nix::unistd::geteuid;

use super::{FAILURE, acting_root};
use crate::cli::error::{CliError, refuse};
use enforcer_agent::status;
use enforcer_control::words::counted;
use enforcer_say::say;

const EXAMPLES: &str = "\
Examples:
  sudo enforcer stop reviewer
  sudo enforcer stop reviewer-4711-0badc0de
  sudo enforcer stop --all

AGENT is an agent's name (`--agent`), then all its runs are meant, or the id of one run (`enforcer status`
lists both). All its processes are killed; its last events are written to its trail, and behind them who has
ended it. `--all` ends every agent, and takes the kernel programs down, too.

Exit status: 0 done, 1 no such agent runs, 2 bad use, not root, or something could not be ended or recorded.";

/// How it is called.
const USAGE: &str = "enforcer stop <AGENT>...\n       enforcer stop --all";

/// Ends agents: kills all their processes, and takes away what was made for them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub struct StopArgs {
    /// Names of agents, or ids of runs
    #[arg(value_name = "AGENT", required_unless_present = "all")]
    agents: Vec<String>,
    /// Every agent, and the kernel programs
    #[arg(long, conflicts_with = "agents")]
    all: bool,
}

/// Runs `enforcer stop`.
///
/// # Errors
///
/// Not root, or standard output cannot be written.
pub fn run(args: &StopArgs) -> Result<ExitCode, CliError> {
    if !geteuid().is_root() {
        refuse!("enforcer stop needs root; use sudo");
    }
    let mut out = enforcer_say::out();
    let mut code = 0;
    let mut wanted: Vec<String> = Vec::new();
    for agent in &args.agents {
        let found = status::named(agent);
        if found.is_empty() {
            say!(
                "enforcer: no running agent is called `{agent}`, and no run has this id; `enforcer status` lists all"
            );
            code = code.max(1);
        }
        wanted.extend(found);
    }
    if args.all {
        wanted = status::all();
    }
    wanted.sort_unstable();
    wanted.dedup();
    for id in &wanted {
        match status::stop(id, &acting_root()) {
            Ok(stopped) => {
                let count = counted(stopped.processes as u64, "process");
                writeln!(out, "{id}: ended, with {count}")?;
                if let Some(error) = stopped.unwritten {
                    say!(
                        "enforcer: {id}: it is ended, but its trail does not say by whom: {}",
                        error.whole()
                    );
                    code = FAILURE;
                }
            }
            Err(error) => {
                say!("enforcer: {id}: {}", error.whole());
                code = FAILURE;
            }
        }
    }
    if args.all {
        match status::unload() {
            Ok(0) => writeln!(out, "No kernel programs were loaded.")?,
            Ok(_) => writeln!(out, "The kernel programs are taken down.")?,
            Err(error) => {
                say!("enforcer: {}", error.whole());
                code = FAILURE;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::from(code))
}

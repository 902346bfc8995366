//! `enforcer breaker`: sees and closes the breaker of running agents.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use nix::unistd::geteuid;

use super::{FAILURE, acting_root, approvals::STATE_ROOT, on_our_directories, sudo_user};
use crate::cli::error::CliError;
use enforcer_control::{
    BreakerStatus, RateStatus, client,
    protocol::{Operation, ReplyFault},
    words::{counted, duration},
};
use enforcer_decide::breaker::BreakerState;
use enforcer_files::directories;
use enforcer_say::say;

const EXAMPLES: &str = "\
Examples:
  sudo enforcer breaker status
  sudo enforcer breaker status reviewer --json
  sudo enforcer breaker reset reviewer

An agent whose actions are denied ten times in a row (`breaker.denials` of its policy) is denied
everything from then on: its circuit breaker is open. AGENT is the agent's name (`--agent`), then
all its runs are meant, or the id of one run. Whoever may answer requests (root, and the
`approvals.approvers` of the policy) may close it; the agent's own user may only look.

Exit status: 0 done, 1 no such agent runs, 2 bad use or not permitted.";

const STATUS_EXAMPLES: &str = "\
Examples:
  sudo enforcer breaker status
  sudo enforcer breaker status reviewer
  sudo enforcer breaker status --json | jq -r '.[] | select(.state == \"open\") | .agent'

The agent's own user may look without sudo.";

const RESET_EXAMPLES: &str = "\
Examples:
  sudo enforcer breaker reset reviewer
  sudo enforcer breaker reset reviewer-4711-0badc0de

The trail says who has closed it. Look first at what was denied: sudo enforcer audit tail --denied.";

/// Sees and closes the circuit breaker of running agents.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BreakerArgs {
    #[command(subcommand)]
    command: BreakerCommand,
    /// Where the running agents have their sockets
    #[arg(long, global = true, hide = true, value_name = "DIR", default_value = STATE_ROOT)]
    run_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum BreakerCommand {
    /// Show the breaker and how far the rates are used; of all running agents unless one is named
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// The agent's name, or a run's id
        agent: Option<String>,
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Close the breaker: the agent's actions are judged by its policy again
    #[command(after_help = RESET_EXAMPLES)]
    Reset {
        /// The agent's name, or a run's id
        agent: String,
        /// How it stood before, as a JSON array
        #[arg(long)]
        json: bool,
    },
}

/// Where a run can be asked.
enum Way {
    Socket(PathBuf),
    Kept(Box<enforcer_agent::Kept>),
}

/// A run that is meant, and how it stands.
type Found = (BreakerStatus, Way);
/// Why a run could not be asked: exit status and words.
type Failure = (u8, String);

/// Runs `enforcer breaker`.
///
/// # Errors
///
/// Standard output cannot be written, or the runs' common directory is not root's.
pub fn run(args: &BreakerArgs) -> Result<ExitCode, CliError> {
    let (wanted, reset, json) = match &args.command {
        BreakerCommand::Status { agent, json } => (agent.as_deref(), false, *json),
        BreakerCommand::Reset { agent, json } => (Some(agent.as_str()), true, *json),
    };
    if args.run_dir == Path::new(STATE_ROOT) {
        on_our_directories(&[], &[directories::RUNNING])?;
    }
    let (found, mut failures) = find(args, wanted);
    if found.is_empty() {
        if failures.is_empty() {
            failures.push((
                1,
                wanted.map_or_else(
                    || "no agent is running".to_owned(),
                    |agent| {
                        format!(
                            "no running agent is called `{agent}`, and no run has this id; `enforcer breaker status` lists all{}",
                            if geteuid().is_root() { "" } else { " that you may see (use sudo)" }
                        )
                    },
                ),
            ));
        }
        // Nothing runs, and nothing was asked for by name.
        if wanted.is_none() && failures.iter().all(|(code, _)| *code == 1) {
            if json {
                writeln!(enforcer_say::out(), "[]")?;
            } else {
                writeln!(enforcer_say::out(), "No agent is running.")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        return Ok(report(&failures));
    }
    let mut shown = Vec::new();
    failures.clear();
    for (status, way) in found {
        if reset {
            match close(&way) {
                Ok(before) => shown.push(before),
                Err(failure) => failures.push(failure),
            }
        } else {
            shown.push(status);
        }
    }
    let mut out = enforcer_say::out();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?;
    } else {
        for status in &shown {
            if reset {
                writeln!(out, "{}", closed(status))?;
            } else {
                text(&mut out, status)?;
            }
        }
    }
    out.flush()?;
    Ok(report(&failures))
}

/// The runs that are meant, and why others could not be asked.
fn find(args: &BreakerArgs, wanted: Option<&str>) -> (Vec<Found>, Vec<Failure>) {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    let mut gone = Vec::new();
    for socket in client::sockets(&args.run_dir) {
        match client::request(&socket, &breaker(false)) {
            Ok(reply) => match (reply.breaker, reply.error) {
                (Some(status), _) => found.push((status, Way::Socket(socket))),
                (None, error) => {
                    // Of whom it is, who may not see it is not told: once for all of them.
                    let failure = (FAILURE, error.unwrap_or_default());
                    if !failures.contains(&failure) {
                        failures.push(failure);
                    }
                }
            },
            // A run that is just ending, or whose launcher was killed: root finds that below.
            Err(error) if error.is_nobody() => {
                let meant = wanted.is_none_or(|wanted| is_of(&socket, wanted));
                if !geteuid().is_root() && meant {
                    gone.push(error.to_string());
                }
            }
            Err(error) => failures.push((FAILURE, error.to_string())),
        }
    }
    if geteuid().is_root() {
        let answered: Vec<String> = found.iter().map(|(status, _)| status.id.clone()).collect();
        for kept in enforcer_agent::Kept::others(&answered) {
            found.push((kept.status(), Way::Kept(Box::new(kept))));
        }
    }
    if let Some(wanted) = wanted {
        // As policies name agents: in upper or lower case.
        let lower = wanted.to_lowercase();
        found.retain(|(status, _)| status.agent.to_lowercase() == lower || status.id == wanted);
    }
    // Whose agents these are, root alone may know: one of them may be meant.
    if found.is_empty() {
        failures.extend(gone.into_iter().map(|why| (FAILURE, why)));
    }
    (found, failures)
}

/// Whether a socket is that of the run with this id, or of an agent with this name: ids begin with names.
fn is_of(socket: &Path, wanted: &str) -> bool {
    let id = socket.parent().and_then(Path::file_name);
    let id = id.map(|id| id.to_string_lossy().to_lowercase());
    let wanted = wanted.to_lowercase();
    id.is_some_and(|id| id == wanted || id.starts_with(&format!("{wanted}-")))
}

fn breaker(reset: bool) -> Operation {
    Operation::Breaker {
        reset,
        // The desk believes it of root alone.
        by: sudo_user(),
    }
}

fn close(way: &Way) -> Result<BreakerStatus, (u8, String)> {
    match way {
        Way::Socket(socket) => {
            let reply = client::request(socket, &breaker(true))
                .map_err(|error| (FAILURE, error.to_string()))?;
            match (reply.breaker, reply.fault) {
                (Some(status), None) => Ok(status),
                (_, Some(ReplyFault::NotFound)) => Err((1, reply.error.unwrap_or_default())),
                _ => Err((FAILURE, reply.error.unwrap_or_default())),
            }
        }
        Way::Kept(kept) => kept
            .reset(&acting_root())
            .map_err(|error| (FAILURE, error.whole())),
    }
}

fn report(failures: &[(u8, String)]) -> ExitCode {
    for (_, text) in failures {
        say!("enforcer: {text}");
    }
    ExitCode::from(failures.iter().map(|(code, _)| *code).max().unwrap_or(0))
}

fn closed(before: &BreakerStatus) -> String {
    let name = format!("{} [{}]", before.agent, before.id);
    match before.state {
        BreakerState::Closed => format!("{name}: was closed; its denials in a row start anew"),
        BreakerState::Open | BreakerState::HalfOpen => format!("{name}: closed"),
    }
}

fn text(out: &mut impl Write, status: &BreakerStatus) -> io::Result<()> {
    let (word, colour) = match status.state {
        BreakerState::Closed => ("closed", "32"),
        BreakerState::Open => ("OPEN", "1;31"),
        BreakerState::HalfOpen => ("half open", "33"),
    };
    let word = if io::stdout().is_terminal() {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_owned()
    };
    writeln!(out, "{} [{}]: {word}", status.agent, status.id)?;
    if let Some(since) = status.since {
        writeln!(
            out,
            "  since {since}, {} ago, after {} in a row",
            duration(enforcer_agent::ago(since).unsigned_abs()),
            counted(status.denials, "denial")
        )?;
    } else {
        writeln!(
            out,
            "  {}/{} denials in a row",
            status.denials, status.limit
        )?;
    }
    if let Some(pid) = status.trial {
        writeln!(out, "  process {pid} is let try")?;
    }
    if let Some(after) = status.half_open_after_s {
        let after = duration(Duration::from_secs(after));
        writeln!(out, "  lets one process try after {after}")?;
    }
    if status.observed {
        writeln!(out, "  it blocks nothing: the agent is only observed")?;
    }
    for rate in &status.rates {
        writeln!(out, "  {}", rate_words(rate))?;
    }
    Ok(())
}

/// How far a rate is used: `execs of the user: 7/100 in 1 h`.
pub(super) fn rate_words(rate: &RateStatus) -> String {
    format!(
        "{}s{}: {}/{} in {}",
        rate.of,
        if rate.per_user { " of the user" } else { "" },
        rate.used,
        rate.count,
        duration(Duration::from_secs(rate.window_s))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: BreakerState) -> BreakerStatus {
        BreakerStatus {
            agent: "reviewer".to_owned(),
            id: "reviewer-1-ab".to_owned(),
            state,
            denials: 3,
            limit: 10,
            since: None,
            half_open_after_s: Some(90),
            trial: None,
            observed: false,
            rates: vec![RateStatus {
                of: "exec".to_owned(),
                per_user: true,
                used: 7,
                count: 100,
                window_s: 3_600,
            }],
        }
    }

    #[test]
    fn a_status_tells_how_far_it_is() {
        let mut out = Vec::new();
        text(&mut out, &status(BreakerState::Closed)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "reviewer [reviewer-1-ab]: closed\n  3/10 denials in a row\n  lets one process try after 1 min 30 s\n  execs of the user: 7/100 in 1 h\n"
        );
    }

    #[test]
    fn an_open_one_that_blocks_nothing_says_so() {
        let mut status = status(BreakerState::Open);
        status.observed = true;
        let mut out = Vec::new();
        text(&mut out, &status).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(
            said.contains("OPEN\n") && said.contains("blocks nothing"),
            "{said}"
        );
    }

    #[test]
    fn a_reset_says_what_there_was_to_close() {
        assert!(closed(&status(BreakerState::Open)).ends_with(": closed"));
        assert!(closed(&status(BreakerState::Closed)).contains("was closed"));
    }
}

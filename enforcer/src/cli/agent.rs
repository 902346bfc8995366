//! `enforcer agent`: changes how a running agent is governed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use nix::unistd::geteuid;

use super::{FAILURE, approvals::STATE_ROOT, breaker::rate_words};
use crate::cli::error::{CliError, refuse};
use enforcer_agent::status;
use enforcer_control::{
    AgentChange, AgentChanged, SOCKET_NAME,
    client::Listening,
    protocol::{Operation, Reply, ReplyFault},
};
use enforcer_decide::Mode;
use enforcer_policy::capability::Capability;
use enforcer_say::say;

const EXAMPLES: &str = "\
Examples:
  sudo enforcer agent set reviewer --grant deploy
  sudo enforcer agent set reviewer --observe yes

`enforcer agent set --help` says what can be set.";

const SET_EXAMPLES: &str = "\
Examples:
  sudo enforcer agent set reviewer --grant deploy
  sudo enforcer agent set reviewer --revoke deploy
  sudo enforcer agent set reviewer --rate exec=100/1h --rate per_user.connect=500/1d
  sudo enforcer agent set reviewer --rate exec=policy
  sudo enforcer agent set reviewer --observe yes
  sudo enforcer agent set reviewer --mode subagent_only

AGENT is an agent's name (`--agent`), then all its runs are meant, or the id of one run (`enforcer status`
lists both). At least one thing to set has to be named. A change is in force at the next exec and connect. It
holds until the run ends, or is changed again: `enforcer reload` changes the policy alone. What is so already
is said, and changes nothing. `--mode` takes trust away: with `disabled`, or with `subagent_only` where the
policy does not trust the agent, all that it does is denied. An agent that was started with --observe can be
blocked, but nobody can be asked about what it does. Where a launcher is gone, nothing can be changed.

Exit status: 0 done or so already, 1 no such agent runs, 2 bad use, not root, or an agent was not changed at all, 3 an
agent's launcher took the request and has not answered: whether it is changed `enforcer status` shows. Of
several the highest.";

/// Exit status if it is not known whether an agent was changed.
const UNKNOWN: u8 = 3;

/// Changes how running agents are governed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Grant and revoke capabilities, rates and trust of running agents, or only observe them
    #[command(after_help = SET_EXAMPLES, override_usage = USAGE)]
    Set(SetArgs),
}

/// What a person answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

/// How `agent set` is called.
const USAGE: &str = "enforcer agent set <AGENT>... [--grant <NAME>] [--revoke <NAME>] [--rate <NAME=RATE>] [--observe <yes|no>] [--mode <MODE>] [--json]";

#[derive(Debug, Args)]
struct SetArgs {
    /// Names of agents, or ids of runs
    #[arg(value_name = "AGENT", required = true)]
    agents: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// How they are governed then, as a JSON array
    #[arg(long)]
    json: bool,
}

/// What can be set, one of it at least.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Settings {
    /// Give a capability that rules of the policy require; can be repeated
    #[arg(long, value_name = "NAME")]
    grant: Vec<Capability>,
    /// Take a capability away; can be repeated
    #[arg(long, value_name = "NAME")]
    revoke: Vec<Capability>,
    /// Set a rate: `exec`, `connect`, `per_user.exec` or `per_user.connect`, and a count and a window (100/1h), or `policy` for
    /// the policy's own; can be repeated
    #[arg(long, value_name = "NAME=RATE", value_parser = rate)]
    rate: Vec<(String, Option<String>)>,
    /// Only observe (yes), or block what the policy denies (no)
    #[arg(long, value_enum)]
    observe: Option<YesNo>,
    /// Where actions are approved: everywhere, `subagent_only` (agents that the policy trusts) or disabled
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
}

/// A rate as the command line has it.
fn rate(text: &str) -> Result<(String, Option<String>), String> {
    let (name, rate) = text
        .split_once('=')
        .ok_or_else(|| "write NAME=RATE, such as exec=100/1h".to_owned())?;
    let rate = (rate != "policy").then(|| rate.to_owned());
    Ok((name.to_owned(), rate))
}

/// Runs `enforcer agent`.
///
/// # Errors
///
/// Not root, or standard output cannot be written.
pub fn run(args: &AgentArgs) -> Result<ExitCode, CliError> {
    let AgentCommand::Set(args) = &args.command;
    let set = &args.settings;
    let names = |names: &[Capability]| -> Vec<String> {
        let names: BTreeSet<&Capability> = names.iter().collect();
        names.into_iter().map(ToString::to_string).collect()
    };
    if let Some(both) = set.grant.iter().find(|name| set.revoke.contains(name)) {
        refuse!("the capability `{both}` is granted and revoked at once; write one of both");
    }
    let mut rates = BTreeMap::new();
    for (name, rate) in &set.rate {
        if rates.insert(name.clone(), rate.clone()).is_some() {
            refuse!("the rate `{name}` is given twice; write it once");
        }
    }
    let change = AgentChange {
        observe: set.observe.map(|answer| answer == YesNo::Yes),
        mode: set.mode.map(|mode| mode.as_str().to_owned()),
        grant: names(&set.grant),
        revoke: names(&set.revoke),
        rates,
        ..AgentChange::default()
    };
    make(
        "agent set",
        &MeantAgents::Named(&args.agents),
        &change,
        args.json,
    )
}

/// Which agents are meant.
#[derive(Debug)]
pub enum MeantAgents<'a> {
    /// All that run.
    All,
    /// Those of these names or ids.
    Named(&'a [String]),
}

/// Has agents changed by their launchers, and shows how they are governed then.
///
/// # Errors
///
/// Not root, or standard output cannot be written.
pub fn make(
    command: &str,
    wanted: &MeantAgents<'_>,
    change: &AgentChange,
    json: bool,
) -> Result<ExitCode, CliError> {
    if !geteuid().is_root() {
        refuse!("enforcer {command} needs root: it changes what an agent may do; use sudo");
    }
    let mut code = 0;
    let mut ids = match wanted {
        MeantAgents::All => status::all(),
        MeantAgents::Named(names) => {
            let mut ids = Vec::new();
            for name in *names {
                let found = status::named(name);
                if found.is_empty() {
                    say!(
                        "enforcer: no running agent is called `{name}`, and no run has this id; `enforcer status` lists all"
                    );
                    code = 1;
                }
                ids.extend(found);
            }
            ids
        }
    };
    ids.sort_unstable();
    ids.dedup();
    let mut all = Vec::new();
    for id in &ids {
        match ask(id, change) {
            Ok(changed) => all.push(changed),
            Err(NotMade::Unchanged(error)) => {
                say!("enforcer: {id}: unchanged: {}", error.message());
                code = code.max(FAILURE);
            }
            Err(NotMade::Unknown(error)) => {
                say!(
                    "enforcer: {id}: not known whether it is changed: {}; `enforcer status` shows how it is governed",
                    error.message()
                );
                code = code.max(UNKNOWN);
            }
        }
    }
    let mut out = enforcer_say::out();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        for changed in &all {
            show(&mut out, changed)?;
        }
        if ids.is_empty() && code == 0 {
            writeln!(out, "No agent is running.")?;
        }
    }
    out.flush()?;
    Ok(ExitCode::from(code))
}

/// Why nobody says that a change was made.
enum NotMade {
    /// Nothing was changed.
    Unchanged(CliError),
    /// Whoever was to make it has the request, and has not said what came of it.
    Unknown(CliError),
}

/// Has one agent's launcher make a change.
fn ask(id: &str, change: &AgentChange) -> Result<AgentChanged, NotMade> {
    let socket = Path::new(STATE_ROOT).join(id).join(SOCKET_NAME);
    if !socket.exists() {
        return Err(NotMade::Unchanged(CliError::Refused(format!(
            "nobody answers for it: it was started with --keep, or its launcher is gone or only just starting; it can be ended (`enforcer stop {id}`) and started anew"
        ))));
    }
    let request = Operation::Change {
        change: Box::new(change.clone()),
        by: super::sudo_user(),
    };
    let desk = Listening::find(&socket).map_err(|error| NotMade::Unchanged(error.into()))?;
    let reply = desk.request(&request);
    made(reply.map_err(|error| NotMade::Unknown(error.into()))?)
}

/// What a reply says.
fn made(reply: Reply) -> Result<AgentChanged, NotMade> {
    match (reply.changed, reply.error) {
        (Some(changed), _) => Ok(changed),
        (None, Some(error)) => {
            let error = CliError::Refused(error);
            // It broke down on the way.
            let broken = reply.fault == Some(ReplyFault::Failed);
            Err(if broken {
                NotMade::Unknown(error)
            } else {
                NotMade::Unchanged(error)
            })
        }
        (None, None) => Err(NotMade::Unknown(CliError::Refused(
            "its launcher is of another version of enforcer".to_owned(),
        ))),
    }
}

fn show(out: &mut impl Write, changed: &AgentChanged) -> std::io::Result<()> {
    let AgentChanged {
        changed,
        agent,
        id,
        policy,
        policy_sha256,
        governed,
        mode,
        capabilities,
        rates,
        notes,
        ..
    } = changed;
    let what = if *changed {
        "changed"
    } else {
        "nothing changed"
    };
    writeln!(out, "{agent} [{id}]: {what}")?;
    writeln!(out, "  {}", governed_words(governed))?;
    writeln!(out, "  policy {}", policy_words(policy, policy_sha256))?;
    writeln!(out, "  mode {mode}")?;
    if !capabilities.is_empty() {
        writeln!(out, "  capabilities: {}", capabilities.join(", "))?;
    }
    for rate in rates {
        writeln!(out, "  {}", rate_words(rate))?;
    }
    for note in notes {
        say!("enforcer: {id}: note: {note}");
    }
    Ok(())
}

/// How an agent is governed, in words.
pub(super) fn governed_words(governed: &str) -> &'static str {
    if governed == "observe" {
        "only observed: nothing that its policy denies is blocked"
    } else {
        "enforced: what its policy denies is blocked"
    }
}

/// A policy's file, and which edition of it decides.
pub(super) fn policy_words(policy: &Path, sha256: &str) -> String {
    let digest = sha256.get(..12).unwrap_or(sha256);
    format!("{} (sha256 {digest})", policy.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn something_has_to_be_set() {
        let parse = |words: &[&str]| {
            let words = ["enforcer", "agent", "set"].iter().chain(words);
            Cli::try_parse_from(words).map_err(|error| (error.exit_code(), error.to_string()))
        };
        assert!(parse(&["reviewer", "--grant", "deploy"]).is_ok());
        for words in [&["reviewer"][..], &["reviewer", "--json"]] {
            let (code, said) = parse(words).err().unwrap();
            assert_eq!(code, 2);
            for option in ["--grant", "--revoke", "--rate", "--observe", "--mode"] {
                assert!(said.contains(option), "{option}: {said}");
            }
        }
        let (_, said) = parse(&["reviewer", "--grant", "a b"]).err().unwrap();
        assert!(
            said.contains("no name of a capability: it has a blank"),
            "{said}"
        );
    }

    #[test]
    fn rates_are_named() {
        let read = |text: &str| rate(text).ok();
        let named =
            |name: &str, rate: Option<&str>| Some((name.to_owned(), rate.map(str::to_owned)));
        assert_eq!(read("exec=100/1h"), named("exec", Some("100/1h")));
        assert_eq!(read("per_user.exec=policy"), named("per_user.exec", None));
        assert_eq!(read("100/1h"), None);
    }
    #[test]
    fn what_broke_down_is_not_said_to_be_unchanged() {
        let says = |fault| {
            let reply = Reply::fault(fault, "why");
            matches!(made(reply), Err(NotMade::Unchanged(_)))
        };
        assert!(says(ReplyFault::Bad) && says(ReplyFault::Refused) && says(ReplyFault::Busy));
        assert!(!says(ReplyFault::Failed));
        assert!(matches!(made(Reply::default()), Err(NotMade::Unknown(_))));
    }
}

//! `enforcer policy suggest`: a policy that allows what was recorded, and nothing else.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Map, json};

use super::{
    Prove, counted, engine,
    history::{self, History, Line},
};
use crate::cli::error::{CliError, Context, refuse};
use enforcer_decide::{
    Engine,
    observed::{Observed, Suggestion, What, suggest},
    recorded::{self, Recorded, ReplayOutcome},
};
use enforcer_policy::{Decision, Risk, model::Protocol};

/// Actions that are shown of each kind.
const SHOWN_MAX: usize = 5;
/// The policy of an engine that only knows how programs are named.
const BARE: &str =
    r#"{"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"}}"#;

const NOTES: &str = "\
What went on in the recorded run is allowed; everything else is denied. Run the agent with `enforcer run --observe` first: \
everything it does is then recorded and nothing is blocked.

Programs with subcommands keep their first words, programs that run code keep the script, programs that delete, connect or \
give privileges keep their exact lines, others may have any arguments. Nothing that was replaced or cut in the trail gets \
into the policy. What was denied in the run is left out.

Read the policy before it is used: what an agent did once is not always what it should do.

Exit status: 0, or 2 when the trail cannot be used.

Example:
  enforcer policy suggest /var/log/enforcer/audit.jsonl --agent ci --against policies/coding-agent.json -o ci.json";

/// Arguments of `enforcer policy suggest`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct SuggestArgs {
    /// The trail; its rotated files are read too
    pub trail: PathBuf,
    /// Only lines of the agent with this name
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Warn of what this policy would not simply allow
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Print one JSON object: the policy, what is left out, the warnings
    #[arg(long)]
    pub json: bool,
    /// Write the policy to a new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

pub(super) fn run(
    args: &SuggestArgs,
    prove: Prove<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let against = args.against.as_deref().map(engine).transpose()?;
    let history = History::read(&args.trail, args.agent.as_deref())?;
    let went_on: Vec<&Line> = history
        .lines
        .iter()
        .filter(|line| line.entry.text("event") == "approval")
        .collect();
    let (suggestion, mut left_out) = of_lines(&went_on)?;
    for (why, actions) in suggestion.left_out {
        left_out.entry(why).or_default().extend(actions);
    }
    let text = format!("{:#}\n", suggestion.policy);
    let allowed = proved(&text, &went_on, prove)?;
    let warnings = match &against {
        Some(engine) => held_against(engine, &went_on),
        None => BTreeMap::new(),
    };
    if let Some(file) = &args.output {
        write_new(file, &text)?;
    }
    if args.json {
        let object = json!({
            "policy": suggestion.policy,
            "allowed": allowed,
            "denied_then": history.lines.len() - went_on.len(),
            "left_out": left_out,
            "careful": suggestion.careful,
            "warnings": warnings,
            "malformed": history.malformed,
        });
        writeln!(out, "{object}")?;
        return Ok(0);
    }
    if args.output.is_none() {
        out.write_all(text.as_bytes())?;
    }
    if let Some(said) = history.malformed() {
        writeln!(err, "enforcer: {said}")?;
    }
    writeln!(
        err,
        "enforcer: {} of the run allowed; {} that did not go on left out",
        counted(allowed, "recorded action"),
        counted(history.lines.len() - went_on.len(), "line")
    )?;
    for (why, actions) in &left_out {
        let count: usize = actions.values().sum();
        writeln!(err, "left out: {count}: {why}")?;
        listed(actions.keys(), err)?;
    }
    if !suggestion.careful.is_empty() {
        let names: Vec<&str> = suggestion.careful.iter().map(String::as_str).collect();
        writeln!(
            err,
            "look at: rules for programs that run code, delete, connect or give privileges: {}",
            names.join(", ")
        )?;
    }
    for (said, actions) in &warnings {
        writeln!(err, "warning: allowed here, but {said}")?;
        listed(actions.iter(), err)?;
    }
    Ok(0)
}

fn listed<'a>(
    actions: impl ExactSizeIterator<Item = &'a String>,
    err: &mut dyn Write,
) -> std::io::Result<()> {
    let count = actions.len();
    for action in actions.take(SHOWN_MAX) {
        writeln!(err, "    {action}")?;
    }
    if count > SHOWN_MAX {
        writeln!(err, "    and {} more", count - SHOWN_MAX)?;
    }
    Ok(())
}

type LeftOut = BTreeMap<&'static str, BTreeMap<String, usize>>;

/// The policy for these lines, and what of them has no place in one.
fn of_lines(lines: &[&Line]) -> Result<(Suggestion, LeftOut), CliError> {
    let mut left_out = LeftOut::new();
    let mut observed = Vec::new();
    for line in lines {
        let none = Map::new();
        let parameters = line.entry.parameters().unwrap_or(&none);
        let what = match &line.recorded {
            Recorded::Exec(ways) => ways.first().map(|action| What::Exec {
                action: Box::new(action.clone()),
                whole: true,
            }),
            Recorded::Connect(_) => connect(line),
            Recorded::Unix(_) => Some(What::Unix(line.entry.parameter("address"))),
            Recorded::Unclear(_) if line.tool == "exec" => {
                recorded::action(&line.entry.parameter("command"), parameters).map(|action| {
                    What::Exec {
                        action: Box::new(action),
                        whole: false,
                    }
                })
            }
            Recorded::Text(_) => {
                let why = "a hook's command text does not tell what ran; record it with `enforcer run --observe`";
                *left_out
                    .entry(why)
                    .or_default()
                    .entry(line.subject.clone())
                    .or_default() += 1;
                continue;
            }
            Recorded::Unclear(_) => None,
            Recorded::Other(_) => continue,
        };
        if let Some(what) = what {
            observed.push(Observed {
                when: line.timestamp.clone(),
                what,
            });
        } else {
            let why = "the line does not tell what it was";
            let actions = left_out.entry(why).or_default();
            *actions.entry(line.subject.clone()).or_default() += 1;
        }
    }
    let bare = Engine::new(enforcer_policy::parse(BARE)?.policy, 0)?;
    Ok((suggest(observed, &bare), left_out))
}

fn connect(line: &Line) -> Option<What> {
    let protocol = Protocol::named(&line.entry.parameter("protocol"));
    Some(What::Connect {
        address: line.entry.parameter("address"),
        port: line.entry.parameter("port").parse().ok()?,
        protocol,
    })
}

/// Checks the policy as `policy check` would, and gives how many of the lines it allows.
fn proved(text: &str, lines: &[&Line], prove: Prove<'_>) -> Result<usize, CliError> {
    let parsed = enforcer_policy::parse(text)
        .context("the suggested policy is not good; report this as a defect")?;
    if let Some(fault) = prove(&parsed).first() {
        refuse!(
            "what was recorded does not fit one policy: {fault}; suggest one for fewer agents (--agent) or a shorter run"
        );
    }
    let engine = Engine::new(parsed.policy, 0)?;
    let allowed = lines.iter().filter(|line| {
        matches!(line.judge(&engine), ReplayOutcome::Decided(outcome) if outcome.decision == Decision::Allow)
    });
    Ok(allowed.count())
}

/// What another policy says against the lines: the objection, with the actions.
fn held_against(engine: &Engine, lines: &[&Line]) -> BTreeMap<String, Vec<String>> {
    let mut warnings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let ReplayOutcome::Decided(outcome) = line.judge(engine) else {
            continue;
        };
        if outcome.decision == Decision::Allow && outcome.risk < Risk::High {
            continue;
        }
        let said = format!(
            "the other policy says {}, risk {}: {}",
            history::outcome(&outcome),
            outcome.risk,
            outcome.reason
        );
        let actions = warnings.entry(said).or_default();
        let action = format!("{} {}", line.tool, line.subject);
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
    warnings
}

fn write_new(file: &Path, text: &str) -> Result<(), CliError> {
    let opened = OpenOptions::new().write(true).create_new(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| {
        format!(
            "the policy cannot be written to {}; name a file that does not exist yet",
            file.display()
        )
    })
}

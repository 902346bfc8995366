//! `enforcer policy replay`: a recorded trail judged by a policy.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use serde_json::json;

use super::{
    counted, engine,
    history::{self, History},
};
use crate::cli::error::CliError;
use enforcer_decide::recorded::{Other, ReplayOutcome, Unclear};

const NOTES: &str = "\
Judged are the rules and the defaults. Not replayed: limits, the circuit breaker, modes, trusted agents, tenants, answers of \
people, and in what state files were. Capabilities: nobody's.

A line of the trail does not tell everything (docs/policy-tools.md): commands that were cut or in which a secret was \
replaced cannot be judged again and are counted as undecidable.

Exit status: 0, whatever was decided; 2 when the policy or the trail cannot be used.

Example:
  enforcer policy replay /var/log/enforcer/audit.jsonl --policy policies/strict.json";

/// Arguments of `enforcer policy replay`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct ReplayArgs {
    /// The trail; its rotated files are read too
    pub trail: PathBuf,
    /// The policy that is to judge it
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Only lines of the agent with this name
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Show every line, not only those that change
    #[arg(long, conflicts_with = "json")]
    pub all: bool,
    /// Print JSON Lines: one object for each line of the trail, at the end one with `summary`
    #[arg(long)]
    pub json: bool,
}

/// How a decision compares with the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Same,
    Stricter,
    Looser,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Stricter => "stricter",
            Self::Looser => "looser",
        }
    }
}

#[derive(Debug, Default)]
struct Summary {
    same: usize,
    stricter: usize,
    looser: usize,
    undecidable: BTreeMap<Unclear, usize>,
    no_question: BTreeMap<Other, usize>,
}

pub(super) fn run(
    args: &ReplayArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let engine = engine(&args.policy)?;
    let history = History::read(&args.trail, args.agent.as_deref())?;
    if let Some(said) = history.malformed() {
        writeln!(err, "enforcer: {said}")?;
    }
    let mut summary = Summary::default();
    for line in &history.lines {
        let told = line.judge(&engine);
        let mut object = json!({
            "line": line.number,
            "timestamp": line.timestamp,
            "tool": line.tool,
            "subject": line.subject,
            "recorded": {"decision": line.decision, "rule": line.rule},
        });
        let then = history::decided(line.decision, &line.rule);
        let head = format!("{}  {} {}", line.timestamp, line.tool, line.subject);
        match told {
            ReplayOutcome::Decided(outcome) => {
                let change = match outcome.decision.cmp(&line.decision) {
                    std::cmp::Ordering::Equal => Change::Same,
                    std::cmp::Ordering::Greater => Change::Stricter,
                    std::cmp::Ordering::Less => Change::Looser,
                };
                match change {
                    Change::Same => summary.same += 1,
                    Change::Stricter => summary.stricter += 1,
                    Change::Looser => summary.looser += 1,
                }
                if args.json {
                    object["decision"] = json!(outcome.decision);
                    object["rule"] = json!(outcome.rule);
                    object["change"] = change.as_str().into();
                    writeln!(out, "{object}")?;
                } else if args.all || change != Change::Same {
                    let now = history::outcome(&outcome);
                    writeln!(out, "{head}\n    {}: {then} -> {now}", change.as_str())?;
                }
            }
            ReplayOutcome::Undecidable(why) => {
                *summary.undecidable.entry(why).or_default() += 1;
                if args.json {
                    object["change"] = "undecidable".into();
                    object["why"] = why.as_str().into();
                    writeln!(out, "{object}")?;
                } else if args.all {
                    writeln!(out, "{head}\n    undecidable: {}", why.as_str())?;
                }
            }
            ReplayOutcome::NoQuestion(what) => {
                *summary.no_question.entry(what).or_default() += 1;
                if args.json {
                    object["change"] = "none".into();
                    object["why"] = what.as_str().into();
                    writeln!(out, "{object}")?;
                }
            }
        }
    }
    if args.json {
        let undecidable: BTreeMap<&str, usize> = summary
            .undecidable
            .iter()
            .map(|(why, count)| (why.as_str(), *count))
            .collect();
        let no_question: BTreeMap<&str, usize> = summary
            .no_question
            .iter()
            .map(|(what, count)| (what.as_str(), *count))
            .collect();
        let object = json!({"summary": {
            "same": summary.same,
            "stricter": summary.stricter,
            "looser": summary.looser,
            "undecidable": undecidable,
            "not_decided_by_rules": no_question,
            "malformed": history.malformed,
        }});
        writeln!(out, "{object}")?;
    } else {
        text(&summary, out)?;
    }
    Ok(0)
}

fn text(summary: &Summary, out: &mut dyn Write) -> std::io::Result<()> {
    let judged = summary.same + summary.stricter + summary.looser;
    writeln!(
        out,
        "{} judged again: {} the same, {} stricter, {} looser",
        counted(judged, "action"),
        summary.same,
        summary.stricter,
        summary.looser
    )?;
    for (why, count) in &summary.undecidable {
        writeln!(out, "  undecidable: {count}: {}", why.as_str())?;
    }
    for (what, count) in &summary.no_question {
        writeln!(out, "  not decided by rules: {count}: {}", what.as_str())?;
    }
    writeln!(
        out,
        "  not replayed: limits, the circuit breaker, modes, trusted agents, tenants, answers of people"
    )
}

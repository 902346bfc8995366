//! `enforcer policy diff`: in what two policies differ, and what that changes.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use serde_json::{Value, json};

use super::{
    counted, engine,
    history::{self, History},
};
use crate::cli::error::CliError;
use enforcer_decide::recorded::ReplayOutcome;
use enforcer_policy::compare::{Change, Changed, changes};

/// Actions that are shown of each kind of change.
const EXAMPLES_MAX: usize = 3;

const NOTES: &str = "\
The recorded actions are judged by the rules and defaults of both policies; limits, the circuit breaker, modes and people \
are not replayed, and what the trail does not tell whole is counted as undecidable.

Exit status: 0 if nothing differs, 1 if something does, 2 when a policy or the trail cannot be used.

Example:
  enforcer policy diff /etc/enforcer/policies/coder.json coder-new.json --trail /var/log/enforcer/audit.jsonl";

/// Arguments of `enforcer policy diff`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct DiffArgs {
    /// The policy as it was
    pub a: PathBuf,
    /// The policy as it is to be
    pub b: PathBuf,
    /// The trail whose actions are judged by both [default: /var/log/enforcer/audit.jsonl, if it is there]
    #[arg(long, value_name = "FILE")]
    pub trail: Option<PathBuf>,
    /// Only lines of the agent with this name
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Actions whose decision changes in one way.
#[derive(Debug, Default)]
struct Group {
    count: usize,
    examples: Vec<String>,
}

/// What becomes of the recorded actions.
#[derive(Debug, Default)]
struct Effect {
    trail: String,
    judged: usize,
    undecidable: usize,
    /// By what A and what B say.
    groups: BTreeMap<(String, String), Group>,
}

pub(super) fn run(
    args: &DiffArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let (a, b) = (engine(&args.a)?, engine(&args.b)?);
    let changes = changes(a.policy(), b.policy());
    let trail = match &args.trail {
        Some(trail) => Some(trail.clone()),
        None => Some(history::default_trail()).filter(|trail| trail.exists()),
    };
    let mut effect = None;
    if let Some(trail) = trail {
        let history = History::read(&trail, args.agent.as_deref())?;
        if let Some(said) = history.malformed() {
            writeln!(err, "enforcer: {said}")?;
        }
        let found = effect.insert(Effect {
            trail: trail.display().to_string(),
            ..Effect::default()
        });
        for line in &history.lines {
            match (line.judge(&a), line.judge(&b)) {
                (ReplayOutcome::Decided(before), ReplayOutcome::Decided(after)) => {
                    found.judged += 1;
                    if before.decision == after.decision {
                        continue;
                    }
                    let key = (history::outcome(&before), history::outcome(&after));
                    let group = found.groups.entry(key).or_default();
                    group.count += 1;
                    let example = format!("{} {}", line.tool, line.subject);
                    if group.examples.len() < EXAMPLES_MAX && !group.examples.contains(&example) {
                        group.examples.push(example);
                    }
                }
                (ReplayOutcome::NoQuestion(_), _) => {}
                _ => found.undecidable += 1,
            }
        }
    }
    let differs = !changes.is_empty()
        || effect
            .as_ref()
            .is_some_and(|effect| !effect.groups.is_empty());
    if args.json {
        writeln!(out, "{}", as_json(&changes, effect.as_ref()))?;
    } else {
        text(&changes, effect.as_ref(), out)?;
    }
    Ok(u8::from(differs))
}

fn as_json(changes: &[Changed], effect: Option<&Effect>) -> Value {
    let rules: Vec<Value> = changes
        .iter()
        .map(|changed| {
            json!({
                "section": changed.section,
                "id": changed.id,
                "change": changed.change.as_str(),
                "what": changed.what,
            })
        })
        .collect();
    let recorded = effect.map(|effect| {
        let groups: Vec<Value> = effect
            .groups
            .iter()
            .map(|((before, after), group)| {
                json!({"before": before, "after": after, "count": group.count, "examples": group.examples})
            })
            .collect();
        json!({
            "trail": effect.trail,
            "judged": effect.judged,
            "undecidable": effect.undecidable,
            "changes": groups,
        })
    });
    json!({"policy": rules, "recorded": recorded})
}

fn text(changes: &[Changed], effect: Option<&Effect>, out: &mut dyn Write) -> std::io::Result<()> {
    if changes.is_empty() {
        writeln!(out, "the policies say the same")?;
    }
    for changed in changes {
        let sign = match changed.change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Changed => '~',
        };
        write!(out, "{sign} {} {}", changed.section, changed.id)?;
        match changed.what.as_slice() {
            [] => writeln!(out)?,
            what => writeln!(out, ": {}", what.join(", "))?,
        }
    }
    let Some(effect) = effect else {
        return writeln!(out, "no trail to judge; name one with --trail");
    };
    let differently: usize = effect.groups.values().map(|group| group.count).sum();
    writeln!(
        out,
        "{}: {} judged by both, {} decided differently, {} undecidable",
        effect.trail,
        counted(effect.judged, "action"),
        differently,
        effect.undecidable
    )?;
    let mut groups: Vec<_> = effect.groups.iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    for ((before, after), group) in groups {
        writeln!(out, "  {}x {before} -> {after}", group.count)?;
        for example in &group.examples {
            writeln!(out, "      {example}")?;
        }
    }
    Ok(())
}

//! Another policy for an agent that runs.

use std::{path::Path, process::Command, time::Instant};

use anyhow::bail;
use serde_json::Value;

use crate::{
    agent::{Bench, ENFORCER},
    many::ONE_RULE,
    policies,
    report::{Figure, Report},
    sample::{interleave, quantile},
};

/// To 1,000 rules that nobody has seen before, turn by turn with a way back to one rule, whose tables are kept. Both are
/// whole commands, their own start included.
///
/// # Errors
///
/// `enforcer reload` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    // One of root's gets no other policy from a file.
    let options = ["--agent", "bench-reloaded", "--user", "nobody"];
    let agent = bench.governed_with("reloaded", ONE_RULE, &options)?;
    let few = bench.policy("few", ONE_RULE)?;
    let many = bench.policy("many", &policies::mixed(1000))?;
    let mut round = 0;
    let fresh = interleave(
        bench.rounds(30, 8),
        || to(&few),
        || {
            // Another text each time: none has kept tables.
            round += 1;
            let text = policies::mixed(1000).replacen(
                "\"version\"",
                &format!("\"description\": \"round {round}\", \"version\""),
                1,
            );
            to(&bench.policy("fresh", &text)?)
        },
    )?;
    to(&many)?;
    let kept = interleave(bench.rounds(50, 10), || to(&few), || to(&many))?;
    for (name, pairs) in [("never seen before", fresh), ("tables kept", kept)] {
        let middle = quantile(&pairs.other, 0.5) * 1e-6;
        report.add(
            Figure::ratio(
                format!("reload, 1,000 rules {name}, to one rule"),
                &pairs,
                1e-6,
                "ms",
            )
            .goal("<= 100 ms", middle <= 100.0),
        );
        report.note(format!(
            "least: {:.1}, 90 %: {:.1} ms; the command's own start included",
            quantile(&pairs.other, 0.0) * 1e-6,
            quantile(&pairs.other, 0.9) * 1e-6
        ));
    }
    agent.stop().map(drop)
}

/// Has the agent go by a file; how long that takes, ns.
fn to(file: &Path) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now();
    let output = Command::new(ENFORCER)
        .args(["reload", "bench-reloaded", "--json", "--policy"])
        .arg(file)
        .output()?;
    let time = start.elapsed().as_secs_f64() * 1e9;
    let changed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if changed[0]["policy"] != *file.to_string_lossy() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(vec![time])
}

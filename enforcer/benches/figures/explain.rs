//! How many actions `explain --stdin` judges in a second.

use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::bail;
use serde_json::json;

use crate::{
    agent::{Bench, ENFORCER},
    policies,
    report::{Figure, Report},
    sample::{interleave, quantile},
};

/// The line with this number.
type Line = fn(usize) -> serde_json::Value;

/// Argvs and shell texts under `coding-agent.json`, turn by turn with no line at all, which is what the command's own start
/// takes.
///
/// # Errors
///
/// `enforcer explain` fails, or answers less than it was asked.
#[allow(clippy::cast_precision_loss, reason = "counts of some thousands")]
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let policy = bench.policy("explained", policies::CODING_AGENT)?;
    let count = bench.rounds(20_000, 5_000);
    let nothing = bench.place("nothing.jsonl");
    File::create(&nothing)?;
    let kinds: [(&str, Line); 2] = [
        (
            "argvs",
            |n| json!({"argv": ["git", "log", "--oneline", format!("-n{n}")]}),
        ),
        (
            "shell texts",
            |n| json!({"command": format!("cd src && grep -rn word{n} . | head -20")}),
        ),
    ];
    for (what, line) in kinds {
        let lines = bench.place("lines.jsonl");
        let mut file = std::io::BufWriter::new(File::create(&lines)?);
        for n in 0..count {
            writeln!(file, "{}", line(n))?;
        }
        file.into_inner()?;
        let pairs = interleave(
            bench.rounds(9, 3),
            || explained(&policy, &nothing, 0),
            || explained(&policy, &lines, count),
        )?;
        let whole = quantile(&pairs.other, 0.5);
        let rate = count as f64 / (whole * 1e-9);
        report.add(
            Figure::new(
                format!("explain --stdin, {what}, its start included"),
                rate,
                "lines/s",
                pairs.other.len(),
            )
            .goal(">= 10,000 lines/s", rate >= 10_000.0),
        );
        report.note(format!(
            "{count} lines in {:.0} ms; no line in {:.1} ms, so {:.0} lines/s once it has started",
            whole * 1e-6,
            quantile(&pairs.bare, 0.5) * 1e-6,
            count as f64 / (pairs.difference().value * 1e-9)
        ));
    }
    Ok(())
}

/// Has a file of lines judged; how long that takes, ns.
fn explained(policy: &Path, lines: &Path, count: usize) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now();
    let output = Command::new(ENFORCER)
        .args(["explain", "--stdin", "--user", "root", "--policy"])
        .arg(policy)
        .stdin(File::open(lines)?)
        .stderr(Stdio::inherit())
        .output()?;
    let time = start.elapsed().as_secs_f64() * 1e9;
    let answers = String::from_utf8_lossy(&output.stdout).lines().count();
    if answers != count {
        bail!(
            "explain --stdin: {answers} answers to {count} lines ({})",
            output.status
        );
    }
    Ok(vec![time])
}

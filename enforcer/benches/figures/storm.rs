//! As many execs as the processors can make: none is lost, and what the runner holds in memory.

use std::time::Duration;

use anyhow::Context;

use crate::{
    agent::Bench,
    policies,
    report::{Figure, Report},
    sample::interleave,
    worker::Role,
};

/// Turns of each worker.
const TURNS: usize = 4;

/// Bare and governed in turns; afterwards the trail is counted.
///
/// # Errors
///
/// A worker or `enforcer` fails.
#[allow(clippy::cast_precision_loss, reason = "counts of some thousands")]
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let turn = bench.rounds(5000, 1250) / threads * threads;
    let execs = turn * TURNS;
    let request = format!("storm {turn} {threads}");
    let mut bare = bench.bare(Role::Plain)?;
    let mut agent = bench.governed("storm", &policies::mixed(1000))?;
    std::thread::sleep(SETTLED);
    let idle = resident(agent.pid())?;
    let pairs = interleave(TURNS, || bare.ask(&request), || agent.worker.ask(&request))?;
    let busy = resident(agent.pid())?;
    let entries = agent.stop()?;
    let recorded = entries
        .iter()
        .filter(|entry| entry.parameter("command") == "true")
        // The worker's first answer is one exec too.
        .count()
        .saturating_sub(1);
    let lost: usize = entries
        .iter()
        .filter(|entry| entry.text("tool").is_empty())
        .count();
    let mut numbers: Vec<u64> = entries
        .iter()
        .filter_map(|entry| entry.parameter("seq").parse().ok())
        .collect();
    numbers.sort_unstable();
    let whole = numbers.iter().zip(0..).all(|(number, at)| *number == at);
    report.add(
        Figure::new(
            format!("{execs} execs at full speed, in the trail"),
            recorded as f64,
            "",
            execs,
        )
        .goal("all, none lost", recorded == execs && lost == 0 && whole),
    );
    report.add(Figure::ratio(
        format!("time for {turn} execs on {threads} CPUs"),
        &pairs,
        1e-9,
        "s",
    ));
    for (when, kib) in [("idle", idle), ("afterwards", busy)] {
        let mib = kib.0 / 1024.0;
        report.add(
            Figure::new(
                format!("resident memory of enforcer run, {when}"),
                mib,
                "MiB",
                1,
            )
            .goal("<= 20 MB", kib.0 * 1024.0 <= 20e6),
        );
        report.note(format!(
            "of that {:.1} MiB its own, {:.1} MiB of files, {:.1} MiB shared (1,000 rules)",
            kib.1 / 1024.0,
            kib.2 / 1024.0,
            kib.3 / 1024.0
        ));
    }
    Ok(())
}

/// When a launcher has given back what only its start needed.
pub const SETTLED: Duration = Duration::from_secs(2);

/// Resident memory of a process, KiB: all, anonymous, of files, shared.
///
/// # Errors
///
/// There is no such process.
pub fn resident(pid: u32) -> anyhow::Result<(f64, f64, f64, f64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |key: &str| -> anyhow::Result<f64> {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(key)?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse()
                    .ok()
            })
            .with_context(|| format!("no {key} of process {pid}"))
    };
    Ok((
        value("VmRSS:")?,
        value("RssAnon:")?,
        value("RssFile:")?,
        value("RssShmem:")?,
    ))
}

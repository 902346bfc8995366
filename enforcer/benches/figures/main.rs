//! The figures: what governing costs, measured in pairs.
//!
//! Two workers do the same work turn by turn, one bare and one under `enforcer run`; what is printed are medians
//! and the ratio of each pair of turns, with the range that the middle of 95 of 100 such runs would fall into.
//! Nothing here is a promise: another machine gives other numbers, and a busy one gives wide ranges.

mod agent;
mod approvals;
mod connect;
mod decision;
mod exec;
mod explain;
mod first;
mod many;
mod notify;
mod peers;
mod policies;
mod programs;
mod race;
mod reload;
mod report;
mod sample;
mod start;
mod storm;
mod trace;
mod worker;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, bail};
use clap::Parser;

use agent::Bench;
use report::Report;

/// Measures what governing costs: paired runs, printed as ratios. Needs root.
#[derive(Parser)]
#[command(name = "figures")]
struct Arguments {
    /// Fewer rounds: under a minute, and wider ranges
    #[arg(long)]
    quick: bool,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only the sections whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// cargo adds this
    #[arg(long, hide = true)]
    bench: bool,
    /// The part of a worker: internal
    #[arg(long, hide = true)]
    worker: Option<worker::Role>,
}

type Section = fn(&Bench, &mut Report) -> anyhow::Result<()>;

/// The sections in their order: what needs a quiet machine most comes first.
const SECTIONS: [(&str, Section); 17] = [
    ("exec", exec::measure),
    ("first", first::measure),
    ("connect", connect::measure),
    ("notified-connect", connect::measure_notified),
    ("decision", decision::measure),
    ("supervisor", notify::measure),
    ("answer", approvals::measure_answer),
    ("peers", peers::measure),
    ("start", start::measure),
    ("agents", many::measure),
    ("reload", reload::measure),
    ("explain", explain::measure),
    ("storm", storm::measure),
    ("held", approvals::measure_held),
    ("swaps", approvals::measure_swaps),
    ("outside", exec::measure_outside),
    ("thousand", many::measure_thousand),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.worker {
        Some(role) => worker::serve(role),
        None => measure(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the figures need root, for kernel programs are loaded; run `sudo cargo xtask bench`"
        );
    }
    let bench = Bench::new(arguments.quick)?;
    let mut report = Report::new(arguments.quick);
    report.heading();
    for (name, section) in SECTIONS {
        if arguments
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let started = Instant::now();
        section(&bench, &mut report).with_context(|| format!("while measuring `{name}`"))?;
        println!("    ({name}: {:.1} s)", started.elapsed().as_secs_f64());
    }
    report.summary();
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

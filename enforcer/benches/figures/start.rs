//! What it takes to start, where that goes, and what the runner holds in memory.

use std::{path::Path, process::Command, time::Instant};

use anyhow::bail;
use enforcer_common::load::LoadSettings;
use enforcer_decide::Engine;
use enforcer_decide::examples;
use enforcer_kernel::{
    object::{self, CORE, LSM},
    offsets,
};

use crate::{
    agent::{Bench, run},
    many::ONE_RULE,
    policies,
    report::{Figure, Report},
    sample::{interleave, median, quantile},
    storm::{SETTLED, resident},
};

/// `enforcer run -- true` as a whole, its phases, and the memory of a launcher that has nothing to do.
///
/// # Errors
///
/// `enforcer` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for (name, policy) in [
        ("no rules", policies::OPEN),
        ("coding-agent.json", policies::CODING_AGENT),
    ] {
        let policy = bench.policy("start", policy)?;
        whole(bench, report, name, &policy)?;
    }
    compiling(bench, report)?;
    idle(bench, report)?;
    phases(bench, report)
}

/// Whole starts under a policy, and `true` alone for comparison.
fn whole(bench: &Bench, report: &mut Report, name: &str, policy: &Path) -> anyhow::Result<()> {
    let trail = bench.trail("start");
    // Whoever comes first loads.
    timed(run(policy, &trail).arg("true"))?;
    let pairs = interleave(
        bench.rounds(25, 8),
        || timed(&mut Command::new("/bin/true")),
        || timed(run(policy, &trail).arg("true")),
    )?;
    let middle = median(&pairs.other) * 1e-6;
    report.add(
        Figure::new(
            format!("enforcer run -q -- true, {name}"),
            middle,
            "ms",
            pairs.other.len(),
        )
        .goal("<= 200 ms", middle <= 200.0),
    );
    report.note(format!(
        "least: {:.1}, 10 %: {:.1}, 90 %: {:.1} ms; true alone: {:.1} ms",
        quantile(&pairs.other, 0.0) * 1e-6,
        quantile(&pairs.other, 0.1) * 1e-6,
        quantile(&pairs.other, 0.9) * 1e-6,
        median(&pairs.bare) * 1e-6
    ));
    Ok(())
}

/// Runs a command to its end; how long that takes, ns.
///
/// # Errors
///
/// It cannot be started, or does not end well.
pub fn timed(command: &mut Command) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now();
    let status = command.status()?;
    let time = start.elapsed().as_secs_f64() * 1e9;
    if !status.success() {
        bail!("{}: {status}", command.get_program().display());
    }
    Ok(vec![time])
}

/// What a start does with its policy before anything is loaded.
fn compiling(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let parsed = enforcer_policy::parse(policies::CODING_AGENT)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..bench.rounds(9, 3) {
        let start = Instant::now();
        let engine = Engine::new(parsed.policy.clone(), 1)?;
        times[0].push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let faults = examples::prove(&parsed, Some(&engine));
        times[1].push(start.elapsed().as_secs_f64() * 1e3);
        if !faults.is_empty() {
            bail!("{faults:?}");
        }
    }
    for (name, times) in ["compiled", "examples proven"].iter().zip(&times) {
        report.add(Figure::new(
            format!("  coding-agent.json: {name}"),
            median(times),
            "ms",
            times.len(),
        ));
    }
    Ok(())
}

/// What launchers hold that have nothing to do.
fn idle(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for (name, policy) in [
        ("one rule", ONE_RULE),
        ("coding-agent.json", policies::CODING_AGENT),
    ] {
        let agent = bench.governed("idle", policy)?;
        std::thread::sleep(SETTLED);
        let memory = resident(agent.pid())?;
        report.add(
            Figure::new(
                format!("resident memory, idle, {name}"),
                memory.0 / 1024.0,
                "MiB",
                1,
            )
            .goal("<= 15 MB", memory.0 * 1024.0 <= 15e6),
        );
        report.note(format!(
            "of that {:.1} MiB its own, {:.1} MiB of files",
            memory.1 / 1024.0,
            memory.2 / 1024.0
        ));
        agent.stop()?;
    }
    Ok(())
}

/// The parts of loading, each on its own, one after the other, and what the verifier walked.
fn phases(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let rounds = bench.rounds(7, 3);
    let mut names: Vec<String> = [
        "offsets from the kernel's types",
        "the kernel's types",
        "object and maps (and the types once more)",
    ]
    .map(str::to_owned)
    .into();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); 3];
    let mut verified: Vec<(String, u32)> = Vec::new();
    for round in 0..rounds {
        let start = Instant::now();
        let offsets = offsets::running_kernel()?;
        times[0].push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let types = object::kernel_types()?;
        times[1].push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let mut ebpf = object::load(&offsets, &LoadSettings { agent_level: 2 })?;
        times[2].push(start.elapsed().as_secs_f64() * 1e3);
        for (at, spec) in CORE.iter().chain(&LSM).enumerate() {
            let start = Instant::now();
            let result = object::load_program(&mut ebpf, *spec, &types);
            let time = start.elapsed().as_secs_f64() * 1e3;
            if round == 0 {
                names.push(format!("verifier: {}", spec.name));
                times.push(Vec::new());
                if let Ok(count) = result {
                    verified.push((spec.name.to_owned(), count));
                }
            }
            times[3 + at].push(time);
        }
    }
    for (name, times) in names.iter().zip(&times) {
        let middle = median(times);
        // What takes less than half a millisecond is not where the time goes.
        if middle >= 0.5 {
            report.add(Figure::new(
                format!("  loading: {name}"),
                middle,
                "ms",
                times.len(),
            ));
        }
    }
    let all: u32 = verified.iter().map(|(_, count)| count).sum();
    report.add(
        Figure::new(
            "  verified instructions: all programs",
            f64::from(all),
            "",
            1,
        )
        .goal("<= 200,000", all <= 200_000),
    );
    for (name, count) in verified {
        report.add(
            Figure::new(
                format!("  verified instructions: {name}"),
                f64::from(count),
                "",
                1,
            )
            .goal("<= 40,000", count <= 40_000),
        );
    }
    Ok(())
}

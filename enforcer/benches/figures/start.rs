//! What it takes to start, where that goes, and what the runner holds in memory.

use std::{process::Command, time::Instant};

use anyhow::bail;
use enforcer::kernel::{
    object::{self, CORE, LSM, Sizes},
    offsets,
};
use enforcer_common::load::Settings;

use crate::{
    agent::{Bench, run},
    policies,
    report::{Figure, Report},
    sample::{interleave, median, quantile},
};

/// `enforcer run -- true` as a whole, and its phases.
///
/// # Errors
///
/// `enforcer` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let policy = bench.policy("start", policies::OPEN)?;
    let trail = bench.trail("start");
    let timed = |command: &mut Command| -> anyhow::Result<Vec<f64>> {
        let start = Instant::now();
        let status = command.status()?;
        let time = start.elapsed().as_secs_f64() * 1e9;
        if !status.success() {
            bail!("{}: {status}", command.get_program().display());
        }
        Ok(vec![time])
    };
    let pairs = interleave(
        bench.rounds(25, 8),
        || timed(&mut Command::new("/bin/true")),
        || timed(run(&policy, &trail).arg("true")),
    )?;
    let middle = median(&pairs.other) * 1e-6;
    report.add(
        Figure::new("enforcer run -- true", middle, "ms", pairs.other.len())
            .goal("<= 200 ms", middle <= 200.0),
    );
    report.note(format!(
        "10 %: {:.0}, 90 %: {:.0} ms; true alone: {:.1} ms",
        quantile(&pairs.other, 0.1) * 1e-6,
        quantile(&pairs.other, 0.9) * 1e-6,
        median(&pairs.bare) * 1e-6
    ));
    phases(bench, report)
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
        let mut ebpf = object::load(
            &offsets,
            &Settings {
                agent_level: 2,
                ..Settings::ZERO
            },
            Sizes {
                slots: 2,
                segments: 1,
                heads: 8,
                connects: 8,
                ring_bytes: enforcer::kernel::instance::RING_BYTES,
            },
        )?;
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
    for (name, count) in verified {
        report.add(
            Figure::new(
                format!("  verified instructions: {name}"),
                f64::from(count),
                "",
                1,
            )
            .goal("<= 200,000", count <= 200_000),
        );
    }
    Ok(())
}

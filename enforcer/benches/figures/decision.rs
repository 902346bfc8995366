//! The decision itself: in the kernel, as the trail and the kernel's statistics say, and in user space.

use std::{hint::black_box, time::Instant};

use enforcer_decide::Engine;
use enforcer_policy::action::ExecAction;

use crate::{
    agent::{Agent, Bench},
    policies,
    programs::{Clock, Statistics, Usage},
    report::{Figure, Report},
    sample::{median, quantile},
};

/// Execs of one turn.
const TURN: usize = 10;

struct Case {
    name: &'static str,
    agent: Agent,
    statistics: Statistics,
    used: Usage,
}

/// One command line under policies of three sizes.
///
/// # Errors
///
/// A policy does not load, or a worker fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let policies = [
        ("10 mixed rules", policies::mixed(10)),
        ("1,000 mixed rules", policies::mixed(1000)),
        ("10,000 literal-headed rules", policies::literal(10_000)),
    ];
    in_kernel(bench, report, &policies)?;
    for (name, policy) in &policies[1..] {
        in_user_space(bench, report, name, policy)?;
    }
    Ok(())
}

fn in_kernel(
    bench: &Bench,
    report: &mut Report,
    policies: &[(&'static str, String)],
) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for (at, (name, policy)) in policies.iter().enumerate() {
        let agent = bench.governed(&format!("decision-{at}"), policy)?;
        let statistics = Statistics::of("exec_committed")?;
        cases.push(Case {
            name,
            agent,
            statistics,
            used: Usage {
                time: 0.0,
                runs: 0.0,
            },
        });
    }
    let request = format!("long {TURN}");
    let rounds = bench.rounds(150, 30);
    for _ in 0..rounds {
        for case in &mut cases {
            case.agent.worker.ask(&request)?;
        }
    }
    // The statistics read a clock before and after each run: not while the trail's latencies are taken.
    {
        let _clock = Clock::start()?;
        for _ in 0..rounds / 3 {
            for case in &mut cases {
                let before = case.statistics.read()?;
                case.agent.worker.ask(&request)?;
                let used = case.statistics.read()? - before;
                case.used.time += used.time;
                case.used.runs += used.runs;
            }
        }
    }
    let mut medians = Vec::new();
    for case in cases {
        let entries = case.agent.stop()?;
        let latencies: Vec<f64> = entries
            .iter()
            .filter(|entry| entry.parameter("command").len() == policies::LONG_BYTES)
            .filter_map(|entry| entry.parameter("latency_ns").parse().ok())
            .take(rounds * TURN)
            .collect();
        let middle = median(&latencies);
        let goal = match medians.as_slice() {
            [_, before] => ("no worse than 1,000", middle <= before * 1.05),
            _ => ("<= 2 us", middle <= 2000.0),
        };
        medians.push(middle);
        report.add(
            Figure::new(
                format!("decision in the kernel, {}", case.name),
                middle * 1e-3,
                "us",
                latencies.len(),
            )
            .goal(goal.0, goal.1),
        );
        report.note(format!(
            "10 %: {:.2}, 90 %: {:.2}, 99 %: {:.2} us; the whole program by the kernel's statistics: {:.2} us over {} runs",
            quantile(&latencies, 0.1) * 1e-3,
            quantile(&latencies, 0.9) * 1e-3,
            quantile(&latencies, 0.99) * 1e-3,
            case.used.mean() * 1e-3,
            case.used.runs
        ));
    }
    Ok(())
}

fn in_user_space(
    bench: &Bench,
    report: &mut Report,
    name: &str,
    policy: &str,
) -> anyhow::Result<()> {
    let parsed = enforcer_policy::parse(policy)?;
    let started = Instant::now();
    let engine = Engine::new(parsed.policy, 1)?;
    let compiled = started.elapsed();
    let mut argv = vec![b"true".to_vec()];
    argv.extend(policies::long_arguments().map(|word| word.as_bytes().to_vec()));
    let action = ExecAction {
        path: b"/usr/bin/true".to_vec(),
        argv,
        resolved: Some(b"true".to_vec()),
        ..ExecAction::default()
    };
    for _ in 0..1000 {
        black_box(engine.exec(black_box(&action)));
    }
    #[allow(clippy::cast_precision_loss, reason = "times of less than a day")]
    let times: Vec<f64> = (0..bench.rounds(50_000, 10_000))
        .map(|_| {
            let start = Instant::now();
            black_box(engine.exec(black_box(&action)));
            start.elapsed().as_nanos() as f64
        })
        .collect();
    let middle = median(&times);
    report.add(Figure::new(
        format!("decision in user space, {name}"),
        middle * 1e-3,
        "us",
        times.len(),
    ));
    report.note(format!(
        "99 %: {:.2} us; compiling the policy took {:.0} ms; tables: {} segments, {} heads",
        quantile(&times, 0.99) * 1e-3,
        compiled.as_secs_f64() * 1e3,
        engine.tables().segments.len(),
        engine.tables().heads.len()
    ));
    Ok(())
}

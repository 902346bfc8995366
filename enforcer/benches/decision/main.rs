//! One decision in user space, under 1,000 rules: its distribution by criterion, and its percentiles.
//!
//! criterion measures many decisions at once and so hides the slow ones; the percentiles are of decisions that were
//! timed one by one, the reading of the clock included.

#[path = "../figures/policies.rs"]
#[allow(
    dead_code,
    reason = "the policies of the figures; not all are judged here"
)]
mod policies;

use std::{hint::black_box, time::Instant};

use criterion::Criterion;
use enforcer_decide::Engine;
use enforcer_policy::ExecAction;

/// Decisions that are timed one by one.
const SAMPLES: usize = 200_000;
/// 99 of 100 decisions may take so long, ns.
const GOAL_NS: u64 = 5_000;

/// A command line as a child of an agent runs it.
fn ran(line: &str) -> ExecAction {
    let mut words: Vec<Vec<u8>> = line
        .split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect();
    let name = words[0].clone();
    words[0] = [b"/usr/bin/", name.as_slice()].concat();
    ExecAction {
        path: words[0].clone(),
        argv: words,
        resolved: Some(name),
        ..ExecAction::default()
    }
}

fn engine(policy: &str) -> Result<Engine, String> {
    let parsed = enforcer_policy::parse(policy).map_err(|error| error.to_string())?;
    Engine::new(parsed.policy, 1).map_err(|error| error.to_string())
}

fn measure(criterion: &mut Criterion) -> Result<(), String> {
    let long = format!("true {}", policies::long_arguments().join(" "));
    let policies = [
        ("1,000 mixed rules", engine(&policies::mixed(1000))?),
        ("coding-agent.json", engine(policies::CODING_AGENT)?),
    ];
    let lines = [
        ("short", "git status --short"),
        ("denied", "tool10 delete --force x"),
        ("100 bytes", long.as_str()),
    ];
    for (policy, engine) in &policies {
        for (name, line) in lines {
            let action = ran(line);
            criterion.bench_function(&format!("decision/{policy}/{name}"), |bench| {
                bench.iter(|| engine.exec(black_box(&action)));
            });
            percentiles(policy, name, engine, &action);
        }
    }
    Ok(())
}

/// Times decisions one by one and prints where most of them lie.
fn percentiles(policy: &str, name: &str, engine: &Engine, action: &ExecAction) {
    for _ in 0..1_000 {
        black_box(engine.exec(black_box(action)));
    }
    let mut times: Vec<u64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            black_box(engine.exec(black_box(action)));
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
        })
        .collect();
    times.sort_unstable();
    let at = |of_1000: usize| times[(times.len() - 1) * of_1000 / 1000];
    let verdict = if at(990) <= GOAL_NS { "met" } else { "MISSED" };
    println!(
        "decision/{policy}/{name}: p50 {} ns, p90 {} ns, p99 {} ns, p99.9 {} ns over {SAMPLES}; goal p99 <= {GOAL_NS} ns: \
         {verdict}\n",
        at(500),
        at(900),
        at(990),
        at(999)
    );
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    if let Err(error) = measure(&mut criterion) {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
    criterion.final_summary();
}

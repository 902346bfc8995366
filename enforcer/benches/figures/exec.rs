//! Exec and wait: under enforcer, and beside it.

use crate::{
    agent::Bench,
    policies,
    programs::{Clock, Statistics},
    report::{Figure, Report},
    sample::{Pairs, interleave},
    worker::Role,
};

/// Execs of one turn.
const TURN: usize = 10;

/// A governed worker against a bare one.
///
/// # Errors
///
/// A worker or `enforcer` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut bare = bench.bare(Role::Plain)?;
    let mut agent = bench.governed("exec", &policies::mixed(100))?;
    let request = format!("exec {TURN}");
    bare.ask(&request)?;
    agent.worker.ask(&request)?;
    let pairs = interleave(
        bench.rounds(400, 100),
        || bare.ask(&request),
        || agent.worker.ask(&request),
    )?;
    let ratio = pairs.ratio();
    report.add(
        Figure::ratio("exec + wait of /bin/true, 100 rules", &pairs, 1e-3, "us")
            .goal("<= 1.01x", ratio.value <= 1.01),
    );
    let difference = pairs.difference();
    report.note(format!(
        "that is {:+.1} us an exec [{:+.1}, {:+.1}] over {} pairs of turns of {TURN}: judging, the record, and the filter of system calls",
        difference.value / 1e3,
        difference.low / 1e3,
        difference.high / 1e3,
        pairs.turns()
    ));
    agent.stop().map(drop)
}

/// A process outside every agent: with an agent running, against none.
///
/// # Errors
///
/// A worker or `enforcer` fails.
pub fn measure_outside(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const OUTSIDE_TURN: usize = 40;
    let mut worker = bench.bare(Role::Plain)?;
    let request = format!("exec {OUTSIDE_TURN}");
    worker.ask(&request)?;
    let mut pairs = Pairs::default();
    for round in 0..bench.rounds(80, 16) {
        // The agent is started and stopped in every round; only the order of the two turns changes.
        let mut with = Vec::new();
        let mut without = Vec::new();
        for step in 0..2 {
            if (round + step) % 2 == 0 {
                without = worker.ask(&request)?;
            } else {
                let agent = bench.governed("outside", policies::OPEN)?;
                with = worker.ask(&request)?;
                agent.stop()?;
            }
        }
        pairs.add(&without, &with);
    }
    let ratio = pairs.ratio();
    report.add(
        Figure::ratio(
            "exec + wait outside, an agent is running",
            &pairs,
            1e-3,
            "us",
        )
        .goal("<= 1.002x", ratio.value <= 1.002),
    );
    if ratio.high - ratio.low > 0.004 {
        report.note(format!(
            "the range is {:.1} % wide, so 0.2 % cannot be told apart here; the programs' own time below can",
            (ratio.high - ratio.low) * 100.0
        ));
    }

    // The programs' own run time has no such noise.
    let agent = bench.governed("outside", policies::OPEN)?;
    let pins = agent.pins()?;
    let _clock = Clock::start()?;
    let mut total = 0.0;
    let mut parts = Vec::new();
    for name in ["task_forked", "exec_committed"] {
        let statistics = Statistics::of(&pins, name)?;
        let before = statistics.read()?;
        worker.ask("exec 500")?;
        let used = statistics.read()? - before;
        total += used.mean();
        parts.push(format!("{name} {:.0} ns", used.mean()));
    }
    let bare = crate::sample::median(&pairs.bare);
    report.add(
        Figure::new(
            "the programs' run time for an exec outside",
            total,
            "ns",
            500,
        )
        .goal("<= 0.2 % of exec + wait", total <= bare * 0.002),
    );
    report.note(format!(
        "{}; {:.3} % of a bare exec + wait (the tracepoint's own call is not in it)",
        parts.join(", "),
        total / bare * 100.0
    ));
    agent.stop().map(drop)
}

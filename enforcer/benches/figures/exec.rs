//! Exec and wait: under enforcer, and beside it.

use crate::{
    agent::Bench,
    policies,
    programs::{Clock, Statistics, Unattached},
    report::{Figure, Report},
    sample::{Pairs, interleave},
    worker::{Role, Worker},
};

/// Execs of one turn.
const TURN: usize = 10;

/// A worker that the kernel alone governs against a bare one; what the supervisor adds is measured in `first`.
///
/// # Errors
///
/// A worker or `enforcer` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut bare = bench.bare(Role::Plain)?;
    let mut agent = bench.governed_with("exec", &policies::mixed(100), &["--on-deny", "kill"])?;
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
        Figure::ratio(
            "exec + wait, the kernel alone, 100 rules",
            &pairs,
            1e-3,
            "us",
        )
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

/// A process outside every agent: with the programs of an instance in force, against without.
///
/// # Errors
///
/// A worker fails, or the kernel refuses a program.
pub fn measure_outside(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut worker = bench.bare(Role::Plain)?;
    let request = format!("exec {TURN}");
    worker.ask(&request)?;
    let mut instance = Unattached::load()?;
    let mut pairs = Pairs::default();
    for round in 0..bench.rounds(1500, 250) {
        let mut with = Vec::new();
        let mut without = Vec::new();
        for step in 0..2 {
            if (round + step) % 2 == 0 {
                without = worker.ask(&request)?;
            } else {
                let _links = instance.attach()?;
                with = worker.ask(&request)?;
            }
        }
        pairs.add(&without, &with);
    }
    drop(instance);
    let ratio = pairs.ratio();
    report.add(
        Figure::ratio(
            "exec + wait outside, an instance in force",
            &pairs,
            1e-3,
            "us",
        )
        .goal("<= 1.002x", ratio.value <= 1.002),
    );
    let verdict = if ratio.high <= 1.002 {
        "the whole range is below 0.2 %"
    } else if ratio.low > 1.002 {
        "the whole range is above 0.2 %"
    } else {
        "0.2 % lies inside the range: not proven either way; the programs' own time below is surer"
    };
    report.note(format!(
        "{} pairs of turns of {TURN}: {verdict}",
        pairs.turns()
    ));
    own_time(
        bench,
        report,
        &mut worker,
        crate::sample::median(&pairs.bare),
    )
}

/// The programs' own run time for an exec that is none of theirs: it has no such noise.
fn own_time(
    bench: &Bench,
    report: &mut Report,
    worker: &mut Worker,
    bare: f64,
) -> anyhow::Result<()> {
    let agent = bench.governed("outside", policies::OPEN)?;
    let mut total = 0.0;
    let mut parts = Vec::new();
    {
        let _clock = Clock::start()?;
        for name in ["task_forked", "exec_committed"] {
            let statistics = Statistics::of(name)?;
            let before = statistics.read()?;
            worker.ask("exec 500")?;
            let used = statistics.read()? - before;
            total += used.mean();
            parts.push(format!("{name} {:.0} ns", used.mean()));
        }
    }
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
        "{}; {:.3} % of a bare exec + wait (with the kernel's own clock readings, without the tracepoint's call)",
        parts.join(", "),
        total / bare * 100.0
    ));
    agent.stop().map(drop)
}

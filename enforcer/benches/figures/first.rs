//! The first judgement, by the supervisor: whole sessions under `enforcer run`, with and without it.

use crate::{
    agent::Bench,
    policies,
    report::{Figure, Report},
    sample::interleave,
    worker::Role,
};

/// Exec and wait in three sessions: bare, judged by the kernel alone, and judged by the supervisor first.
///
/// # Errors
///
/// A worker or `enforcer` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let policy = policies::mixed(100);
    let mut bare = bench.bare(Role::Plain)?;
    let mut alone = bench.governed_with("alone", &policy, &["--on-deny", "kill"])?;
    let mut first = bench.governed("first", &policy)?;
    let request = "exec 10";
    for worker in [&mut bare, &mut alone.worker, &mut first.worker] {
        worker.ask(request)?;
    }
    let rounds = bench.rounds(300, 60);
    let whole = interleave(rounds, || bare.ask(request), || first.worker.ask(request))?;
    let added = whole.difference().value;
    report.add(
        Figure::difference("exec + wait, supervised, to bare", &whole, 1e-3, "us")
            .goal("<= 40 us over bare", added <= 40e3),
    );
    let share = interleave(
        rounds,
        || alone.worker.ask(request),
        || first.worker.ask(request),
    )?;
    report.add(Figure::difference(
        "exec + wait, supervised, to the kernel alone",
        &share,
        1e-3,
        "us",
    ));
    let ratio = whole.ratio();
    report.note(format!(
        "to bare as a ratio: {:.4}x [{:.4}, {:.4}]. Where the kernel loads LSM programs it judges first itself, without a supervisor: not measurable on a kernel that loads none, and under emulation the numbers mean nothing",
        ratio.value, ratio.low, ratio.high
    ));
    alone.stop()?;
    first.stop().map(drop)
}

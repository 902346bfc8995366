//! How others see each exec, on the same work.

use crate::{
    agent::Bench,
    report::{Figure, Report},
    sample::interleave,
    worker::Role,
};

/// A seccomp notification for each exec, and ptrace, each against a bare worker.
///
/// # Errors
///
/// A worker fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut bare = bench.bare(Role::Plain)?;
    for (name, role, turns) in [
        (
            "seccomp notification, path and argv read",
            Role::Notified,
            150,
        ),
        ("ptrace, stops at forks and execs", Role::TracedExecs, 60),
        ("ptrace, stops at every system call", Role::TracedCalls, 40),
    ] {
        let mut peer = bench.bare(role)?;
        let request = "exec 10";
        peer.ask(request)?;
        let pairs = interleave(
            bench.rounds(turns, turns / 5),
            || bare.ask(request),
            || peer.ask(request),
        )?;
        report.add(Figure::ratio(format!("peers: {name}"), &pairs, 1e-3, "us"));
        peer.stop()?;
    }
    Ok(())
}

//! A supervisor by seccomp user notification: as sandboxes without kernel programs have it, and ours whole.
//!
//! The filter sits on one thread (and on what it starts); the process's first thread answers.

use std::{
    os::fd::{FromRawFd, OwnedFd},
    sync::mpsc,
};

use anyhow::{Context, bail};
use enforcer_decide::Engine;
use enforcer_policy::Decision;
use enforcer_seccomp::{
    Eyes, Listener, Notification, Notified, NotifiedCall, SyscallGroups,
    resolve::{Found, Resolver, Roots},
    target,
};

use crate::{
    agent::Bench,
    policies,
    report::{Figure, Report},
    sample::interleave,
    worker::Role,
};

/// Puts the filter on the calling thread and gives its listener.
fn install() -> anyhow::Result<Listener> {
    let calls = Notified {
        exec: true,
        ..Notified::default()
    };
    let filter = SyscallGroups::shipped()?.filter_with_listener(&[], calls)?;
    let program = libc::sock_fprog {
        len: filter.instructions().len() as u16,
        filter: filter.instructions().as_ptr().cast_mut(),
    };
    // SAFETY: the program and its filter outlive the call; the kernel copies them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("seccomp");
    }
    // SAFETY: a descriptor of ours that nobody else closes.
    Ok(Listener::new(unsafe {
        OwnedFd::from_raw_fd(i32::try_from(fd)?)
    })?)
}

/// What is done with a stopped exec before it goes on.
trait Supervisor {
    fn look(&mut self, stopped: &Notification) -> anyhow::Result<Option<Found>>;
}

/// Reads path and argv, and judges nothing.
struct Reading;

impl Supervisor for Reading {
    fn look(&mut self, stopped: &Notification) -> anyhow::Result<Option<Found>> {
        if let NotifiedCall::Exec(call) = stopped.call {
            std::hint::black_box(target::exec_text(stopped.tid, &call).ok());
        }
        Ok(None)
    }
}

/// Reads, resolves and judges.
struct Judging {
    resolver: Resolver,
    engine: Engine,
}

impl Supervisor for Judging {
    fn look(&mut self, stopped: &Notification) -> anyhow::Result<Option<Found>> {
        let NotifiedCall::Exec(call) = stopped.call else {
            bail!("{stopped:?}")
        };
        let text = target::exec_text(stopped.tid, &call)?;
        let found = self.resolver.exec(stopped.tid, &call, text)?;
        let outcome = self.engine.exec(&found.action);
        if outcome.decision != Decision::Allow {
            bail!("{:?} is not allowed", found.action);
        }
        Ok(Some(found))
    }
}

/// Runs `work` on a thread whose execs this one reads and lets go on.
///
/// # Errors
///
/// The filter is refused, or the work fails.
pub fn read(work: fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    supervise(Reading, work)
}

/// Runs `work` on a thread whose execs this one judges by a policy of 100 rules.
///
/// # Errors
///
/// The filter is refused, or the work fails.
pub fn judge(work: fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let parsed = enforcer_policy::parse(&policies::mixed(100))?;
    let judging = Judging {
        resolver: Resolver::new(Roots::Fixed, Eyes::own()?)?,
        engine: Engine::new(parsed.policy, 7)?,
    };
    supervise(judging, work)
}

fn supervise(mut by: impl Supervisor, work: fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (give, take) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let listener = install()?;
        give.send(listener).ok().context("the supervisor is gone")?;
        let result = work();
        // The supervisor waits in the kernel; the process ends with the work.
        std::process::exit(i32::from(result.is_err()));
        #[allow(unreachable_code, reason = "gives the closure its type")]
        Ok::<(), anyhow::Error>(())
    });
    let Ok(listener) = take.recv() else {
        return match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("the worker panicked"),
        };
    };
    listener.set_sync_wake_up();
    while let Some(stopped) = listener.recv()? {
        // Its file is closed when the caller runs again.
        let found = by.look(&stopped)?;
        listener.allow(stopped.id)?;
        drop(found);
    }
    Ok(())
}

/// The supervisor's whole judgement against a bare worker, and the notification alone beside it.
///
/// # Errors
///
/// A worker fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut bare = bench.bare(Role::Plain)?;
    for (name, role, goal) in [
        ("notified, path and argv read", Role::Notified, None),
        (
            "notified, resolved and judged, 100 rules",
            Role::Judged,
            Some(40.0),
        ),
    ] {
        let mut supervised = bench.bare(role)?;
        let request = "exec 10";
        bare.ask(request)?;
        supervised.ask(request)?;
        let pairs = interleave(
            bench.rounds(300, 60),
            || bare.ask(request),
            || supervised.ask(request),
        )?;
        let added = pairs.difference();
        let figure = Figure::difference(format!("exec + wait {name}"), &pairs, 1e-3, "us");
        report.add(match goal {
            Some(limit) => figure.goal(
                format!("<= {limit} us over bare"),
                added.value <= limit * 1e3,
            ),
            None => figure,
        });
        supervised.stop()?;
    }
    Ok(())
}

//! What is asked: how long a yes takes to reach the kernel, what a thousand waiting processes cost, and whether a
//! swap behind an approval wins.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use enforcer_control::{
    client::{self, DeskWatch},
    protocol::{DeskEvent, Operation, Reply},
};
use serde_json::json;

use crate::{
    agent::Bench,
    report::{Figure, Report},
    sample::{median, quantile},
    storm::resident,
    worker::{Role, monotonic_ns},
};

/// Processes that wait at once.
const HELD: usize = 1000;

/// Asks about a program, with limits that nothing here reaches.
fn asking(program: &str) -> String {
    json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "asked", "decision": "ask", "argv": {"program": program}},
        ]},
        "connect": {"default": "allow"},
        // What is refused here over and over must not open it.
        "breaker": {"denials": 1_000_000},
        "approvals": {"timeout_s": 600, "rate": "1000000/1s", "max_pending": 2 * HELD},
    })
    .to_string()
}

fn answer(socket: &Path, id: &str, approve: bool, scope: Option<&str>) -> anyhow::Result<Reply> {
    Ok(client::request(
        socket,
        &Operation::Answer {
            id: id.to_owned(),
            approve,
            reason: String::new(),
            scope: scope.map(str::to_owned),
            for_s: None,
            by: None,
        },
    )?)
}

/// Answers everything that is asked, on a thread of its own, until the desk ends. `decide` gives yes or no and the
/// scope for a command; the times before the answers were sent come through the channel.
fn answering(
    socket: PathBuf,
    decide: fn(&str) -> (bool, Option<&'static str>),
) -> anyhow::Result<mpsc::Receiver<u64>> {
    let mut watch = DeskWatch::start(&socket)?;
    let (give, take) = mpsc::channel();
    thread::spawn(move || -> anyhow::Result<()> {
        while let Some(happening) = watch.wait()? {
            if let DeskEvent::New { request } = happening {
                let (approve, scope) = decide(&request.command);
                let before = monotonic_ns()?;
                answer(&socket, &request.id, approve, scope)?;
                // Nobody may be interested.
                let _ = give.send(before);
            }
        }
        Ok(())
    });
    Ok(take)
}

/// From the answer to the program's start, as its parent sees it: `vfork(2)` returns when the exec is done.
///
/// # Errors
///
/// `enforcer` or the desk fails.
pub fn measure_answer(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut agent = bench.governed("answer", &asking("env"))?;
    let before = answering(agent.socket()?, |_| (true, None))?;
    let mut times = Vec::new();
    for turn in 0..bench.rounds(200, 40) {
        let started = agent.worker.ask(&format!("asked 1 {turn}"))?;
        let before = before.recv_timeout(Duration::from_secs(5))?;
        #[allow(clippy::cast_precision_loss, reason = "times of some days")]
        times.push((started[0] - before as f64) * 1e-6);
    }
    let middle = median(&times);
    report.add(
        Figure::new(
            "from the answer to the approved start",
            middle,
            "ms",
            times.len(),
        )
        .goal("<= 10 ms", middle <= 10.0),
    );
    report.note(format!(
        "10 %: {:.2}, 90 %: {:.2}, 99 %: {:.2} ms, from before the answer is written to the control socket",
        quantile(&times, 0.1),
        quantile(&times, 0.9),
        quantile(&times, 0.99)
    ));
    agent.stop().map(drop)
}

/// What a thousand waiting processes, each with a request of its own, take of the launcher.
///
/// # Errors
///
/// `enforcer` or the desk fails, or not all of them wait.
#[allow(clippy::cast_precision_loss, reason = "counts of some thousands")]
pub fn measure_held(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut agent = bench.governed("held", &asking("env"))?;
    let socket = agent.socket()?;
    let idle = resident(agent.pid())?;
    let started = Instant::now();
    agent.worker.ask(&format!("hold {HELD}"))?;
    let pending = || -> anyhow::Result<usize> {
        let reply = client::request(&socket, &Operation::List { all: false })?;
        Ok(reply.requests.map_or(0, |requests| requests.len()))
    };
    while pending()? < HELD {
        if started.elapsed() > Duration::from_mins(1) {
            bail!("only {} of {HELD} wait after a minute", pending()?);
        }
        thread::sleep(Duration::from_millis(100));
    }
    let all = started.elapsed();
    // What it takes to put them all to the desk is not what waiting takes: that ends, waiting does not.
    let mut before = ticks(agent.pid())?;
    let begun = before;
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_secs(2));
        let now = ticks(agent.pid())?;
        if now == before {
            break;
        }
        before = now;
    }
    let settling = (before - begun, settled.elapsed());
    let held = resident(agent.pid())?;
    let seconds = bench.rounds(10, 3) as u64;
    thread::sleep(Duration::from_secs(seconds));
    let used = ticks(agent.pid())? - before;
    let mib = held.0 / 1024.0;
    report.add(
        Figure::new(
            format!("resident memory, {HELD} held at once"),
            mib,
            "MiB",
            HELD,
        )
        .goal("<= 50 MB", held.0 * 1024.0 <= 50e6),
    );
    report.note(format!(
        "{:.1} MiB before; all of them waited after {:.1} s, and the desk was done with them {:.0} s and {} ticks later",
        idle.0 / 1024.0,
        all.as_secs_f64(),
        settling.1.as_secs_f64(),
        settling.0
    ));
    report.add(
        Figure::new(
            format!("clock ticks in {seconds} s of waiting"),
            used as f64,
            "",
            HELD,
        )
        .goal("0", used == 0),
    );
    agent.stop().map(drop)
}

/// User and system time of a process with all its threads, in clock ticks (`proc_pid_stat(5)`).
fn ticks(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind) = text.rsplit_once(')').context("no name in stat")?;
    let mut fields = behind.split_ascii_whitespace().skip(11);
    let mut next =
        || -> anyhow::Result<u64> { Ok(fields.next().context("too few fields")?.parse()?) };
    Ok(next()? + next()?)
}

/// A thread swaps an argument while an exec that has been approved goes on: the other text must never run.
///
/// # Errors
///
/// `enforcer` or the desk fails, or the race is not one.
#[allow(clippy::cast_precision_loss, reason = "counts of some thousands")]
pub fn measure_swaps(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let tries = bench.rounds(10_000, 500);
    let marks = |name: &str| bench.trail(name).with_extension("marks");
    let mut bare = bench.bare(Role::Plain)?;
    let free = bare.ask(&format!("swap 300 {}", marks("free").display()))?;
    let [good, other, ..] = free.as_slice() else {
        bail!("{free:?}")
    };
    if *good == 0.0 || *other == 0.0 {
        bail!("the race is none: {good} and {other} of 300 free tries");
    }
    let mut agent = bench.governed("swaps", &asking("echo"))?;
    let _answers = answering(agent.socket()?, |command| {
        // The word as it was when it was asked about; what is approved holds until the end.
        if command.ends_with(" good") {
            (true, Some("session"))
        } else {
            (false, None)
        }
    })?;
    let seen = agent
        .worker
        .ask(&format!("swap {tries} {}", marks("swaps").display()))?;
    let entries = agent.stop()?;
    let [good, other, refused, killed] = seen.as_slice() else {
        bail!("{seen:?}")
    };
    if *good == 0.0 {
        bail!("nothing approved ran: {seen:?}");
    }
    report.add(
        Figure::new("swaps behind an approval that won", *other, "", tries)
            .goal("0", *other == 0.0),
    );
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for entry in &entries {
        if entry.parameter("command").starts_with("echo") {
            *states.entry(entry.parameter("verdict")).or_default() += 1;
        }
    }
    report.note(format!(
        "{good} ran as approved, {refused} were refused, {killed} killed; of 300 free tries {} ran the other text; the trail: {states:?}",
        free[1]
    ));
    Ok(())
}

//! When events cannot be recorded, nothing happens that would have to be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path};

use enforcer_tests::{Session, open, probe, root};
use nix::sys::signal::Signal;

fn numbers(path: &Path) -> BTreeMap<String, u64> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let (name, number) = line.split_once(' ').unwrap();
            (name.to_owned(), number.parse().unwrap())
        })
        .collect()
}

#[test]
fn what_cannot_be_recorded_is_denied() {
    if !root() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Without a supervisor: it would stop with the launcher, and every exec wait.
    let session = Session::new(&open()).option("--keep");
    let work = session.work();
    let mark = work.join("mark");
    // A long path makes for large events, which fill the ring soon.
    let deep = format!("{0}/{0}/{0}/{0}/shout", "d".repeat(220));
    let program = session.place(probe!("shout"), &deep);
    let flood = session.place(probe!("flood"), "bin/flood");
    let session = session.variable("MARK", &mark);
    let running = session.start([
        flood.as_os_str(),
        program.as_os_str(),
        work.as_os_str(),
        port.to_string().as_ref(),
    ]);
    running.until("the command starts", |running| {
        !running.trail().lines.is_empty()
    });
    // The reader stops; the kernel goes on alone.
    running.signal(Signal::SIGSTOP);
    fs::write(work.join("go"), "").unwrap();
    let result = work.join("result");
    running.until("the ring is full", |_| result.exists());
    let recorded_before = running.trail().lines.len();
    let ran = numbers(&result);
    let really_ran = fs::read(&mark).unwrap().len() as u64;
    // Back again: there is room at once, and the trail says what is missing.
    running.signal(Signal::SIGCONT);
    running.until("the trail is read on", |running| {
        running.trail().lines.len() > recorded_before + ran["execs"] as usize
    });
    fs::write(work.join("again"), "").unwrap();
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);

    assert!(ran["execs"] > 100, "{ran:?}");
    assert!(ran["denied"] >= 20 && ran["unconnected"] >= 10, "{ran:?}");
    assert_eq!(really_ran, ran["execs"], "what ran while nobody read");
    assert_eq!(numbers(&result)["again"], 1, "room again, and still denied");

    let trail = &ended.trail;
    // The operator's command and the last exec besides.
    let approved = trail.execs().filter(|line| !line.denied()).count() as u64;
    assert_eq!(approved, ran["execs"] + 2);
    let connected = trail.connects().filter(|line| !line.denied()).count() as u64;
    assert_eq!(connected, ran["connects"]);
    let lost: u64 = trail
        .lines
        .iter()
        .filter_map(enforcer_tests::Line::lost)
        .sum();
    assert_eq!(lost, ran["denied"] + ran["unconnected"], "the gap");
    // Every number is either a line or lost.
    let mut seqs: Vec<u64> = trail
        .lines
        .iter()
        .filter(|line| line.lost().is_none())
        .map(|line| line.number("seq"))
        .collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(
        seqs.len() as u64,
        approved + connected,
        "numbers given twice"
    );
    assert_eq!(seqs.last().unwrap() + 1, approved + connected + lost);
}

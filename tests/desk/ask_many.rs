//! Very many that wait: they cost nothing but a little memory.

use std::{fs, thread, time::Duration};

use enforcer_tests::{Running, in_guest, quick, root};
use serde_json::json;

use crate::scene::{asking, marks, session};

/// Memory that the launcher may have, KiB.
const MEMORY: u64 = 50 * 1024;

/// User and system time of the launcher so far, ticks.
fn ticks(running: &Running) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Resident memory of the launcher, KiB.
fn memory(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_thousand_wait_for_one_answer() {
    if !root() {
        return;
    }
    let count = quick(1000, 100);
    let session = session(&asking(
        json!({"max_pending": 2000, "rate": "100000/1m", "timeout_s": 600}),
    ));
    let script = format!("exec $ASKS many $ASKED {count} 2>err");
    let running = session.start(["/bin/sh", "-c", &script]);
    let pending = running.await_pending(count);
    let resident = memory(&running);
    assert!(resident <= MEMORY, "{resident} KiB with {count} waiting");
    // Other tests list what waits, here too: out of their sight for a while.
    let socket = running.socket();
    let aside = socket.with_extension("aside");
    fs::rename(&socket, &aside).unwrap();
    // What the last requests brought with them may still be going on: each was let do its exec, and stopped behind it.
    thread::sleep(Duration::from_secs(2));
    let before = ticks(&running);
    thread::sleep(Duration::from_secs(2));
    let used = ticks(&running) - before;
    fs::rename(&aside, &socket).unwrap();
    // A guest's clock counts in larger pieces, and its kernel's own work as ours.
    assert!(
        used <= u64::from(in_guest()),
        "{used} ticks while {count} wait"
    );
    assert_eq!(marks(&session), 0);

    pending[0].approve(&["--scope", "rule"]);
    let ended = running.wait();
    assert_eq!(ended.text(), format!("0 {count}\n"), "{}", ended.stderr);
    assert_eq!(marks(&session), count);
    let allowed = ended
        .trail
        .execs()
        .filter(|line| line.text("approval_scope") == "rule" && !line.denied())
        .count();
    assert_eq!(allowed, count);
    ended.trail.assert_whole();
}

#[test]
fn many_that_are_killed_leave_nothing() {
    if !root() {
        return;
    }
    let count = quick(300, 50);
    let session = session(&asking(
        json!({"max_pending": 2000, "rate": "100000/1m", "timeout_s": 600}),
    ));
    let script = format!("$ASKS many $ASKED {count} & while [ ! -e go ]; do sleep 0.05; done");
    let running = session.start(["/bin/sh", "-c", &script]);
    running.await_pending(count);
    crate::scene::sign(&session, "go");
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    let lines = ended
        .trail
        .denials()
        .filter(|line| line.rule() == "asks")
        .count();
    assert_eq!(lines, count);
    assert!(
        ended
            .requests()
            .iter()
            .all(|request| request.state() != "pending")
    );
}

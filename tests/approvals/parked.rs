//! An exec that waits behind itself: the program that started it goes on, and the new one runs nothing until it is approved.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

#[allow(dead_code, reason = "test executables share it, each uses a part")]
mod scene;

use std::{fs, thread, time::Duration};

use enforcer_tests::{Ended, Line, Running, Session, root};
use nix::sys::signal::Signal;
use serde_json::json;

use scene::{asking, marks, session, sign};

/// The session, with what starts the asked program as most languages do, and sends it these signals.
fn start(signals: &str) -> (Session, Running) {
    let session = session(&asking(json!({"timeout_s": 600})));
    let script = format!("exec $ASKS spawn $ASKED {signals}");
    let running = session.start(["/bin/sh", "-c", &script]);
    (session, running)
}

fn asked(ended: &Ended) -> Line {
    let lines: Vec<&Line> = (ended.trail.execs())
        .filter(|line| line.text("decision") == "ask")
        .collect();
    let [line] = lines[..] else {
        panic!("not one line: {}", ended.trail.shown());
    };
    line.clone()
}

/// The state of the process that waits, as `/proc` has it, and whether it is another program by now.
fn state(pid: i64) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    format!("{} {}", field("Name:"), field("State:"))
}

#[test]
fn who_started_it_goes_on_and_it_runs_when_it_is_approved() {
    if !root() {
        return;
    }
    let (session, running) = start("");
    let request = running.request();
    // The call has returned though nobody has answered.
    running.await_file(&session.work().join("spawned"));
    let pid = request.0["pid"].as_i64().unwrap();
    running.until("it stands", |_| state(pid).starts_with("asked t"));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(marks(&session), 0, "it ran before it was approved");
    assert_eq!(
        running.trail().execs().count(),
        2,
        "a line of an exec that nobody has decided: {}",
        running.trail().shown()
    );
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(ended.stdout, b"status 0\n", "{}", ended.text());
    assert_eq!(marks(&session), 1);
    let line = asked(&ended);
    assert!(!line.denied(), "{}", line.shown());
    assert_eq!(line.text("approval_state"), "approved");
}

#[test]
fn denied_it_is_killed_before_it_runs_and_told_why() {
    if !root() {
        return;
    }
    let (session, running) = start("");
    let request = running.request();
    running.await_file(&session.work().join("spawned"));
    request.deny(&["--reason", "not today"]);
    let ended = running.wait();
    assert_eq!(ended.stdout, b"status 137\n", "{}", ended.text());
    assert_eq!(marks(&session), 0);
    assert!(ended.stderr.contains("not today"), "{}", ended.stderr);
    let line = asked(&ended);
    assert_eq!(line.text("verdict"), "killed", "{}", line.shown());
    assert_eq!(line.text("approval_state"), "denied");
    assert!(line.reason().contains("not today"), "{}", line.shown());
}

#[test]
fn no_signal_lets_it_run() {
    if !root() {
        return;
    }
    // SIGCONT would continue a plain stop; SIGTERM ends who waits: not by letting it run up to there.
    let (cont, term) = (Signal::SIGCONT as i32, Signal::SIGTERM as i32);
    let (session, running) = start(&format!("{cont} {cont}"));
    let request = running.request();
    running.await_file(&session.work().join("spawned"));
    sign(&session, "go");
    running.await_file(&session.work().join("sent"));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(marks(&session), 0, "a signal continued it");
    request.deny(&[]);
    assert_eq!(running.wait().stdout, b"status 137\n");

    let (session, running) = start(&term.to_string());
    running.request();
    running.await_file(&session.work().join("spawned"));
    sign(&session, "go");
    let ended = running.wait();
    assert_eq!(ended.stdout, b"status 137\n", "{}", ended.text());
    assert_eq!(marks(&session), 0);
    assert_eq!(asked(&ended).text("approval_state"), "cancelled");
}

#[test]
fn a_script_that_changes_while_it_stands_does_not_run() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"timeout_s": 600})));
    let script = "\
        mkdir s; printf '#!/bin/sh\\necho good >>ran\\n' >s/asked; chmod 755 s/asked; exec $ASKS spawn s/asked";
    let running = session.start(["/bin/sh", "-c", script]);
    let request = running.request();
    running.await_file(&session.work().join("spawned"));
    fs::write(
        session.work().join("s/asked"),
        "#!/bin/sh\necho bad >>ran\n",
    )
    .unwrap();
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(ended.stdout, b"status 137\n", "{}", ended.text());
    assert!(!session.work().join("ran").exists());
    let line = asked(&ended);
    assert!(line.reason().contains("changed"), "{}", line.shown());
}

#[test]
fn it_does_not_outlive_its_launcher() {
    if !root() {
        return;
    }
    let (session, running) = start("");
    let request = running.request();
    running.await_file(&session.work().join("spawned"));
    let pid = request.0["pid"].as_i64().unwrap();
    running.until("it stands", |_| state(pid).starts_with("asked t"));
    let cgroup = running.cgroup().unwrap();
    running.signal(Signal::SIGKILL);
    running.wait_kept();
    let gone = || !fs::exists(format!("/proc/{pid}")).unwrap() || state(pid).contains('Z');
    for _ in 0..200 {
        if gone() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(gone(), "{}", state(pid));
    assert_eq!(marks(&session), 0, "it ran without an answer");
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
}

#[test]
fn a_policy_can_have_it_wait_before_the_exec() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"timeout_s": 600, "mode": "hold"})));
    let running = session.start(["/bin/sh", "-c", "exec $ASKS spawn $ASKED"]);
    let request = running.request();
    thread::sleep(Duration::from_millis(500));
    assert!(!session.work().join("spawned").exists());
    request.approve(&[]);
    assert_eq!(running.wait().stdout, b"status 0\n");
    assert_eq!(marks(&session), 1);
}

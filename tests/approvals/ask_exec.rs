//! An exec that waits, and each way in which its wait can end.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use enforcer_tests::{Ended, Line, approvals, root};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::scene::{INSTEAD, REASON, asking, marks, session};

/// The only line of the trail about the asked program.
fn only_line(ended: &Ended) -> Line {
    let lines: Vec<&Line> = ended
        .trail
        .execs()
        .filter(|line| line.text("decision") == "ask")
        .collect();
    let [line] = lines[..] else {
        panic!("not one line: {}", ended.trail.shown());
    };
    line.clone()
}

/// What a program of the tester's prints.
fn printed(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A time of the list in seconds since 1970.
fn seconds(time: &str) -> u64 {
    let seconds = printed("date", &["-u", "+%s", "-d", time]);
    seconds.trim().parse().unwrap_or_else(|_| panic!("{time}"))
}

#[test]
fn it_waits_until_it_is_approved() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"timeout_s": 600})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "mkdir sub; cd sub; $ASKED one 'two words'; echo status $?",
    ]);
    let request = running.request();
    assert_eq!(request.state(), "pending");
    assert_eq!(request.text("kind"), "exec");
    assert_eq!(request.text("risk"), "HIGH");
    assert_eq!(request.text("rule"), "asks");
    assert!(request.text("reason").contains(REASON), "{request:?}");
    assert_eq!(request.text("suggestion"), INSTEAD);
    let program = session.directory().join("bin/asked");
    let program = program.to_str().unwrap();
    assert!(request.text("command").contains("two words"), "{request:?}");
    assert_eq!(request.text("path"), program);
    assert_eq!(request.text("file"), program);
    assert_eq!(request.0["argv"], json!([program, "one", "two words"]));
    assert_eq!(
        request.text("cwd"),
        session.work().join("sub").to_str().unwrap()
    );
    assert_eq!(request.0["uid"], session.uid());
    let digest = printed("sha256sum", &[program]);
    assert_eq!(request.text("sha256"), digest.split(' ').next().unwrap());
    let parents = request.0["parents"].as_array().unwrap();
    assert!(
        parents
            .iter()
            .any(|parent| parent["command"].as_str().unwrap().contains("mkdir sub")),
        "{parents:?}"
    );
    let time = |key: &str| seconds(request.text(key));
    assert_eq!(time("expires_at") - time("asked_at"), 600);

    // It waits as long as nobody answers.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((marks(&session), running.stdout().as_str()), (0, ""));
    assert!(
        running.stderr().contains("enforcer: waiting for approval"),
        "{}",
        running.stderr()
    );
    // It is the exec itself that waits, so the process has not become the program yet.
    let pid = request.0["pid"].as_i64().unwrap();
    assert!(
        !running
            .trail()
            .execs()
            .any(|line| line.number("pid") == pid as u64 && line.command().contains("two words"))
    );

    request.approve(&["--reason", "looked at it"]);
    let ended = running.wait();
    assert_eq!(ended.text(), "status 0\n", "{}", ended.stderr);
    assert_eq!(marks(&session), 1);
    let line = only_line(&ended);
    assert!(!line.denied(), "{line:?}");
    assert_eq!(line.text("verdict"), "allowed");
    assert_eq!(line.text("approval"), request.id());
    assert_eq!(line.text("approval_state"), "approved");
    assert_eq!(line.text("approver"), "root");
    assert_eq!(line.text("approval_reason"), "looked at it");
    assert_eq!(line.text("approval_scope"), "once");
    assert_eq!(line.rule(), "asks");
    ended.trail.assert_whole();
    let request = ended.request();
    assert_eq!(request.state(), "approved");
    assert_eq!(request.text("approver"), "root");
    // It has ended: a second answer finds nothing to answer.
    let again = approvals(&["deny", request.id()]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}

#[test]
fn a_denied_one_fails_and_says_why() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    running.request().deny(&["--reason", "not on a Friday"]);
    let ended = running.wait();
    assert_eq!(ended.text(), "status 126\n", "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    let line = only_line(&ended);
    assert!(line.denied());
    assert_eq!(
        (line.text("verdict"), line.text("stage")),
        ("errno", "seccomp")
    );
    let request = ended.request();
    assert_eq!(request.state(), "denied");
    assert_eq!(line.text("approval"), request.id());
    assert_eq!(line.text("approval_state"), "denied");
    assert_eq!(line.text("approver"), "root");
    assert_eq!(line.text("approval_reason"), "not on a Friday");
    assert!(line.reason().contains("not on a Friday"), "{line:?}");
    for said in [
        "enforcer: waiting for approval",
        "enforcer: blocked: ",
        "not on a Friday",
        INSTEAD,
    ] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
}

#[test]
fn a_quiet_run_says_nothing() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({}))).option("--quiet");
    let running = session.start(["/bin/sh", "-c", "$ASKED one 2>err; echo status $?"]);
    running.request().deny(&[]);
    let ended = running.wait();
    assert_eq!(ended.text(), "status 126\n", "{}", ended.stderr);
    let err = std::fs::read_to_string(session.work().join("err")).unwrap();
    // A start that cannot clean up after another agent says so even here.
    let said: Vec<&str> = (err.lines().chain(ended.stderr.lines()))
        .filter(|line| line.contains("enforcer:") && !line.contains("enforcer: left-over agent"))
        .collect();
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn the_lines_go_to_the_process_own_stderr() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", "$ASKED one 2>err; echo status $?"]);
    running.request().deny(&[]);
    let ended = running.wait();
    let err = std::fs::read_to_string(session.work().join("err")).unwrap();
    for said in ["enforcer: waiting for approval", "enforcer: blocked: "] {
        assert!(err.contains(said), "{said}: {err}");
    }
    // Who started the agent hears that somebody has to answer, wherever the process's words go.
    let heard = ended.stderr.matches("enforcer: waiting for approval");
    assert_eq!(heard.count(), 1, "{}", ended.stderr);
    assert!(
        !ended.stderr.contains("enforcer: blocked: "),
        "{}",
        ended.stderr
    );
}

#[test]
fn nobody_answers() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"timeout_s": 2})));
    let started = Instant::now();
    let ended = session.sh("$ASKED one; echo status $?");
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(ended.text(), "status 126\n", "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    let request = ended.request();
    assert_eq!(request.state(), "expired");
    let line = only_line(&ended);
    assert!(line.denied());
    assert_eq!(line.text("approval_state"), "expired");
    assert!(line.reason().contains("within 2 s"), "{line:?}");
    let late = approvals(&["approve", request.id()]);
    assert_eq!(late.status.code(), Some(1), "{late:?}");
}

#[test]
fn who_waits_is_killed() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    let pid = request.0["pid"].as_i64().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    let ended = running.wait();
    assert_eq!(ended.text(), "status 137\n", "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    assert_eq!(ended.request().state(), "cancelled");
    let line = only_line(&ended);
    assert!(line.denied());
    assert_eq!(line.text("approval_state"), "cancelled");
    let late = approvals(&["approve", request.id()]);
    assert_eq!(late.status.code(), Some(1), "{late:?}");
}

#[test]
fn five_that_ask_the_same_share_one_answer() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "for i in 1 2 3 4 5; do $ASKED same & done; wait; echo end",
    ]);
    running.until("five wait", |running| {
        running
            .pending()
            .iter()
            .any(|request| request.0["waiting"] == 5)
    });
    let request = running.request();
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(ended.text(), "end\n", "{}", ended.stderr);
    assert_eq!(marks(&session), 5);
    let own: Vec<_> = ended
        .trail
        .execs()
        .filter(|line| line.text("approval") == request.id())
        .collect();
    assert_eq!(own.len(), 5, "{}", ended.trail.shown());
    assert!(own.iter().all(|line| !line.denied()));
    assert_eq!(ended.requests().len(), 1);
}

/// With `retry` nothing waits: what was approved meanwhile goes through when it is tried again, once.
#[test]
fn what_is_approved_meanwhile_goes_through_at_the_next_try() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"mode": "retry"})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "$ASKED one; echo status $?; while [ ! -e go ]; do sleep 0.1; done; \
         $ASKED two; echo status $?; $ASKED one; echo status $?; $ASKED one; echo status $?",
    ]);
    let request = running.request();
    running.until("it has tried", |running| {
        running.stdout().contains("status 126")
    });
    request.approve(&["--reason", "fine"]);
    // The answer comes to the launcher by another thread.
    std::thread::sleep(std::time::Duration::from_millis(500));
    crate::scene::sign(&session, "go");
    let ended = running.wait();
    assert_eq!(
        ended
            .text()
            .lines()
            .filter(|line| line.starts_with("status"))
            .collect::<Vec<_>>(),
        ["status 126", "status 126", "status 0", "status 126"],
        "{}",
        ended.stderr
    );
    assert_eq!(marks(&session), 1);
    // Each text is a request of its own, and a used approval is none.
    assert_eq!(ended.requests().len(), 3);
    let line = ended
        .trail
        .execs()
        .find(|line| line.text("approver") == "root")
        .unwrap();
    assert!(
        !line.denied() && line.text("approval") == request.id(),
        "{line:?}"
    );
}

//! `execveat` with `AT_EXECVE_CHECK` (Linux 6.14): who only asks whether it could execute something.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use enforcer_tests::{Level, Session, level, probe, root, skip};
use serde_json::json;

/// `None` where this kernel knows no checks.
fn session() -> Option<Session> {
    let known = Command::new(probe!("ways"))
        .args(["check", "/bin/true"])
        .output()
        .unwrap();
    if known.stdout != b"0\n" {
        skip("this kernel has no AT_EXECVE_CHECK (Linux 6.14)");
        return None;
    }
    let session = Session::new(&json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "no", "decision": "deny", "argv": {"program": "forbidden"}},
            {"id": "maybe", "decision": "ask", "argv": {"program": "asked"}},
        ]},
        "breaker": {"denials": 5},
        "approvals": {"timeout_s": 60},
    }));
    let ways = session.place(probe!("ways"), "bin/ways");
    let mut session = session.variable("WAYS", ways);
    for name in ["forbidden", "asked", "other"] {
        let place = session.place(probe!("victim"), &format!("bin/{name}"));
        session = session.variable(name.to_uppercase(), place);
    }
    Some(session)
}

#[test]
fn a_check_is_answered_by_the_policy_and_is_no_exec() {
    if !root() {
        return;
    }
    let Some(session) = session() else {
        return;
    };
    let started = Instant::now();
    let ended = session.sh(
        "for i in 1 2 3 4 5 6 7 8; do $WAYS check $FORBIDDEN; $WAYS check $ASKED; $WAYS check $OTHER; done; \
         $OTHER x; echo ran $?",
    );
    assert!(
        started.elapsed() < Duration::from_secs(50),
        "somebody was asked"
    );
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    let (answers, ran) = lines.split_at(24);
    // Where no supervisor sees execs the kernel seems not to know checks.
    let supervised = level() == Level::Partial;
    let (no, yes) = if supervised {
        (libc::EPERM, 0)
    } else {
        (libc::EINVAL, libc::EINVAL)
    };
    for answer in answers.chunks(3) {
        assert_eq!(
            answer,
            [no.to_string(), no.to_string(), yes.to_string()],
            "{text}"
        );
    }
    // The breaker opens after five denials.
    assert!(
        ran.last().unwrap().starts_with("ran 0"),
        "{text} {}",
        ended.stderr
    );
    assert_eq!(ended.trail.denials().count(), 0, "{}", ended.trail.shown());
    let asked = ended.trail.shown();
    assert!(!asked.contains("\"rule\":\"maybe\""), "{asked}");
}

#[test]
fn without_a_supervisor_the_kernel_seems_not_to_know_checks() {
    if !root() {
        return;
    }
    let Some(session) = session() else {
        return;
    };
    let session = session.option("--keep");
    let ended = session
        .start([
            "/bin/sh",
            "-c",
            "$WAYS check $OTHER; $WAYS check $FORBIDDEN",
        ])
        .wait();
    let answer = libc::EINVAL.to_string();
    assert_eq!(
        ended.text().lines().collect::<Vec<_>>(),
        [&answer; 2],
        "{}",
        ended.stderr
    );
}

//! The harness itself: that it sees what runs, what is denied, and what is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use enforcer_tests::{Attempts, Session, open, probe, root};
use serde_json::json;

#[test]
fn a_session_runs_and_its_trail_is_read() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let ended = session.sh("id -u; echo problem >&2; exit 7");
    assert_eq!(ended.code(), 7);
    assert_eq!(ended.text().trim(), session.uid().to_string());
    assert!(ended.stderr.contains("problem"), "{}", ended.stderr);
    let commands: Vec<_> = ended
        .trail
        .execs()
        .map(|line| line.command().to_owned())
        .collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(commands[0].starts_with("sh -c"), "{commands:?}");
    assert_eq!(commands[1], "id -u");
    assert_eq!(ended.trail.denials().count(), 0);
    ended.trail.assert_whole();
}

#[test]
fn a_forbidden_program_is_denied_and_recorded() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let attempts = Attempts::new().with("plain", format!("{} $TAG", victim.display()));
    let policy = json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "no-victim", "decision": "deny", "argv": {"program": "forbidden"}}]}});
    let outcomes = attempts.prove(&session, &policy);
    let line = outcomes.ended.trail.denied_exec("plain");
    line.assert_denied_exec(session.denial());
    assert_eq!(line.rule(), "no-victim");
    assert!([126, 137].contains(&outcomes.status("plain")));
}

#[test]
#[should_panic(expected = "the forbidden program ran")]
fn a_policy_that_forbids_nothing_fails_the_proof() {
    assert!(root(), "the forbidden program ran (not shown without root)");
    let session = Session::new(&open());
    let victim = session.place(probe!("victim"), "bin/forbidden");
    Attempts::new()
        .with("plain", victim.display().to_string())
        .prove(&session, &open());
}

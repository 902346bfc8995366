//! Inside `enforcer run`: the run's policy, breaker and trail are the hook's too.

use std::{fs, os::unix::fs::PermissionsExt};

use enforcer_tests::{Session, enforcer, root};
use serde_json::json;

use crate::scene::native_policy;

/// A script that asks the hook about commands, from a session's directory.
fn script(session: &Session, commands: &[&str]) -> String {
    let enforcer = enforcer().get_program().to_owned();
    let mut script = String::from("export XDG_STATE_HOME=$PWD/state HOME=$PWD\n");
    for (number, command) in commands.iter().enumerate() {
        let event = json!({"hook_event_name": "PreToolUse", "cwd": session.work(), "tool_name": "Bash",
            "tool_input": {"command": command}});
        let file = session.work().join(format!("event-{number}"));
        fs::write(&file, event.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        script.push_str(&format!(
            "{} hook --mode everywhere <event-{number}\n",
            enforcer.to_string_lossy()
        ));
    }
    script
}

fn session(more: &serde_json::Value) -> Session {
    let mut policy = native_policy(more);
    let enforcer = enforcer().get_program().to_string_lossy().into_owned();
    policy["exec"]["rules"].as_array_mut().unwrap().push(json!(
        {"id": "the-hook", "decision": "allow", "argv": {"program": enforcer}}));
    Session::new(&policy)
}

#[test]
fn the_runs_policy_decides_and_its_trail_tells() {
    if !root() {
        return;
    }
    let session = session(&json!({"breaker": {"denials": 1000}}));
    let ended = session.sh(&script(&session, &["ls", "rm x", "git push"]));
    let text = ended.text();
    let answers: Vec<&str> = text.split_terminator('\n').collect();
    assert_eq!(answers.len(), 3, "{text}{}", ended.stderr);
    assert!(
        answers[0].contains(r#""permissionDecision":"allow""#),
        "{text}"
    );
    assert!(
        answers[1].contains(r#""permissionDecision":"deny""#),
        "{text}"
    );
    assert!(
        answers[2].contains(r#""permissionDecision":"ask""#),
        "{text}"
    );
    let lines: Vec<_> = ended
        .trail
        .lines
        .iter()
        .filter(|line| line.0["tool"] == "Bash")
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(line.0["parameters"]["stage"], "hook");
            (
                line.0["event"].as_str().unwrap(),
                line.0["parameters"]["command"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("approval", "ls"),
            ("denial", "rm x"),
            ("denial", "git push")
        ]
    );
    assert!(!session.work().join("state/enforcer/audit.jsonl").exists());
}

#[test]
fn denials_of_hook_and_kernel_open_one_breaker() {
    if !root() {
        return;
    }
    let session = session(&json!({"breaker": {"denials": 3}}));
    // Starting the hook is an allowed exec, which would begin the row anew: the last word is the hook's own.
    let ended = session.sh(&script(&session, &["ls"; 1]));
    assert!(
        ended.text().contains("allow"),
        "{}{}",
        ended.text(),
        ended.stderr
    );
    let policy = native_policy(&json!({"breaker": {"denials": 1}}));
    let mut policy = policy;
    let enforcer = enforcer().get_program().to_string_lossy().into_owned();
    policy["exec"]["rules"].as_array_mut().unwrap().push(json!(
        {"id": "the-hook", "decision": "allow", "argv": {"program": enforcer}}));
    session.set_policy(&policy);
    let ended = session.sh(&format!("{}ls /; echo done", script(&session, &["rm x"])));
    let trips: Vec<_> = ended
        .trail
        .lines
        .iter()
        .filter(|line| line.0["event"] == "circuit_breaker_trip")
        .collect();
    assert_eq!(trips.len(), 1, "{}", ended.trail.shown());
    assert!(
        ended
            .trail
            .denials()
            .any(|line| line.0["tool"] == "exec"
                && line.reason().starts_with("Circuit breaker tripped")),
        "{}",
        ended.trail.shown()
    );
}

#[test]
fn a_launcher_that_cannot_be_asked_allows_nothing() {
    if !root() {
        return;
    }
    let session = session(&json!({"connect": {"default": "allow", "rules": [
        {"id": "no-desk", "decision": "deny", "unix": ["/run/enforcer/*"]}]}}));
    let ended = session.sh(&script(&session, &["ls"]));
    let text = ended.text();
    assert!(
        text.contains(r#""permissionDecision":"deny""#),
        "{text}{}",
        ended.stderr
    );
    assert!(
        text.contains("cannot be asked, so nothing is allowed"),
        "{text}"
    );
}

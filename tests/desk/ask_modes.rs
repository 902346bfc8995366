//! Policies and options with which nobody is asked.

use std::process::Output;

use enforcer_tests::{Level, Session, enforcer, level, root};
use serde_json::json;

use crate::scene::{asking, marks, session};

fn check(session: &Session) -> Output {
    enforcer()
        .args(["policy", "check"])
        .arg(session.policy())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_nobody_can_answer_is_warned_of() {
    if !root() {
        return;
    }
    let answerable = session(&asking(json!({"timeout_s": 1})));
    assert!(!said(&check(&answerable)).contains("nobody can answer"));
    assert!(
        !answerable
            .run(["/bin/true"])
            .stderr
            .contains("nobody can answer")
    );

    let session = session(&asking(json!({"approvers": [], "timeout_s": 1})));
    let checked = check(&session);
    assert!(said(&checked).contains("nobody can answer"), "{checked:?}");
    let ended = session.sh("$ASKED one; echo status $?");
    assert!(
        ended.stderr.contains("nobody can answer"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.text(), "status 126\n");
    assert_eq!(marks(&session), 0);
}

/// What outlives the launcher has nobody to ask.
#[test]
fn a_kept_run_denies_what_it_would_ask() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({}))).option("--keep");
    let denial = session.denial();
    let ended = session.sh("$ASKED one; echo status $?; $FINE two; echo fine $?");
    let status = if level() == Level::Full { 126 } else { 137 };
    assert_eq!(
        ended.text(),
        format!("status {status}\nfine 0\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(marks(&session), 1, "the other");
    let line = ended.trail.denied_exec("asked one");
    line.assert_denied_exec(denial);
    assert_eq!(line.text("decision"), "ask");
    assert!(ended.requests().is_empty());
}

/// Denied ones are killed, asked ones wait all the same.
#[test]
fn killing_and_asking_go_together() {
    if !root() {
        return;
    }
    let mut policy = asking(json!({}));
    policy["exec"]["rules"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": "no", "decision": "deny", "glob": ["*fine denied"]}));
    let session = session(&policy).on_deny_kill();
    let running = session.start([
        "/bin/sh",
        "-c",
        "$FINE denied; echo denied $?; $ASKED one; echo asked $?; $ASKED two; echo again $?",
    ]);
    running.request().approve(&[]);
    running.until("the first has run", |running| {
        running.stdout().contains("asked 0")
    });
    running.request().deny(&[]);
    let ended = running.wait();
    assert_eq!(
        ended.text(),
        "denied 137\nasked 0\nagain 126\n",
        "{}",
        ended.stderr
    );
    ended
        .trail
        .denied_exec("fine denied")
        .assert_denied_exec(session.denial());
}

/// A hook's policy asks nothing; its denials are as ever.
#[test]
fn a_hooks_policy_asks_nobody() {
    if !root() {
        return;
    }
    let policy = json!({
        "version": "1.1",
        "bash": {"whitelist": ["echo*"], "blacklist": ["ls*"]},
        "file_paths": {"whitelist": ["*"], "blacklist": []},
        "agents": {"trusted": [], "restricted": []},
    });
    let session = Session::new(&policy);
    let ended = session.sh("/bin/ls /; echo status $?; /bin/echo fine; true");
    assert!(
        ended.text().ends_with("status 126\nfine\n"),
        "{} {}",
        ended.text(),
        ended.stderr
    );
    assert!(ended.requests().is_empty());
    ended
        .trail
        .denied_exec("ls")
        .assert_denied_exec(session.denial());
    assert!(ended.stderr.contains("enforcer: blocked: "));
}

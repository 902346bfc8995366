//! What is allowed at critical risk, or at high risk with a dangerous flag, waits for a person.

use enforcer_tests::{Session, open, root};
use serde_json::{Value, json};

use crate::line;

fn policy(risk: &str) -> Value {
    let mut policy = open();
    policy["exec"]["rules"] = json!([
        {"id": "risky", "decision": "allow", "risk": risk, "requires": ["work"], "argv": {"program": "true"}},
    ]);
    policy
}

fn session(risk: &str) -> Session {
    Session::new(&policy(risk))
        .option("--capability")
        .option("work")
}

#[test]
fn critical_risk_is_held_and_can_be_approved() {
    if !root() {
        return;
    }
    let session = session("CRITICAL");
    let running = session.start(["/bin/sh", "-c", "/bin/true all; echo $?"]);
    let request = running.request();
    assert_eq!(request.text("risk"), "CRITICAL");
    assert_eq!(request.text("rule"), "risky");
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(ended.text(), "0\n", "{}", ended.stderr);
    let line = line(&ended, "true all");
    assert_eq!(
        (line.text("decision"), line.text("verdict")),
        ("ask", "allowed")
    );
    assert_eq!(line.text("approval_state"), "approved");
    assert!(
        line.reason()
            .contains("CRITICAL risk needs a person's approval"),
        "{line:?}"
    );
}

#[test]
fn high_risk_is_held_where_it_is_dangerous() {
    if !root() {
        return;
    }
    let session = session("HIGH");
    let running = session.start([
        "/bin/sh",
        "-c",
        "/bin/true push; echo $?; /bin/true push --force; echo $?; /bin/true push --force; echo $?",
    ]);
    // Approved once: the same action again is another question.
    running.request().approve(&["--scope", "once"]);
    running.until("the second question", |running| {
        running.stdout().lines().count() == 2 && !running.pending().is_empty()
    });
    running.request().deny(&[]);
    let ended = running.wait();
    let text = ended.text();
    let statuses: Vec<&str> = text.lines().collect();
    assert_eq!(statuses[..2], ["0", "0"], "{}", ended.stderr);
    assert_ne!(statuses[2], "0");
    let [plain, approved, denied] = ["allow", "ask", "ask"];
    let decisions: Vec<(&str, bool)> = ended
        .trail
        .execs()
        .filter(|line| line.command().starts_with("true push"))
        .map(|line| (line.text("decision"), line.denied()))
        .collect();
    assert_eq!(
        decisions,
        [(plain, false), (approved, false), (denied, true)]
    );
}

//! An allow rule that requires capabilities allows whoever has them.

use enforcer_tests::{Session, open, root};
use serde_json::{Value, json};

use crate::line;

fn policy() -> Value {
    let mut policy = open();
    policy["exec"]["rules"] = json!([
        {"id": "any", "decision": "allow", "glob": ["*"]},
        {"id": "release", "decision": "allow", "risk": "MEDIUM", "requires": ["deploy", "network"],
         "argv": {"program": "true", "words": ["release"]}},
    ]);
    policy
}

const SCRIPT: &str = "/bin/true release && echo released; /bin/true other && echo other";

#[test]
fn what_is_missing_denies() {
    if !root() {
        return;
    }
    let session = Session::new(&policy())
        .option("--capability")
        .option("network");
    let ended = session.sh(SCRIPT);
    assert_eq!(ended.text(), "other\n", "{}", ended.stderr);
    let line = line(&ended, "true release");
    line.assert_denied_exec(session.denial());
    assert_eq!(line.reason(), "Missing required capabilities: deploy");
    assert_eq!(line.rule(), "release");
    assert_eq!(line.text("risk"), "MEDIUM");
    assert!(
        ended.stderr.contains("--capability deploy"),
        "{}",
        ended.stderr
    );
}

#[test]
fn who_has_them_is_allowed() {
    if !root() {
        return;
    }
    let session = Session::new(&policy());
    let given = ["--capability", "network", "--capability", "deploy"];
    let session = given.into_iter().fold(session, Session::option);
    let ended = session.sh(SCRIPT);
    assert_eq!(ended.text(), "released\nother\n", "{}", ended.stderr);
    assert!(!line(&ended, "true release").denied());
    assert!(
        ended.stderr.contains("capabilities deploy network"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_policy_gives_them_by_name() {
    if !root() {
        return;
    }
    let session = Session::new(&policy());
    let mut giving = policy();
    giving["capabilities"] = json!({session.next_agent().to_uppercase(): ["network", "deploy"]});
    session.set_policy(&giving);
    let ended = session.sh(SCRIPT);
    assert_eq!(ended.text(), "released\nother\n", "{}", ended.stderr);
    // Another name has none.
    let ended = session.sh(SCRIPT);
    assert_eq!(ended.text(), "other\n", "{}", ended.stderr);
}

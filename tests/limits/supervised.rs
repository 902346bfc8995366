//! Where a person is asked: their denials count once, and nobody is asked what is denied anyway.

use std::os::unix::net::UnixListener;

use enforcer_tests::root;
use serde_json::{Value, json};

use crate::scene::{OPEN, Scene, policy, told};

/// Asks about the fine program.
fn asking(sections: &Value) -> Value {
    let mut policy = policy(sections);
    let asks = json!({
        "id": "asks", "decision": "ask", "justification": "It is asked about",
        "argv": {"program": "fine"},
    });
    policy["exec"]["rules"].as_array_mut().unwrap().push(asks);
    policy
}

#[test]
fn what_nobody_answers_counts_and_an_open_breaker_asks_nobody() {
    if !root() {
        return;
    }
    let scene = Scene::new(&asking(
        &json!({"breaker": {"denials": 2}, "approvals": {"timeout_s": 1}}),
    ));
    let ended = scene.run(&["exec A 1 1", "exec F 1 1", "exec A 1 2"]);
    assert_eq!(ended.text(), "exec 0 1\nexec 0 1\nexec 0 2\n");
    let told = told(&ended.trail);
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(
        told[0].starts_with("Not approved: nobody answered"),
        "{told:?}"
    );
    assert_eq!(told[2], "trip 2");
    assert_eq!(told[3..], [OPEN, OPEN]);
    assert_eq!(ended.requests().len(), 1, "{:?}", ended.requests());
}

#[test]
fn a_persons_denial_counts_once_and_an_approved_exec_ends_a_row() {
    if !root() {
        return;
    }
    let scene = Scene::new(&asking(&json!({"breaker": {"denials": 2}})));
    let running = scene.start(&[
        "exec F 1 1",
        "exec A 1 1",
        "exec F 1 1",
        "exec A 1 1",
        "exec F 1 1",
    ]);
    running.request().approve(&[]);
    running.until("the second is asked", |running| {
        !running.pending().is_empty()
    });
    running.request().deny(&["--reason", "no"]);
    let ended = running.wait();
    assert_eq!(
        ended.text(),
        "exec 0 1\nexec 1 0\nexec 0 1\nexec 0 1\nexec 0 1\n"
    );
    let told = told(&ended.trail);
    assert!(told[2].starts_with("Denied by"), "{told:?}");
    assert_eq!(told[3..], ["trip 2", OPEN], "{told:?}");
}

#[test]
fn beyond_a_rate_nobody_is_asked() {
    if !root() {
        return;
    }
    let scene = Scene::new(&asking(&json!({"limits": {"exec": "1/1h"}})));
    let running = scene.start(&["exec A 1 1", "exec A 1 2"]);
    running.request().approve(&[]);
    let ended = running.wait();
    assert_eq!(ended.text(), "exec 1 0\nexec 0 2\n");
    let reason = "Rate limit exceeded: 1/1 calls per hour";
    assert_eq!(told(&ended.trail), [reason, reason]);
    assert_eq!(ended.requests().len(), 1);
}

#[test]
fn connects_to_unix_sockets_count_once_wherever_they_are_judged() {
    if !root() {
        return;
    }
    let mut policy = policy(&json!({"breaker": {"denials": 3}, "limits": {"connect": "4/1h"}}));
    policy["connect"]["unix_default"] = json!("allow");
    policy["connect"]["rules"] = json!([{
        "id": "no-socket", "decision": "deny", "justification": "Not this socket",
        "unix": ["*.closed.sock"],
    }]);
    let scene = Scene::new(&policy);
    let place = |name: &str| {
        let path = scene.session.directory().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        (path.display().to_string(), listener)
    };
    let (fine, _fine) = place("fine.sock");
    // The same again would be one denial.
    let [(one, _one), (two, _two), (three, _three)] =
        ["1.closed.sock", "2.closed.sock", "3.closed.sock"].map(place);
    let ended = scene.run(&[
        &format!("unix {one} 4"),
        &format!("unix {fine} 6"),
        &format!("unix {one} 1"),
        &format!("unix {two} 1"),
        &format!("unix {three} 1"),
        &format!("unix {fine} 1"),
    ]);
    assert_eq!(
        ended.text(),
        "unix 0 4\nunix 4 2\nunix 0 1\nunix 0 1\nunix 0 1\nunix 0 1\n"
    );
    let (by_rule, rate) = (
        "Not this socket [no-socket]",
        "Rate limit exceeded: 4/4 calls per hour",
    );
    assert_eq!(
        told(&ended.trail),
        [
            by_rule, by_rule, by_rule, by_rule, rate, rate, by_rule, by_rule, by_rule, "trip 3",
            OPEN
        ]
    );
}

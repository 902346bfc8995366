//! Denials in a row, of execs and of connects.

use enforcer_tests::root;
use serde_json::json;

use crate::scene::{BY_RULE, OPEN, Scene, policy, times, told};

#[test]
fn ten_denials_in_a_row_open_it_and_everything_is_denied_from_then_on() {
    if !root() {
        return;
    }
    // The section is there and says nothing: ten is the default.
    let scene = Scene::new(&policy(&json!({"breaker": {}})));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let dial = format!("dial {port} 1 2");
    let ended = scene.run(&[&dial, "exec F 1 10", "exec A 1 1", "exec F 1 1", &dial]);
    assert_eq!(
        ended.text(),
        "dial 2 0\nexec 0 10\nexec 0 1\nexec 0 1\ndial 0 2\n"
    );
    let wanted = [times(10, BY_RULE), times(1, "trip 10"), times(4, OPEN)].concat();
    assert_eq!(told(&ended.trail), wanted);
    ended.trail.assert_whole();
    // Right behind the tenth denial, and a line of its own.
    let trip = ended
        .trail
        .lines
        .iter()
        .position(|line| line.0["event"] == "circuit_breaker_trip")
        .unwrap();
    assert_eq!(ended.trail.lines[trip - 1].reason(), BY_RULE);
    assert_eq!(ended.trail.lines[trip].0["agent"], ended.agent());
    let name = ended.agent();
    assert!(
        ended
            .stderr
            .contains("circuit breaker open after 10 denials in a row")
            && ended
                .stderr
                .contains(&format!("enforcer breaker reset {name}"))
            && ended
                .stderr
                .contains(&format!("circuit breaker of {name} is open")),
        "{}",
        ended.stderr
    );
}

#[test]
fn denied_connects_count_and_allowed_ones_end_a_row() {
    if !root() {
        return;
    }
    let mut policy = policy(&json!({"breaker": {"denials": 5}}));
    let (good, bad) = (
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    policy["connect"]["rules"] = json!([{
        "id": "no-port", "decision": "deny", "justification": "Not this port",
        "hosts": ["127.0.0.0/8"], "ports": [port(&bad)],
    }]);
    let scene = Scene::new(&policy);
    let refused = |count| format!("dials {} {count}", port(&bad));
    let reached = format!("dial {} 1 1", port(&good));
    let ended = scene.run(&[
        &refused(3),
        "exec F 1 1",
        &reached,
        &refused(3),
        "exec F 1 1",
        &refused(1),
        &reached,
    ]);
    assert_eq!(
        ended.text(),
        "dials 0 3\nexec 0 1\ndial 1 0\ndials 0 3\nexec 0 1\ndials 0 1\ndial 0 1\n"
    );
    let by_port = "Not this port [no-port]";
    let row = [times(3, by_port), times(1, BY_RULE)].concat();
    let end = [times(1, by_port), times(1, "trip 5"), times(1, OPEN)].concat();
    assert_eq!(told(&ended.trail), [row.clone(), row, end].concat());
}

/// A program that tries the same again by itself, as a client library and a search through `PATH` do, is denied once more,
/// and its row does not grow.
#[test]
fn what_a_process_tries_again_is_one_denial() {
    if !root() {
        return;
    }
    let mut policy = policy(&json!({"breaker": {"denials": 4}}));
    let bad = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = bad.local_addr().unwrap().port();
    policy["connect"]["rules"] = json!([{
        "id": "no-port", "decision": "deny", "justification": "Not this port",
        "hosts": ["127.0.0.0/8"], "ports": [port],
    }]);
    let scene = Scene::new(&policy);
    let ended = scene.run(&[
        &format!("dial {port} 1 12"),
        "again F 12",
        "exec A 1 1",
        "exec F 1 3",
        &format!("dial {port} 1 12"),
        &format!("dial {port} 1 1"),
    ]);
    assert_eq!(
        ended.text(),
        "dial 0 12\nagain 12\nexec 1 0\nexec 0 3\ndial 0 12\ndial 0 1\n"
    );
    let by_port = "Not this port [no-port]";
    let wanted = [
        times(12, by_port),
        times(12, BY_RULE),
        times(3, BY_RULE),
        times(1, by_port),
        times(1, "trip 4"),
        times(12, OPEN),
    ];
    assert_eq!(told(&ended.trail), wanted.concat());
}

//! `--observe`: the policy decides and is recorded, and blocks nothing. What keeps the agent away from its launcher stays.

use std::net::TcpListener;

use enforcer_tests::{Session, open, probe, root};
use serde_json::json;

use crate::line;

#[test]
fn what_is_denied_runs_and_is_recorded() {
    if !root() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut policy = open();
    policy["breaker"] = json!({"denials": 3});
    policy["limits"] = json!({"exec": "1000/1h"});
    policy["exec"]["rules"] = json!([
        {"id": "no-shout", "decision": "deny", "risk": "HIGH", "argv": {"program": "denied"}},
        {"id": "ask-shout", "decision": "ask", "risk": "HIGH", "argv": {"program": "asked"}},
    ]);
    policy["connect"] = json!({"default": "deny"});
    let session = Session::new(&policy);
    let denied = session.place(probe!("shout"), "bin/denied");
    let asked = session.place(probe!("shout"), "bin/asked");
    let mark = session.work().join("mark");
    let session = session
        .variable("DENIED", denied)
        .variable("ASKED", asked)
        .variable("MARK", &mark)
        .option("--observe");
    let script = format!(
        "for n in 1 2 3 4 5; do $DENIED try-$n || exit 1; done; $ASKED try-6 || exit 2; \
         exec 3<>/dev/tcp/127.0.0.1/{port} || exit 3; echo done"
    );
    let ended = session.run(["/bin/bash", "-c", &script]);
    assert_eq!(
        ended.text().lines().last(),
        Some("done"),
        "{}",
        ended.stderr
    );
    assert_eq!(std::fs::read(&mark).unwrap().len(), 6);
    assert!(ended.stderr.contains("OBSERVING ONLY"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("enforcer: enforcing"));
    assert!(
        !ended.stderr.contains("enforcer: blocked"),
        "{}",
        ended.stderr
    );
    let lines: Vec<_> = ended
        .trail
        .lines
        .iter()
        .filter(|line| line.command().contains("try-"))
        .filter(|line| !line.command().starts_with("bash"))
        .filter(|line| !line.command().contains("for n in"))
        .collect();
    assert_eq!(lines.len(), 6, "{}", ended.trail.shown());
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line.0["event"], "approval", "{line:?}");
        let (decision, rule) = if at < 5 {
            ("deny", "no-shout")
        } else {
            ("ask", "ask-shout")
        };
        assert_eq!((line.text("decision"), line.rule()), (decision, rule));
        assert_eq!(line.text("verdict"), "allowed");
        assert_eq!(line.0["parameters"]["observed"], true);
    }
    let connect = ended
        .trail
        .lines
        .iter()
        .find(|line| line.is_connect() && line.number("port") == u64::from(port))
        .unwrap();
    assert_eq!(
        (connect.text("decision"), connect.text("verdict")),
        ("deny", "allowed")
    );
    // The breaker counts, and hides nothing of what the rules say.
    let trips = ended.trail.lines.iter();
    assert_eq!(
        trips
            .filter(|line| line.0["event"] == "circuit_breaker_trip")
            .count(),
        1
    );
    assert!(
        ended
            .stderr
            .contains("that the policy does not allow went on"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_launcher_stays_out_of_reach() {
    if !root() {
        return;
    }
    let session = Session::new(&open()).option("--observe");
    let ended = session.sh("kill -9 $PPID; echo $?; /bin/true still here");
    assert_eq!(ended.text(), "1\n", "{}", ended.stderr);
    assert!(!line(&ended, "true still").denied());
}

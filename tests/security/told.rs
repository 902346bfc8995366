//! Why something was denied: told to the agent by its own run, and to the operator from the trail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::path::Path;

use enforcer_tests::{Session, enforcer, probe, root};
use serde_json::{Value, json};

/// Nothing is allowed to connect anywhere, but for enforcer's own socket.
fn policy() -> Value {
    json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [{
            "id": "no-victim", "decision": "deny", "argv": {"program": "forbidden"},
            "justification": "Harms the innocent", "suggestion": "let it live",
        }]},
        "connect": {"default": "deny", "unix_default": "deny"},
    })
}

fn session() -> Session {
    let session = Session::new(&policy());
    let command = enforcer();
    let binary = session.place(Path::new(command.get_program()), "bin/enforcer");
    let victim = session.place(probe!("victim"), "bin/forbidden");
    session
        .variable("ENFORCER", binary)
        .variable("VICTIM", victim)
}

#[test]
fn an_agent_learns_why_it_was_denied() {
    if !root() {
        return;
    }
    let session = session();
    // The kernel's own denials reach the run a moment later.
    let ended = session.sh(
        "$ENFORCER explain --last; echo $?; $VICTIM one; $VICTIM two; sleep 1; \
         $ENFORCER explain --last; $ENFORCER explain --last -n 9 --json; \
         $ENFORCER explain --last --agent x || echo $?",
    );
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    let [nothing, last, first, again, refused] = lines[..] else {
        panic!("{text}\n{}", ended.stderr);
    };
    assert_eq!(nothing, "2");
    assert!(ended.stderr.contains("nothing has been denied yet"));
    assert!(
        last.contains("forbidden two: Harms the innocent")
            && last.ends_with("Instead: let it live"),
        "{last}"
    );
    let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap()["what"].clone();
    let what = parsed(first);
    assert!(what.as_str().unwrap().contains("forbidden one"), "{what}");
    assert_eq!(parsed(again), last);
    assert_eq!(refused, "2");
}

#[test]
fn the_operator_learns_it_from_the_trail() {
    if !root() {
        return;
    }
    let session = session();
    let ended = session.sh("$VICTIM one; $VICTIM two; exit 0");
    assert_eq!(ended.trail.denials().count(), 2);
    let trail = session.directory().join("trail-0.jsonl");
    let explain = |words: &[&str]| {
        let mut command = enforcer();
        command.args(["explain", "--last", "--audit"]).arg(&trail);
        command.args(words).output().unwrap()
    };
    let policy = session.policy();
    let told = explain(&["--policy", policy.to_str().unwrap()]);
    let text = String::from_utf8(told.stdout).unwrap();
    for wanted in [
        "forbidden two",
        "  reason: Harms the innocent",
        "  rule: no-victim",
        "  how: errno, judged at stage",
        "  instead: let it live",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let none = explain(&["--agent", "nobody-of-this-name"]);
    assert_eq!(none.status.code(), Some(2));
    let all = explain(&["-n", "9", "--json"]);
    assert_eq!(String::from_utf8(all.stdout).unwrap().lines().count(), 2);
}

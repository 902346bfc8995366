//! How far an answer reaches, how much may be asked, what is shown first.

use std::{thread, time::Duration};

use enforcer_tests::{approvals, root};
use serde_json::json;

use crate::scene::{asking, marks, session, sign};

/// Runs the same twice and something else once, each after a sign.
const THREE: &str = "\
    $ASKED same; echo first $?\n\
    $ASKED same; echo again $?\n\
    $ASKED other; echo other $?\n";

#[test]
fn once_is_once() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", THREE]);
    let first = running.request();
    first.approve(&["--scope", "once"]);
    running.until("the first has run", |running| {
        running.stdout().contains("first 0")
    });
    let again = running.request();
    assert_ne!(first.id(), again.id());
    assert_eq!(first.text("command"), again.text("command"));
    assert_eq!(marks(&session), 1);
    again.deny(&[]);
    running.until("the second has failed", |running| {
        running.stdout().contains("again 126")
    });
    running.request().deny(&[]);
    let ended = running.wait();
    assert_eq!(ended.text(), "first 0\nagain 126\nother 126\n");
    assert_eq!(marks(&session), 1);
}

#[test]
fn a_session_is_exactly_the_same_again() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", THREE]);
    let first = running.request();
    first.approve(&["--scope", "session"]);
    running.until("the second has run", |running| {
        running.stdout().contains("again 0")
    });
    let other = running.request();
    assert!(other.text("command").contains("other"));
    other.deny(&[]);
    let ended = running.wait();
    assert_eq!(ended.text(), "first 0\nagain 0\nother 126\n");
    let own = ended
        .trail
        .execs()
        .filter(|line| {
            line.text("approval") == first.id() && line.text("approval_scope") == "session"
        })
        .count();
    assert_eq!(own, 2, "{}", ended.trail.shown());
}

#[test]
fn another_directory_is_not_the_same() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "$ASKED same; mkdir sub; cd sub; $ASKED same; echo elsewhere $?",
    ]);
    running.request().approve(&["--scope", "session"]);
    running.until("the first has run", |_| marks(&session) == 1);
    let other = running.request();
    assert!(other.text("cwd").ends_with("/sub"));
    other.deny(&[]);
    assert_eq!(running.wait().text(), "elsewhere 126\n");
}

#[test]
fn a_rule_is_whatever_it_asks_about() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start([
        "/bin/sh",
        "-c",
        &format!("$ASKED waiting & {THREE} wait; echo end"),
    ]);
    let waiting = running.await_pending(2);
    waiting[0].approve(&["--scope", "rule", "--reason", "all of it"]);
    let ended = running.wait();
    assert_eq!(ended.text(), "first 0\nagain 0\nother 0\nend\n");
    assert_eq!(marks(&session), 4);
    let requests = ended.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests.iter().all(|request| request.state() == "approved"));
    let own: Vec<_> = ended
        .trail
        .execs()
        .filter(|line| line.text("decision") == "ask")
        .collect();
    assert_eq!(own.len(), 4, "{}", ended.trail.shown());
    for line in own {
        assert_eq!(line.text("approval_scope"), "rule", "{line:?}");
        assert_eq!(line.text("approval_reason"), "all of it", "{line:?}");
    }
}

#[test]
fn an_approval_lasts_as_long_as_was_said() {
    if !root() {
        return;
    }
    for scope in ["session", "rule"] {
        let session = session(&asking(json!({})));
        let running = session.start([
            "/bin/sh",
            "-c",
            "$ASKED same; echo first $?; $ASKED same; echo again $?; \
             while [ ! -e go ]; do sleep 0.05; done; $ASKED same; echo late $?",
        ]);
        let first = running.request();
        first.approve(&["--scope", scope, "--for", "6s"]);
        running.until("the second has run", |running| {
            running.stdout().contains("again 0")
        });
        thread::sleep(Duration::from_secs(6));
        sign(&session, "go");
        let late = running.request();
        assert_ne!(late.id(), first.id());
        late.deny(&[]);
        assert_eq!(running.wait().text(), "first 0\nagain 0\nlate 126\n");
    }
}

#[test]
fn an_answer_that_does_not_fit_has_no_effect() {
    if !root() {
        return;
    }
    let mut policy = asking(json!({}));
    // Asked by a default: there is no rule that an approval could reach to.
    policy["exec"] = json!({"default": "ask", "rules": [
        {"id": "shell", "decision": "allow", "argv": {"program": "sh"}}]});
    let session = session(&policy);
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    let id = request.id();
    for words in [
        vec!["approve", id, "--scope", "rule"],
        vec!["approve", id, "--for", "5m"],
        vec!["approve", id, "--scope", "all"],
        vec!["approve", id, "--scope", "session", "--for", "0"],
        vec!["approve", &id[..3]],
        vec!["approve", "00000000-0000-4000-8000-000000000000"],
        vec!["approve", "%"],
    ] {
        let output = approvals(&words);
        assert!(!output.status.success(), "{words:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
    assert_eq!(running.request().id(), id);
    assert_eq!(marks(&session), 0);
    let output = approvals(&["approve", &id[..8]]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(running.wait().text(), "status 0\n");
}

#[test]
fn too_many_in_a_time_are_denied() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"rate": "2/1h", "timeout_s": 120})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "$ASKED one; echo one $?; $ASKED two; echo two $?; $ASKED three; echo three $?",
    ]);
    running.request().approve(&[]);
    running.until("the first has run", |_| marks(&session) == 1);
    running.request().approve(&[]);
    let ended = running.wait();
    assert_eq!(
        ended.text(),
        "one 0\ntwo 0\nthree 126\n",
        "{}",
        ended.stderr
    );
    assert_eq!(marks(&session), 2);
    let line = ended.trail.denied_exec("three");
    assert_eq!(line.text("decision"), "ask");
    assert!(
        line.reason().contains("too many requests") && line.reason().contains("2 in"),
        "{line:?}"
    );
    assert_eq!(ended.requests().len(), 2);
}

#[test]
fn too_many_that_wait_are_denied() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"max_pending": 2})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "$ASKED one & $ASKED two & while [ ! -e go ]; do sleep 0.05; done; \
         $ASKED three; echo three $?; $ASKED one; echo one $?; wait",
    ]);
    running.await_pending(2);
    sign(&session, "go");
    running.until("the third is refused", |running| {
        running.stdout().contains("three 126")
    });
    let pending = running.await_pending(2);
    // The same as what waits already is no new request.
    running.until("one more waits for the same", |running| {
        running
            .pending()
            .iter()
            .any(|request| request.0["waiting"] == 2)
    });
    pending[0].approve(&["--scope", "rule"]);
    let ended = running.wait();
    assert_eq!(ended.text(), "three 126\none 0\n", "{}", ended.stderr);
    assert_eq!(marks(&session), 3);
    let line = ended.trail.denied_exec("three");
    assert!(line.reason().contains("too many requests"), "{line:?}");
}

#[test]
fn the_most_dangerous_comes_first() {
    if !root() {
        return;
    }
    let mut policy = asking(json!({}));
    let risks = ["LOW", "CRITICAL", "MEDIUM", "HIGH"];
    let rules: Vec<_> = risks
        .iter()
        .map(|risk| {
            json!({"id": risk.to_lowercase(), "decision": "ask", "risk": risk,
                   "argv": {"program": "asked", "words": [risk]}})
        })
        .collect();
    policy["exec"]["rules"] = json!(rules);
    let session = session(&policy);
    let running = session.start([
        "/bin/sh",
        "-c",
        "for risk in LOW CRITICAL MEDIUM HIGH; do $ASKED $risk & sleep 0.3; done; wait",
    ]);
    let pending = running.await_pending(4);
    let shown: Vec<_> = pending.iter().map(|request| request.text("risk")).collect();
    assert_eq!(shown, ["CRITICAL", "HIGH", "MEDIUM", "LOW"]);
    for request in &pending {
        request.deny(&[]);
    }
    running.wait();
    assert_eq!(marks(&session), 0);
}

#[test]
fn what_is_too_long_to_read_is_denied() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let ended = session
        .sh("long=$(head -c 40000 /dev/zero | tr '\\0' x); $ASKED $long $long; echo long $?");
    assert_eq!(ended.text(), "long 126\n", "{}", ended.stderr);
    assert_eq!(marks(&session), 0);
    let denied: Vec<_> = ended.trail.denials().collect();
    assert_eq!(denied.len(), 1, "{}", ended.trail.shown());
    assert!(
        denied[0].reason().contains("too much for a person"),
        "{}",
        denied[0].reason()
    );
    assert!(ended.requests().is_empty());
}

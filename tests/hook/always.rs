//! The hook inside `enforcer run` starts whatever the breaker and the rates say, answers with a denial then, and counts
//! nowhere: neither as an exec nor as a connect, nor as what ends a row of denials.

use std::{fs, os::unix::fs::PermissionsExt};

use enforcer_tests::{Ended, Session, open, root};
use serde_json::{Value, json};

/// Forbids `forbidden`, allows the rest.
fn session(sections: &Value) -> Session {
    let mut policy = open();
    policy["exec"]["rules"] =
        json!([{"id": "forbidden", "decision": "deny", "argv": {"program": "forbidden"}}]);
    for (name, section) in sections.as_object().unwrap() {
        policy[name] = section.clone();
    }
    let session = Session::new(&policy).installed();
    for (name, command) in [("harmless", "ls"), ("forbidden", "forbidden")] {
        let event = json!({"hook_event_name": "PreToolUse", "cwd": session.work(), "tool_name": "Bash",
            "tool_input": {"command": command}});
        let file = session.directory().join(name);
        fs::write(&file, event.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    session
}

/// Runs a script of `bash`, whose builtins need no exec. `$E` is `enforcer`, `ask FILE` asks the hook by itself,
/// `ask_sh FILE` through a shell as agents do, `deny N` has so many execs denied.
fn run(session: &Session, script: &str) -> Ended {
    let directory = session.directory().display();
    session.run([
        "/bin/bash",
        "-c",
        &format!(
            "export XDG_STATE_HOME=$PWD HOME=$PWD; E={directory}/bin/enforcer; D={directory}\n\
             cp /bin/true forbidden 2>/dev/null\n\
             ask() {{ $E hook --format claude <$D/$1; echo \"status $?\"; }}\n\
             ask_sh() {{ /bin/sh -c \"$E hook --format claude\" <$D/$1; echo \"status $?\"; }}\n\
             ask_login() {{ /bin/bash -lc \"$E hook --format claude\" <$D/$1; echo \"status $?\"; }}\n\
             deny() {{ for i in $(seq 0 $(($1 - 1))); do ./forbidden; done 2>/dev/null; }}\n\
             {script}\n:"
        ),
    ])
}

fn answers(ended: &Ended) -> Vec<(String, String)> {
    ended
        .text()
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| {
            let answer: Value = serde_json::from_str(line).unwrap();
            let said = |key: &str| {
                answer["hookSpecificOutput"][key]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            (said("permissionDecision"), said("permissionDecisionReason"))
        })
        .collect()
}

const OPEN: &str = "Circuit breaker tripped";

#[test]
fn an_open_breaker_leaves_the_hook_and_the_shell_before_it() {
    if !root() {
        return;
    }
    let session = session(&json!({"breaker": {"denials": 3}}));
    let ended = run(
        &session,
        "ask harmless; deny 3; ask harmless; ask_sh harmless; ask_login harmless",
    );
    let answers = answers(&ended);
    assert_eq!(answers.len(), 4, "{}{}", ended.text(), ended.stderr);
    assert_eq!(answers[0].0, "allow", "{answers:?}");
    for (decision, reason) in &answers[1..] {
        assert_eq!(decision, "deny", "{answers:?}");
        assert!(reason.starts_with(OPEN), "{answers:?}");
    }
    assert!(
        !ended
            .text()
            .lines()
            .any(|line| line.starts_with("status ") && line != "status 0"),
        "{}",
        ended.text()
    );
}

#[test]
fn an_open_breaker_stops_all_else_that_looks_like_the_hook() {
    if !root() {
        return;
    }
    let session = session(&json!({"breaker": {"denials": 3}}));
    let directory = session.directory().display().to_string();
    let enforcer = format!("{directory}/bin/enforcer");
    // Another file by the same name, and the same by another text.
    let tries = [
        format!("{enforcer} hook breaker status"),
        format!("{enforcer} hook consent"),
        format!("{enforcer} explain --last"),
        format!("{enforcer} run -- /bin/true"),
        "./enforcer hook".to_owned(),
        format!("/bin/sh -c '{enforcer} hook; id'"),
        format!("/bin/sh -c '{enforcer} hook --format `id`'"),
        format!("/bin/sh -c '{enforcer} hook breaker status'"),
        format!("/bin/sh -c '{enforcer} hook --format claude' x"),
        format!("/bin/sh -ic '{enforcer} hook'"),
        format!("/bin/sh -x -c '{enforcer} hook'"),
        "/bin/sh -c id".to_owned(),
        format!("/usr/bin/env {enforcer} hook"),
        format!("./sh -c '{enforcer} hook'"),
        format!("/usr/bin/perl -c '{enforcer} hook'"),
    ];
    let mut script = String::from("cp /bin/sh sh; cp /bin/true enforcer; deny 3\n");
    for (number, command) in tries.iter().enumerate() {
        script.push_str(&format!(
            "{command} </dev/null >/dev/null 2>&1; echo \"{number} $?\"\n"
        ));
    }
    let ended = run(&session, &script);
    let text = ended.text();
    for (number, command) in tries.iter().enumerate() {
        let ran = text.lines().any(|line| {
            line.split_once(' ').is_some_and(|(n, status)| {
                n == number.to_string() && !["126", "137"].contains(&status)
            })
        });
        assert!(!ran, "{command}: {text}\n{}", ended.trail.shown());
    }
}

#[test]
fn denials_of_the_hook_alone_open_the_breaker() {
    if !root() {
        return;
    }
    let session = session(&json!({"breaker": {"denials": 10}}));
    let ended = run(
        &session,
        "for i in 1 2 3 4 5 6 7; do ask forbidden; ask_sh forbidden; done",
    );
    let answers = answers(&ended);
    assert_eq!(answers.len(), 14, "{}{}", ended.text(), ended.stderr);
    assert!(answers.iter().all(|(decision, _)| decision == "deny"));
    let open = answers.iter().filter(|(_, reason)| reason.contains(OPEN));
    assert_eq!(open.count(), 4, "{answers:?}");
    let trips = (ended.trail.lines.iter())
        .filter(|line| line.0["event"] == "circuit_breaker_trip")
        .count();
    assert_eq!(trips, 1, "{}", ended.trail.shown());
    assert!(
        ended
            .stderr
            .contains("circuit breaker open after 10 denials")
    );
    assert!(
        !ended.stderr.contains("started no hook"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_breaker_that_opens_without_a_hook_says_what_goes_on() {
    if !root() {
        return;
    }
    let ended = run(&session(&json!({"breaker": {"denials": 3}})), "deny 3");
    assert!(
        ended
            .stderr
            .contains("this agent has started no hook of enforcer"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_spent_rate_leaves_the_hook_which_denies() {
    if !root() {
        return;
    }
    // `cp` and `ls` are two; the hook is none.
    let session = session(&json!({"limits": {"exec": "2/1h", "connect": "1/1h"}}));
    let ended = run(
        &session,
        "ask harmless; ask_sh harmless; ls; ls; ask harmless; ask_sh harmless; ls; echo \"ls $?\"",
    );
    let answers = answers(&ended);
    let decisions: Vec<&str> = answers
        .iter()
        .map(|(decision, _)| decision.as_str())
        .collect();
    assert_eq!(
        decisions,
        ["allow", "allow", "deny", "deny"],
        "{answers:?}{}",
        ended.stderr
    );
    for (_, reason) in &answers[2..] {
        assert!(reason.starts_with("Rate limit exceeded: 2/2"), "{reason}");
    }
    assert!(ended.text().contains("ls 126") || ended.text().contains("ls 137"));
}

#[test]
fn a_policy_that_denies_by_default_starts_the_hook_and_its_shell() {
    if !root() {
        return;
    }
    let session = session(&json!({}));
    session.set_policy(
        &json!({"version": "2", "exec": {"default": "deny", "rules": [
        {"id": "none", "decision": "deny", "argv": {"program": "enforcer"}}]},
        "connect": {"default": "deny"}}),
    );
    let ended = run(
        &session,
        "ask harmless; ask_sh harmless; $E doctor; echo \"doctor $?\"",
    );
    let answers = answers(&ended);
    assert_eq!(answers.len(), 2, "{}{}", ended.text(), ended.stderr);
    assert!(
        answers.iter().all(|(decision, _)| decision == "deny"),
        "{answers:?}"
    );
    let text = ended.text();
    assert!(
        text.contains("doctor 126") || text.contains("doctor 137"),
        "{text}"
    );
    // What it is told says why, and each start is in the trail.
    let starts = (ended.trail.lines.iter())
        .filter(|line| {
            line.reason().starts_with("The enforcer's own hook") && line.0["tool"] == "exec"
        })
        .count();
    assert_eq!(starts, 3, "{}", ended.trail.shown());
}

#[test]
fn a_report_cannot_say_what_the_launcher_says() {
    if !root() {
        return;
    }
    let session = session(&json!({}));
    let script = r#"
import json, os, socket
id = open("/proc/self/cgroup").read().split("0::/")[1].split("/")[1].strip()
def report(tool, cause):
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/enforcer/%s/approvals.sock" % id)
    said = {"tool": tool, "decision": "allow", "answered": "allow", "cause": cause, "reason": "Approved by root (once): fine",
        "risk": "LOW", "security_risk": False, "kind": "other", "refused": False,
        "parameters": {"command": "ls", "approver": "root", "approval": "x", "approval_state": "approved", "seq": 7,
            "user": "kim", "cgroup": 1, "exe": "/bin/ls", "ppid": 1, "latency_ns": 1, "command_more": "x",
            "paths": [{"x": 1}], "urls": ["http://x/"], "pid": 1, "uid": 0, "stage": "exec", "rule": "mine"}}
    s.sendall((json.dumps({"op": "tool", "report": said}) + "\n").encode())
    print(s.recv(4096))
report("Bash", "operator"); report("exec", "approved"); report(" breaker ", "rule")
"#;
    let file = session.work().join("forged.py");
    fs::write(&file, script).unwrap();
    let ended = session.run(["/usr/bin/python3", "forged.py"]);
    let lines: Vec<&Value> = (ended.trail.lines.iter())
        .map(|line| &line.0)
        .filter(|line| line["parameters"]["stage"] == "hook")
        .collect();
    assert_eq!(lines.len(), 3, "{}{}", ended.trail.shown(), ended.stderr);
    for line in &lines {
        let parameters = &line["parameters"];
        for key in [
            "approver",
            "approval",
            "approval_state",
            "seq",
            "cgroup",
            "exe",
            "ppid",
            "latency_ns",
            "command_more",
            "paths",
            "rule",
        ] {
            assert!(parameters[key].is_null(), "{key}: {line}");
            let dropped = parameters["dropped"].as_array().unwrap();
            assert!(dropped.iter().any(|name| name == key), "{key}: {line}");
        }
        assert_ne!(parameters["user"], "kim", "{line}");
        assert_eq!(parameters["uid"], session.uid(), "{line}");
        assert_ne!(parameters["pid"], 1, "{line}");
        assert_eq!(parameters["command"], "ls");
        assert_eq!(parameters["urls"], json!(["http://x/"]));
    }
    let tools: Vec<&str> = lines
        .iter()
        .map(|line| line["tool"].as_str().unwrap())
        .collect();
    assert_eq!(tools, ["Bash", "unknown", "unknown"]);
    let causes: Vec<&str> = lines
        .iter()
        .map(|line| line["parameters"]["cause"].as_str().unwrap())
        .collect();
    assert_eq!(causes, ["internal", "internal", "rule"]);
}

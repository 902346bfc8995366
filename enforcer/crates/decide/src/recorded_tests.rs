use serde_json::json;

use super::*;

const POLICY: &str = r#"{"version": "2", "exec": {"trusted_dirs": ["/usr/bin"], "rules": [
    {"id": "commit", "decision": "allow", "argv": {"program": "git", "words": ["commit"]}},
    {"id": "amend", "decision": "ask", "argv": {"program": "git", "words": ["commit"], "flags_any": ["--amend"]}},
    {"id": "python", "decision": "deny", "argv": {"program": "python3"}},
    {"id": "own", "decision": "allow", "glob": ["/home/kim/run *", "/home/kim/run"]}]},
    "connect": {"rules": [{"id": "db", "decision": "allow", "hosts": ["10.0.0.1"], "ports": [5432]},
    {"id": "sock", "decision": "deny", "unix": ["/run/x"]}]}}"#;

fn told(tool: &str, parameters: &Value) -> ReplayOutcome {
    let engine = Engine::new(enforcer_policy::parse(POLICY).unwrap().policy, 0).unwrap();
    let parameters = parameters.as_object().unwrap();
    Recorded::read(tool, parameters).judge(&engine)
}

fn decided(tool: &str, parameters: &Value) -> (Decision, String) {
    match told(tool, parameters) {
        ReplayOutcome::Decided(outcome) => (outcome.decision, outcome.rule.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recorded_exec_is_judged_as_it_was() {
    let line = json!({"command": "git commit -m x", "exe": "/usr/bin/git"});
    assert_eq!(decided("exec", &line), (Decision::Allow, "commit".into()));
    // Outside the trusted directories it goes by its path.
    let line = json!({"command": "/tmp/git commit", "exe": "/tmp/git"});
    assert_eq!(decided("exec", &line), (Decision::Deny, String::new()));
}

#[test]
fn words_with_spaces_stay_whole_where_the_line_says_so() {
    let command = "git commit -m no --amend please";
    let by_spaces = json!({"command": command, "exe": "/usr/bin/git"});
    assert_eq!(decided("exec", &by_spaces).1, "amend");
    let by_words = json!({"command": command, "exe": "/usr/bin/git", "words": [3, 6, 2, 17]});
    assert_eq!(decided("exec", &by_words).1, "commit");
    for wrong in [
        json!([3, 6]),
        json!([3, 6, 2, 18]),
        json!([1, 1]),
        json!([]),
        json!("x"),
        json!([-1]),
    ] {
        let line = json!({"command": command, "exe": "/usr/bin/git", "words": wrong});
        assert_eq!(
            told("exec", &line),
            ReplayOutcome::Undecidable(Unclear::Incomplete),
            "{line}"
        );
    }
}

#[test]
fn what_a_line_does_not_tell_is_not_guessed() {
    for (line, why) in [
        (
            json!({"command": "git comm", "truncated": true}),
            Unclear::Truncated,
        ),
        (
            json!({"command": "git commit -m [REDACTED_TOKEN]"}),
            Unclear::Redacted,
        ),
        (
            json!({"command": "git commit -m \u{fffd}"}),
            Unclear::NotText,
        ),
        (json!({"command": "", "exe": ""}), Unclear::Incomplete),
    ] {
        assert_eq!(
            told("exec", &line),
            ReplayOutcome::Undecidable(why),
            "{line}"
        );
        if why != Unclear::Incomplete {
            assert_eq!(
                told("Bash", &line),
                ReplayOutcome::Undecidable(why),
                "{line}"
            );
        }
    }
}

#[test]
fn a_link_and_a_script_are_told_apart_only_where_it_does_not_matter() {
    let line =
        json!({"command": "/home/kim/run x", "exe": "/home/kim/run", "resolved": "tool-1.2"});
    assert_eq!(decided("exec", &line), (Decision::Allow, "own".into()));
    // A link to python3 and a script of python3 are both denied.
    let line = json!({"command": "/home/kim/run x", "exe": "/home/kim/run", "resolved": "python3"});
    assert_eq!(decided("exec", &line), (Decision::Deny, "python".into()));
    // `git` would see the script as its first word, so only the link is a commit that amends.
    let line = json!({"command": "/home/kim/run commit --amend", "exe": "/home/kim/run", "resolved": "git"});
    assert_eq!(
        told("exec", &line),
        ReplayOutcome::Undecidable(Unclear::LinkOrScript)
    );
}

#[test]
fn connects_are_judged_by_address_port_and_protocol() {
    let line = json!({"address": "10.0.0.1", "port": 5432, "protocol": "tcp"});
    assert_eq!(decided("connect", &line), (Decision::Allow, "db".into()));
    let line = json!({"address": "10.0.0.1", "port": 22, "protocol": 132});
    assert_eq!(decided("connect", &line), (Decision::Deny, String::new()));
    let line = json!({"address": "/run/x", "protocol": "unix"});
    assert_eq!(decided("connect", &line), (Decision::Deny, "sock".into()));
    for line in [
        json!({}),
        json!({"address": "x", "port": 1, "protocol": "tcp"}),
        json!({"address": "::1"}),
    ] {
        assert_eq!(
            told("connect", &line),
            ReplayOutcome::Undecidable(Unclear::Incomplete),
            "{line}"
        );
    }
}

#[test]
fn what_no_rule_decides_is_named() {
    for (tool, line, what) in [
        ("syscall", json!({"syscall": "bpf"}), Other::Syscall),
        ("exec", json!({"target": 1}), Other::Fixed),
        (
            "connect",
            json!({"address": "::1", "packet": true}),
            Other::Fixed,
        ),
        ("", json!({"lost": 3}), Other::Bookkeeping),
        ("Read", json!({"file_path": "/etc/passwd"}), Other::Tool),
    ] {
        assert_eq!(told(tool, &line), ReplayOutcome::NoQuestion(what), "{line}");
    }
    let line = json!({"command": "claude", "cause": "operator"});
    let parameters = line.as_object().unwrap();
    assert_eq!(
        Recorded::read("exec", parameters),
        Recorded::Other(Other::Operator)
    );
    // A hook's line says what the hook says.
    assert_eq!(
        Recorded::read("Bash", parameters),
        Recorded::Text("claude".to_owned())
    );
}

#[test]
fn the_recorded_decision_is_what_the_policy_said() {
    let of = |event, value: Value| decision(event, value.as_object().unwrap());
    assert_eq!(of("approval", json!({"decision": "ask"})), Decision::Ask);
    assert_eq!(of("approval", json!({"decision": "deny"})), Decision::Deny);
    assert_eq!(of("approval", json!({})), Decision::Allow);
    assert_eq!(of("denial", json!({})), Decision::Deny);
}

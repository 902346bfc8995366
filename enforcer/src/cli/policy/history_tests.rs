//! The tools that read a trail, over one that has a line of every kind.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{diff, replay, suggest};
use crate::cli::error::CliError;
use crate::cli::prove_policy;

const OLD: &str =
    r#"{"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"}}"#;
const NEW: &str = r#"{"version": "2", "exec": {"default": "deny", "transparent": ["sh"], "rules": [
{"id": "git", "decision": "allow", "argv": {"program": "git"}},
{"id": "push", "decision": "ask", "risk": "HIGH", "argv": {"program": "git", "words": ["push"]}}]},
"connect": {"default": "deny"}}"#;

struct Scene {
    directory: TempDir,
    trail: PathBuf,
}

fn line(second: usize, event: &str, tool: &str, parameters: &Value) -> String {
    json!({
        "timestamp": format!("2026-11-21T10:00:{second:02}.000000+00:00"),
        "event": event, "agent": "coder", "tool": tool, "reason": "x", "security_risk": false,
        "parameters": parameters,
    })
    .to_string()
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trail = directory.path().join("audit.jsonl");
        let exec = |second, command: &str, exe: &str| {
            line(
                second,
                "approval",
                "exec",
                &json!({"command": command, "exe": exe, "decision": "allow"}),
            )
        };
        let lines = [
            exec(1, "git status", "/usr/bin/git"),
            exec(2, "git push origin HEAD", "/usr/bin/git"),
            exec(3, "ls src", "/usr/bin/ls"),
            exec(4, "curl -H [REDACTED]", "/usr/bin/curl"),
            exec(5, "sh -c make", "/usr/bin/sh"),
            line(
                6,
                "denial",
                "exec",
                &json!({"command": "rm -rf /", "exe": "/usr/bin/rm", "decision": "deny", "rule": "no-rm"}),
            ),
            line(
                7,
                "approval",
                "connect",
                &json!({"address": "10.0.0.1", "port": 5432, "protocol": "tcp", "decision": "allow"}),
            ),
            line(
                8,
                "denial",
                "syscall",
                &json!({"syscall": "bpf", "decision": "deny"}),
            ),
            "torn".to_owned(),
        ];
        fs::write(&trail, lines.join("\n") + "\n").unwrap();
        Self { directory, trail }
    }

    fn policy(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Status, output, errors, with the directory left out.
    fn said(
        &self,
        run: impl FnOnce(&mut dyn std::io::Write, &mut dyn std::io::Write) -> Result<u8, CliError>,
    ) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(&mut out, &mut err).unwrap();
        let short = |bytes: Vec<u8>| {
            let directory = format!("{}/", self.directory.path().display());
            String::from_utf8(bytes).unwrap().replace(&directory, "")
        };
        (status, short(out), short(err))
    }
}

#[test]
fn a_replay_says_what_changes_and_what_cannot_be_known() {
    let scene = Scene::new();
    let mut args = replay::ReplayArgs {
        trail: scene.trail.clone(),
        policy: scene.policy("new.json", NEW),
        agent: None,
        all: false,
        json: false,
    };
    let (status, out, err) = scene.said(|out, err| replay::run(&args, out, err));
    assert_eq!(status, 0);
    assert_eq!(err, "enforcer: 1 malformed line could not be read\n");
    assert_eq!(
        out,
        "2026-11-21T10:00:02.000000+00:00  exec git push origin HEAD
    stricter: allow (no rule) -> ask [push]
2026-11-21T10:00:03.000000+00:00  exec ls src
    stricter: allow (no rule) -> deny (no rule)
2026-11-21T10:00:07.000000+00:00  connect 10.0.0.1:5432 tcp
    stricter: allow (no rule) -> deny (no rule)
6 actions judged again: 3 the same, 3 stricter, 0 looser
  undecidable: 1: a secret in it was replaced when it was recorded
  not decided by rules: 1: system calls
  not replayed: limits, the circuit breaker, modes, trusted agents, tenants, answers of people
"
    );
    args.json = true;
    let (_, out, _) = scene.said(|out, err| replay::run(&args, out, err));
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 9);
    assert_eq!(
        (&lines[1]["change"], &lines[1]["rule"]),
        (&json!("stricter"), &json!("push"))
    );
    assert_eq!(lines[8]["summary"]["same"], 3);
    // Nobody of this name is in the trail.
    args.agent = Some("other".to_owned());
    let (_, out, _) = scene.said(|out, err| replay::run(&args, out, err));
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn a_diff_says_what_changes_for_the_trail() {
    let scene = Scene::new();
    let mut args = diff::DiffArgs {
        a: scene.policy("old.json", OLD),
        b: scene.policy("new.json", NEW),
        trail: Some(scene.trail.clone()),
        agent: None,
        json: false,
    };
    let (status, out, _) = scene.said(|out, err| diff::run(&args, out, err));
    assert_eq!(status, 1);
    assert_eq!(
        out,
        "~ exec default: allow -> deny
~ exec transparent:  -> sh
~ connect default: allow -> deny
+ exec.rules git
+ exec.rules push
audit.jsonl: 6 actions judged by both, 4 decided differently, 1 undecidable
  3x allow (no rule) -> deny (no rule)
      exec ls src
      exec rm -rf /
      connect 10.0.0.1:5432 tcp
  1x allow (no rule) -> ask [push]
      exec git push origin HEAD
"
    );
    args.json = true;
    let (_, out, _) = scene.said(|out, err| diff::run(&args, out, err));
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        out["policy"][3],
        json!({"section": "exec.rules", "id": "git", "change": "added", "what": []})
    );
    assert_eq!(out["recorded"]["judged"], 6);
    args.json = false;
    args.b.clone_from(&args.a);
    let (status, out, _) = scene.said(|out, err| diff::run(&args, out, err));
    assert_eq!(status, 0);
    assert!(out.starts_with("the policies say the same\n"), "{out}");
}

#[test]
fn a_suggested_policy_allows_the_run_and_no_more() {
    let scene = Scene::new();
    let file = scene.directory.path().join("suggested.json");
    let args = suggest::SuggestArgs {
        trail: scene.trail.clone(),
        agent: Some("coder".to_owned()),
        against: Some(scene.policy("new.json", NEW)),
        json: false,
        output: Some(file.clone()),
    };
    let run = |out: &mut dyn std::io::Write, err: &mut dyn std::io::Write| {
        suggest::run(&args, &prove_policy, out, err)
    };
    let (status, out, err) = scene.said(run);
    assert_eq!((status, out.as_str()), (0, ""));
    assert!(
        err.contains("5 recorded actions of the run allowed; 2 lines that did not go on left out"),
        "{err}"
    );
    assert!(
        err.contains("only its exact line would do\n    curl\n"),
        "{err}"
    );
    assert!(err.contains("[push], risk HIGH"), "{err}");
    // The policy stands the checks that any policy must, and the run goes on under it.
    let replay = replay::ReplayArgs {
        trail: scene.trail.clone(),
        policy: file,
        agent: None,
        all: false,
        json: false,
    };
    let (_, out, _) = scene.said(|out, err| replay::run(&replay, out, err));
    assert!(
        out.contains("6 actions judged again: 6 the same, 0 stricter, 0 looser"),
        "{out}"
    );
    // What is there is not written over.
    let mut sink = Vec::new();
    let error = suggest::run(&args, &prove_policy, &mut sink, &mut Vec::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("name a file that does not exist yet"),
        "{error}"
    );
}

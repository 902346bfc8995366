//! The breaker, the rates and the trail of a hook that is by itself.

use std::{fs, process::Stdio, thread};

use serde_json::json;

use crate::scene::{Scene, decided, hook_policy, native_policy, run, said};

const OPEN: &str = "Circuit breaker tripped (too many denials)";

#[test]
fn ten_denials_open_the_breaker_until_it_is_reset() {
    let scene = Scene::new(&hook_policy());
    for _ in 0..9 {
        assert_eq!(scene.bash("sudo id").0, "deny");
    }
    assert_eq!(scene.bash("ls").0, "allow", "an allowance resets");
    for _ in 0..9 {
        scene.bash("sudo id");
    }
    // What the mode refuses counts nowhere.
    let mut refused = scene.command(&["hook", "--mode", "disabled", "--policy"]);
    refused.arg(scene.policy());
    let event = scene.event("Bash", json!({"command": "ls"}));
    assert_eq!(decided(&said(refused, &event)).0, "ask");
    let (_, tenth) = scene.bash("sudo id");
    assert!(
        tenth.starts_with("Matches blacklist pattern: sudo*"),
        "{tenth}"
    );
    let trail = scene.trail();
    let [.., denial, trip] = trail.as_slice() else {
        panic!("{trail:?}")
    };
    assert_eq!(
        (&denial["event"], &denial["tool"]),
        (&json!("denial"), &json!("Bash"))
    );
    assert_eq!(
        (&trip["event"], &trip["denial_count"]),
        (&json!("circuit_breaker_trip"), &json!(10))
    );
    for command in ["ls", "sudo id"] {
        let (decision, reason) = scene.bash(command);
        assert!(decision == "deny" && reason.starts_with(OPEN), "{reason}");
        assert!(reason.contains("enforcer hook breaker reset"), "{reason}");
        let line = scene.trail().pop().unwrap();
        assert_eq!(line["parameters"]["command"], command, "{line}");
    }
    scene.ask("Write", json!({"file_path": "/tmp/a.txt", "content": "x"}));
    let line = scene.trail().pop().unwrap();
    assert_eq!(line["parameters"]["paths"], json!(["/tmp/a.txt"]), "{line}");
    // Another agent has a breaker of its own.
    let other = decided(&said(scene.hook(&["--agent", "other"]), &event));
    assert_eq!(other.0, "allow");
    let status = run(scene.command(&["hook", "breaker", "status", "--json"]), b"");
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(
        text.contains(r#"{"agent":"claude","state":"open","denials":10}"#),
        "{text}"
    );
    assert!(
        run(scene.command(&["hook", "breaker", "reset"]), b"")
            .status
            .success()
    );
    assert_eq!(scene.bash("ls").0, "allow");
}

#[test]
fn the_rate_is_exact() {
    let scene = Scene::new(&native_policy(&json!({"limits": {"exec": "5/1h"}})));
    for _ in 0..5 {
        assert_eq!(scene.bash("ls").0, "allow");
    }
    let (decision, reason) = scene.bash("ls");
    assert!(
        decision == "deny" && reason.starts_with("Rate limit exceeded: 5/5 calls per hour"),
        "{reason}"
    );
    assert_eq!(scene.ask("Task", json!({})).0, "allow", "no command");
}

#[test]
fn a_command_can_be_too_much() {
    let scene = Scene::new(&native_policy(&json!({"limits": {"arguments": 3}})));
    assert_eq!(scene.bash("echo a b c").0, "allow");
    let (decision, reason) = scene.bash("ls; echo a b c d");
    assert!(
        decision == "deny" && reason.starts_with("Complexity limit exceeded: 4/3 arguments"),
        "{reason}"
    );
}

#[test]
fn calls_at_once_count_exactly_and_leave_whole_lines() {
    let scene = Scene::new(&native_policy(&json!({"breaker": {"denials": 1000}})));
    scene.bash("ls");
    let event = scene.event("Bash", json!({"command": "rm x"})).to_string();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let mut command = scene.hook(&[]);
                    command.stdout(Stdio::null());
                    assert!(run(command, event.as_bytes()).status.success());
                }
            });
        }
    });
    let kept = fs::read_to_string(scene.state().join("hook/claude.json")).unwrap();
    assert!(kept.contains("\"denials\":64"), "{kept}");
    assert_eq!(scene.trail().len(), 65);
}

#[test]
fn a_state_that_cannot_be_read_denies_and_says_how_to_mend_it() {
    let scene = Scene::new(&hook_policy());
    scene.bash("sudo id");
    fs::write(scene.state().join("hook/claude.json"), "{\"version\":1").unwrap();
    let (decision, reason) = scene.bash("ls");
    assert_eq!(decision, "deny");
    assert!(
        reason.contains("enforcer hook breaker reset claude"),
        "{reason}"
    );
    assert!(
        run(scene.command(&["hook", "breaker", "reset", "CLAUDE"]), b"")
            .status
            .success()
    );
    assert_eq!(scene.bash("ls").0, "allow");
}

#[test]
fn tables_that_are_broken_are_made_anew() {
    let scene = Scene::new(&hook_policy());
    assert_eq!(scene.bash("sudo id").0, "deny");
    let tables = scene.state().join("tables");
    for spoil in [&b""[..], b"enftbl02", &[0xff; 4096]] {
        for entry in fs::read_dir(&tables).unwrap() {
            fs::write(entry.unwrap().path(), spoil).unwrap();
        }
        assert_eq!(scene.bash("ls").0, "allow");
        assert_eq!(scene.bash("sudo id").0, "deny");
    }
}

#[test]
fn the_trail_has_one_line_a_call() {
    let scene = Scene::new(&hook_policy());
    scene.bash("ls");
    scene.ask("Read", json!({"file_path": "/etc/passwd"}));
    let trail = scene.trail();
    let keys: Vec<&String> = trail[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "timestamp",
            "event",
            "agent",
            "tool",
            "reason",
            "security_risk",
            "parameters"
        ]
    );
    assert_eq!(trail[0]["event"], "approval");
    assert_eq!(trail[0]["parameters"]["command"], "ls");
    assert_eq!(trail[0]["parameters"]["stage"], "hook");
    assert_eq!(trail[1]["parameters"]["paths"], json!(["/etc/passwd"]));
    assert_eq!(
        (&trail[1]["tool"], &trail[1]["security_risk"]),
        (&json!("Read"), &json!(true))
    );
}

#[test]
fn an_agent_without_a_name_goes_by_whose_hook_it_asks() {
    let scene = Scene::new(&hook_policy());
    scene.bash("ls");
    let gemini = json!({"hook_event_name": "BeforeTool", "session_id": "s", "cwd": scene.project(),
        "tool_name": "run_shell_command", "tool_input": {"command": "ls"}});
    said(scene.hook(&[]), &gemini);
    let mut qwen = scene.event("run_shell_command", json!({"command": "ls"}));
    said(scene.hook(&["--format", "qwen"]), &qwen);
    qwen["timestamp"] = "t".into();
    said(scene.hook(&[]), &qwen);
    said(scene.hook(&["--agent", "Coder"]), &gemini);
    let names: Vec<_> = scene
        .trail()
        .iter()
        .map(|line| line["agent"].clone())
        .collect();
    assert_eq!(names, ["claude", "gemini", "qwen", "qwen", "Coder"]);
    // To the policy it has no name: in the mode for subagents it is none, whoever trusts the word.
    let mut policy = hook_policy();
    policy["agents"]["trusted"] = json!(["claude"]);
    fs::write(scene.policy(), policy.to_string()).unwrap();
    let mut asked = scene.command(&["hook", "--mode", "subagent_only", "--policy"]);
    asked.arg(scene.policy());
    let event = scene.event("Bash", json!({"command": "ls"}));
    assert_eq!(decided(&said(asked, &event)).0, "ask");
}

#[test]
fn a_breaker_is_one_in_upper_and_lower_case() {
    let scene = Scene::new(&hook_policy());
    let event = scene.event("Bash", json!({"command": "sudo id"}));
    for name in ["Coder", "coder"].iter().cycle().take(10) {
        said(scene.hook(&["--agent", name]), &event);
    }
    let harmless = scene.event("Bash", json!({"command": "ls"}));
    let ask = |name: &str| decided(&said(scene.hook(&["--agent", name]), &harmless));
    assert!(ask("CODER").1.starts_with(OPEN));
    let reset = |name: &str| {
        let output = run(scene.command(&["hook", "breaker", "reset", name]), b"");
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = reset("nosuch");
    assert!(
        code == Some(1) && said.contains("nothing is known of an agent `nosuch`"),
        "{said}"
    );
    assert!(ask("coder").1.starts_with(OPEN));
    assert_eq!(reset("cOdEr").0, Some(0));
    assert_eq!(ask("Coder").0, "allow");
}

#[test]
fn the_trail_has_what_was_asked_as_it_was_asked() {
    let mut policy = hook_policy();
    policy["bash"]["whitelist"]
        .as_array_mut()
        .unwrap()
        .push("FOO=bar ls".into());
    let scene = Scene::new(&policy);
    assert_eq!(scene.bash("FOO=bar ls").0, "allow");
    scene.ask("Write", json!({"file_path": "src/x", "content": ""}));
    assert_eq!(scene.trail()[0]["parameters"]["command"], "FOO=bar ls");
    let mut tail = scene.command(&["audit", "tail"]);
    tail.arg(scene.state().join("audit.jsonl"));
    let shown = String::from_utf8(run(tail, b"").stdout).unwrap();
    let file = scene.project().join("src/x");
    assert!(
        shown.contains("Bash FOO=bar ls") && shown.contains(&format!("Write {}", file.display())),
        "{shown}"
    );
}

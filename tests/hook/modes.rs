//! Flag, variable, saved consent, question; and who is let in.

use std::fs;

use serde_json::{Value, json};

use crate::scene::{Scene, decided, hook_policy, run, said};

const DISABLED: &str = "Auto-approval disabled (MCP_AUTO_APPROVE not enabled)";
const NOT_SUBAGENT: &str = "Mode is 'subagent_only' but not in subagent context";

fn ask(
    scene: &Scene,
    words: &[&str],
    variables: &[(&str, &str)],
    more: &Value,
) -> (String, String) {
    let mut event = scene.event("Bash", json!({"command": "ls"}));
    for (key, value) in more.as_object().unwrap() {
        event[key] = value.clone();
    }
    let mut command = scene.command(&["hook", "--policy"]);
    command
        .arg(scene.policy())
        .args(words)
        .envs(variables.iter().copied());
    decided(&said(command, &event))
}

#[test]
fn the_words_of_the_variable_are_modes() {
    let scene = Scene::new(&hook_policy());
    let by = |word: &str| ask(&scene, &[], &[("MCP_AUTO_APPROVE", word)], &json!({}));
    for word in ["true", "1", "YES", "on", "enable", "everywhere"] {
        assert_eq!(by(word).0, "allow", "{word}");
    }
    for word in ["false", "0", "no", "OFF", "disable", "disabled"] {
        let (decision, reason) = by(word);
        assert_eq!(decision, "ask", "{word}");
        assert!(reason.starts_with(DISABLED), "{reason}");
    }
    let (decision, reason) = by("subagent_only");
    assert!(
        decision == "ask" && reason.starts_with(NOT_SUBAGENT),
        "{reason}"
    );
    let (decision, reason) = by("perhaps");
    assert!(
        decision == "ask" && reason.starts_with(DISABLED),
        "{reason}"
    );
    assert!(reason.contains("`perhaps` is no mode"), "{reason}");
}

#[test]
fn the_flag_beats_the_variable_and_that_the_consent() {
    let scene = Scene::new(&hook_policy());
    let consent = |word: &str| {
        let output = run(scene.command(&["hook", "consent", word]), b"");
        assert!(output.status.success(), "{output:?}");
    };
    consent("yes");
    assert_eq!(ask(&scene, &[], &[], &json!({})).0, "allow");
    assert_eq!(
        ask(&scene, &[], &[("MCP_AUTO_APPROVE", "false")], &json!({})).0,
        "ask"
    );
    let flag = ["--mode", "everywhere"];
    assert_eq!(
        ask(&scene, &flag, &[("MCP_AUTO_APPROVE", "false")], &json!({})).0,
        "allow"
    );
    consent("no");
    assert_eq!(ask(&scene, &[], &[], &json!({})).0, "ask");
}

#[test]
fn where_nobody_can_be_asked_the_answer_is_no_and_is_kept() {
    let scene = Scene::new(&hook_policy());
    let (decision, reason) = ask(&scene, &[], &[("CI", "true")], &json!({}));
    assert!(
        decision == "ask" && reason.starts_with(DISABLED),
        "{reason}"
    );
    assert!(reason.contains("enforcer hook consent yes"), "{reason}");
    let kept: Value =
        serde_json::from_str(&fs::read_to_string(scene.state().join("consent.json")).unwrap())
            .unwrap();
    assert_eq!(
        (&kept["auto_approve"], &kept["source"]),
        (&json!(false), &json!("non_interactive"))
    );
    fs::write(scene.state().join("consent.json"), "{").unwrap();
    let (decision, reason) = ask(&scene, &[], &[], &json!({}));
    assert!(
        decision == "ask" && reason.contains("holds no answer"),
        "{reason}"
    );
}

#[test]
fn trust_matters_in_subagent_only() {
    let scene = Scene::new(&hook_policy());
    let only = ["--mode", "subagent_only"];
    let named = |name: &str| ask(&scene, &only, &[("CLAUDE_AGENT_NAME", name)], &json!({}));
    assert_eq!(named(" RESEARCHER\n").0, "allow");
    for name in ["foo", "security-auditor"] {
        let (decision, reason) = named(name);
        assert_eq!(decision, "ask");
        assert!(
            reason.starts_with(&format!(
                "Agent '{name}' is not in trusted whitelist (subagent_only mode)"
            )),
            "{reason}"
        );
    }
    assert!(named(" \u{1}").1.starts_with(NOT_SUBAGENT));
    assert_eq!(
        ask(
            &scene,
            &only,
            &[],
            &json!({"agent_type": "researcher", "agent_id": "x"})
        )
        .0,
        "allow"
    );
    let flag = ["--mode", "subagent_only", "--agent", "researcher"];
    assert_eq!(
        ask(&scene, &flag, &[("CLAUDE_AGENT_NAME", "foo")], &json!({})).0,
        "allow"
    );
}

#[test]
fn agents_that_cannot_ask_are_denied_where_the_mode_refuses() {
    let scene = Scene::new(&hook_policy());
    let mut command = scene.command(&["hook", "--mode", "disabled", "--policy"]);
    command.arg(scene.policy());
    let event = json!({"hook_event_name": "BeforeTool", "cwd": scene.project(), "tool_name": "run_shell_command",
        "tool_input": {"command": "ls"}});
    let answer = said(command, &event);
    assert_eq!(answer["decision"], "deny");
    assert!(
        answer["reason"].as_str().unwrap().starts_with(DISABLED),
        "{answer}"
    );
}

#[test]
fn in_a_mode_that_asks_nobody_what_is_asked_is_denied() {
    let scene = Scene::new(&crate::scene::native_policy(&json!({})));
    let push = |mode: &Value| {
        let mut event = scene.event(
            "Bash",
            json!({"command": "git push --force origin HEAD; echo x > .git/x"}),
        );
        event["permission_mode"] = mode.clone();
        decided(&said(scene.hook(&[]), &event))
    };
    for mode in ["default", "acceptEdits"] {
        assert_eq!(push(&json!(mode)).0, "ask", "{mode}");
    }
    assert_eq!(push(&Value::Null).0, "ask");
    for mode in [
        "bypassPermissions",
        "auto",
        "plan",
        "dontAsk",
        "of tomorrow",
    ] {
        let (decision, reason) = push(&json!(mode));
        assert_eq!(decision, "deny", "{mode}");
        assert!(
            reason.contains("Changes what others see")
                && reason.contains(&format!("in the mode `{mode}` nobody")),
            "{reason}"
        );
    }
    // Without consent everything is asked, which is no question in such a mode.
    let mut event = scene.event("Bash", json!({"command": "ls"}));
    event["permission_mode"] = json!("bypassPermissions");
    let mut command = scene.command(&["hook", "--mode", "disabled", "--policy"]);
    command.arg(scene.policy());
    let (decision, reason) = decided(&said(command, &event));
    assert!(
        decision == "deny" && reason.starts_with(DISABLED),
        "{reason}"
    );
}

#[test]
fn what_the_rules_deny_no_mode_asks_about() {
    let scene = Scene::new(&hook_policy());
    let mut event = scene.event("Bash", json!({"command": "sudo id"}));
    let by = |words: &[&str], event: &Value| {
        let mut command = scene.command(&["hook", "--policy"]);
        command.arg(scene.policy()).args(words);
        decided(&said(command, event))
    };
    for mode in ["disabled", "subagent_only"] {
        let (decision, reason) = by(&["--mode", mode], &event);
        assert_eq!(decision, "deny", "{mode}: {reason}");
        assert!(reason.contains("blacklist pattern"), "{reason}");
    }
    event["tool_input"] = json!({"command": "ls"});
    assert_eq!(by(&["--mode", "disabled"], &event).0, "ask");
}

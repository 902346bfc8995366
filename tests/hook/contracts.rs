//! Each agent's sample events, and the answer that its contract has for them.

use serde_json::{Value, json};

use crate::scene::{Scene, native_policy, said};

#[test]
fn every_contract_gets_its_own_words() {
    let scene = Scene::new(&native_policy(&json!({})));
    let cwd = scene.project();
    let claude = |command: &str| scene.event("Bash", json!({"command": command}));
    let codex = |command: &str| {
        let mut event = claude(command);
        event["model"] = "gpt-5".into();
        event
    };
    let gemini = |command: &str| {
        json!({"hook_event_name": "BeforeTool", "session_id": "s", "transcript_path": "/t", "cwd": cwd,
            "timestamp": "2026-10-01T00:00:00Z", "tool_name": "run_shell_command", "tool_input": {"command": command}})
    };
    let qwen = |command: &str| {
        let mut event = claude(command);
        event["timestamp"] = "2026-10-01T00:00:00Z".into();
        event["permission_mode"] = "auto-edit".into();
        event["tool_name"] = "run_shell_command".into();
        event
    };
    let cursor = |command: &str| {
        json!({"hook_event_name": "beforeShellExecution", "conversation_id": "c", "generation_id": "g",
            "cursor_version": "2.0", "workspace_roots": [cwd], "command": command, "cwd": ""})
    };
    let answers = |event: Value| said(scene.hook(&[]), &event);

    for (command, decision, reason) in [
        ("ls -l", "allow", "Matches rule: reads"),
        (
            "git push",
            "ask",
            "Changes what others see [push]. Instead: let the user push",
        ),
        ("rm x", "deny", "Matches rule: no-rm"),
        ("nmap x", "deny", "No rule matches (default: deny)"),
    ] {
        let answer = answers(claude(command));
        let inner = &answer["hookSpecificOutput"];
        assert_eq!(inner["permissionDecision"], decision, "{answer}");
        let said = inner["permissionDecisionReason"].as_str().unwrap();
        assert!(said.starts_with(reason), "{said}");
        assert_eq!(answer.as_object().unwrap().len(), 1);
    }

    assert_eq!(answers(codex("ls -l")), json!({}));
    for command in ["git push", "rm x"] {
        let answer = answers(codex(command));
        let inner = &answer["hookSpecificOutput"];
        assert_eq!(inner["permissionDecision"], "deny", "{answer}");
        assert!(
            !inner["permissionDecisionReason"]
                .as_str()
                .unwrap()
                .is_empty()
        );
    }
    let asked = answers(codex("git push")).to_string();
    assert!(asked.contains("a person's approval"), "{asked}");

    assert_eq!(answers(gemini("ls -l")), json!({"decision": "allow"}));
    for command in ["git push", "rm x"] {
        let answer = answers(gemini(command));
        assert_eq!(answer["decision"], "deny", "{answer}");
        assert!(!answer["reason"].as_str().unwrap().is_empty());
    }

    assert_eq!(answers(qwen("ls -l")), json!({}));
    for command in ["git push", "rm x"] {
        let answer = answers(qwen(command));
        let inner = &answer["hookSpecificOutput"];
        assert_eq!(inner["permissionDecision"], "deny", "{answer}");
        assert_eq!(answer["continue"], false, "no other hook allows it");
        assert_eq!(answer["stopReason"], inner["permissionDecisionReason"]);
    }
    let asked = answers(qwen("git push")).to_string();
    assert!(asked.contains("has no way to ask"), "{asked}");

    for (command, permission) in [("ls -l", "allow"), ("git push", "ask"), ("rm x", "deny")] {
        let answer = answers(cursor(command));
        assert_eq!(answer["permission"], permission, "{answer}");
        assert_eq!(answer["user_message"], answer["agent_message"]);
    }
}

#[test]
fn cursors_other_events_are_answered() {
    let scene = Scene::new(&native_policy(
        &json!({"tools": {"always_allowed": ["MCP:add"]}}),
    ));
    let event = |name: &str, more: Value| {
        let mut event = json!({"hook_event_name": name, "workspace_roots": [scene.project()], "cursor_version": "2"});
        for (key, value) in more.as_object().unwrap() {
            event[key] = value.clone();
        }
        said(scene.hook(&[]), &event)
    };
    let read = |path: &str| {
        event(
            "beforeReadFile",
            json!({"file_path": path, "content": "x", "attachments": []}),
        )
    };
    assert_eq!(read("src/x"), json!({"permission": "allow"}));
    assert_eq!(read("/etc/passwd"), json!({"permission": "deny"}));
    let mcp = |tool: &str| {
        event(
            "beforeMCPExecution",
            json!({"tool_name": tool, "tool_input": "{}", "command": "srv"}),
        )
    };
    assert_eq!(mcp("add")["permission"], "allow");
    assert_eq!(mcp("drop")["permission"], "deny");
    let tool = event(
        "preToolUse",
        json!({"tool_name": "Shell", "tool_input": {"command": "rm x"}}),
    );
    assert_eq!(tool["permission"], "deny");
}

#[test]
fn command_texts_are_judged_by_all_that_they_start() {
    let scene = Scene::new(&native_policy(&json!({})));
    for (command, decision) in [
        ("echo 'rm -rf /'", "allow"),
        ("ls && rm x", "deny"),
        ("ls; git push", "ask"),
        ("cat $(rm x)", "deny"),
        ("bash -c 'rm x'", "deny"),
        ("r\"\"m x", "deny"),
    ] {
        let (said, reason) = scene.bash(command);
        assert_eq!(said, decision, "{command}: {reason}");
    }
}

#[test]
fn a_request_for_permission_is_denied_in_its_own_words_or_left_to_the_user() {
    let scene = Scene::new(&native_policy(&json!({})));
    for model in [Some("gpt-5"), None] {
        let ask = |command: &str| {
            let mut event = scene.event("Bash", json!({"command": command}));
            event["hook_event_name"] = "PermissionRequest".into();
            if let Some(model) = model {
                event["model"] = model.into();
            }
            said(scene.hook(&[]), &event)
        };
        for command in ["ls -l", "git push"] {
            assert_eq!(ask(command), json!({}), "{command}");
        }
        for command in ["rm x", "r\u{0}m"] {
            let answer = ask(command);
            let inner = &answer["hookSpecificOutput"];
            assert_eq!(inner["hookEventName"], "PermissionRequest", "{answer}");
            assert_eq!(inner["decision"]["behavior"], "deny", "{answer}");
            assert!(!inner["decision"]["message"].as_str().unwrap().is_empty());
            assert_eq!(inner.as_object().unwrap().len(), 2, "{answer}");
        }
    }
}

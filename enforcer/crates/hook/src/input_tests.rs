use std::{fs::File, io::Write, os::unix::net::UnixStream, thread};

use serde_json::json;

use super::*;
use crate::format::HookAnswer;
use enforcer_policy::Decision::{Allow, Ask, Deny};

fn parsed(value: &Value) -> ToolCall {
    parse(value.to_string().as_bytes(), None).unwrap()
}

#[test]
fn each_agent_is_known_by_its_events() {
    for (value, format, tool) in [
        (
            json!({"hook_event_name": "PreToolUse", "session_id": "s", "cwd": "/x", "permission_mode": "default",
                "tool_name": "Bash", "tool_input": {"command": "ls"}}),
            Format::Claude,
            "Bash",
        ),
        (
            json!({"hook_event_name": "PreToolUse", "session_id": "s", "model": "gpt", "cwd": "/x",
                "tool_name": "apply_patch", "tool_input": {"command": "x"}}),
            Format::Codex,
            "apply_patch",
        ),
        (
            json!({"hook_event_name": "BeforeTool", "cwd": "/x", "timestamp": "t",
                "tool_name": "run_shell_command", "tool_input": {"command": "ls"}}),
            Format::Gemini,
            "run_shell_command",
        ),
        (
            json!({"hook_event_name": "PreToolUse", "session_id": "s", "transcript_path": "/t", "cwd": "/x",
                "timestamp": "t", "permission_mode": "yolo", "tool_name": "run_shell_command",
                "tool_input": {"command": "ls"}, "tool_use_id": "toolu_1"}),
            Format::Qwen,
            "run_shell_command",
        ),
        (
            json!({"hook_event_name": "beforeShellExecution", "conversation_id": "c", "workspace_roots": ["/x"],
                "command": "ls", "cwd": ""}),
            Format::Cursor,
            "Shell",
        ),
        (
            json!({"hook_event_name": "preToolUse", "cursor_version": "2", "workspace_roots": ["/x"],
                "tool_name": "Write", "tool_input": {"file_path": "a"}}),
            Format::Cursor,
            "Write",
        ),
        (
            json!({"hook_event_name": "beforeMCPExecution", "workspace_roots": ["/x"], "tool_name": "add",
                "tool_input": "{\"a\": 1}", "url": "http://x"}),
            Format::Cursor,
            "MCP:add",
        ),
        (
            json!({"hook_event_name": "beforeReadFile", "workspace_roots": ["/x"], "file_path": "/x/a",
                "content": "long", "attachments": [{"type": "rule", "file_path": "/x/b"}]}),
            Format::Cursor,
            "Read",
        ),
    ] {
        let event = parsed(&value);
        assert_eq!((event.shape.format, event.tool.as_str()), (format, tool));
        assert_eq!(event.cwd.as_deref(), Some("/x"), "{value}");
    }
}

#[test]
fn qwens_hook_asks_nobody_in_any_mode() {
    for mode in ["plan", "default", "auto-edit", "yolo"] {
        let event = json!({"hook_event_name": "PreToolUse", "timestamp": "t", "permission_mode": mode,
            "tool_name": "run_shell_command", "tool_input": {"command": "ls"}});
        let shape = parsed(&event).shape;
        assert_eq!((shape.asks, shape.unattended), (false, None), "{mode}");
    }
}

#[test]
fn subagents_are_known() {
    let base = json!({"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": "ls"}});
    let with = |name: &str, value: &str| {
        let mut event = base.clone();
        event[name] = value.into();
        parsed(&event).agent
    };
    assert_eq!(parsed(&base).agent, None);
    assert_eq!(with("agent_type", "reviewer").as_deref(), Some("reviewer"));
    assert_eq!(with("agent_id", "a1").as_deref(), Some("a1"));
}

#[test]
fn what_is_no_event_says_why_and_keeps_its_shape() {
    let good = r#"{"hook_event_name":"BeforeTool","tool_name":"x","tool_input":{}}"#;
    for (text, format, known, why) in [
        ("", None, None, "empty"),
        (" \n", Some(Format::Claude), Some(Format::Claude), "empty"),
        (&good[..20], None, None, "ends too early"),
        (
            &good[..20],
            Some(Format::Codex),
            Some(Format::Codex),
            "ends too early",
        ),
        ("[1]", None, None, "no JSON object"),
        ("{}x", None, None, "no JSON"),
        ("{}", None, None, "not known"),
        (r#"{"hook_event_name": 5}"#, None, None, "not known"),
        (r#"{"hook_event_name":"Stop"}"#, None, None, "not known"),
        (
            r#"{"hook_event_name":"Stop"}"#,
            Some(Format::Claude),
            Some(Format::Claude),
            "`Stop`",
        ),
        (
            r#"{"hook_event_name":"PreToolUse"}"#,
            None,
            Some(Format::Claude),
            "`tool_name` is missing",
        ),
        (
            r#"{"hook_event_name":"BeforeTool","tool_name":5,"tool_input":{}}"#,
            None,
            Some(Format::Gemini),
            "not a string",
        ),
        (
            r#"{"hook_event_name":"BeforeTool","tool_name":"a\u0000","tool_input":{}}"#,
            None,
            Some(Format::Gemini),
            "NUL",
        ),
        (
            r#"{"hook_event_name":"BeforeTool","tool_name":"a","tool_input":[]}"#,
            None,
            Some(Format::Gemini),
            "no object",
        ),
        (
            r#"{"hook_event_name":"beforeSubmitPrompt","prompt":"x"}"#,
            None,
            Some(Format::Cursor),
            "beforeSubmitPrompt",
        ),
    ] {
        let fault = parse(text.as_bytes(), format).unwrap_err();
        assert_eq!(fault.shape.map(|shape| shape.format), known, "{text}");
        assert!(fault.why.contains(why), "{text}: {}", fault.why);
    }
}

#[test]
fn deep_and_broken_texts_are_faults() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(deep.as_bytes(), None).is_err());
    let deep = format!("{{\"a\":{}", "{\"a\":".repeat(100_000));
    assert!(parse(deep.as_bytes(), None).is_err());
    assert!(parse(b"{\"hook_event_name\": \"\xff\"}", None).is_err());
}

#[test]
fn reading_is_bounded_in_size_and_time() {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    writer.write_all(b"{}").unwrap();
    let said = read(reader, Duration::from_millis(50)).unwrap_err();
    assert!(said.contains("did not end"), "{said}");
    drop(writer);
    let zero = File::open("/dev/zero").unwrap();
    let said = read(zero, Duration::from_mins(1)).unwrap_err();
    assert!(said.contains("larger than 16 MiB"), "{said}");
    let (mut writer, reader) = UnixStream::pair().unwrap();
    let sender = thread::spawn(move || writer.write_all(&vec![b'x'; 1 << 20]).unwrap());
    assert_eq!(read(reader, Duration::from_mins(1)).unwrap().len(), 1 << 20);
    sender.join().unwrap();
}

#[test]
fn each_contract_has_its_own_words() {
    let say = |format: Format, event: &str, decision| {
        let shape = Shape {
            event: event.to_owned(),
            ..format.shape()
        };
        let answered = shape.answer(HookAnswer {
            decision,
            text: "why",
        });
        assert_eq!((answered.code, answered.stderr.as_str()), (0, ""));
        serde_json::from_str::<Value>(&answered.stdout).unwrap()
    };
    let claude = |decision: &str| {
        json!({"hookSpecificOutput": {"hookEventName": "PreToolUse",
            "permissionDecision": decision, "permissionDecisionReason": "why"}})
    };
    let qwen = || {
        let mut answer = claude("deny");
        answer["continue"] = false.into();
        answer["stopReason"] = "why".into();
        answer
    };
    for (format, event, decision, expected) in [
        (Format::Claude, "PreToolUse", Allow, claude("allow")),
        (Format::Claude, "PreToolUse", Ask, claude("ask")),
        (Format::Claude, "PreToolUse", Deny, claude("deny")),
        (Format::Codex, "PreToolUse", Allow, json!({})),
        (Format::Codex, "PreToolUse", Ask, claude("deny")),
        (Format::Codex, "PreToolUse", Deny, claude("deny")),
        (
            Format::Gemini,
            "BeforeTool",
            Allow,
            json!({"decision": "allow"}),
        ),
        (
            Format::Gemini,
            "BeforeTool",
            Ask,
            json!({"decision": "deny", "reason": "why"}),
        ),
        (Format::Qwen, "PreToolUse", Allow, json!({})),
        (Format::Qwen, "PreToolUse", Ask, qwen()),
        (Format::Qwen, "PreToolUse", Deny, qwen()),
        (Format::Qwen, "PermissionRequest", Allow, json!({})),
        (
            Format::Cursor,
            "beforeShellExecution",
            Ask,
            json!({"permission": "ask", "user_message": "why", "agent_message": "why"}),
        ),
        (
            Format::Cursor,
            "beforeReadFile",
            Ask,
            json!({"permission": "deny"}),
        ),
        (
            Format::Cursor,
            "beforeReadFile",
            Allow,
            json!({"permission": "allow"}),
        ),
    ] {
        assert_eq!(
            say(format, event, decision),
            expected,
            "{format:?} {decision}"
        );
    }
}

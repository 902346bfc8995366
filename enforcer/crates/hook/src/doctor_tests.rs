use std::path::Path;

use serde_json::{Value, json};

use super::{ask::Said, *};

fn said(code: i32, stdout: &str) -> Said {
    Said {
        code: Some(code),
        stdout: stdout.as_bytes().to_vec(),
        stderr: b"why".to_vec(),
    }
}

fn pre(decision: &str, reason: &str) -> Value {
    json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": decision,
        "permissionDecisionReason": reason}})
}

#[test]
fn answers_are_read_in_the_contract_of_the_agent() {
    for (format, answer, denied) in [
        (Format::Claude, pre("deny", "no"), true),
        (Format::Claude, pre("allow", ""), false),
        (Format::Claude, pre("ask", "x"), false),
        (Format::Codex, json!({}), false),
        (Format::Codex, pre("deny", "no"), true),
        (Format::Gemini, json!({"decision": "allow"}), false),
        (
            Format::Gemini,
            json!({"decision": "deny", "reason": "no"}),
            true,
        ),
        (Format::Qwen, json!({}), false),
        (Format::Qwen, pre("deny", "no"), true),
        (Format::Cursor, json!({"permission": "allow"}), false),
        (
            Format::Cursor,
            json!({"permission": "deny", "user_message": "no"}),
            true,
        ),
    ] {
        let read = ask::read(format, &said(0, &answer.to_string()));
        assert_eq!(read.map(|read| read.0), Ok(denied), "{format:?} {answer}");
    }
    for (format, answer) in [
        (Format::Codex, pre("allow", "")),
        (Format::Claude, json!({})),
        (Format::Claude, pre("deny", "")),
        (Format::Claude, json!({"decision": "deny"})),
        (Format::Gemini, json!({"permission": "deny"})),
        (Format::Qwen, pre("allow", "")),
        (Format::Qwen, pre("ask", "x")),
        (Format::Qwen, pre("deny", "")),
    ] {
        assert!(
            ask::read(format, &said(0, &answer.to_string())).is_err(),
            "{format:?} {answer}"
        );
    }
    assert!(ask::read(Format::Claude, &said(0, "deny")).is_err());
    let status = ask::read(Format::Claude, &said(127, "")).unwrap_err();
    assert!(status.contains("127") && status.contains("why"), "{status}");
}

fn report(hooks: Vec<Hooked>, program: bool) -> HookReport {
    HookReport {
        agent: "claude",
        title: "Claude Code",
        verdict: HookStatus::Absent,
        program: program.then(|| PathBuf::from("/x")),
        version: None,
        tried: None,
        hooks,
        problems: Vec::new(),
        notes: Vec::new(),
    }
}

fn hooked(problem: bool) -> Hooked {
    Hooked {
        file: Path::new("/x").to_owned(),
        reach: "user",
        command: String::new(),
        problems: problem
            .then(|| Finding::new("x", "y"))
            .into_iter()
            .collect(),
        format: Format::Claude,
    }
}

#[test]
fn a_verdict_is_no_better_than_what_was_found() {
    for (hooks, program, expected) in [
        (vec![], false, HookStatus::Absent),
        (vec![], true, HookStatus::NotAsked),
        (vec![hooked(false)], true, HookStatus::Asked),
        (vec![hooked(false)], false, HookStatus::Asked),
        (vec![hooked(true)], true, HookStatus::NotAsked),
        (vec![hooked(true), hooked(false)], true, HookStatus::Faulty),
    ] {
        let found = report(hooks, program);
        assert_eq!(verdict(&found), expected, "{found:?}");
    }
    let mut found = report(vec![hooked(false)], true);
    found.problems.push(Finding::new("x", "y"));
    assert_eq!(verdict(&found), HookStatus::Faulty);
    let tried = ["0.61.0".to_owned(), "0.171.0".to_owned()];
    for (version, said) in [
        ("0.61.0", false),
        ("0.99.1-x", false),
        ("0.60.9", true),
        ("0.172.0", true),
    ] {
        assert_eq!(
            untried("X", version, Some(&tried)).is_some(),
            said,
            "{version}"
        );
    }
    assert!(numbers("2.1.9") < numbers("2.1.332") && numbers("0.61.0-x") == numbers("0.61.0"));
}

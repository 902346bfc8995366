//! Any bytes as the event of an agent's hook: whatever comes is judged or refused, and the answer is one line of JSON
//! that says what was decided. Links that paths lead through are read, as the hook reads them; nothing else is touched.

#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use enforcer_policy::{Decision, Policy};
use enforcer_decide::{Engine, paths::Grounds};
use enforcer_hook::{format::{Format, Shape, HookAnswer}, input, judge::judge, project::EventPlace};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The contracts; none stands for an event that tells by itself.
const FORMATS: [Option<Format>; 5] = [
    None,
    Some(Format::Claude),
    Some(Format::Codex),
    Some(Format::Gemini),
    Some(Format::Cursor),
];
/// A project that is not there.
const PROJECT: &str = "/fuzz/project";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = r#"{"version": "1.0", "agents": {"trusted": ["coder"]},
        "bash": {"whitelist": ["git *", "ls*", "echo *"], "blacklist": ["rm -rf *"]},
        "file_paths": {"whitelist": ["src/*", "*.md"], "blacklist": ["*.env", "~/.ssh/*", "**/secret*"]},
        "web_tools": {"whitelist": ["WebFetch", "Web*"], "allow_all_domains": true,
            "blocked_domains": ["*.evil.example", "8.8.8.8"]},
        "tools": {"always_allowed": ["Task", "mcp__*"]}}"#;
    enforcer_policy::parse(text).unwrap().policy
});

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(POLICY.clone(), 1).unwrap());

/// What the agent is told is one line of JSON, and in no contract less than what was decided.
fn answered(shape: &Shape, decision: Decision, text: &str) {
    let answer = shape.answer(HookAnswer { decision, text });
    let line = answer.stdout.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n') && answer.code == 0, "{line}");
    let said: Value = serde_json::from_str(line).unwrap();
    let words = [
        &said["permission"],
        &said["decision"],
        &said["hookSpecificOutput"]["permissionDecision"],
        &said["hookSpecificOutput"]["decision"]["behavior"],
    ];
    // Where the agent is about to ask its user, to say nothing lets it ask.
    let about_to_ask = shape.event == "PermissionRequest";
    let kept = match (decision, words.into_iter().find_map(Value::as_str)) {
        (Decision::Allow, word) => word.is_none_or(|word| word == "allow"),
        (Decision::Ask, None) => about_to_ask && line == "{}",
        (Decision::Ask, word) => matches!(word, Some("ask" | "deny")),
        (Decision::Deny, word) => word == Some("deny"),
    };
    assert!(kept, "{decision:?}: {line}");
}

fuzz_target!(|bytes: &[u8]| {
    let scene = EventPlace {
        cwd: PathBuf::from(PROJECT),
        projects: vec![PathBuf::from(PROJECT)],
        home: Some(PathBuf::from("/fuzz/home")),
    };
    let grounds = Grounds {
        project: vec![PROJECT.to_owned()],
        exempt: vec!["/tmp".to_owned()],
        own: vec!["/fuzz/project/.enforcer".to_owned()],
        home: Some("/fuzz/home".to_owned()),
    };
    for format in FORMATS {
        let event = match input::parse(bytes, format) {
            Ok(event) => event,
            Err(fault) => {
                assert!(!fault.why.is_empty());
                // A contract that was named is the one that is answered in.
                assert!(
                    format
                        .is_none_or(|named| fault.shape.is_some_and(|shape| shape.format == named))
                );
                continue;
            }
        };
        assert!(!event.tool.trim().is_empty());
        let judged = judge(
            &event,
            &POLICY,
            || Ok(ENGINE.clone()),
            &scene,
            None,
            || grounds.clone(),
        );
        let outcome = judged.outcome;
        assert!(!outcome.reason.is_empty(), "{event:?}");
        // The refusal of a limit is no denial by a rule; there are no limits here.
        assert!(judged.counts);
        for decision in [outcome.decision, Decision::Deny] {
            answered(&event.shape, decision, &outcome.reason);
        }
    }
});

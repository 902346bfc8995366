//! Any text as a command text: it is split or refused, in bounded time, and what is refused is denied.

#![no_main]

use std::sync::LazyLock;

use enforcer_policy::Decision;
use enforcer_decide::{Engine, command_text};
use libfuzzer_sys::fuzz_target;

/// Most parts that a text may have for each of its bytes: nesting must not multiply.
const PARTS_PER_BYTE: usize = 64;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let text = r#"{"version": "2", "exec": {"default": "allow", "transparent": ["sh", "bash"], "rules": [
        {"id": "rm", "decision": "deny", "argv": {"program": "rm", "flags_all": ["-r", "-f"]}},
        {"id": "push", "decision": "ask", "argv": {"program": "git", "words": ["push"], "flags_any": ["--force"]}}]},
        "connect": {}}"#;
    Engine::new(enforcer_policy::parse(text).unwrap().policy, 1).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let script = enforcer_shell::parse(&text);
    assert!(script.parts.len() <= PARTS_PER_BYTE * (text.len() + 1));
    let said = command_text::judge(&ENGINE, &text);
    if script.refused.is_some() {
        assert_eq!(said.outcome.decision, Decision::Deny, "{text:?}");
    }
    // The strictest part wins, whatever else is there.
    let strictest = said.parts.iter().map(|part| part.outcome.decision).max();
    assert!(strictest.is_none_or(|strictest| said.outcome.decision >= strictest));
});

//! Qwen Code's `PreToolUse`, with events of Claude Code's form. It is asked when the user has said yes already, and takes
//! `ask` for a denial, so there is nobody to ask.
//!
//! Of several hooks the last that has a `permissionDecision` is heard, whatever the others say. So an allowance is an
//! empty object, which takes no other hook's denial away, and a denial says `continue: false` besides, which no other
//! hook's allowance takes away: the call is not made, and the agent goes on.

use serde_json::{Value, json};

use super::{claude, format::HookAnswer};
use enforcer_policy::Decision;

/// The answer. What asks is a denial by now.
pub fn answer(verdict: HookAnswer<'_>) -> Value {
    if verdict.decision == Decision::Allow {
        return json!({});
    }
    let mut answer = claude::answer(HookAnswer {
        decision: Decision::Deny,
        ..verdict
    });
    answer["continue"] = false.into();
    answer["stopReason"] = verdict.text.into();
    answer
}

//! Codex's `PreToolUse`: only a denial with a reason has an effect; `ask` is invalid, and so is `allow` without a change
//! of the input, so an allowance is an empty object. Unknown members are rejected.

use serde_json::{Value, json};

use super::{claude, format::HookAnswer};
use enforcer_policy::Decision;

/// The answer. What asks is a denial by now.
pub fn answer(verdict: HookAnswer<'_>) -> Value {
    match verdict.decision {
        Decision::Allow => json!({}),
        Decision::Ask | Decision::Deny => claude::answer(HookAnswer {
            decision: Decision::Deny,
            ..verdict
        }),
    }
}

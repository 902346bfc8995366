//! Gemini CLI's `BeforeTool`: `decision` is allow or deny, exit status 0, nothing but JSON on standard output.

use serde_json::{Map, Value, json};

use super::{
    format::{Format, HookAnswer},
    input::{self, ToolCall},
};
use enforcer_policy::Decision;

/// The one event that is answered.
pub const EVENT: &str = "BeforeTool";

/// Reads an event.
///
/// # Errors
///
/// In words.
pub fn event(object: &Map<String, Value>) -> Result<ToolCall, String> {
    input::known(object, &[EVENT])?;
    Ok(ToolCall {
        tool: input::required(object, "tool_name")?,
        input: input::object(object, "tool_input")?,
        cwd: input::optional(object, "cwd")?,
        session: input::optional(object, "session_id")?,
        ..ToolCall::new(Format::Gemini, EVENT)
    })
}

/// The answer. What asks is a denial by now.
pub fn answer(verdict: HookAnswer<'_>) -> Value {
    match verdict.decision {
        Decision::Allow => json!({"decision": "allow"}),
        Decision::Ask | Decision::Deny => json!({"decision": "deny", "reason": verdict.text}),
    }
}

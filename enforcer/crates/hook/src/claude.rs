//! Claude Code's `PreToolUse`: `hookSpecificOutput.permissionDecision` is allow, deny or ask, exit status 0. Codex and
//! Qwen Code send events of the same form.
//!
//! `PermissionRequest` comes when the agent is about to ask its user: a denial is said for the user, all else is left
//! to that question, by an answer that decides nothing.

use serde_json::{Map, Value, json};

use super::{
    format::{Format, HookAnswer},
    input::{self, ToolCall},
};
use enforcer_policy::Decision;

/// Before a tool is called.
pub const EVENT: &str = "PreToolUse";
/// Before the user is asked about a call.
pub const REQUEST_EVENT: &str = "PermissionRequest";

/// Reads an event.
///
/// # Errors
///
/// In words.
pub fn event(format: Format, object: &Map<String, Value>) -> Result<ToolCall, String> {
    let event = input::known(object, &[EVENT, REQUEST_EVENT])?;
    let mut shape = ToolCall::new(format, event).shape;
    // The user is there: the agent is about to ask.
    shape.asks |= event == REQUEST_EVENT;
    let mode = input::optional(object, "permission_mode")?;
    let shape = shape.in_mode(mode.as_deref());
    Ok(ToolCall {
        shape,
        tool: input::required(object, "tool_name")?,
        input: input::object(object, "tool_input")?,
        cwd: input::optional(object, "cwd")?,
        roots: Vec::new(),
        // Set inside subagents only.
        agent: input::optional(object, "agent_type")?.or(input::optional(object, "agent_id")?),
        session: input::optional(object, "session_id")?,
    })
}

/// The answer to `PermissionRequest`, in Claude Code's words, which are Codex's and Qwen Code's. An allowance is none: the call may want
/// more than it did when it was judged, such as to leave a sandbox, and that is the user's to say.
pub fn answer_request(verdict: HookAnswer<'_>) -> Value {
    match verdict.decision {
        Decision::Allow | Decision::Ask => json!({}),
        Decision::Deny => json!({"hookSpecificOutput": {
            "hookEventName": REQUEST_EVENT,
            "decision": {"behavior": "deny", "message": verdict.text},
        }}),
    }
}

/// The answer to `PreToolUse`.
pub fn answer(verdict: HookAnswer<'_>) -> Value {
    json!({"hookSpecificOutput": {
        "hookEventName": EVENT,
        "permissionDecision": verdict.decision.as_str(),
        "permissionDecisionReason": verdict.text,
    }})
}

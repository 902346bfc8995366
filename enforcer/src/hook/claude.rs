//! Claude Code's `PreToolUse`: `hookSpecificOutput.permissionDecision` is allow, deny or ask, exit status 0. Codex sends
//! events of the same form.

use serde_json::{Map, Value, json};

use super::{
    format::{Format, Verdict},
    input::{self, Event},
};

/// The one event that is answered.
pub const EVENT: &str = "PreToolUse";

/// Reads an event.
///
/// # Errors
///
/// In words.
pub fn event(format: Format, object: &Map<String, Value>) -> Result<Event, String> {
    input::known(object, &[EVENT])?;
    let shape = Event::new(format, EVENT).shape;
    let mode = input::optional(object, "permission_mode")?;
    let shape = shape.in_mode(mode.as_deref());
    Ok(Event {
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

/// The answer.
pub fn answer(verdict: Verdict<'_>) -> Value {
    json!({"hookSpecificOutput": {
        "hookEventName": EVENT,
        "permissionDecision": verdict.decision.as_str(),
        "permissionDecisionReason": verdict.text,
    }})
}

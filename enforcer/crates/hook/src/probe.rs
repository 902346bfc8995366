//! Probes of `enforcer hook doctor`: two calls that do nothing, one that must be denied and one that is harmless.
//!
//! They are judged as any call, but count nowhere: in no breaker, no rate, no trail. A call is a probe only if it is
//! exactly one of the two, in a session of this name, so nothing else goes uncounted by taking the name.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{cursor, format::Format, input::ToolCall};

/// The session that probes belong to.
const SESSION: &str = "enforcer-hook-doctor";

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeCall {
    /// No policy allows it: there is no such command.
    Forbidden,
    /// It does nothing.
    Harmless,
}

impl ProbeCall {
    fn command(self) -> &'static str {
        match self {
            // No text with a NUL can be judged.
            Self::Forbidden => "enforcer-hook-doctor\0",
            Self::Harmless => "true",
        }
    }

    /// The event in which an agent would tell of it.
    pub fn event(self, format: Format, cwd: &Path) -> Value {
        let cwd = cwd.to_string_lossy();
        let command = self.command();
        match format {
            Format::Claude | Format::Codex => {
                let mut event = json!({
                    "hook_event_name": format.event_name(), "session_id": SESSION, "cwd": cwd,
                    "permission_mode": "default", "tool_name": "Bash", "tool_input": {"command": command}});
                if format == Format::Codex {
                    event["model"] = SESSION.into();
                }
                event
            }
            Format::Qwen => json!({
                "hook_event_name": format.event_name(), "session_id": SESSION, "cwd": cwd, "timestamp": SESSION,
                "permission_mode": "default", "tool_name": "run_shell_command", "tool_input": {"command": command}}),
            Format::Gemini => json!({
                "hook_event_name": format.event_name(), "session_id": SESSION, "cwd": cwd,
                "tool_name": "run_shell_command", "tool_input": {"command": command}}),
            Format::Cursor => json!({
                "hook_event_name": cursor::SHELL_EVENT, "conversation_id": SESSION, "cursor_version": "0",
                "workspace_roots": [cwd], "cwd": cwd, "command": command}),
        }
    }
}

/// Whether an event is a probe.
pub fn is_one(event: &ToolCall) -> bool {
    is(event, ProbeCall::Forbidden) || is_harmless(event)
}

/// Whether an event is the harmless probe.
pub fn is_harmless(event: &ToolCall) -> bool {
    is(event, ProbeCall::Harmless)
}

fn is(event: &ToolCall, probe: ProbeCall) -> bool {
    let tool = match event.shape.format {
        Format::Claude | Format::Codex => "Bash",
        Format::Gemini | Format::Qwen => "run_shell_command",
        Format::Cursor => "Shell",
    };
    event.session.as_deref() == Some(SESSION)
        && event.tool == tool
        && event.input == Map::from_iter([("command".to_owned(), Value::from(probe.command()))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;

    const ALL: [Format; 5] = [
        Format::Claude,
        Format::Codex,
        Format::Gemini,
        Format::Qwen,
        Format::Cursor,
    ];

    fn read(event: &Value, format: Format) -> ToolCall {
        input::parse(event.to_string().as_bytes(), Some(format)).unwrap()
    }

    #[test]
    fn the_two_calls_are_probes_and_nothing_else_is() {
        for format in ALL {
            for probe in [ProbeCall::Forbidden, ProbeCall::Harmless] {
                let event = probe.event(format, Path::new("/tmp"));
                assert!(is_one(&read(&event, format)), "{event}");
                assert_eq!(
                    input::parse(event.to_string().as_bytes(), None)
                        .map(|event| event.shape.format),
                    Ok(format)
                );
                for (pointer, value) in [
                    ("/session_id", json!("s")),
                    ("/conversation_id", json!("s")),
                    ("/tool_name", json!("Write")),
                    ("/tool_input/command", json!("true; rm -rf /")),
                    ("/tool_input", json!({"command": "true", "cmd": "x"})),
                    ("/command", json!("true\nid")),
                ] {
                    let mut other = event.clone();
                    let Some(place) = other.pointer_mut(pointer) else {
                        continue;
                    };
                    *place = value;
                    assert!(!is_one(&read(&other, format)), "{other}");
                }
            }
        }
    }
}

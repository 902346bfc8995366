//! Cursor's hooks: `permission` is allow, deny or ask, with a message for the user and one for the agent. In its
//! auto-review mode `ask` is ignored; a denial is heeded everywhere.

use serde_json::{Map, Value, json};

use super::{
    format::{Format, HookAnswer},
    input::{self, ToolCall},
};

/// Before a command.
pub const SHELL_EVENT: &str = "beforeShellExecution";
/// Before a file's content goes to the model.
pub const READ_EVENT: &str = "beforeReadFile";
/// Before a tool of an MCP server.
pub const MCP_EVENT: &str = "beforeMCPExecution";
/// Before any tool.
pub const TOOL_EVENT: &str = "preToolUse";

/// Reads an event.
///
/// # Errors
///
/// In words.
pub fn event(object: &Map<String, Value>) -> Result<ToolCall, String> {
    let name = input::known(object, &[SHELL_EVENT, READ_EVENT, MCP_EVENT, TOOL_EVENT])?;
    let mut members = Map::new();
    let tool = match name {
        SHELL_EVENT => {
            members.insert("command".into(), member(object, "command"));
            "Shell".to_owned()
        }
        READ_EVENT => {
            members.insert("file_path".into(), member(object, "file_path"));
            members.insert("paths".into(), attachments(object)?);
            "Read".to_owned()
        }
        MCP_EVENT => {
            members = input::object(object, "tool_input")?;
            format!("MCP:{}", input::required(object, "tool_name")?)
        }
        _ => {
            members = input::object(object, "tool_input")?;
            input::required(object, "tool_name")?
        }
    };
    let roots = input::texts(object, "workspace_roots")?;
    Ok(ToolCall {
        tool,
        input: members,
        // An empty directory stands for the workspace.
        cwd: input::optional(object, "cwd")?
            .filter(|cwd| !cwd.is_empty())
            .or_else(|| roots.first().cloned()),
        roots,
        session: input::optional(object, "conversation_id")?,
        ..ToolCall::new(Format::Cursor, name)
    })
}

fn member(object: &Map<String, Value>, name: &str) -> Value {
    object.get(name).cloned().unwrap_or_default()
}

/// The files that go to the model together with the one that is read.
fn attachments(object: &Map<String, Value>) -> Result<Value, String> {
    match object.get("attachments") {
        None | Some(Value::Null) => Ok(Value::Array(Vec::new())),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                let path = item.get("file_path").or_else(|| item.get("filePath"));
                path.cloned()
                    .ok_or_else(|| "an attachment has no `file_path`".to_owned())
            })
            .collect::<Result<Vec<Value>, String>>()
            .map(Value::Array),
        Some(_) => Err("`attachments` is not a list".to_owned()),
    }
}

/// The answer.
pub fn answer(event: &str, verdict: HookAnswer<'_>) -> Value {
    let permission = verdict.decision.as_str();
    if event == READ_EVENT {
        // This event has no way to ask; nor does it take messages.
        let permission = if permission == "allow" {
            "allow"
        } else {
            "deny"
        };
        return json!({"permission": permission});
    }
    json!({
        "permission": permission,
        "user_message": verdict.text,
        "agent_message": verdict.text,
    })
}

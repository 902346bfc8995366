//! Changes to settings as values: where each agent has its hooks, and which of them are ours.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value, json, ser::PrettyFormatter};

use crate::Format;

/// The member that holds the hooks, in the settings of every agent.
const HOOKS: &str = "hooks";

/// The settings that hold nothing but what the agent wants in every file.
pub(super) fn empty(format: Format) -> Value {
    match format {
        Format::Cursor => json!({"version": 1}),
        Format::Claude | Format::Codex | Format::Gemini | Format::Qwen => json!({}),
    }
}

/// Adds entries, each behind those of others; ours from before are replaced where they stand.
///
/// # Errors
///
/// In words: the hooks are not what the agent expects there.
pub(super) fn add(
    settings: &mut Value,
    format: Format,
    entries: &[(&str, Value)],
) -> Result<(), String> {
    let Value::Object(top) = settings else {
        return Err("holds no object".to_owned());
    };
    if format == Format::Cursor && !top.contains_key("version") {
        top.insert("version".to_owned(), json!(1));
    }
    let hooks = object(top, HOOKS)?;
    for (event, entry) in entries {
        let list = hooks
            .entry((*event).to_owned())
            .or_insert_with(|| json!([]));
        let Value::Array(list) = list else {
            return Err(format!("has `hooks.{event}`, which is no list"));
        };
        match list.iter_mut().find(|known| is_ours(known)) {
            Some(known) => {
                if alone(known) {
                    entry.clone_into(known);
                } else {
                    strip(known);
                    list.push(entry.clone());
                }
            }
            None => list.push(entry.clone()),
        }
    }
    Ok(())
}

/// Takes our entries out, and what is empty without them.
///
/// # Errors
///
/// As [`add`].
pub(super) fn remove(settings: &mut Value, _: Format) -> Result<(), String> {
    let Value::Object(top) = settings else {
        return Err("holds no object".to_owned());
    };
    if !top.contains_key(HOOKS) {
        return Ok(());
    }
    let hooks = object(top, HOOKS)?;
    let mut emptied = Vec::new();
    for (event, list) in hooks.iter_mut() {
        let Value::Array(list) = list else { continue };
        let before = list.len();
        list.retain(|entry| !(is_ours(entry) && alone(entry)));
        list.iter_mut()
            .filter(|entry| is_ours(entry))
            .for_each(strip);
        if list.is_empty() && before > 0 {
            emptied.push(event.clone());
        }
    }
    for event in &emptied {
        hooks.shift_remove(event);
    }
    if hooks.is_empty() && !emptied.is_empty() {
        top.shift_remove(HOOKS);
    }
    Ok(())
}

/// The member of Gemini's settings that turns hooks on and off, and the one in it.
const SWITCH: [&str; 2] = ["hooksConfig", "enabled"];

/// The member of Qwen Code's settings that turns all hooks off.
const OFF: &str = "disableAllHooks";

/// Has the settings of the machine turn hooks on, whatever a user's say.
///
/// # Errors
///
/// As [`add`].
pub(super) fn enforce(settings: &mut Value, format: Format) -> Result<(), String> {
    match (format, settings) {
        (Format::Gemini, Value::Object(top)) => {
            object(top, SWITCH[0])?.insert(SWITCH[1].to_owned(), true.into());
        }
        (Format::Qwen, Value::Object(top)) => {
            top.insert(OFF.to_owned(), false.into());
        }
        _ => {}
    }
    Ok(())
}

/// Takes out what [`enforce`] puts in.
pub(super) fn release(settings: &mut Value, format: Format) {
    let Value::Object(top) = settings else {
        return;
    };
    if format == Format::Qwen && top.get(OFF) == Some(&Value::Bool(false)) {
        top.shift_remove(OFF);
    }
    if format == Format::Gemini
        && let Some(Value::Object(switch)) = top.get_mut(SWITCH[0])
    {
        if switch.get(SWITCH[1]) == Some(&Value::Bool(true)) {
            switch.shift_remove(SWITCH[1]);
        }
        if switch.is_empty() {
            top.shift_remove(SWITCH[0]);
        }
    }
}

/// The settings as text, indented as the file was.
pub(super) fn written(settings: &Value, before: Option<&str>) -> io::Result<String> {
    let indent = before.and_then(indent_of).unwrap_or("  ");
    let mut out = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent.as_bytes());
    settings.serialize(&mut serde_json::Serializer::with_formatter(
        &mut out, formatter,
    ))?;
    out.push(b'\n');
    String::from_utf8(out).map_err(io::Error::other)
}

/// The space before the first member.
fn indent_of(text: &str) -> Option<&str> {
    let line = text.lines().nth(1)?;
    let end = line.find(|c| c != ' ' && c != '\t')?;
    (end > 0).then(|| &line[..end])
}

fn object<'m>(
    members: &'m mut Map<String, Value>,
    name: &str,
) -> Result<&'m mut Map<String, Value>, String> {
    match members.entry(name.to_owned()).or_insert_with(|| json!({})) {
        Value::Object(object) => Ok(object),
        _ => Err(format!("has `{name}`, which is no object")),
    }
}

/// Whether an entry runs this program as a hook: itself (Cursor), or one of its own hooks (all others).
fn is_ours(entry: &Value) -> bool {
    runs_us(entry) || inner(entry).is_some_and(|hooks| hooks.iter().any(runs_us))
}

/// Whether nothing of others is in an entry of ours.
fn alone(entry: &Value) -> bool {
    inner(entry).is_none_or(|hooks| hooks.iter().all(runs_us))
}

fn strip(entry: &mut Value) {
    if let Some(Value::Array(hooks)) = entry.get_mut(HOOKS) {
        hooks.retain(|hook| !runs_us(hook));
    }
}

fn inner(entry: &Value) -> Option<&Vec<Value>> {
    entry.get(HOOKS)?.as_array()
}

/// Whether a hook runs this program as one.
pub fn runs_us(hook: &Value) -> bool {
    let command = hook.get("command").and_then(Value::as_str);
    let Some(words) = command.and_then(shlex::split) else {
        return false;
    };
    let program = words
        .first()
        .map(|word| word.rsplit('/').next().unwrap_or(word));
    program == Some("enforcer") && words.get(1).is_some_and(|word| word == "hook")
}

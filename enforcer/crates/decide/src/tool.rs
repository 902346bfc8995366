//! What a tool call of an agent does, as far as it is judged: a command, paths, URLs, or nothing that is looked into.
//!
//! The names and fields are those of [`agents`]. A field that is missing or of another type is a fault: what is not
//! understood is denied.

use serde_json::{Map, Value};

use enforcer_policy::{Policy, compile::Glob};

use super::{
    Outcome,
    agents::{self, ToolKind, fields},
};
use enforcer_policy::{Cause, Decision, Risk};

/// URLs of one call that are looked at; with more it is denied.
pub const MOST_URLS: usize = 256;

/// What a call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolAction {
    /// Gives a text to a shell.
    Text(String),
    /// Starts a program with these words.
    Words(Vec<String>),
    /// Reads or writes files.
    Paths {
        /// The paths as given.
        paths: Vec<String>,
        /// Patterns of paths, relative to each of `paths`.
        patterns: Vec<String>,
        /// Whether it writes.
        writes: bool,
    },
    /// Reaches the web.
    Web(Vec<String>),
    /// Something else.
    Other,
}

/// Why a call cannot be understood, in words for its reason.
pub type ToolFault = String;

/// What the call of a tool does.
///
/// # Errors
///
/// A field that it needs is missing, not of its type, or holds a NUL.
pub fn call(
    policy: &Policy,
    tool: &str,
    input: &Map<String, Value>,
) -> Result<ToolAction, ToolFault> {
    let known = agents::tool(tool);
    let listed = first(&policy.web_tools.whitelist, tool).is_some();
    match known.map(|known| known.kind) {
        Some(ToolKind::Shell) => command(tool, input, known.is_some_and(|known| known.words)),
        Some(ToolKind::Patch) => patch(tool, input),
        Some(kind @ (ToolKind::Read | ToolKind::Write)) => {
            let paths = paths(tool, input)?;
            if paths.is_empty() {
                return Err(format!("{tool} names no path"));
            }
            Ok(ToolAction::Paths {
                paths,
                patterns: Vec::new(),
                writes: kind == ToolKind::Write,
            })
        }
        Some(ToolKind::Search) => {
            let mut paths = paths(tool, input)?;
            if paths.is_empty() {
                paths.push(".".to_owned());
            }
            let mut patterns = Vec::new();
            if known.is_some_and(|known| known.globs) {
                for field in &fields().pattern {
                    patterns.extend(optional(tool, input, field)?);
                }
            }
            Ok(ToolAction::Paths {
                paths,
                patterns,
                writes: false,
            })
        }
        Some(ToolKind::Web) => urls(tool, input).map(ToolAction::Web),
        _ if listed => urls(tool, input).map(ToolAction::Web),
        Some(ToolKind::Code | ToolKind::Internal) | None => Ok(ToolAction::Other),
    }
}

/// Judges the tool itself: a web tool, or one that is nothing else.
pub fn judge(policy: &Policy, tool: &str, web: bool) -> Outcome {
    let web_pattern = first(&policy.web_tools.whitelist, tool).filter(|_| web);
    let pattern = web_pattern.or_else(|| first(&policy.tools.always_allowed, tool));
    if let Some(pattern) = pattern {
        return allowed(
            Some(pattern),
            format!("Tool is allowed: {tool} (matches {pattern})"),
        );
    }
    let (reason, list) = if web {
        (
            format!("Web tool not in whitelist (deny by default): {tool}"),
            "web_tools.whitelist",
        )
    } else {
        (unknown(tool), "tools.always_allowed")
    };
    // A name as it is written in the policy; what no name looks like is not repeated as one.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    let entry = if !tool.is_empty() && tool.len() <= 128 && tool.chars().all(plain) {
        format!("\"{tool}\"")
    } else {
        "it".to_owned()
    };
    let hint = format!("the operator can add {entry} to `{list}` of the policy");
    Outcome {
        suggestion: Some(hint.clone()),
        suggestions: vec![hint],
        ..denied(Cause::Default, reason)
    }
}

/// Why a tool that is none of files, commands or the web is denied.
fn unknown(tool: &str) -> String {
    let mut reason = format!("Unknown tool (deny by default): {tool}");
    match agents::tool(tool).map(|known| known.kind) {
        Some(ToolKind::Code) => {
            reason.push_str(
                " runs code that is not judged; the policy allows it by name or not at all",
            );
        }
        Some(_) => {
            let agents = agents::having(tool).join(", ");
            reason =
                format!("Tool not allowed by the policy (deny by default): {tool} of {agents}");
        }
        None => {}
    }
    reason
}

/// A denial for want of anything that allows, or of anything that could be judged.
pub fn denied(cause: Cause, reason: String) -> Outcome {
    Outcome {
        decision: Decision::Deny,
        cause,
        rule: None,
        reason,
        risk: Risk::Medium,
        suggestion: None,
        suggestions: Vec::new(),
        security_risk: false,
    }
}

/// An allowance by an entry of a list, or by default.
pub fn allowed(rule: Option<&str>, reason: String) -> Outcome {
    Outcome {
        decision: Decision::Allow,
        rule: rule.map(str::to_owned),
        risk: Risk::Low,
        ..denied(rule.map_or(Cause::Default, |_| Cause::Rule), reason)
    }
}

/// The strictest outcome, the first among equals; `None` of none.
pub fn strictest(outcomes: impl IntoIterator<Item = Outcome>) -> Option<Outcome> {
    outcomes.into_iter().reduce(|known, next| {
        if next.decision > known.decision {
            next
        } else {
            known
        }
    })
}

fn first<'p>(patterns: &'p [String], tool: &str) -> Option<&'p str> {
    patterns
        .iter()
        .map(String::as_str)
        .find(|pattern| Glob::parse(pattern).matches(tool))
}

/// A text without NUL.
fn text(tool: &str, field: &str, value: &Value) -> Result<String, ToolFault> {
    let Value::String(text) = value else {
        return Err(format!("{tool}: `{field}` is not a string"));
    };
    if text.contains('\0') {
        return Err(format!("{tool}: `{field}` holds a NUL"));
    }
    Ok(text.clone())
}

fn optional(
    tool: &str,
    input: &Map<String, Value>,
    field: &str,
) -> Result<Option<String>, ToolFault> {
    match input.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => text(tool, field, value).map(Some),
    }
}

/// The texts of a list.
fn list(tool: &str, field: &str, items: &[Value]) -> Result<Vec<String>, ToolFault> {
    items.iter().map(|item| text(tool, field, item)).collect()
}

/// A command: a text, or, of a tool that takes them, words.
fn command(tool: &str, input: &Map<String, Value>, words: bool) -> Result<ToolAction, ToolFault> {
    let present = |field: &&String| {
        input
            .get(field.as_str())
            .is_some_and(|value| !value.is_null())
    };
    let mut fields = fields().command.iter().filter(present);
    let Some(field) = fields.next() else {
        return Err(format!("{tool}: `command` is missing"));
    };
    if fields.next().is_some() {
        return Err(format!("{tool}: both `command` and `cmd` are given"));
    }
    match &input[field.as_str()] {
        Value::Array(_) if !words => Err(format!(
            "{tool}: `{field}` is a list, and this tool takes a string"
        )),
        Value::Array(words) => {
            let words = list(tool, field, words)?;
            if words.first().is_none_or(String::is_empty) {
                return Err(format!("{tool}: `{field}` is empty"));
            }
            Ok(ToolAction::Words(words))
        }
        value => {
            let text = text(tool, field, value)?;
            if text.trim().is_empty() {
                return Err(format!("{tool}: `{field}` is empty"));
            }
            Ok(ToolAction::Text(text))
        }
    }
}

/// The directories that the call of a shell tool names for its command.
///
/// # Errors
///
/// One is not a string, or holds a NUL.
pub fn directories(tool: &str, input: &Map<String, Value>) -> Result<Vec<String>, ToolFault> {
    let mut named = Vec::new();
    if agents::tool(tool).is_some_and(|known| known.kind == ToolKind::Shell) {
        for field in &fields().directory {
            named.extend(optional(tool, input, field)?.filter(|text| !text.is_empty()));
        }
    }
    Ok(named)
}

fn paths(tool: &str, input: &Map<String, Value>) -> Result<Vec<String>, ToolFault> {
    let mut paths = Vec::new();
    for field in &fields().path {
        paths.extend(optional(tool, input, field)?);
    }
    for field in &fields().paths {
        match input.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => paths.extend(list(tool, field, items)?),
            Some(value) => paths.push(text(tool, field, value)?),
        }
    }
    if paths.iter().any(String::is_empty) {
        return Err(format!("{tool} names an empty path"));
    }
    Ok(paths)
}

/// The files of a patch in the form that Codex has for them.
fn patch(tool: &str, input: &Map<String, Value>) -> Result<ToolAction, ToolFault> {
    let mut texts = Vec::new();
    for field in &fields().patch {
        match input.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => texts.extend(list(tool, field, items)?),
            Some(value) => texts.push(text(tool, field, value)?),
        }
    }
    let paths: Vec<String> = texts
        .iter()
        .flat_map(|text| super::patch::paths(text))
        .collect();
    if paths.is_empty() {
        return Err(format!("{tool}: the patch names no file"));
    }
    Ok(ToolAction::Paths {
        paths,
        patterns: Vec::new(),
        writes: true,
    })
}

/// All URLs of a call: fields that are one, and those in any other text.
fn urls(tool: &str, input: &Map<String, Value>) -> Result<Vec<String>, ToolFault> {
    let mut urls = Vec::new();
    for (field, value) in input {
        collect(field, value, &mut urls);
    }
    if urls.len() > MOST_URLS {
        return Err(format!(
            "{tool} names more than {MOST_URLS} URLs, too many to judge"
        ));
    }
    if urls.is_empty() && tool.to_ascii_lowercase().contains("fetch") {
        return Err(format!("{tool} names no URL"));
    }
    Ok(urls)
}

fn collect(field: &str, value: &Value, urls: &mut Vec<String>) {
    match value {
        Value::String(text) if fields().url.iter().any(|url| url == field) => {
            urls.push(text.clone());
        }
        Value::String(text) => {
            urls.extend(super::web::urls_in(text).into_iter().map(str::to_owned));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(field, item, urls)),
        Value::Object(members) => members
            .iter()
            .for_each(|(key, item)| collect(key, item, urls)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
#[path = "tool_tests.rs"]
mod tests;

//! What a tool call of an agent does, as far as it is judged: a command, paths, URLs, or nothing that is looked into.
//!
//! The names and fields are those of Claude Code, Codex, Gemini CLI and Cursor. A field that is missing or of another
//! type is a fault: what is not understood is denied.

use serde_json::{Map, Value};

use crate::policy::{Policy, compile::Glob};

use super::{Decision, Outcome, Risk};

/// Tools that hand a text or words to a shell.
const SHELLS: [&str; 12] = [
    "Bash",
    "bash",
    "Shell",
    "shell",
    "local_shell",
    "shell_command",
    "exec_command",
    "unified_exec",
    "container.exec",
    "run_shell_command",
    "run_terminal_cmd",
    "Terminal",
];

/// Tools that read one file or several.
const READERS: [&str; 7] = [
    "Read",
    "NotebookRead",
    "read_file",
    "read_many_files",
    "view_image",
    "ReadFile",
    "TabRead",
];

/// Tools that write, move or remove a file.
const WRITERS: [&str; 11] = [
    "Write",
    "Edit",
    "MultiEdit",
    "NotebookEdit",
    "write_file",
    "replace",
    "edit_file",
    "Delete",
    "delete_file",
    "search_replace",
    "TabWrite",
];

/// Tools that look through a directory, the working directory unless they name one.
const SEARCHERS: [&str; 13] = [
    "Glob",
    "Grep",
    "LS",
    "list_directory",
    "list_dir",
    "glob",
    "glob_file_search",
    "search_file_content",
    "grep_search",
    "grep",
    "grep_files",
    "file_search",
    "codebase_search",
];

/// Tools whose `pattern` is one of paths.
const GLOBBERS: [&str; 4] = ["Glob", "glob", "glob_file_search", "file_search"];

/// Tools that reach the web by their own means.
const WEB: [&str; 9] = [
    "WebFetch",
    "WebSearch",
    "Fetch",
    "fetch",
    "web_fetch",
    "web_search",
    "google_web_search",
    "mcp__fetch__fetch",
    "url_fetch",
];

/// Fields that name a path.
const PATH_FIELDS: [&str; 10] = [
    "file_path",
    "path",
    "absolute_path",
    "target_file",
    "notebook_path",
    "dir_path",
    "directory",
    "target_directory",
    "old_path",
    "new_path",
];
/// Fields that name several.
const PATHS_FIELDS: [&str; 4] = ["paths", "file_paths", "target_directories", "include"];
/// Fields that hold a pattern of paths.
const PATTERN_FIELDS: [&str; 3] = ["pattern", "glob_pattern", "query"];
/// Fields that are a URL as a whole.
const URL_FIELDS: [&str; 5] = ["url", "urls", "uri", "href", "link"];
/// URLs of one call that are looked at; with more it is denied.
pub const MOST_URLS: usize = 256;

/// What a call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
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
pub type Fault = String;

/// What the call of a tool does.
///
/// # Errors
///
/// A field that it needs is missing, not of its type, or holds a NUL.
pub fn call(policy: &Policy, tool: &str, input: &Map<String, Value>) -> Result<Call, Fault> {
    if SHELLS.contains(&tool) {
        return command(tool, input);
    }
    if tool == "apply_patch" {
        return patch(input);
    }
    let (reads, writes) = (READERS.contains(&tool), WRITERS.contains(&tool));
    if reads || writes {
        let paths = paths(tool, input)?;
        if paths.is_empty() {
            return Err(format!("{tool} names no path"));
        }
        return Ok(Call::Paths {
            paths,
            patterns: Vec::new(),
            writes,
        });
    }
    if SEARCHERS.contains(&tool) {
        let mut paths = paths(tool, input)?;
        if paths.is_empty() {
            paths.push(".".to_owned());
        }
        let mut patterns = Vec::new();
        if GLOBBERS.contains(&tool) {
            for field in PATTERN_FIELDS {
                patterns.extend(optional(tool, input, field)?);
            }
        }
        return Ok(Call::Paths {
            paths,
            patterns,
            writes: false,
        });
    }
    if WEB.contains(&tool) || first(&policy.web_tools.whitelist, tool).is_some() {
        return urls(tool, input).map(Call::Web);
    }
    Ok(Call::Other)
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
        (
            format!("Unknown tool (deny by default): {tool}"),
            "tools.always_allowed",
        )
    };
    Outcome {
        suggestion: Some(format!("the operator can add it to `{list}` of the policy")),
        ..denied(reason)
    }
}

/// A denial for want of anything that allows, or of anything that could be judged.
pub fn denied(reason: String) -> Outcome {
    Outcome {
        decision: Decision::Deny,
        rule: None,
        reason,
        risk: Risk::Medium,
        suggestion: None,
        suggestions: Vec::new(),
        security_risk: false,
    }
}

/// An allowance by an entry of a list, if one made it.
pub fn allowed(rule: Option<&str>, reason: String) -> Outcome {
    Outcome {
        decision: Decision::Allow,
        rule: rule.map(str::to_owned),
        risk: Risk::Low,
        ..denied(reason)
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
fn text(tool: &str, field: &str, value: &Value) -> Result<String, Fault> {
    let Value::String(text) = value else {
        return Err(format!("{tool}: `{field}` is not a string"));
    };
    if text.contains('\0') {
        return Err(format!("{tool}: `{field}` holds a NUL"));
    }
    Ok(text.clone())
}

fn optional(tool: &str, input: &Map<String, Value>, field: &str) -> Result<Option<String>, Fault> {
    match input.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => text(tool, field, value).map(Some),
    }
}

/// The texts of a list.
fn list(tool: &str, field: &str, items: &[Value]) -> Result<Vec<String>, Fault> {
    items.iter().map(|item| text(tool, field, item)).collect()
}

fn command(tool: &str, input: &Map<String, Value>) -> Result<Call, Fault> {
    let present = |field: &&&str| input.get(**field).is_some_and(|value| !value.is_null());
    let mut fields = ["command", "cmd"].iter().filter(present);
    let Some(field) = fields.next() else {
        return Err(format!("{tool}: `command` is missing"));
    };
    if fields.next().is_some() {
        return Err(format!("{tool}: both `command` and `cmd` are given"));
    }
    match &input[*field] {
        Value::Array(words) => {
            let words = list(tool, field, words)?;
            if words.first().is_none_or(String::is_empty) {
                return Err(format!("{tool}: `{field}` is empty"));
            }
            Ok(Call::Words(words))
        }
        value => {
            let text = text(tool, field, value)?;
            if text.trim().is_empty() {
                return Err(format!("{tool}: `{field}` is empty"));
            }
            Ok(Call::Text(text))
        }
    }
}

fn paths(tool: &str, input: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    let mut paths = Vec::new();
    for field in PATH_FIELDS {
        paths.extend(optional(tool, input, field)?);
    }
    for field in PATHS_FIELDS {
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
fn patch(input: &Map<String, Value>) -> Result<Call, Fault> {
    const MARKS: [&str; 4] = ["Add File:", "Update File:", "Delete File:", "Move to:"];
    let mut texts = Vec::new();
    for field in ["command", "input", "patch"] {
        match input.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => texts.extend(list("apply_patch", field, items)?),
            Some(value) => texts.push(text("apply_patch", field, value)?),
        }
    }
    let mut paths = Vec::new();
    // Only a line that begins with it is a mark; one in the content has a `+`, `-` or space before it. Lines that
    // are indented as a whole count as well: some readers take the space away.
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some(rest) = line.trim_start().strip_prefix("*** ") else {
            continue;
        };
        let rest = rest.trim_start();
        let path = MARKS.iter().find_map(|mark| rest.strip_prefix(mark));
        if let Some(path) = path.map(str::trim).filter(|path| !path.is_empty()) {
            paths.push(path.to_owned());
        }
    }
    if paths.is_empty() {
        return Err("apply_patch: the patch names no file".to_owned());
    }
    Ok(Call::Paths {
        paths,
        patterns: Vec::new(),
        writes: true,
    })
}

/// All URLs of a call: fields that are one, and those in any other text.
fn urls(tool: &str, input: &Map<String, Value>) -> Result<Vec<String>, Fault> {
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
        Value::String(text) if URL_FIELDS.contains(&field) => urls.push(text.clone()),
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

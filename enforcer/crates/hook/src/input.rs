//! What an agent says on standard input: one JSON object, of bounded size, in bounded time.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value};

use super::{
    claude,
    format::{Format, Shape},
};

/// Bytes of an event.
pub const MAX_BYTES: usize = 16 << 20;
/// How long an event may take to arrive.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// An event: a tool call that waits for an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// What the answer has to look like.
    pub shape: Shape,
    /// The tool.
    pub tool: String,
    /// What it is called with.
    pub input: Map<String, Value>,
    /// The working directory.
    pub cwd: Option<String>,
    /// The project's directories, where the agent names them.
    pub roots: Vec<String>,
    /// The subagent that calls.
    pub agent: Option<String>,
    /// The agent's session.
    pub session: Option<String>,
}

/// Why there is no event, and what the answer has to look like as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFault {
    /// Whose answer it is; `None`: only an exit status can say no.
    pub shape: Option<Shape>,
    /// What is wrong.
    pub why: String,
}

impl ToolCall {
    pub(super) fn new(format: Format, event: &str) -> Self {
        Self {
            shape: Shape {
                event: event.to_owned(),
                ..format.shape()
            },
            tool: String::new(),
            input: Map::new(),
            cwd: None,
            roots: Vec::new(),
            agent: None,
            session: None,
        }
    }
}

/// Reads to the end, at most [`MAX_BYTES`], and not after the deadline.
///
/// # Errors
///
/// In words: it is too much, takes too long, or cannot be read.
pub fn read(mut input: impl Read + AsFd, patience: Duration) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let ready = {
            let mut look = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            match poll(&mut look, timeout) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(format!("standard input cannot be read: {errno}")),
            }
        };
        if ready == 0 {
            return Err(format!(
                "the event did not end within {} s",
                patience.as_secs()
            ));
        }
        match input.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("standard input cannot be read: {error}")),
        }
        if bytes.len() > MAX_BYTES {
            return Err(format!("the event is larger than {} MiB", MAX_BYTES >> 20));
        }
    }
}

/// Reads an event from its text. `format` is the contract that was named, if one was.
///
/// # Errors
///
/// [`InputFault`]; the text is no JSON object, or no event that is known.
pub fn parse(bytes: &[u8], format: Option<Format>) -> Result<ToolCall, InputFault> {
    let fault = |shape: Option<Shape>, why: String| InputFault { shape, why };
    let named = format.map(Format::shape);
    if bytes.trim_ascii().is_empty() {
        return Err(fault(
            named,
            "The hook got no event: standard input is empty".into(),
        ));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        let what = if error.is_eof() {
            "ends too early"
        } else {
            "is no JSON"
        };
        fault(named.clone(), format!("The hook's event {what}: {error}"))
    })?;
    let Value::Object(object) = value else {
        return Err(fault(named, "The hook's event is no JSON object".into()));
    };
    let Some(format) = format.or_else(|| Format::detect(&object)) else {
        let event = object.get("hook_event_name").map(Value::to_string);
        return Err(fault(
            None,
            format!(
                "The hook's event is not known (hook_event_name: {}); name the agent with --format",
                event.as_deref().map_or("none", short)
            ),
        ));
    };
    let mut shape = format.shape();
    // Answers differ by event; the name of one that is not known changes nothing.
    if let Some(event) = object.get("hook_event_name").and_then(Value::as_str)
        && (format == Format::Cursor
            || event == claude::REQUEST_EVENT && format.event_name() == claude::EVENT)
    {
        event.clone_into(&mut shape.event);
    }
    format.event(&object).map_err(|why| {
        fault(
            Some(shape),
            format!("The hook's event cannot be judged: {why}"),
        )
    })
}

/// The start of a text, for a message.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(60)]
}

/// The event's name, if it is one of these.
pub(super) fn known<'e>(
    object: &Map<String, Value>,
    events: &[&'e str],
) -> Result<&'e str, String> {
    let name = match object.get("hook_event_name") {
        None => return Err("`hook_event_name` is missing".to_owned()),
        Some(Value::String(name)) => name,
        Some(_) => return Err("`hook_event_name` is not a string".to_owned()),
    };
    events
        .iter()
        .find(|event| **event == name)
        .copied()
        .ok_or_else(|| {
            format!(
                "the event `{}` is not answered, only {}",
                short(name),
                events.join(", ")
            )
        })
}

/// A text that must be there, without NUL.
pub(super) fn required(object: &Map<String, Value>, name: &str) -> Result<String, String> {
    match optional(object, name)? {
        None => Err(format!("`{name}` is missing")),
        Some(text) if text.trim().is_empty() => Err(format!("`{name}` is empty")),
        Some(text) => Ok(text),
    }
}

/// A text, without NUL.
pub(super) fn optional(object: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.contains('\0') => Err(format!("`{name}` holds a NUL")),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{name}` is not a string")),
    }
}

/// A list of texts; none if it is not there.
pub(super) fn texts(object: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::String(text) if !text.contains('\0') => Ok(text.clone()),
                _ => Err(format!("`{name}` holds something that is no text")),
            })
            .collect(),
        Some(_) => Err(format!("`{name}` is not a list")),
    }
}

/// An object, also as JSON in a string.
pub(super) fn object(
    object: &Map<String, Value>,
    name: &str,
) -> Result<Map<String, Value>, String> {
    match object.get(name) {
        None => Err(format!("`{name}` is missing")),
        Some(Value::Object(members)) => Ok(members.clone()),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Ok(members),
            _ => Err(format!("`{name}` is no object")),
        },
        Some(_) => Err(format!("`{name}` is no object")),
    }
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;

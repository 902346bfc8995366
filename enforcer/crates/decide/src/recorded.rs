//! Actions as the trail has them, judged again: what a line tells of an exec or a connect, and what it does not.
//!
//! A line keeps less than what was judged: long texts are cut, secrets are replaced, and `argv[0]` and the way to the
//! file are not written down. What the missing part could change is not guessed.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{command_text, engine::Engine, wording::Outcome};
use enforcer_policy::model::Protocol;
use enforcer_policy::{
    Cause, Decision,
    action::{ConnectAction, ExecAction, ScriptHead, UnixAction},
};

/// What a replaced secret begins with.
const REDACTED: &str = "[REDACTED";
/// What stands for bytes that are not UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// What a line of the trail is about, as far as policies go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// An exec that was judged, in each way in which it may have happened.
    Exec(Vec<ExecAction>),
    /// A connect to an address.
    Connect(ConnectAction),
    /// A connect to a unix socket.
    Unix(UnixAction),
    /// A command text that a hook judged.
    Text(String),
    /// The line does not tell what was judged.
    Unclear(Unclear),
    /// Nothing that rules decide.
    Other(Other),
}

/// Why a line does not tell what was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unclear {
    /// The text was cut.
    Truncated,
    /// A secret was replaced.
    Redacted,
    /// Bytes that are not UTF-8 were replaced.
    NotText,
    /// A key that is needed is not there, or says nothing.
    Incomplete,
    /// The file that ran is another than the one that was named: through a link, or because it is a script. The
    /// policy decides the two differently.
    LinkOrScript,
}

impl Unclear {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "the command was cut when it was recorded",
            Self::Redacted => "a secret in it was replaced when it was recorded",
            Self::NotText => {
                "it has bytes that are not UTF-8, which were replaced when it was recorded"
            }
            Self::Incomplete => "the line lacks what was judged",
            Self::LinkOrScript => {
                "it ran through a link or as a script, which the line does not tell apart and the policy decides differently"
            }
        }
    }
}

/// Why a line is about nothing that rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Other {
    /// The operator's own command.
    Operator,
    /// A refused system call.
    Syscall,
    /// A process outside the agent, an escape, a packet, a socket of a family that is always refused.
    Fixed,
    /// A count of lost events, or the breaker's own line.
    Bookkeeping,
    /// A tool of the agent that is no shell.
    Tool,
}

impl Other {
    /// The kind in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "the operator's own command",
            Self::Syscall => "system calls",
            Self::Fixed => "what is refused under every policy",
            Self::Bookkeeping => "lost events and the breaker",
            Self::Tool => "tools that are no shell",
        }
    }
}

/// What a policy says of a recorded action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It decides so.
    Decided(Outcome),
    /// The line does not tell enough.
    Undecidable(Unclear),
    /// It is nothing that rules decide.
    NoQuestion(Other),
}

impl Recorded {
    /// Reads a line: its `tool` and `parameters`.
    pub fn read(tool: &str, parameters: &Map<String, Value>) -> Self {
        let text = |key: &str| parameters.get(key).and_then(Value::as_str);
        if parameters.contains_key("lost") || tool.is_empty() {
            return Self::Other(Other::Bookkeeping);
        }
        // Of a hook's line this is what the hook says.
        if tool == "exec" && text("cause") == Some(Cause::Operator.as_str()) {
            return Self::Other(Other::Operator);
        }
        match tool {
            "syscall" => Self::Other(Other::Syscall),
            "exec" => match text("command") {
                Some(command) => exec(command, parameters).unwrap_or_else(Self::Unclear),
                None => Self::Other(Other::Fixed),
            },
            "connect" => connect(parameters),
            _ => match text("command") {
                Some(command) => match unclear(command, parameters) {
                    Some(why) => Self::Unclear(why),
                    None => Self::Text(command.to_owned()),
                },
                None => Self::Other(Other::Tool),
            },
        }
    }

    /// What the policy says.
    pub fn judge(&self, engine: &Engine) -> ReplayOutcome {
        match self {
            Self::Exec(ways) => {
                let mut outcomes = ways.iter().map(|action| engine.exec(action));
                let Some(first) = outcomes.next() else {
                    return ReplayOutcome::Undecidable(Unclear::Incomplete);
                };
                if outcomes.all(|other| other.decision == first.decision) {
                    ReplayOutcome::Decided(first)
                } else {
                    ReplayOutcome::Undecidable(Unclear::LinkOrScript)
                }
            }
            Self::Connect(action) => ReplayOutcome::Decided(engine.connect(action)),
            Self::Unix(action) => ReplayOutcome::Decided(engine.unix(action)),
            Self::Text(command) => {
                ReplayOutcome::Decided(command_text::judge(engine, command).outcome)
            }
            Self::Unclear(why) => ReplayOutcome::Undecidable(*why),
            Self::Other(what) => ReplayOutcome::NoQuestion(*what),
        }
    }
}

/// What the policy said when the line was written: `parameters.decision`; without it (a hook's line) what was done.
pub fn decision(event: &str, parameters: &Map<String, Value>) -> Decision {
    match parameters.get("decision").and_then(Value::as_str) {
        Some("allow") => Decision::Allow,
        Some("ask") => Decision::Ask,
        None if event == "approval" => Decision::Allow,
        Some(_) | None => Decision::Deny,
    }
}

/// What keeps a text from being judged again.
fn unclear(text: &str, parameters: &Map<String, Value>) -> Option<Unclear> {
    if parameters.get("truncated").and_then(Value::as_bool) == Some(true) {
        Some(Unclear::Truncated)
    } else if text.contains(REDACTED) {
        Some(Unclear::Redacted)
    } else if text.contains(REPLACEMENT) {
        Some(Unclear::NotText)
    } else {
        None
    }
}

/// The words of a recorded command: by `words`, which gives the length of each in bytes where spaces do not tell them
/// apart; else by its spaces.
pub fn words(command: &str, parameters: &Map<String, Value>) -> Option<Vec<String>> {
    let Some(lengths) = parameters.get("words") else {
        return Some(command.split(' ').map(str::to_owned).collect());
    };
    let mut rest = command;
    let mut words = Vec::new();
    for length in lengths.as_array()? {
        let length = usize::try_from(length.as_u64()?).ok()?;
        if !words.is_empty() {
            rest = rest.strip_prefix(' ')?;
        }
        let (word, behind) = rest.split_at_checked(length)?;
        words.push(word.to_owned());
        rest = behind;
    }
    (rest.is_empty() && !words.is_empty()).then_some(words)
}

fn exec(command: &str, parameters: &Map<String, Value>) -> Result<Recorded, Unclear> {
    if let Some(why) = unclear(command, parameters) {
        return Err(why);
    }
    let text = |key: &str| parameters.get(key).and_then(Value::as_str);
    for other in [text("exe"), text("resolved")].into_iter().flatten() {
        if let Some(why) = unclear(other, parameters) {
            return Err(why);
        }
    }
    let action = action(command, parameters).ok_or(Unclear::Incomplete)?;
    let Some(resolved) = text("resolved") else {
        return Ok(Recorded::Exec(vec![action]));
    };
    let resolved = resolved.as_bytes().to_vec();
    let script = ExecAction {
        resolved: Some(resolved.clone()),
        script: Some(ScriptHead {
            interpreter: resolved.clone(),
            argument: None,
        }),
        ..action.clone()
    };
    let link = ExecAction {
        resolved: Some(resolved),
        ..action
    };
    Ok(Recorded::Exec(vec![link, script]))
}

/// The exec of a line, as far as its text goes: a part of it may have been replaced or cut.
pub fn action(command: &str, parameters: &Map<String, Value>) -> Option<ExecAction> {
    let text = |key: &str| parameters.get(key).and_then(Value::as_str);
    let words = words(command, parameters)?;
    let mut argv: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
    let program = argv.first().cloned().unwrap_or_default();
    let path = text("exe").map_or(program, |exe| exe.as_bytes().to_vec());
    if path.is_empty() {
        return None;
    }
    // argv[0] is not kept: the program's path is what it is unless the caller lies.
    if let Some(first) = argv.first_mut() {
        first.clone_from(&path);
    }
    Some(ExecAction {
        found: text("exe").is_none() && !path.contains(&b'/'),
        path,
        argv,
        fileless: text("rule") == Some("fileless"),
        ..ExecAction::default()
    })
}

fn connect(parameters: &Map<String, Value>) -> Recorded {
    let text = |key: &str| parameters.get(key).and_then(Value::as_str);
    if parameters.contains_key("packet") || parameters.contains_key("family") {
        return Recorded::Other(Other::Fixed);
    }
    let Some(address) = text("address") else {
        return Recorded::Unclear(Unclear::Incomplete);
    };
    if let Some(why) = unclear(address, parameters) {
        return Recorded::Unclear(why);
    }
    if text("protocol") == Some("unix") || address.starts_with(['/', '@']) {
        return if address.starts_with(['/', '@']) {
            Recorded::Unix(UnixAction::new(address))
        } else {
            Recorded::Unclear(Unclear::Incomplete)
        };
    }
    let port = parameters.get("port").and_then(Value::as_u64);
    let protocol = match parameters.get("protocol") {
        Some(Value::String(name)) => Protocol::named(name).map(|protocol| protocol.number().into()),
        Some(number) => number.as_u64(),
        None => None,
    };
    let number = |value: Option<u64>| value.and_then(|value| u16::try_from(value).ok());
    match (address.parse::<IpAddr>(), number(port), number(protocol)) {
        (Ok(address), Some(port), Some(protocol)) => {
            Recorded::Connect(ConnectAction::new(address, port, protocol))
        }
        _ => Recorded::Unclear(Unclear::Incomplete),
    }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;

//! One request as it is kept and shown: text only, sanitised, secrets hidden.

use std::fmt::Write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use enforcer_decide::approval::{Asked, Request};
use enforcer_policy::model::Protocol;

/// Bytes of a command line, path or socket name that a person can be asked to judge. What is longer is not put to
/// anybody: an approver sees the whole, or nothing is approved.
pub const MAX_REQUEST_TEXT: usize = 64 * 1024;

/// Bytes of each of the texts beside it (reason, suggestion, a parent's command line).
const MAX_TEXT: usize = 4096;

/// Ancestors that are kept.
const MAX_PARENTS: usize = 16;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Someone is still to answer.
    Pending,
    /// Someone said yes.
    Approved,
    /// Someone said no, or the supervisor ended.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// All that waited for it are gone.
    Cancelled,
}

impl RequestState {
    /// The word that the database and the command line use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Approved,
            Self::Denied,
            Self::Expired,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
    }
}

/// An ancestor, printable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentText {
    /// Process id.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// How a request ended; empty while it is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_reason: Option<String>,
    /// How far an approval reaches: `once`, `session`, `rule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// UUID, version 4.
    pub id: String,
    /// Where it stands.
    pub state: RequestState,
    /// The agent's name.
    pub agent: String,
    /// The run that the agent belongs to.
    pub instance: String,
    /// `exec`, `connect` or `unix`.
    pub kind: String,
    /// How much damage the action can do.
    pub risk: String,
    /// The program and its arguments, or the address.
    pub command: String,
    /// The path as given to the kernel (exec).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The arguments, `argv[0]` first (exec).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// The working directory (exec).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The file that the path leads to (exec).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its SHA-256, hexadecimal (exec).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Some of it cannot be shown as it is: control characters, or bytes that are no UTF-8.
    #[serde(default)]
    pub unprintable: bool,
    /// The rule that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it asks.
    pub reason: String,
    /// What could be done instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The first process that asked.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// Its ancestors inside the agent, nearest first.
    pub parents: Vec<ParentText>,
    /// Processes that asked for exactly this so far.
    pub waiting: u32,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// Until when an answer counts.
    pub expires_at: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Conclusion,
}

impl RequestRecord {
    /// A new request, pending.
    pub fn new(
        id: String,
        instance: &str,
        asked: &Asked,
        asked_at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        let mut record = Self {
            id,
            state: RequestState::Pending,
            agent: text(&asked.agent),
            instance: instance.to_owned(),
            kind: String::new(),
            risk: asked.risk.as_str().to_owned(),
            command: String::new(),
            path: None,
            argv: Vec::new(),
            cwd: None,
            file: None,
            sha256: None,
            unprintable: false,
            rule: asked.rule.as_deref().map(text),
            reason: text(&asked.reason),
            suggestion: asked.suggestion.as_deref().map(text),
            pid: asked.pid,
            ppid: asked.ppid,
            uid: asked.uid,
            parents: asked
                .parents
                .iter()
                .take(MAX_PARENTS)
                .map(|parent| ParentText {
                    pid: parent.pid,
                    command: text(&parent.command),
                })
                .collect(),
            waiting: 1,
            asked_at,
            expires_at,
            outcome: Conclusion::default(),
        };
        record.show(&asked.request);
        record
    }

    fn show(&mut self, request: &Request) {
        match request {
            Request::Exec(exec) => {
                let given = exec.path.as_slice();
                let arguments = exec.argv.iter().skip(1).map(Vec::as_slice);
                // What runs is the path; argv[0] is the caller's own choice of a name.
                let mut words = enforcer_redact::words(std::iter::once(given).chain(arguments));
                for word in &mut words {
                    *word = escaped(word);
                }
                "exec".clone_into(&mut self.kind);
                self.command = words.join(" ");
                self.path = Some(printable(given));
                self.argv = enforcer_redact::words(exec.argv.iter().map(Vec::as_slice))
                    .iter()
                    .map(|word| escaped(word))
                    .collect();
                self.cwd = Some(printable(&exec.cwd.path));
                self.file = Some(printable(&exec.file.path));
                self.sha256 = Some(hex(&exec.file.sha256));
                self.unprintable = std::iter::once(&exec.path)
                    .chain(&exec.argv)
                    .chain([&exec.cwd.path, &exec.file.path])
                    .any(|raw| is_unprintable(raw));
            }
            Request::Connect(connect) => {
                let protocol = Protocol::numbered(connect.protocol.into()).map_or_else(
                    || format!("protocol {}", connect.protocol),
                    |protocol| protocol.name().to_owned(),
                );
                "connect".clone_into(&mut self.kind);
                self.command = format!(
                    "{protocol} {}",
                    std::net::SocketAddr::new(connect.address, connect.port)
                );
            }
            Request::Unix(name) => {
                "unix".clone_into(&mut self.kind);
                self.command = format!("unix {}", printable(name));
                self.unprintable = is_unprintable(name);
            }
        }
    }

    /// How it ended, in words; `pending` if it has not.
    pub fn ending(&self) -> String {
        let mut words = self.state.as_str().to_owned();
        if let Some(approver) = &self.outcome.approver {
            words.push_str(" by ");
            words.push_str(approver);
        }
        if let Some(at) = self.outcome.answered_at {
            words.push_str(" at ");
            // Writing to a string does not fail.
            let _ = write!(words, "{at:.0}");
        }
        if let Some(reason) = self
            .outcome
            .answer_reason
            .as_deref()
            .filter(|r| !r.is_empty())
        {
            words.push_str(": ");
            words.push_str(reason);
        }
        words
    }
}

/// Bytes of a request's text, for [`MAX_REQUEST_TEXT`].
pub fn request_bytes(request: &Request) -> usize {
    match request {
        Request::Exec(exec) => {
            exec.path.len()
                + exec.argv.iter().map(|word| word.len() + 1).sum::<usize>()
                + exec.cwd.path.len()
                + exec.file.path.len()
        }
        Request::Connect(_) => 0,
        Request::Unix(name) => name.len(),
    }
}

/// A free text, bounded, as it may be written down.
pub fn text(raw: &str) -> String {
    let mut end = raw.len().min(MAX_TEXT);
    while !raw.is_char_boundary(end) {
        end -= 1;
    }
    escaped(&enforcer_redact::text(&raw.as_bytes()[..end]))
}

fn printable(raw: &[u8]) -> String {
    escaped(&enforcer_redact::text(raw))
}

/// Characters that reorder or hide the text around them, spelled out: what a person reads is what there is.
fn escaped(text: &str) -> String {
    if !text.contains(is_deceptive) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_deceptive(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Bidirectional controls, zero-width and other invisible characters (Unicode TR 36), tags, variation selectors.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn is_unprintable(raw: &[u8]) -> bool {
    std::str::from_utf8(raw).map_or(true, |text| {
        text.chars().any(|c| c.is_control() || is_deceptive(c))
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

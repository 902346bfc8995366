//! Whose hook it is: the agents' contracts, told apart by the names of their events.

use serde_json::{Map, Value};

use super::{Answered, claude, codex, cursor, gemini, input::ToolCall, qwen};
use enforcer_policy::Decision;

/// An agent's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Claude Code, `PreToolUse` (and `PermissionRequest`)
    Claude,
    /// Codex, `PreToolUse` (and `PermissionRequest`)
    Codex,
    /// Gemini CLI, `BeforeTool`
    Gemini,
    /// Qwen Code, `PreToolUse` (and `PermissionRequest`)
    Qwen,
    /// Cursor, `beforeShellExecution`, `beforeReadFile`, `beforeMCPExecution`, `preToolUse`
    Cursor,
}

/// Modes of Claude Code (`permission_mode`) in which a person is asked what its hook asks about. Tried with 2.1.332: in
/// `bypassPermissions` such a question counts as a yes for what it takes for sensitive, in `auto` and `plan` a
/// classifier answers it, in `dontAsk` it is a no.
const ATTENDED: [&str; 2] = ["default", "acceptEdits"];

/// What an answer has to look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The contract.
    pub format: Format,
    /// The event that is answered.
    pub event: String,
    /// Whether `ask` reaches a person.
    pub asks: bool,
    /// The agent's mode, where nobody is asked because of it.
    pub unattended: Option<String>,
}

/// What is answered.
#[derive(Clone, Copy, Debug)]
pub struct HookAnswer<'a> {
    /// What the agent shall do.
    pub decision: Decision,
    /// Why, for the model and the user.
    pub text: &'a str,
}

impl Format {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Qwen => "qwen",
            Self::Cursor => "cursor",
        }
    }

    /// The agent's name as its makers write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Claude => "Claude Code",
            Self::Codex => "Codex",
            Self::Gemini => "Gemini CLI",
            Self::Qwen => "Qwen Code",
            Self::Cursor => "Cursor",
        }
    }

    /// Whose event an object is, by the names of its members and of the event.
    pub fn detect(object: &Map<String, Value>) -> Option<Self> {
        let event = object.get("hook_event_name").and_then(Value::as_str)?;
        match event {
            _ if object.contains_key("cursor_version") => Some(Self::Cursor),
            "BeforeTool" => Some(Self::Gemini),
            // Codex has Claude Code's names, and says which model runs besides.
            "PreToolUse" | "PermissionRequest" if object.contains_key("model") => Some(Self::Codex),
            // So has Qwen Code, and says when. Its answers are no weaker in Claude Code's place.
            "PreToolUse" | "PermissionRequest" if object.contains_key("timestamp") => {
                Some(Self::Qwen)
            }
            "PreToolUse" | "PermissionRequest" => Some(Self::Claude),
            _ if event.starts_with("before") || event == "preToolUse" => Some(Self::Cursor),
            _ => None,
        }
    }

    /// The event before any tool.
    pub fn event_name(self) -> &'static str {
        match self {
            Self::Claude | Self::Codex | Self::Qwen => claude::EVENT,
            Self::Gemini => gemini::EVENT,
            Self::Cursor => cursor::TOOL_EVENT,
        }
    }

    /// The answer's shape before anything is known of the event.
    pub fn shape(self) -> Shape {
        Shape {
            format: self,
            event: self.event_name().to_owned(),
            asks: self.asks(),
            unattended: None,
        }
    }

    /// Reads an event.
    ///
    /// # Errors
    ///
    /// In words: the event is not known, or something in it is missing or not of its type.
    pub fn event(self, object: &Map<String, Value>) -> Result<ToolCall, String> {
        match self {
            Self::Claude | Self::Codex | Self::Qwen => claude::event(self, object),
            Self::Gemini => gemini::event(object),
            Self::Cursor => cursor::event(object),
        }
    }

    /// Whether `ask` reaches a person, as far as that depends on the agent alone.
    fn asks(self) -> bool {
        matches!(self, Self::Claude | Self::Cursor)
    }
}

impl Shape {
    /// The same, in a mode of the agent. Claude Code shows a question of its hook to a person in two of its modes; in
    /// the others it drops it, or takes it for a yes, where the call touches `.git`, `.claude` or `.mcp.json`. Qwen Code
    /// shows none in any.
    #[must_use]
    pub fn in_mode(mut self, mode: Option<&str>) -> Self {
        if let Some(mode) =
            mode.filter(|mode| self.format != Format::Qwen && !ATTENDED.contains(mode))
        {
            self.asks = false;
            self.unattended = Some(mode.to_owned());
        }
        self
    }

    /// The answer in the contract's words.
    pub fn answer(&self, verdict: HookAnswer<'_>) -> Answered {
        let value = match self.format {
            Format::Claude | Format::Codex | Format::Qwen
                if self.event == claude::REQUEST_EVENT =>
            {
                claude::answer_request(verdict)
            }
            Format::Claude => claude::answer(verdict),
            Format::Codex => codex::answer(verdict),
            Format::Gemini => gemini::answer(verdict),
            Format::Qwen => qwen::answer(verdict),
            Format::Cursor => cursor::answer(&self.event, verdict),
        };
        Answered {
            stdout: format!("{value}\n"),
            stderr: String::new(),
            code: 0,
        }
    }
}

//! Places in a policy file: a JSON path, and the line and column that it has in the text.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// One step of a [`JsonPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A key of an object.
    Key(Cow<'static, str>),
    /// An element of an array, from 0.
    Index(usize),
}

/// The way from the top of a JSON text to one of its values; shown as `exec.rules[3].regex[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct JsonPath(pub Vec<Step>);

impl JsonPath {
    /// The top of the text.
    pub fn top() -> Self {
        Self::default()
    }

    /// This path, one key further.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// This path, one array element further.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }

    /// The last key of the path.
    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Key(key)) => Some(key),
            _ => None,
        }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_plain(key) => {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(key)?;
                }
                Step::Key(key) => write!(f, "[{}]", quoted(key))?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$'))
}

/// Text in double quotes, control characters escaped, cut after 80 characters: fit for a one-line message.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let mut out = String::from("\"");
    for (at, char) in text.chars().enumerate() {
        if at == MOST {
            out.push('…');
            break;
        }
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            _ if char.is_control() => out.extend(char.escape_default()),
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

/// A place in a policy's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1; 0 when the place is the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 when only the line is known.
    pub column: usize,
    /// The value that is meant; empty for the top of the text.
    pub path: JsonPath,
    /// The file, where it is not the policy's own: a rule set that the policy includes.
    pub file: Option<Arc<str>>,
}

impl Place {
    /// The file as a whole.
    pub fn whole() -> Self {
        Self::default()
    }

    /// The place as compilers write it, with the name of the policy's file or, in a rule set, of that:
    /// `policies/x.json:41:7: exec.rules[3].id`.
    pub fn in_file(&self, policy: &str) -> String {
        let file = self.file.as_deref().unwrap_or(policy);
        let position = match (self.line, self.column) {
            (0, _) => String::new(),
            (line, 0) => format!(":{line}"),
            (line, column) => format!(":{line}:{column}"),
        };
        if self.path.0.is_empty() {
            format!("{file}{position}")
        } else {
            format!("{file}{position}: {}", self.path)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}, ")?;
        }
        match (self.line, self.column) {
            (0, _) => f.write_str("policy")?,
            (line, 0) => write!(f, "line {line}")?,
            (line, column) => write!(f, "line {line}, column {column}")?,
        }
        if !self.path.0.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        Ok(())
    }
}

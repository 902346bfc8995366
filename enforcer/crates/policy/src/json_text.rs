//! A pass over a policy's JSON text for what serde does not tell: where a value stands, whether a key occurs
//! twice in one object, how deep the text is nested.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::error::PolicyError;
use super::place::{JsonPath, Place, Step};

/// Deepest nesting of arrays and objects; a policy needs 6.
pub const MAX_DEPTH: usize = 32;

/// Checks that no object has a key twice and that nothing is nested deeper than [`MAX_DEPTH`].
///
/// The text must be well-formed JSON (checked by serde before); on other text the pass ends early.
pub(super) fn check(text: &str) -> Result<(), PolicyError> {
    let mut walk = Walk::new(text);
    let mut path = JsonPath::top();
    walk.check(&mut path, 0)
}

/// Where the value at `path` stands: the key for a member of an object, else the value's first character. If
/// the path leads out of the text, the last part of it that exists.
pub(super) fn locate(text: &str, path: &JsonPath) -> Place {
    let mut walk = Walk::new(text);
    walk.space();
    let mut found = walk.at;
    for step in &path.0 {
        match walk.enter(step) {
            Some(offset) => found = offset,
            None => break,
        }
    }
    let (line, column) = line_and_column(text, found);
    Place {
        line,
        column,
        path: path.clone(),
        file: None,
    }
}

/// Line and column (both from 1, the column in characters) of a byte offset.
pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(start..).unwrap_or("").chars().count() + 1;
    (line, column)
}

/// A member of an object: its key, and where name and value are written.
pub(super) struct Member<'t> {
    /// The key, decoded.
    pub(super) key: Cow<'t, str>,
    /// The name as it is written, with its quotes.
    pub(super) name: Range<usize>,
    /// The value as it is written.
    pub(super) value: Range<usize>,
}

/// The members of the object that a text is; `None` if it is none. As everywhere here the text must be well-formed.
pub(super) fn members(text: &str) -> Option<Vec<Member<'_>>> {
    let mut walk = Walk::new(text);
    let mut found = Vec::new();
    if !walk.take(b'{') {
        return None;
    }
    while walk.peek() != Some(b'}') {
        let start = walk.at;
        let key = walk.string()?;
        let name = start..walk.at;
        walk.take(b':');
        let value = walk.value();
        found.push(Member { key, name, value });
        if !walk.take(b',') {
            break;
        }
    }
    Some(found)
}

/// Where the elements of the array that a text is are written; `None` if it is none.
pub(super) fn elements(text: &str) -> Option<Vec<Range<usize>>> {
    let mut walk = Walk::new(text);
    let mut found = Vec::new();
    if !walk.take(b'[') {
        return None;
    }
    while !matches!(walk.peek(), None | Some(b']')) {
        found.push(walk.value());
        if !walk.take(b',') {
            break;
        }
    }
    Some(found)
}

struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Walk<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips `byte` and white space around it; false if something else stands there.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
            self.space();
        }
        there
    }

    /// Reads a string and decodes it.
    fn string(&mut self) -> Option<Cow<'t, str>> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return None;
        }
        self.skip_string();
        let raw = self.text.get(start..self.at)?;
        let inner = raw.get(1..raw.len().checked_sub(1)?)?;
        if !inner.contains('\\') {
            return Some(Cow::Borrowed(inner));
        }
        // A lone surrogate cannot be decoded; the typed pass refuses it with its place.
        Some(serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned))
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => return,
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }

    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        loop {
            self.space();
            match self.peek() {
                None => return,
                Some(b'"') => self.skip_string(),
                Some(b'[' | b'{') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b']' | b'}') => {
                    if depth == 0 {
                        return;
                    }
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') => {
                    if depth == 0 {
                        return;
                    }
                    self.at += 1;
                }
                Some(_) => self.scalar(),
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips a value; gives where it is written, without the white space around it.
    fn value(&mut self) -> Range<usize> {
        self.space();
        let start = self.at;
        self.skip_value();
        let written = self.text.get(start..self.at).unwrap_or_default();
        start..start + written.trim_end().len()
    }

    fn scalar(&mut self) {
        while self
            .peek()
            .is_some_and(|byte| !matches!(byte, b',' | b':' | b']' | b'}' | b'[' | b'{' | b'"'))
        {
            self.at += 1;
        }
    }

    /// From the start of a value to the start of its member; gives the offset to report for it.
    fn enter(&mut self, step: &Step) -> Option<usize> {
        match step {
            Step::Key(wanted) => {
                let mut more = self.take(b'{');
                while more {
                    let offset = self.at;
                    let key = self.string()?;
                    self.take(b':');
                    if key == wanted.as_ref() {
                        return Some(offset);
                    }
                    self.skip_value();
                    more = self.take(b',');
                }
                None
            }
            Step::Index(wanted) => {
                if !self.take(b'[') {
                    return None;
                }
                for _ in 0..*wanted {
                    self.skip_value();
                    if !self.take(b',') {
                        return None;
                    }
                }
                (self.peek() != Some(b']')).then_some(self.at)
            }
        }
    }

    fn check(&mut self, path: &mut JsonPath, depth: usize) -> Result<(), PolicyError> {
        self.space();
        let opener = self.peek();
        if !matches!(opener, Some(b'{' | b'[')) {
            self.skip_value();
            return Ok(());
        }
        if depth == MAX_DEPTH {
            let (line, column) = line_and_column(self.text, self.at);
            return Err(PolicyError {
                place: Place {
                    line,
                    column,
                    path: JsonPath::top(),
                    file: None,
                },
                what: format!("the JSON is nested deeper than {MAX_DEPTH} levels"),
                mend: "a policy needs no more than 6; remove the extra brackets".into(),
            });
        }
        self.at += 1;
        self.space();
        if opener == Some(b'{') {
            self.check_object(path, depth)
        } else {
            self.check_array(path, depth)
        }
    }

    fn check_object(&mut self, path: &mut JsonPath, depth: usize) -> Result<(), PolicyError> {
        let mut seen: HashMap<Cow<'t, str>, usize> = HashMap::new();
        while self.peek().is_some_and(|byte| byte != b'}') {
            let offset = self.at;
            let Some(key) = self.string() else {
                return Ok(());
            };
            path.0.push(Step::Key(Cow::Owned(key.clone().into_owned())));
            if let Some(first) = seen.insert(key, offset) {
                let (line, column) = line_and_column(self.text, offset);
                let (first, _) = line_and_column(self.text, first);
                return Err(PolicyError {
                    place: Place {
                        line,
                        column,
                        path: path.clone(),
                        file: None,
                    },
                    what: format!("the key stands twice in one object (first at line {first})"),
                    mend: "keep one of the two".into(),
                });
            }
            self.take(b':');
            self.check(path, depth + 1)?;
            path.0.pop();
            self.take(b',');
        }
        self.at += 1;
        Ok(())
    }

    fn check_array(&mut self, path: &mut JsonPath, depth: usize) -> Result<(), PolicyError> {
        let mut index = 0;
        while self.peek().is_some_and(|byte| byte != b']') {
            path.0.push(Step::Index(index));
            let before = self.at;
            self.check(path, depth + 1)?;
            path.0.pop();
            self.take(b',');
            if self.at == before {
                return Ok(());
            }
            index += 1;
        }
        self.at += 1;
        Ok(())
    }
}

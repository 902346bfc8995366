//! A text as the grammar reads it best, meaning the same to a shell.
//!
//! The grammar knows nothing of some of what a shell does before it has words: the ends of lines that go on may stand
//! inside an operator, a quoted letter or blank is part of a word wherever it stands, a substitution in backquotes ends
//! at the next one, a here document is what a string behind `<<<` is, and `!`, `time` and `coproc` stand before compound
//! commands too. One pass over the text, with the
//! quotes and commands that are open on a stack, writes all this in a form that the grammar knows.

use std::collections::HashSet;

use super::{
    NESTING_MAX, Refused,
    commands::{Commands, Holder},
    documents::{Document, single_quoted},
    words::unescaped,
};

/// Steps that any text may take, and more for each byte: an opening `((` that turns out to be two subshells is read
/// again.
const STEPS_MIN: usize = 10_000;
const STEPS_PER_BYTE: usize = 16;

/// What is open.
#[derive(Debug)]
pub(super) enum Frame {
    /// Commands, or the words of an array.
    Commands(Commands),
    /// `"…"`.
    Double,
    /// `${…}`. Single quotes quote in it, or are letters.
    Parameter { quotes: bool },
    /// `((…))`, `$((…))`, `$[…]`; behind how many parentheses, and where to begin again if it is none.
    Arithmetic {
        depth: usize,
        bracket: bool,
        start: usize,
        written: usize,
    },
    /// The body of a here document that is not quoted, to stand in double quotes.
    Document,
}

/// The pass over one text.
#[derive(Debug)]
pub(super) struct Rewriter<'t> {
    pub text: &'t [u8],
    pub at: usize,
    pub out: Vec<u8>,
    pub frames: Vec<Frame>,
    pub documents: Vec<Document>,
    /// Where `((` begins no arithmetic.
    pub subshells: HashSet<usize>,
    /// Whether all that is opened is closed.
    pub closed: bool,
    /// Bodies of here documents whose expansions are not closed. A shell runs what it can of them.
    pub unread: Vec<Vec<u8>>,
    /// The last line is a comment.
    pub comment: bool,
    /// Bodies of here documents, and where they are to be written.
    pub bodies: Vec<(usize, Vec<u8>)>,
    depth: usize,
    steps: usize,
}

/// A text in the grammar's form.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub text: String,
    /// Whether all that it opens is closed.
    pub closed: bool,
    /// What of it can only be split at operators.
    pub unread: Vec<String>,
}

/// Rewrites a text.
pub(super) fn rewritten(text: &str) -> Result<Rewritten, Refused> {
    let steps = STEPS_MIN + text.len() * STEPS_PER_BYTE;
    let commands = Frame::Commands(Commands::new(Holder::Text, 0));
    let mut pass = Rewriter::new(text.as_bytes(), commands, 0, steps);
    pass.run()?;
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    Ok(Rewritten {
        text: text(&pass.out),
        closed: pass.closed,
        unread: pass.unread.iter().map(text).collect(),
    })
}

impl<'t> Rewriter<'t> {
    fn new(text: &'t [u8], frame: Frame, depth: usize, steps: usize) -> Self {
        Self {
            text,
            at: 0,
            out: Vec::with_capacity(text.len() + 16),
            frames: vec![frame],
            documents: Vec::new(),
            subshells: HashSet::new(),
            closed: true,
            unread: Vec::new(),
            comment: false,
            bodies: Vec::new(),
            depth,
            steps,
        }
    }

    fn run(&mut self) -> Result<(), Refused> {
        loop {
            self.at = self.joined(self.at);
            if self.at >= self.text.len() {
                break;
            }
            self.step()?;
            match self.frames.last() {
                Some(Frame::Commands(_)) => self.commands()?,
                Some(Frame::Arithmetic { .. }) => self.arithmetic()?,
                _ => self.quoted()?,
            }
        }
        self.end_word();
        self.closed &= self.frames.len() == 1;
        self.forget(0);
        self.place_bodies();
        Ok(())
    }

    fn step(&mut self) -> Result<(), Refused> {
        self.steps = self.steps.checked_sub(1).ok_or(Refused::Steps)?;
        Ok(())
    }

    /// Rewrites a text inside this one.
    pub fn inside<'s>(&mut self, text: &'s [u8], frame: Frame) -> Result<Rewriter<'s>, Refused> {
        if self.depth >= NESTING_MAX {
            return Err(Refused::Nested);
        }
        let mut pass = Rewriter::new(text, frame, self.depth + 1, self.steps);
        pass.run()?;
        self.steps = pass.steps;
        self.unread.append(&mut pass.unread);
        Ok(pass)
    }

    /// Where the text goes on behind ends of lines that end nothing.
    pub fn joined(&self, mut at: usize) -> usize {
        while self
            .text
            .get(at..)
            .is_some_and(|rest| rest.starts_with(b"\\\n"))
        {
            at += 2;
        }
        at
    }

    /// Whether the text goes on with these bytes, and what stands behind them.
    pub fn behind(&self, bytes: &[u8]) -> Option<usize> {
        let mut at = self.at;
        for byte in bytes {
            at = self.joined(at);
            if self.text.get(at) != Some(byte) {
                return None;
            }
            at += 1;
        }
        Some(at)
    }

    /// Takes these bytes if the text goes on with them.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let Some(at) = self.behind(bytes) else {
            return false;
        };
        self.at = at;
        self.out.extend_from_slice(bytes);
        true
    }

    /// Takes all up to a place as it is.
    pub fn copy(&mut self, end: usize) {
        let end = end.min(self.text.len());
        self.out
            .extend_from_slice(self.text.get(self.at..end).unwrap_or_default());
        self.at = end;
    }

    /// `'…'`.
    pub fn single(&mut self) {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\'');
        self.closed &= end.is_some();
        self.copy(end.map_or(self.text.len(), |end| self.at + end + 2));
    }

    /// The quotes of `$'…'`.
    fn ansi_c(&mut self) {
        let mut end = self.at + 1;
        while let Some(byte) = self.text.get(end) {
            match byte {
                b'\'' => return self.copy(end + 1),
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        self.closed = false;
        self.copy(end);
    }

    /// What begins at a `$` or a backquote. `bare`: not in double quotes.
    pub fn expansion(&mut self, bare: bool) -> Result<(), Refused> {
        let (start, written) = (self.at, self.out.len());
        if self.text.get(self.at) == Some(&b'`') {
            return self.backquoted(bare);
        }
        if self.behind(b"$((").is_some() && !self.subshells.contains(&start) {
            self.take(b"$((");
            self.frames.push(Frame::Arithmetic {
                depth: 0,
                bracket: false,
                start,
                written,
            });
        } else if self.take(b"$(") {
            // `$((` is arithmetic to the grammar.
            if self.behind(b"(").is_some() {
                self.out.push(b' ');
            }
            let owner = self.frames.len();
            self.frames
                .push(Frame::Commands(Commands::new(Holder::Substitution, owner)));
        } else if self.take(b"$[") {
            self.frames.push(Frame::Arithmetic {
                depth: 0,
                bracket: true,
                start,
                written,
            });
        } else if self.take(b"${") {
            let quotes = bare || self.has_pattern();
            self.frames.push(Frame::Parameter { quotes });
        } else if let Some(behind) = self.behind(b"$'").filter(|_| bare) {
            self.out.push(b'$');
            self.at = behind - 1;
            self.ansi_c();
        } else if bare && self.take(b"$\"") {
            self.frames.push(Frame::Double);
        } else {
            self.take(b"$");
        }
        Ok(())
    }

    /// Whether a pattern stands behind the operator of `${…}`: there single quotes quote even inside double quotes.
    fn has_pattern(&self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let rest = rest.get(..rest.len().min(256)).unwrap_or_default();
        let rest = rest.strip_prefix(b"!").unwrap_or(rest);
        let name = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
            .count();
        let mut rest = rest.get(name.max(1)..).unwrap_or_default();
        if rest.starts_with(b"[") {
            let end = rest.iter().position(|byte| *byte == b']').unwrap_or(0);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        matches!(rest.first(), Some(b'#' | b'%' | b'/' | b'^' | b','))
    }

    /// `` `…` `` becomes `$(…)`.
    fn backquoted(&mut self, bare: bool) -> Result<(), Refused> {
        let start = self.at + 1;
        let mut end = start;
        while let Some(byte) = self.text.get(end) {
            match byte {
                b'`' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let end = end.min(self.text.len());
        let inside = String::from_utf8_lossy(self.text.get(start..end).unwrap_or_default());
        let escaped: &[char] = if bare {
            &['`', '$', '\\']
        } else {
            &['`', '$', '\\', '"']
        };
        let code = unescaped(&inside, escaped);
        let commands = Frame::Commands(Commands::new(Holder::Text, 0));
        let inside = self.inside(code.as_bytes(), commands)?;
        if end == self.text.len() {
            self.closed = false;
            self.copy(end);
            return Ok(());
        }
        self.out.extend_from_slice(b"$(");
        if inside.closed {
            if inside.out.starts_with(b"(") {
                self.out.push(b' ');
            }
            self.out.extend(inside.out);
            if inside.comment {
                self.out.push(b'\n');
            }
        } else {
            // A shell reads them when it runs them: what is broken ends with them.
            self.out.extend_from_slice(b"eval ");
            self.out.extend(single_quoted(code.as_bytes()));
        }
        self.out.push(b')');
        self.at = end + 1;
        Ok(())
    }

    /// One step inside double quotes, `${…}` or a here document.
    fn quoted(&mut self) -> Result<(), Refused> {
        let byte = self.text.get(self.at).copied().unwrap_or_default();
        match (self.frames.last(), byte) {
            // To a here document a quote is a letter, and a backslash before one, too.
            (Some(Frame::Document), b'"') => {
                self.out.push(b'\\');
                self.copy(self.at + 1);
            }
            (Some(Frame::Document), b'\\')
                if !matches!(self.text.get(self.at + 1), Some(b'$' | b'`' | b'\\')) =>
            {
                self.out.push(b'\\');
                self.copy(self.at + 1);
            }
            (_, b'\\') => self.copy(self.at + 2),
            (Some(Frame::Parameter { quotes }), b'$') => return self.expansion(*quotes),
            (_, b'$' | b'`') => return self.expansion(false),
            (Some(Frame::Double), b'"') | (Some(Frame::Parameter { .. }), b'}') => {
                self.copy(self.at + 1);
                self.frames.pop();
            }
            (Some(Frame::Parameter { .. }), b'"') => {
                self.copy(self.at + 1);
                self.frames.push(Frame::Double);
            }
            (Some(Frame::Parameter { quotes: true }), b'\'') => self.single(),
            _ => self.copy(self.at + 1),
        }
        Ok(())
    }

    /// One step inside arithmetic.
    fn arithmetic(&mut self) -> Result<(), Refused> {
        let byte = self.text.get(self.at).copied().unwrap_or_default();
        let both = self.behind(b"))");
        let Some(Frame::Arithmetic {
            depth,
            bracket,
            start,
            written,
        }) = self.frames.last_mut()
        else {
            return Ok(());
        };
        match byte {
            b'(' => *depth += 1,
            b')' if *depth > 0 => *depth -= 1,
            b')' if !*bracket => {
                if both.is_some() {
                    self.take(b"))");
                    self.frames.pop();
                } else {
                    // Two subshells it was.
                    self.at = *start;
                    self.out.truncate(*written);
                    self.bodies.retain(|(at, _)| at <= written);
                    self.subshells.insert(*start);
                    self.frames.pop();
                }
                return Ok(());
            }
            b']' if *bracket && *depth == 0 => {
                self.frames.pop();
            }
            b'\\' => {
                self.copy(self.at + 2);
                return Ok(());
            }
            b'\'' => {
                self.single();
                return Ok(());
            }
            b'"' => self.frames.push(Frame::Double),
            b'$' | b'`' => return self.expansion(false),
            _ => {}
        }
        self.copy(self.at + 1);
        Ok(())
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;

//! The rewriting pass at redirections: a here document becomes the string that a command reads behind `<<<`.

use super::{
    Refused,
    commands::{Commands, Holder, Position},
    rewrite::{Frame, Rewriter},
};

/// A here document whose body has not come yet.
#[derive(Debug)]
pub(super) struct Document {
    /// The frame whose line it stands on.
    pub owner: usize,
    /// Where its body is to be written.
    written: usize,
    delimiter: Vec<u8>,
    quoted: bool,
    tabs: bool,
}

impl Rewriter<'_> {
    /// An operator of redirection, or a process substitution.
    pub fn redirection(&mut self) {
        let Some(Frame::Commands(commands)) = self.frames.last_mut() else {
            return;
        };
        let owner = commands.owner;
        // `2>`, `{fd}>`: no word of the command.
        commands.word = commands.word.filter(|word| {
            let written = self.out.get(word.start..).unwrap_or_default();
            let digits = written.iter().all(u8::is_ascii_digit);
            let name = written.starts_with(b"{") && written.ends_with(b"}");
            !(word.plain && (digits || name))
        });
        if self.behind(b"<(").is_some() || self.behind(b">(").is_some() {
            self.letter(false);
            let _ = self.take(b"<(") || self.take(b">(");
            let owner = self.frames.len();
            let inside = Commands::new(Holder::Substitution, owner);
            return self.frames.push(Frame::Commands(inside));
        }
        self.end_word();
        let tabs = self.behind(b"<<-").is_some();
        if self.behind(b"<<<").is_none()
            && let Some(behind) = self.behind(b"<<-").or_else(|| self.behind(b"<<"))
        {
            self.at = behind;
            self.out.extend_from_slice(b"<<<");
            self.delimiter(owner, tabs);
            if let Some(commands) = self.top().filter(|it| it.position == Position::Start) {
                commands.position = Position::Name;
            }
            return;
        }
        let operators = [&b"<<<"[..], b"<&", b"<>", b"<", b">>", b">&", b">|", b">"];
        let _ = operators.iter().any(|operator| self.take(operator));
        if let Some(commands) = self.top() {
            commands.target = true;
        }
    }

    /// The word behind `<<`, by which the document ends.
    pub fn delimiter(&mut self, owner: usize, tabs: bool) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t')) {
            self.at = self.joined(self.at + 1);
        }
        let start = self.joined(self.at);
        let (mut delimiter, mut quoted) = (Vec::new(), false);
        self.at = start;
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                b'\\' => {
                    quoted = true;
                    delimiter.extend(self.text.get(self.at + 1));
                    self.at += 2;
                }
                b'\'' | b'"' => {
                    quoted = true;
                    let rest = self.text.get(self.at + 1..).unwrap_or_default();
                    let end = rest.iter().position(|other| *other == byte);
                    self.closed &= end.is_some();
                    let end = end.unwrap_or(rest.len());
                    delimiter.extend_from_slice(rest.get(..end).unwrap_or_default());
                    self.at += end + 2;
                }
                _ => {
                    delimiter.push(byte);
                    self.at += 1;
                }
            }
            self.at = self.joined(self.at);
        }
        self.at = self.at.min(self.text.len());
        self.documents.push(Document {
            owner,
            written: self.out.len(),
            delimiter,
            quoted,
            tabs,
        });
    }

    /// The bodies of the documents of the line that has ended.
    pub fn bodies(&mut self, owner: usize) -> Result<(), Refused> {
        let mut documents = std::mem::take(&mut self.documents);
        let own = documents
            .iter()
            .position(|document| document.owner == owner)
            .unwrap_or(documents.len());
        // What is further in was written later.
        for document in documents.split_off(own) {
            self.body(&document)?;
        }
        self.documents = documents;
        Ok(())
    }

    fn body(&mut self, document: &Document) -> Result<(), Refused> {
        let mut body = Vec::new();
        while self.at < self.text.len() {
            let start = body.len();
            loop {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == b'\n');
                let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                self.at += line.len() + usize::from(end.is_some());
                body.extend_from_slice(line);
                let slashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
                if document.quoted || slashes % 2 == 0 || end.is_none() {
                    break;
                }
                body.pop();
            }
            if document.tabs {
                let line = body.split_off(start);
                let tabs = line.iter().take_while(|byte| **byte == b'\t').count();
                body.extend_from_slice(line.get(tabs..).unwrap_or_default());
            }
            if body.get(start..) == Some(&document.delimiter) {
                body.truncate(start);
                break;
            }
            body.push(b'\n');
        }
        // The end of the last line comes with the operator.
        body.pop();
        let body = if document.quoted {
            single_quoted(&body)
        } else {
            let inside = self.inside(&body, Frame::Document)?;
            if inside.closed {
                [&b"\""[..], &inside.out, b"\""].concat()
            } else {
                let data = single_quoted(&body);
                self.unread.push(body);
                data
            }
        };
        self.bodies.push((document.written, body));
        Ok(())
    }

    /// Forgets the documents that stand in frames from `level` on: there is no line behind theirs.
    pub fn forget(&mut self, level: usize) {
        let documents = std::mem::take(&mut self.documents);
        let (gone, kept) = documents.into_iter().partition(|it| it.owner >= level);
        self.documents = kept;
        self.bodies.extend(
            Vec::into_iter(gone).map(|document: Document| (document.written, b"''".to_vec())),
        );
    }

    /// Writes the bodies of here documents to where they are read.
    pub fn place_bodies(&mut self) {
        if self.bodies.is_empty() {
            return;
        }
        self.bodies.sort_by_key(|(written, _)| *written);
        let length = self
            .bodies
            .iter()
            .map(|(_, body)| body.len())
            .sum::<usize>();
        let mut out = Vec::with_capacity(self.out.len() + length);
        let mut from = 0;
        for (written, body) in self.bodies.drain(..) {
            out.extend_from_slice(self.out.get(from..written).unwrap_or_default());
            out.extend(body);
            from = written;
        }
        out.extend_from_slice(self.out.get(from..).unwrap_or_default());
        self.out = out;
    }
}

/// A text in single quotes.
pub(super) fn single_quoted(text: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in text {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\"'\"'"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

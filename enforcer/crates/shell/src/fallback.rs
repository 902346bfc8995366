//! A text whose syntax is broken, split at operators alone. A quote that is not closed goes on to the end.

use super::{
    Word,
    expand::{Atom, ansi_c, braces, fields},
};

#[derive(Default)]
struct Splitter {
    commands: Vec<Vec<Word>>,
    words: Vec<Word>,
    word: Vec<Atom>,
    /// The next word is a redirection's target, which the command does not get.
    target: bool,
    /// Atoms that braces may still be worked out over.
    left: usize,
    /// Whether they were too few.
    exhausted: bool,
}

impl Splitter {
    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let Some(words) = braces(std::mem::take(&mut self.word), &mut self.left) else {
            self.exhausted = true;
            return;
        };
        if !std::mem::take(&mut self.target) {
            self.words
                .extend(words.iter().flat_map(|word| fields(word)));
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.target = false;
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            self.commands.push(words);
        }
    }
}

/// Splits a text; `None` if its braces go over more than `left` atoms. Behind a substitution in double quotes these go on
/// if it `returns`: where the parentheses are balanced.
pub(super) fn split(text: &str, left: usize, returns: bool) -> Option<Vec<Vec<Word>>> {
    let mut splitter = Splitter {
        left,
        ..Splitter::default()
    };
    let mut chars = text.chars().peekable();
    let mut double = false;
    let mut outer: Vec<bool> = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                double = !double;
                splitter.word.push(Atom::Empty);
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(escaped) => splitter.word.push(Atom::Quoted(escaped)),
                None => splitter.word.push(Atom::Quoted('\\')),
            },
            // A substitution is looked into even in quotes.
            '`' => {
                splitter.end_command();
                double = false;
            }
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                splitter.end_command();
                outer.push(std::mem::take(&mut double));
            }
            '$' if !double && chars.peek() == Some(&'\'') => {
                chars.next();
                let mut inside = String::new();
                while let Some(c) = chars.next_if(|c| *c != '\'') {
                    inside.push(c);
                    if c == '\\' {
                        inside.extend(chars.next());
                    }
                }
                chars.next();
                splitter.word.push(Atom::Empty);
                splitter
                    .word
                    .extend(ansi_c(&inside).chars().map(Atom::Quoted));
            }
            '$' => {
                let mut name = String::from("$");
                while let Some(c) = chars
                    .next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '{' | '}' | '@'))
                {
                    name.push(c);
                }
                splitter.word.push(Atom::Hole(name.into()));
            }
            c if double => splitter.word.push(Atom::Quoted(c)),
            '\'' => {
                splitter.word.push(Atom::Empty);
                while let Some(c) = chars.next_if(|c| *c != '\'') {
                    splitter.word.push(Atom::Quoted(c));
                }
                chars.next();
            }
            ' ' | '\t' => splitter.end_word(),
            '<' | '>' => {
                // `2>`: the number belongs to the redirection.
                let number = |atom: &Atom| matches!(atom, Atom::Bare(c) if c.is_ascii_digit());
                if splitter.word.iter().all(number) {
                    splitter.word.clear();
                }
                splitter.end_word();
                while chars
                    .next_if(|c| matches!(c, '<' | '>' | '&' | '|'))
                    .is_some()
                {}
                splitter.target = true;
            }
            '&' if chars.peek() == Some(&'>') => splitter.end_word(),
            '\n' | ';' | '|' | '(' | ')' | '&' => {
                splitter.end_command();
                match c {
                    '(' => outer.push(false),
                    ')' => double = outer.pop().unwrap_or(false) && returns,
                    _ => {}
                }
            }
            '#' if splitter.word.is_empty() => while chars.next_if(|c| *c != '\n').is_some() {},
            other => splitter.word.push(Atom::Bare(other)),
        }
    }
    splitter.end_command();
    (!splitter.exhausted).then_some(splitter.commands)
}

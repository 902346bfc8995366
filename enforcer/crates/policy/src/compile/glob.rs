//! fnmatch patterns as anchored regular expressions.
//!
//! `*` is any bytes, `?` one character (or one byte that is not valid UTF-8), `[...]` one of a set, `[!...]`
//! one outside it; a `[` without its `]` is itself, and there is no escape character. This is Python's
//! `fnmatch`, which hook policies were written for.

use std::fmt::Write as _;

/// Any bytes.
const ANY_BYTES: &str = "(?s-u:.)*";
/// One character, or one byte of a broken one.
const ANY_CHARACTER: &str = "(?:(?su:.)|(?s-u:.))";
/// Bytes above ASCII, for sets that exclude something: a broken character is outside every set.
const BROKEN: &str = r"(?-u:[\x80-\xff])";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    /// Ranges of characters, and whether they are excluded.
    Set(Vec<(char, char)>, bool),
    Literal(char),
}

impl Token {
    /// Whether it stands for this one character.
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::Literal(own) => *own == c,
            Self::Set(ranges, negated) => {
                ranges.iter().any(|(low, high)| (low..=high).contains(&&c)) != *negated
            }
        }
    }
}

/// A glob, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Reads a pattern; every text is one. A NUL stands for the space, as in the texts that are matched.
    pub fn parse(pattern: &str) -> Self {
        let chars: Vec<char> = pattern
            .chars()
            .map(|c| if c == '\0' { ' ' } else { c })
            .collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            match chars[at] {
                '*' => {
                    if tokens.last() != Some(&Token::Star) {
                        tokens.push(Token::Star);
                    }
                }
                '?' => tokens.push(Token::Any),
                '[' => {
                    if let Some((set, end)) = parse_set(&chars, at + 1) {
                        tokens.push(set);
                        at = end;
                    } else {
                        tokens.push(Token::Literal('['));
                    }
                }
                c => tokens.push(Token::Literal(c)),
            }
            at += 1;
        }
        Self { tokens }
    }

    /// Whether it matches the whole text: for what is no command line (paths, tools, domains), where a pattern is
    /// looked at once and an automaton would cost more. Time: patterns by characters at worst.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut next, mut at) = (0, 0);
        // Where the last star stands, and the first character that it has not taken.
        let mut star: Option<(usize, usize)> = None;
        loop {
            let here = self.tokens.get(next);
            if here == Some(&Token::Star) {
                star = Some((next, at));
                next += 1;
            } else if at == text.len() && here.is_none() {
                return true;
            } else if at < text.len() && here.is_some_and(|token| token.takes(text[at])) {
                next += 1;
                at += 1;
            } else {
                match star {
                    // The star takes one character more; an earlier star need never be asked again.
                    Some((known, taken)) if taken < text.len() => {
                        star = Some((known, taken + 1));
                        next = known + 1;
                        at = taken + 1;
                    }
                    _ => return false,
                }
            }
        }
    }

    /// The program's name, if the text up to the first space (or the end) has no wildcard.
    pub(super) fn head(&self) -> Option<String> {
        let mut name = String::new();
        for token in &self.tokens {
            match token {
                Token::Literal(' ') => break,
                Token::Literal(c) => name.push(*c),
                _ => return None,
            }
        }
        Some(name)
    }

    /// A text that it matches, unless it has a set that no character is in.
    pub(super) fn sample(&self) -> Vec<u8> {
        let mut text = String::new();
        for token in &self.tokens {
            match token {
                Token::Star => {}
                Token::Any => text.push('a'),
                Token::Literal(c) => text.push(*c),
                Token::Set(ranges, negated) => {
                    let of = |c: &char| {
                        ranges.iter().any(|(low, high)| (low..=high).contains(&c)) != *negated
                    };
                    let first = ranges.iter().map(|(low, _)| *low);
                    text.extend(first.chain('\0'..=char::MAX).find(of));
                }
            }
        }
        text.into_bytes()
    }

    /// Whether a match can begin anywhere in the text.
    pub(super) fn floats(&self) -> bool {
        self.tokens.first() == Some(&Token::Star)
    }

    /// How many wildcards of any length stand before the end: what makes automata grow together.
    pub(super) fn stars(&self) -> usize {
        let end = self.tokens.len().saturating_sub(1);
        self.tokens[..end]
            .iter()
            .filter(|token| **token == Token::Star)
            .count()
    }

    /// The regular expression over the text after the program, for a glob with a [`Self::head`].
    pub(super) fn after_head(&self) -> String {
        let space = self
            .tokens
            .iter()
            .position(|token| *token == Token::Literal(' '))
            .unwrap_or(self.tokens.len());
        anywhere(&self.tokens[space..])
    }

    /// The regular expression over the whole text, which matches at its end and nowhere before.
    pub(super) fn closed(&self) -> String {
        let mut out = anywhere(&self.tokens);
        if self.tokens.last() == Some(&Token::Star) {
            out.push_str(ANY_BYTES);
            out.push_str(r"\z");
        }
        out
    }

    /// The regular expression over the whole text.
    ///
    /// With `guard` (allow rules), wildcards in a program part that names no directory and begins with no
    /// wildcard do not match `/` before the first space: `ls*` must not allow `lsdir/anything`.
    pub(super) fn whole(&self, guard: bool) -> String {
        let program = self
            .tokens
            .iter()
            .take_while(|token| **token != Token::Literal(' '));
        let guarded = guard
            && matches!(self.tokens.first(), Some(Token::Literal(_)))
            && !program.clone().any(|token| *token == Token::Literal('/'));
        if guarded {
            in_program(&self.tokens)
        } else {
            anywhere(&self.tokens)
        }
    }
}

/// Reads a set from behind its `[`; gives it and the index of its `]`.
fn parse_set(chars: &[char], from: usize) -> Option<(Token, usize)> {
    let negated = chars.get(from) == Some(&'!');
    let start = if negated { from + 1 } else { from };
    // A `]` in the first place is a member.
    let end = start + 1 + chars.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let members = &chars[start..end];
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == '-' {
            if members[at] <= members[at + 2] {
                ranges.push((members[at], members[at + 2]));
            }
            at += 3;
        } else {
            ranges.push((members[at], members[at]));
            at += 1;
        }
    }
    Some((Token::Set(ranges, negated), end))
}

fn literal(out: &mut String, c: char) {
    let mut buffer = [0; 4];
    out.push_str(&regex_syntax::escape(c.encode_utf8(&mut buffer)));
}

/// A set as an expression, with further characters kept out.
fn set(ranges: &[(char, char)], negated: bool, without: &str) -> String {
    let mut inner = String::new();
    for (low, high) in ranges {
        let _ = write!(inner, r"\x{{{:x}}}-\x{{{:x}}}", *low as u32, *high as u32);
    }
    let mut out = match (ranges.is_empty(), negated) {
        // The intersection with the empty set, which has no spelling of its own.
        (true, false) => return r"[^\x00-\xff]".to_owned(),
        (true, true) => r"[\x{0}-\x{10ffff}]".to_owned(),
        (false, false) => format!("[{inner}]"),
        (false, true) => format!("[^{inner}]"),
    };
    if !without.is_empty() {
        out = format!("[{out}--[{without}]]");
    }
    if negated {
        format!("(?:(?u:{out})|{BROKEN})")
    } else {
        format!("(?u:{out})")
    }
}

/// Whether the set has the space in it.
fn has_space(ranges: &[(char, char)], negated: bool) -> bool {
    ranges
        .iter()
        .any(|(low, high)| (*low..=*high).contains(&' '))
        != negated
}

/// Wildcards match everything.
fn anywhere(tokens: &[Token]) -> String {
    let mut out = String::new();
    let (body, open) = match tokens.split_last() {
        // Whatever follows is accepted: the automaton is done where the star begins.
        Some((Token::Star, body)) => (body, true),
        _ => (tokens, false),
    };
    for token in body {
        match token {
            Token::Star => out.push_str(ANY_BYTES),
            Token::Any => out.push_str(ANY_CHARACTER),
            Token::Set(ranges, negated) => out.push_str(&set(ranges, *negated, "")),
            Token::Literal(c) => literal(&mut out, *c),
        }
    }
    if !open {
        out.push_str(r"\z");
    }
    out
}

/// Wildcards do not match `/` until a space has been passed.
fn in_program(tokens: &[Token]) -> String {
    let mut out = String::new();
    let mut close = 0;
    for (at, token) in tokens.iter().enumerate() {
        let rest = &tokens[at + 1..];
        match token {
            Token::Literal(' ') => {
                out.push_str(&anywhere(&tokens[at..]));
                out.push_str(&")".repeat(close));
                return out;
            }
            Token::Literal(c) => literal(&mut out, *c),
            Token::Star => {
                // Either it passes a space, and all that follows is free, or it stays in the program.
                let _ = write!(
                    out,
                    "[^/ ]*(?: {}|",
                    anywhere(&[&[Token::Star], rest].concat())
                );
                close += 1;
            }
            Token::Any => {
                let _ = write!(out, "(?: {}|(?:(?u:[^/ ])|{BROKEN})", anywhere(rest));
                close += 1;
            }
            Token::Set(ranges, negated) => {
                if has_space(ranges, *negated) {
                    let _ = write!(out, "(?: {}|", anywhere(rest));
                    close += 1;
                }
                out.push_str(&set(ranges, *negated, "/ "));
            }
        }
    }
    out.push_str(r"\z");
    out.push_str(&")".repeat(close));
    out
}

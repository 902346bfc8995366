//! What a command reads from its standard input, and what it writes, as far as the text tells.

use std::{borrow::Cow, rc::Rc};

use super::{Word, expand::ansi_c, statements::substitution};

/// Most bytes of data that are followed from one command to the next.
const DATA_MAX: usize = 1 << 20;

/// What a command reads, or writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Input {
    /// What the text as a whole was given: no data of this text.
    #[default]
    Inherited,
    /// Data that stand in the text.
    Known(Rc<str>),
    /// Data that stand in the text but for some pieces; those are as they are written.
    Template(Rc<str>),
    /// Data known only when it runs: the output of this substitution.
    Unknown(Rc<str>),
}

impl Input {
    /// Data from `source`, known or not.
    pub fn new(data: Option<String>, source: &str) -> Self {
        match data {
            Some(data) => Self::Known(data.into()),
            None => Self::Unknown(source.into()),
        }
    }

    /// The text of words, and whether all of it is known.
    pub fn written(text: String, known: bool) -> Self {
        if known {
            Self::Known(text.into())
        } else {
            Self::Template(text.into())
        }
    }

    /// The data, if they are known.
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(data) => Some(data),
            _ => None,
        }
    }

    /// The data as code: what is not known stands in it as an expansion.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Known(data) | Self::Template(data) => Some(data),
            Self::Inherited | Self::Unknown(_) => None,
        }
    }

    /// What two commands write, one after the other.
    pub fn then(self, next: Self) -> Self {
        match (&self, &next) {
            (Self::Unknown(_), Self::Unknown(_)) => self.also(&next),
            (Self::Unknown(_) | Self::Inherited, _) => self,
            (_, Self::Unknown(_) | Self::Inherited) => next,
            _ => {
                let text =
                    self.code().unwrap_or_default().to_owned() + next.code().unwrap_or_default();
                if text.len() > DATA_MAX {
                    return Self::Unknown("".into());
                }
                Self::written(text, self.known().is_some() && next.known().is_some())
            }
        }
    }

    /// Names the source of unknown data: as it is written, and behind that as it is meant where that is known to be
    /// something else (`'curl' x`, `$C x`).
    pub fn sourced(self, source: &str) -> Self {
        match self {
            Self::Unknown(meant) => Self::Unknown(both(source, &meant)),
            Self::Inherited => Self::Unknown(substitution(source).into()),
            known => known,
        }
    }

    /// Names what it also comes from.
    pub fn also(self, other: &Self) -> Self {
        match (&self, other) {
            (Self::Unknown(own), Self::Unknown(other)) if !other.is_empty() => {
                Self::Unknown(both(inside(own), other))
            }
            _ => self,
        }
    }

    /// Names the source of unknown data that has none yet.
    pub fn meant(self, words: &[Word]) -> Self {
        match &self {
            Self::Unknown(source) if source.is_empty() => {
                let texts: Vec<_> = words.iter().map(quoted).collect();
                Self::Unknown(format!("$({})", texts.join(" ")).into())
            }
            _ => self,
        }
    }

    /// The substitution that stands for unknown data: as it is written, or with its source where that is meant
    /// otherwise.
    pub fn named(&self, written: &str) -> Rc<str> {
        match self {
            Self::Unknown(meant) => {
                let known = inside(written);
                if inside(meant) == known || known.contains(inside(meant)) {
                    written.into()
                } else {
                    Rc::clone(meant)
                }
            }
            _ => written.into(),
        }
    }

    /// Names what was given to the text as a whole after the command that reads it.
    pub fn sourced_if_inherited(self, reader: &str) -> Self {
        match self {
            Self::Inherited => Self::Unknown(format!("$({reader})").into()),
            other => other,
        }
    }

    /// Nothing.
    pub fn none() -> Self {
        Self::Known("".into())
    }
}

/// Longest source that more is added to, in bytes.
const SOURCE_MAX: usize = 16 << 10;

/// The commands of a substitution.
fn inside(source: &str) -> &str {
    let open = ["$(", "<(", "`", "("]
        .iter()
        .find_map(|open| source.strip_prefix(open));
    match open {
        Some(inside) => inside.strip_suffix([')', '`']).unwrap_or(inside),
        None => source,
    }
    .trim()
}

/// A word as a shell reads it back.
fn quoted(word: &Word) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "_@%+=:,./~^*?-[]".contains(c);
    if !word.known() || !word.text.is_empty() && word.text.chars().all(plain) {
        return Cow::Borrowed(&word.text);
    }
    Cow::Owned(format!("'{}'", word.text.replace('\'', r"'\''")))
}

/// One substitution for two: what is written, and what is meant where that stands in no other.
fn both(written: &str, meant: &str) -> Rc<str> {
    let meant = inside(meant);
    if meant.is_empty() || written.contains(meant) {
        return substitution(written).into();
    }
    let own = inside(written);
    let bare = |text: &str| text.replace(['\'', '"', '\\'], "");
    if meant.contains(own) || bare(own) == bare(meant) || own.len() + meant.len() > SOURCE_MAX {
        return format!("$({meant})").into();
    }
    format!("$({own}; {meant})").into()
}

/// What a command writes to its standard output. An unknown output has no source yet.
pub(super) fn output(name: &str, words: &[Word], input: &Input) -> Input {
    let arguments = words.get(1..).unwrap_or_default();
    let known = arguments.iter().all(|word| !word.unknown);
    let data = match name {
        "echo" => return Input::written(echo(arguments), known),
        "printf" => match printf(arguments) {
            Some(text) => return Input::written(text, known),
            None => None,
        },
        "cat" | "tee" => {
            let files = arguments.iter().any(|word| !word.text.starts_with('-'));
            if name == "tee" || !files {
                return input.clone();
            }
            None
        }
        "base64" | "openssl" if has_any(arguments, &["-d", "-D", "--decode", "-di"]) => {
            input.known().and_then(decode_base64)
        }
        "xxd" if has_any(arguments, &["-r", "-rp", "-pr"]) => input.known().and_then(decode_hex),
        "rev" if arguments.is_empty() => input.known().map(|text| {
            let lines = text
                .lines()
                .map(|line| line.chars().rev().collect::<String>() + "\n");
            lines.collect()
        }),
        ":" | "true" | "false" | "cd" | "set" | "shift" | "export" | "alias" | "sleep" => {
            Some(String::new())
        }
        _ => None,
    };
    Input::new(data, "")
}

fn has_any(words: &[Word], options: &[&str]) -> bool {
    words
        .iter()
        .any(|word| options.contains(&word.text.as_str()))
}

fn echo(words: &[Word]) -> String {
    let option = |word: &&Word| {
        let letters = word.text.strip_prefix('-');
        letters.is_some_and(|letters| {
            !letters.is_empty() && letters.chars().all(|c| matches!(c, 'n' | 'e' | 'E'))
        })
    };
    let options = words.iter().take_while(option).count();
    let given = |letter: char| {
        words[..options]
            .iter()
            .any(|word| word.text.contains(letter))
    };
    let rest: Vec<&str> = words[options..]
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    let mut text = rest.join(" ");
    if given('e') {
        text = ansi_c(&text);
    }
    if !given('n') {
        text.push('\n');
    }
    text
}

fn printf(words: &[Word]) -> Option<String> {
    let words = match words.first() {
        Some(word) if word.text == "--" => &words[1..],
        Some(word) if word.text.starts_with('-') && word.text.len() > 1 => return None,
        _ => words,
    };
    let (format, arguments) = words.split_first()?;
    let format = ansi_c(&format.text);
    let mut arguments = arguments.iter();
    let mut text = String::new();
    // The format is used again while arguments are left.
    loop {
        let before = arguments.len();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            match chars.next()? {
                '%' => text.push('%'),
                's' | 'd' | 'i' | 'q' | 'c' => {
                    text.push_str(arguments.next().map_or("", |word| word.text.as_str()));
                }
                'b' => text.push_str(&ansi_c(
                    arguments.next().map_or("", |word| word.text.as_str()),
                )),
                _ => return None,
            }
        }
        if text.len() > DATA_MAX {
            return None;
        }
        if arguments.len() == 0 || arguments.len() == before {
            return Some(text);
        }
    }
}

fn decode_base64(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut bits = 0u32;
    let mut count = 0;
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    String::from_utf8(bytes).ok()
}

fn decode_hex(text: &str) -> Option<String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes = digits?
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0))
        .collect();
    String::from_utf8(bytes).ok()
}

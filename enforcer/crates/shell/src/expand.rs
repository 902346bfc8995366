//! From the atoms of a word to the words that a command gets: braces, alternatives, fields.

use std::rc::Rc;

/// Longest sequence such as `{1..100}` that is expanded; a longer one is left as it is, for it makes no name.
const SEQUENCE_MAX: usize = 256;

/// A word of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The word, quotes removed. What is known only when it runs stands in it as it is written: `$x`, `$(id)`, `*`.
    pub text: String,
    /// Whether part of it is known only when it runs.
    pub unknown: bool,
    /// Whether it is a pattern for names of files.
    pub pattern: bool,
    /// The text without its unknown parts.
    pub(super) rest: String,
    /// Whether it begins with a quoted `~`: a file of that name, no home directory.
    pub(super) tilde: bool,
}

impl Word {
    /// A word that is known.
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            rest: text.clone(),
            text,
            unknown: false,
            pattern: false,
            tilde: false,
        }
    }

    /// A word of which nothing is known but how it is written.
    pub(super) fn hole(source: impl Into<String>) -> Self {
        Self {
            text: source.into(),
            unknown: true,
            pattern: false,
            rest: String::new(),
            tilde: false,
        }
    }

    /// The atoms of the word.
    pub(super) fn atoms(&self) -> Vec<Atom> {
        if self.unknown {
            vec![Atom::Hole(self.text.as_str().into())]
        } else {
            value(&self.text, self.tilde)
        }
    }

    /// Whether all of it is known.
    pub fn known(&self) -> bool {
        !self.unknown && !self.pattern
    }
}

/// A piece of a word, before expansion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Atom {
    /// A character that stood bare.
    Bare(char),
    /// A character that was quoted.
    Quoted(char),
    /// A character from a variable's value, not quoted: it can be part of a pattern, not of a brace.
    Value(char),
    /// Empty quotes: they make a word even when nothing else does.
    Empty,
    /// Where a word ends: white space in a value that is not quoted.
    Break,
    /// What is known only when it runs, as it is written.
    Hole(Rc<str>),
    /// A variable with several possible values.
    Choice(Choice),
}

/// A variable with several possible values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its name: two choices of one name go together.
    pub name: Rc<str>,
    /// The possible values, each as the atoms that it puts into the word.
    pub values: Rc<[Vec<Atom>]>,
}

/// The atoms of a text. A `~` in front stands for a home directory unless it is `quoted`.
pub(super) fn value(text: &str, quoted: bool) -> Vec<Atom> {
    let mut atoms: Vec<Atom> = text.chars().map(Atom::Quoted).collect();
    if let Some(first @ Atom::Quoted('~')) = atoms.first_mut()
        && !quoted
    {
        *first = Atom::Bare('~');
    }
    atoms
}

/// Expands `{a,b}` and `{1..3}` in a word; `None` if that goes over more atoms than are `left`.
pub(super) fn braces(word: Vec<Atom>, left: &mut usize) -> Option<Vec<Vec<Atom>>> {
    if !word.contains(&Atom::Bare('{')) || !word.contains(&Atom::Bare('}')) {
        return Some(vec![word]);
    }
    let mut done = Vec::new();
    let mut pending = vec![(word, 0)];
    // Each step takes one brace apart; a word is done once none is left behind its mark.
    while let Some((word, from)) = pending.pop() {
        // Looking for a brace costs as much as the word is long.
        *left = left.checked_sub(word.len())?;
        match first_brace(&word, from) {
            None => done.push(word),
            Some(Brace::Plain { next }) => pending.push((word, next)),
            Some(Brace::Items { start, end, items }) => {
                for item in items.into_iter().rev() {
                    let mut whole = word[..start].to_vec();
                    whole.extend(item);
                    whole.extend_from_slice(&word[end..]);
                    *left = left.checked_sub(whole.len())?;
                    pending.push((whole, start));
                }
            }
        }
    }
    Some(done)
}

enum Brace {
    /// No expansion at this brace; look on behind it.
    Plain { next: usize },
    /// The items between `start` and `end`.
    Items {
        start: usize,
        end: usize,
        items: Vec<Vec<Atom>>,
    },
}

fn first_brace(word: &[Atom], from: usize) -> Option<Brace> {
    let start = from
        + word
            .get(from..)?
            .iter()
            .position(|atom| *atom == Atom::Bare('{'))?;
    let mut depth = 0usize;
    let mut commas = Vec::new();
    for (at, atom) in word.iter().enumerate().skip(start) {
        match atom {
            Atom::Bare('{') => depth += 1,
            Atom::Bare(',') if depth == 1 => commas.push(at),
            Atom::Bare('}') => {
                depth -= 1;
                if depth == 0 {
                    return Some(closed(word, start, at, &commas));
                }
            }
            _ => {}
        }
    }
    Some(Brace::Plain { next: start + 1 })
}

fn closed(word: &[Atom], start: usize, close: usize, commas: &[usize]) -> Brace {
    let inside = &word[start + 1..close];
    let items: Vec<Vec<Atom>> = if commas.is_empty() {
        let Some(items) = sequence(inside) else {
            return Brace::Plain { next: start + 1 };
        };
        items
    } else {
        let ends = commas.iter().copied().chain([close]);
        let mut from = start + 1;
        ends.map(|end| {
            let item = word[from..end].to_vec();
            from = end + 1;
            item
        })
        .collect()
    };
    Brace::Items {
        start,
        end: close + 1,
        items,
    }
}

/// `1..5`, `a..e`, with a step or without.
fn sequence(inside: &[Atom]) -> Option<Vec<Vec<Atom>>> {
    let text: String = inside
        .iter()
        .map(|atom| match atom {
            Atom::Bare(c) => Some(*c),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let mut ends = text.split("..");
    let (first, last, step) = (ends.next()?, ends.next()?, ends.next());
    if ends.next().is_some() {
        return None;
    }
    let step = step.map_or(Some(1), |step| step.parse::<i64>().ok())?;
    let step = usize::try_from(step.unsigned_abs()).ok()?.max(1);
    let letter = |text: &str| {
        let mut chars = text.chars();
        let c = chars.next().filter(char::is_ascii_alphabetic)?;
        chars.next().is_none().then_some(c as i64)
    };
    let (numbers, from, to) = match (first.parse::<i64>(), last.parse::<i64>()) {
        (Ok(from), Ok(to)) => (true, from, to),
        _ => (false, letter(first)?, letter(last)?),
    };
    let count = usize::try_from(from.abs_diff(to)).ok()? / step + 1;
    if count > SEQUENCE_MAX {
        return None;
    }
    let show = |value: i64| {
        if numbers {
            value.to_string()
        } else {
            u8::try_from(value).map_or_else(|_| String::new(), |byte| (byte as char).to_string())
        }
    };
    let values = (0..count).map(|index| {
        let offset = i64::try_from(index * step).unwrap_or(0);
        show(if from <= to {
            from + offset
        } else {
            from - offset
        })
    });
    Some(
        values
            .map(|text| text.chars().map(Atom::Bare).collect())
            .collect(),
    )
}

/// Splits the atoms of one word into the words that they become; alternatives must have been chosen.
pub(super) fn fields(atoms: &[Atom]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    for atom in atoms {
        if *atom == Atom::Break {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match atom {
            Atom::Bare(c) | Atom::Value(c) => {
                word.pattern |= matches!(c, '*' | '?' | '[');
                word.text.push(*c);
                word.rest.push(*c);
            }
            Atom::Quoted(c) => {
                word.tilde |= *c == '~' && word.text.is_empty();
                word.text.push(*c);
                word.rest.push(*c);
            }
            Atom::Hole(source) => {
                word.unknown = true;
                word.text.push_str(source);
            }
            Atom::Choice(choice) => {
                word.unknown = true;
                word.text.push('$');
                word.text.push_str(&choice.name);
            }
            Atom::Empty | Atom::Break => {}
        }
    }
    words.extend(word);
    words
}

/// The one text that atoms make where no field is split: an assignment's value, a here document. `None` if part of
/// it is known only when it runs.
pub(super) fn known_text(atoms: &[Atom]) -> Option<String> {
    let mut text = String::new();
    for atom in atoms {
        match atom {
            Atom::Bare(c) | Atom::Value(c) | Atom::Quoted(c) => text.push(*c),
            Atom::Break => text.push(' '),
            Atom::Empty => {}
            Atom::Hole(_) | Atom::Choice(_) => return None,
        }
    }
    Some(text)
}

/// Puts one of its values in the place of each choice: `pick` says which, by the variable's name.
fn choose(atoms: &[Atom], pick: &impl Fn(&str) -> usize) -> Vec<Atom> {
    let mut chosen = Vec::with_capacity(atoms.len());
    for atom in atoms {
        match atom {
            Atom::Choice(choice) => match choice.values.get(pick(&choice.name)) {
                Some(value) => chosen.extend_from_slice(value),
                None => chosen.push(atom.clone()),
            },
            other => chosen.push(other.clone()),
        }
    }
    chosen
}

/// All ways to put one of its values in the place of each choice; one without a choice where they would be more
/// than `most`, or more atoms than can be `spent`.
pub(super) fn alternatives(
    words: &[Vec<Atom>],
    most: usize,
    spent: impl Fn(usize) -> bool,
) -> Vec<Vec<Vec<Atom>>> {
    let mut total = 1usize;
    let mut names: Vec<(Rc<str>, usize)> = Vec::new();
    for atom in words.iter().flatten() {
        if let Atom::Choice(choice) = atom
            && !names.iter().any(|(name, _)| *name == choice.name)
        {
            names.push((Rc::clone(&choice.name), choice.values.len()));
            total = total.saturating_mul(choice.values.len());
            if total > most {
                break;
            }
        }
    }
    // No way is longer than with the longest value in each place.
    let longest = |atom: &Atom| match atom {
        Atom::Choice(choice) => choice.values.iter().map(Vec::len).max().unwrap_or(0),
        _ => 1,
    };
    let atoms = || words.iter().flatten().map(longest).sum::<usize>();
    if names.is_empty() || total > most || !spent(total.saturating_mul(atoms())) {
        return vec![words.to_vec()];
    }
    let way = |index: usize| {
        let pick = |wanted: &str| {
            let mut index = index;
            for (name, count) in &names {
                if &**name == wanted {
                    return index % count;
                }
                index /= count;
            }
            usize::MAX
        };
        words.iter().map(|word| choose(word, &pick)).collect()
    };
    (0..total).map(way).collect()
}

/// Decodes the inside of `$'…'`.
pub(super) fn ansi_c(inside: &str) -> String {
    let mut bytes = Vec::with_capacity(inside.len());
    let mut chars = inside.chars().peekable();
    let push = |bytes: &mut Vec<u8>, c: char| {
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    };
    while let Some(c) = chars.next() {
        if c != '\\' {
            push(&mut bytes, c);
            continue;
        }
        let Some(kind) = chars.next() else {
            bytes.push(b'\\');
            break;
        };
        let mut number = |radix: u32, most: usize, first: u32| {
            let mut value = first;
            let mut digits = 0;
            while digits < most
                && let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix))
            {
                value = value.wrapping_mul(radix).wrapping_add(digit);
                digits += 1;
                chars.next();
            }
            (digits > 0).then_some(value)
        };
        match kind {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'e' | 'E' => bytes.push(27),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            'x' => match number(16, 2, 0) {
                Some(value) => bytes.push(value as u8),
                None => bytes.extend_from_slice(b"\\x"),
            },
            'u' | 'U' => {
                let most = if kind == 'u' { 4 } else { 8 };
                match number(16, most, 0).and_then(char::from_u32) {
                    Some(c) => push(&mut bytes, c),
                    None => push(&mut bytes, kind),
                }
            }
            '0'..='7' => {
                let first = kind.to_digit(8).unwrap_or(0);
                let value = number(8, 2, first).unwrap_or(first);
                bytes.push(value as u8);
            }
            'c' => {
                if let Some(control) = chars.next() {
                    bytes.push((control as u32 & 0x1f) as u8);
                }
            }
            '\\' | '\'' | '"' | '?' => push(&mut bytes, kind),
            other => {
                bytes.push(b'\\');
                push(&mut bytes, other);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

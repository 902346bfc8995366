//! argv rules as regular expressions over the words after the program.
//!
//! The text is, for each argument, a NUL and the argument; the NUL is a real boundary and a space is
//! ordinary data.
//!
//! * **words** stand in order. In an allow rule they follow the program at once and one another. In ask and
//!   deny rules options may stand before and between them: a word that begins with `-` is passed over, and so
//!   may be one word after it (its value); if any such reading matches, the rule does.
//! * **flags** stand anywhere after the last word and before a word `--`, in any order. `-x` matches the word
//!   `-x` and a bundle such as `-axb`; in ask and deny rules also with a value attached (`-xVALUE`). `--long`
//!   matches itself and `--long=VALUE`, and so does a longer word with one dash (`-delete`); in ask and deny rules
//!   also its abbreviations of three letters and more. Anything without a dash is that word.
//! * **arguments** (`args_any`) stand anywhere after the last word, behind `--` too; see [`operand`].
//! * **`flags_none`** lift a rule, if they are there for certain and nothing takes them back: see [`lifted`].
//!
//! Where several ask and deny rules of one program have words, reading every word behind an option both ways
//! for every rule would take an automaton for each subset of the rules. So a word that one of these rules names
//! (a *known* word) is first taken as the subcommand. Was it perhaps a value (it stands behind an option), and
//! does another known word follow, then the line is ambiguous in earnest, and a rule matches by its first flag
//! condition, its arguments or its last word alone: never less than the readings above, sometimes more.
//! * without words and flags the rule matches the program with any arguments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::model::ArgvPattern;

use super::operand;

/// Options before a word, each with or without one word as its value.
const OPTIONS: &str = r"(?:\x00-[^\x00]*(?:\x00[^\x00]*)?)*";
/// Words that are not `--`.
const NOT_ENDED: &str = r"(?:\x00(?:(?:[^\x00\-]|-[^\x00\-]|--[^\x00])[^\x00]*|-)?)*";
/// The end of a word.
const END: &str = r"(?:\x00|\z)";
/// The end of a word, then the rest of the text: for what must hold together with other expressions.
const END_AND_REST: &str = r"(?:\x00(?s-u:.)*)?\z";
/// Any words.
const ANY: &str = r"(?:\x00[^\x00]*)*";
/// Words that end with one behind which no word can be an option's value: one without a dash, or one that has its
/// value (`--name=value`).
const CALM: &str = r"(?:(?:\x00-(?:[^\x00\-][^\x00]*|-[^\x00=]+))*\x00(?:(?:[^\x00\-][^\x00]*)?|-|--[^\x00=]*=[^\x00]*))*";
/// The same, where behind these flags no word is a value either.
fn calm(bare: &[String]) -> String {
    if bare.is_empty() {
        return CALM.to_owned();
    }
    let ending = CALM.strip_suffix("))*").unwrap_or(CALM);
    format!("{ending}|{}))*", alternatives(bare))
}

/// Letters of a long option's shortest abbreviation.
const ABBREVIATION_MIN: usize = 3;

/// How the words of a rule may stand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading<'a> {
    /// In place: allow rules.
    Strict,
    /// Any reading of the options before them.
    Any,
    /// Known words first as subcommands; behind the program's first space as in `pieces`.
    Known(&'a BTreeSet<String>),
}

/// The expressions of a rule, all of which must match. `prefix` is what of the program's name lies behind its
/// first space.
pub(super) fn pieces(pattern: &ArgvPattern, prefix: &str, reading: Reading<'_>) -> Vec<String> {
    let mut lead = regex_syntax::escape(prefix);
    let strict = matches!(reading, Reading::Strict);
    let options = match reading {
        Reading::Strict => String::new(),
        Reading::Any => OPTIONS.to_owned(),
        Reading::Known(known) => {
            format!(r"(?:\x00-[^\x00]*(?:\x00(?:{}))?)*", other_word(known))
        }
    };
    for alternatives in &pattern.words {
        lead.push_str(&options);
        lead.push_str(r"\x00");
        lead.push_str(&self::alternatives(alternatives));
    }
    let conditions = conditions(pattern, strict);
    let arguments = arguments(pattern);
    let closed = conditions.len() + arguments.iter().len() > 1 || !pattern.flags_none.is_empty();
    let end = if closed { END_AND_REST } else { END };
    if conditions.is_empty() && arguments.is_none() {
        return vec![format!("{lead}{end}")];
    }
    conditions
        .iter()
        .map(|one| format!(r"{lead}{NOT_ENDED}\x00(?:{one}){end}"))
        .chain(arguments.map(|any| format!(r"{lead}{ANY}\x00(?:{any}){end}")))
        .collect()
}

/// The expressions of lines that the rule's `flags_none` lift it from: the first without the second.
///
/// A flag counts where it cannot be another option's value: as the first word, or behind a word without a dash, with
/// its value (`--name=value`) or of `flags_bare`, and before `--`. It must be the whole word. It is taken back by any word that
/// begins with `--no` (`--no-dry-run`, or an abbreviation), and by one that gives the same option another value.
pub(super) fn lifted(pattern: &ArgvPattern, prefix: &str) -> Option<[String; 2]> {
    if pattern.flags_none.is_empty() {
        return None;
    }
    let prefix = regex_syntax::escape(prefix);
    let flags = alternatives(&pattern.flags_none);
    let mut given: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for flag in &pattern.flags_none {
        let Some(long) = flag.strip_prefix("--") else {
            continue;
        };
        let (name, value) = long.split_once('=').unzip();
        given
            .entry(name.unwrap_or(long))
            .or_default()
            .extend(value.map(str::as_bytes));
    }
    let mut back = String::from(r"--no[^\x00]*");
    for (name, values) in given {
        let name_text = regex_syntax::escape(name);
        let other = differs(&values);
        let _ = write!(back, "|--{name_text}={other}");
        for short in prefixes(name, 1) {
            let _ = write!(back, r"|--{}=[^\x00]*", regex_syntax::escape(short));
        }
    }
    // Every word from the first on is one that is not `--`, up to the flag.
    let calm = calm(&pattern.flags_bare);
    let calm = format!(r"{prefix}{calm}\x00{flags}{END_AND_REST}");
    Some([calm, format!(r"{prefix}{ANY}\x00(?:{back}){END_AND_REST}")])
}

/// The beginnings of a name that are shorter than it.
fn prefixes(name: &str, shortest: usize) -> impl Iterator<Item = &str> {
    name.char_indices()
        .skip(shortest)
        .map(|(end, _)| &name[..end])
}

/// The expression of lines that are ambiguous in earnest, for a rule with words.
pub(super) fn ambiguous(
    pattern: &ArgvPattern,
    prefix: &str,
    known: &BTreeSet<String>,
) -> Option<String> {
    let last = pattern.words.last()?;
    let prefix = regex_syntax::escape(prefix);
    let known = alternatives(known);
    let lead =
        format!(r"{prefix}(?:\x00-[^\x00]*(?:\x00[^\x00]*)?|\x00{known})*\x00-[^\x00]*\x00{known}");
    let end = if pattern.flags_none.is_empty() {
        END
    } else {
        END_AND_REST
    };
    let first = conditions(pattern, false).into_iter().next();
    Some(match first.or_else(|| arguments(pattern)) {
        Some(one) => format!(r"{lead}{OPTIONS}\x00{known}{ANY}\x00(?:{one}){end}"),
        None => format!(r"{lead}{ANY}\x00{}{end}", alternatives(last)),
    })
}

/// The words of which one must be there, as one expression.
fn arguments(pattern: &ArgvPattern) -> Option<String> {
    let words: Vec<_> = pattern
        .args_any
        .iter()
        .map(|text| operand::expression(text))
        .collect();
    (!words.is_empty()).then(|| words.join("|"))
}

/// The flag conditions of a rule, each as the expression of a word.
fn conditions(pattern: &ArgvPattern, strict: bool) -> Vec<String> {
    let mut conditions: Vec<String> = pattern
        .flags_all
        .iter()
        .map(|name| flag(name, strict))
        .collect();
    if !pattern.flags_any.is_empty() {
        let any: Vec<_> = pattern
            .flags_any
            .iter()
            .map(|name| flag(name, strict))
            .collect();
        conditions.push(any.join("|"));
    }
    conditions
}

/// Any of these words.
fn alternatives<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    let words: Vec<_> = words
        .into_iter()
        .map(|word| regex_syntax::escape(word))
        .collect();
    format!("(?:{})", words.join("|"))
}

/// A word that is none of these.
fn other_word(words: &BTreeSet<String>) -> String {
    let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
    differs(&words)
}

/// What may follow where these are what is left of the words: anything that is none of them.
fn differs(words: &[&[u8]]) -> String {
    let mut branches: BTreeMap<u8, Vec<&[u8]>> = BTreeMap::new();
    for word in words {
        if let Some((first, rest)) = word.split_first() {
            branches.entry(*first).or_default().push(rest);
        }
    }
    if branches.is_empty() && words.is_empty() {
        return r"[^\x00]*".to_owned();
    }
    let mut others = String::new();
    let mut out = String::from("(?:");
    for (byte, rests) in &branches {
        let _ = write!(others, r"\x{byte:02x}");
        let _ = write!(out, r"(?-u:\x{byte:02x}){}|", differs(rests));
    }
    let _ = write!(out, r"(?-u:[^\x00{others}])[^\x00]*)");
    // The word may end here unless it is one of them.
    if !words.iter().any(|word| word.is_empty()) {
        out.push('?');
    }
    out
}

/// One flag as the expression of a word.
fn flag(name: &str, strict: bool) -> String {
    let escaped = regex_syntax::escape(name);
    let mut letters = name.strip_prefix('-').unwrap_or_default().chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter != '-' => {
            let letter_text = regex_syntax::escape(&letter.to_string());
            // getopt takes what follows an option's letter as its value; a digit before it may be an option, too (`-4f`).
            let (before, value) = if letter.is_ascii_alphabetic() && !strict {
                ("[0-9A-Za-z]*", r"[^\x00]*")
            } else {
                ("[A-Za-z]*", "[A-Za-z]*")
            };
            format!("-{before}{letter_text}{value}")
        }
        (Some('-'), Some(_)) if !strict && !name.contains('=') => {
            let long = &name[2..];
            let mut names = vec![escaped];
            // What ends where a part of the name ends is more often an option of its own: `--force` is not
            // short for `--force-with-lease`.
            names.extend(
                prefixes(long, ABBREVIATION_MIN)
                    .filter(|short| !long[short.len()..].starts_with('-'))
                    .map(|short| format!("--{}", regex_syntax::escape(short))),
            );
            format!(r"(?:{})(?:=[^\x00]*)?", names.join("|"))
        }
        (Some(_), Some(_)) => format!(r"{escaped}(?:=[^\x00]*)?"),
        _ => escaped,
    }
}

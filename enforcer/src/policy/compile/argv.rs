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
//!   matches itself and `--long=VALUE`, and so does a longer word with one dash (`-delete`). Anything without
//!   a dash is that word.
//! * without words and flags the rule matches the program with any arguments.

use crate::policy::model::ArgvPattern;

/// Options before a word, each with or without one word as its value.
const OPTIONS: &str = r"(?:\x00-[^\x00]*(?:\x00[^\x00]*)?)*";
/// Words that are not `--`.
const NOT_ENDED: &str = r"(?:\x00(?:(?:[^\x00\-]|-[^\x00\-]|--[^\x00])[^\x00]*|-)?)*";
/// The end of a word.
const END: &str = r"(?:\x00|\z)";
/// The end of a word, then the rest of the text: for what must hold together with other expressions.
const END_AND_REST: &str = r"(?:\x00(?s-u:.)*)?\z";

/// The expressions of a rule, all of which must match. `prefix` is what of the program's name lies behind its
/// first space; `strict` is set for allow rules.
pub(super) fn pieces(pattern: &ArgvPattern, prefix: &str, strict: bool) -> Vec<String> {
    let mut lead = regex_syntax::escape(prefix);
    for alternatives in &pattern.words {
        if !strict {
            lead.push_str(OPTIONS);
        }
        let alternatives: Vec<_> = alternatives
            .iter()
            .map(|word| regex_syntax::escape(word))
            .collect();
        lead.push_str(r"\x00(?:");
        lead.push_str(&alternatives.join("|"));
        lead.push(')');
    }
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
    match conditions.as_slice() {
        [] => vec![format!("{lead}{END}")],
        [only] => vec![format!(r"{lead}{NOT_ENDED}\x00(?:{only}){END}")],
        several => several
            .iter()
            .map(|one| format!(r"{lead}{NOT_ENDED}\x00(?:{one}){END_AND_REST}"))
            .collect(),
    }
}

/// One flag as the expression of a word.
fn flag(name: &str, strict: bool) -> String {
    let escaped = regex_syntax::escape(name);
    let mut letters = name.strip_prefix('-').unwrap_or_default().chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter != '-' => {
            let letter_text = regex_syntax::escape(&letter.to_string());
            // getopt takes what follows an option's letter as its value.
            let value = if letter.is_ascii_alphabetic() && !strict {
                r"[^\x00]*"
            } else {
                "[A-Za-z]*"
            };
            format!("-[A-Za-z]*{letter_text}{value}")
        }
        (Some(_), Some(_)) => format!(r"{escaped}(?:=[^\x00]*)?"),
        _ => escaped,
    }
}

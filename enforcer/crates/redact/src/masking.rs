//! Personal data in the trail: what is masked, and how much of it stays readable.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How personal data is masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Masking {
    /// Left as it is.
    #[default]
    Off,
    /// The end stays readable.
    Standard,
    /// Nothing stays readable.
    Strict,
}

/// What stands for an address. It has the same shape whoever's it was.
const EMAIL: &str = "***@***.com";

/// Longest local part of an address, in bytes (RFC 5321, 4.5.3.1.1).
const LOCAL_MAX: usize = 64;

/// Hides e-mail addresses, phone numbers, US social security numbers and card numbers in a text.
///
/// * **e-mail**: `***@***.com`. Not `git@HOST`, which is no person, and not names of systemd units.
/// * **phone**, ten digits as in North America, with `(`, `)`, space, `.`, `-` or nothing between, and with `1` or
///   `+1` before, which stays: `(***) ***-4567`; others with `+` and 9 to 15 digits: `+*** ***-4567`.
/// * **SSN**, nine digits, in groups of 3-2-4 or without a separator: `***-**-6789`.
/// * **card**, 13 to 19 digits, in the groups that are printed on cards or without a separator, that begin as those of
///   a card network do and whose check digit (Luhn, ISO/IEC 7812-1) is right: `****-****-****-3456`.
///
/// [`Masking::Strict`] leaves no digit. A number that is part of a longer word (a hash, a UUID, an identifier, a path,
/// a version, an address, a time with a fraction) is none of these. A bare word of nine or ten digits is taken for one
/// though it may be a time in seconds: the two cannot be told apart.
pub fn mask(text: &str, masking: Masking) -> Cow<'_, str> {
    let strict = match masking {
        Masking::Off => return Cow::Borrowed(text),
        Masking::Standard => false,
        Masking::Strict => true,
    };
    let masked = emails(text);
    match numbers(&masked, strict) {
        Cow::Owned(numbers) => Cow::Owned(numbers),
        Cow::Borrowed(_) => masked,
    }
}

/// Hides personal data in every string of a value, names of members too.
pub fn mask_value(value: &mut Value, masking: Masking) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(masked) = mask(text, masking) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask_value(item, masking)),
        Value::Object(members) => {
            let named = members
                .keys()
                .any(|key| matches!(mask(key, masking), Cow::Owned(_)));
            if named {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(key, value)| (mask(&key, masking).into_owned(), value))
                    .collect();
            }
            members
                .values_mut()
                .for_each(|member| mask_value(member, masking));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn emails(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut done = 0;
    let mut from = 0;
    while let Some((at, sign)) = at_sign(bytes, from) {
        from = at + sign;
        // What a local part has (RFC 5322), and letters beyond ASCII (RFC 6531).
        let local = bytes[done..at]
            .iter()
            .rev()
            .take(LOCAL_MAX)
            .take_while(|byte| {
                byte.is_ascii_alphanumeric() || b"._%+-'".contains(byte) || **byte >= 0x80
            })
            .count();
        let domain = domain(&bytes[from..]);
        if local == 0 || domain == 0 || bytes[at - local..at] == *b"git" {
            continue;
        }
        // A character may be cut where a local part is longer than it can be.
        let start = (at - local..at)
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(at);
        out.push_str(&text[done..start]);
        out.push_str(EMAIL);
        done = from + domain;
        from = done;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

/// The next `@`, plain or as in a URL, and its length.
fn at_sign(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    (from..bytes.len()).find_map(|at| match bytes[at] {
        b'@' => Some((at, 1)),
        b'%' if bytes[at..].starts_with(b"%40") => Some((at, 3)),
        _ => None,
    })
}

/// Length of a domain name whose last label is of two letters or more; 0 for anything else.
fn domain(bytes: &[u8]) -> usize {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte >= 0x80;
    let mut end = 0;
    let mut good = 0;
    for number in 0.. {
        let label = bytes[end..].iter().take_while(|byte| part(byte)).count();
        if label == 0 {
            break;
        }
        let text = &bytes[end..end + label];
        end += label;
        let letters = text
            .iter()
            .all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80);
        if number > 0 && label >= 2 && letters && !UNITS.contains(&text) {
            good = end;
        }
        if bytes.get(end) != Some(&b'.') {
            break;
        }
        end += 1;
    }
    good
}

/// Endings of systemd units, whose instances look like addresses (`getty@tty1.service`).
const UNITS: [&[u8]; 7] = [
    b"service", b"socket", b"timer", b"target", b"mount", b"slice", b"scope",
];

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Category {
    Card,
    Phone,
    Foreign,
    Ssn,
}

fn numbers(text: &str, strict: bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut done = 0;
    let mut at = 0;
    while at < bytes.len() {
        let begins = bytes[at].is_ascii_digit() || b"+(".contains(&bytes[at]);
        if !begins || inside_word(&bytes[done..at], bytes[at]) {
            at += 1;
            continue;
        }
        let Some((kind, kept, length)) = number(&bytes[at..]) else {
            at += 1;
            // The rest of these digits begins no number of its own.
            while at < bytes.len() && bytes[at - 1].is_ascii_digit() && bytes[at].is_ascii_digit() {
                at += 1;
            }
            continue;
        };
        let digits: String = text[at..at + length]
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let last = if strict {
            "****"
        } else {
            &digits[digits.len() - 4..]
        };
        out.push_str(&text[done..at + kept]);
        match kind {
            Category::Card => out.push_str("****-****-****-"),
            Category::Phone => out.push_str("(***) ***-"),
            Category::Foreign => out.push_str("+*** ***-"),
            Category::Ssn => out.push_str("***-**-"),
        }
        out.push_str(last);
        done = at + length;
        at = done;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

/// Whether what lies before shows that `first` is in the middle of a word, a version, a path or a longer number.
fn inside_word(before: &[u8], first: u8) -> bool {
    let Some((last, before)) = before.split_last() else {
        return false;
    };
    let joined = before
        .last()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80);
    match last {
        b'_' | b'/' | b'\\' | b'#' => true,
        b'.' | b'-' | b':' | b'+' if first.is_ascii_digit() => {
            joined && (*last != b':' || before.last().is_some_and(u8::is_ascii_digit))
        }
        byte => byte.is_ascii_alphanumeric() || *byte >= 0x80,
    }
}

/// Whether what lies behind shows that the number goes on.
fn goes_on(behind: &[u8]) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80;
    match behind {
        [] => false,
        [b'_' | b'/' | b'\\', ..] => true,
        [b'.' | b'-' | b':' | b'%', next, ..] => {
            word(next) && (behind[0] != b':' || next.is_ascii_digit())
        }
        [first, ..] => word(first),
    }
}

/// The number that the text begins with: what it is, how much of its beginning stays, how long it is.
fn number(bytes: &[u8]) -> Option<(Category, usize, usize)> {
    let plain = |shape: &str| shaped(bytes, shape);
    for shape in ["4 4 4 4 3", "4 4 4 4", "4 6 5", "4 6 4"] {
        if let Some(length) = plain(shape)
            && is_card(&bytes[..length])
        {
            return Some((Category::Card, 0, length));
        }
    }
    let run = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if (13..=19).contains(&run) && !goes_on(&bytes[run..]) && is_card(&bytes[..run]) {
        return Some((Category::Card, 0, run));
    }
    for prefix in ["", "+1", "1"] {
        let Some(rest) = bytes.strip_prefix(prefix.as_bytes()) else {
            continue;
        };
        let gap = usize::from(
            !prefix.is_empty() && rest.first().is_some_and(|byte| b" .-".contains(byte)),
        );
        if prefix == "1" && gap == 0 {
            continue;
        }
        let kept = prefix.len() + gap;
        let rest = &bytes[kept..];
        let found = ["(3)3-4", "(3) 3-4", "3-3-4", "3.3.4", "3 3 4", "3 3-4", "X"]
            .iter()
            .find_map(|shape| shaped(rest, shape));
        if let Some(length) = found {
            return Some((Category::Phone, kept, kept + length));
        }
    }
    for shape in ["3-2-4", "3 2 4", "9"] {
        if let Some(length) = plain(shape) {
            return Some((Category::Ssn, 0, length));
        }
    }
    foreign(bytes).map(|length| (Category::Foreign, 0, length))
}

/// The length of what the text begins with, if it has this shape and ends there. A digit stands for so many digits
/// (`X` for ten), a space for a space or a `-`, anything else for itself.
fn shaped(bytes: &[u8], shape: &str) -> Option<usize> {
    let cards = shape.starts_with('4');
    let mut at = 0;
    for part in shape.bytes() {
        let digits = match part {
            b'X' => 10,
            b'1'..=b'9' => usize::from(part - b'0'),
            b' ' if cards && bytes.get(at) == Some(&b'-') => {
                at += 1;
                continue;
            }
            _ => {
                if bytes.get(at) != Some(&part) {
                    return None;
                }
                at += 1;
                continue;
            }
        };
        let group = bytes.get(at..at + digits)?;
        if !group.iter().all(u8::is_ascii_digit) {
            return None;
        }
        at += digits;
    }
    (!goes_on(&bytes[at..])).then_some(at)
}

/// A number of another country: `+`, then 9 to 15 digits (ITU-T E.164) with single separators between.
fn foreign(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'+') {
        return None;
    }
    let mut digits = 0;
    let mut end = 1;
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        if byte.is_ascii_digit() {
            digits += 1;
            end = at + 1;
        } else if !b" .-()".contains(byte) || at > end + 1 {
            break;
        }
        at += 1;
    }
    ((9..=15).contains(&digits) && !goes_on(&bytes[end..])).then_some(end)
}

/// Whether the digits are a card's: those of a card network first, the check digit last.
fn is_card(bytes: &[u8]) -> bool {
    let digits: Vec<u32> = bytes
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .map(|byte| u32::from(byte - b'0'))
        .collect();
    let first = digits
        .iter()
        .take(4)
        .fold(0, |number, digit| number * 10 + digit);
    // Travel and entertainment, banking and financial, merchandising (ISO/IEC 7812-1), and Mastercard's second range.
    let network = (3000..7000).contains(&first) || (2221..=2720).contains(&first);
    network && luhn(&digits)
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => *digit,
            (_, double @ 0..=9) => double,
            (_, double) => double - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
#[path = "masking_tests.rs"]
mod tests;

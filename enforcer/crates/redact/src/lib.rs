//! What may be written down: text made printable, secrets hidden. Pure.
//!
//! Everything that enters the trail passes here. Text is sanitised first, so that a secret cannot hide behind
//! control characters, then searched in single passes (time is linear in the text). A secret is known by its
//! own shape ([`tokens`]), by the name before it ([`assign`], [`keys`]) or by its place on a command line
//! ([`words`]). What is hidden is replaced by a word in brackets; hiding twice changes nothing more.

#![forbid(unsafe_code)]

mod assign;
mod keys;
pub mod masking;
mod sanitise;
mod tokens;
mod words;

use std::ops::Range;

use serde_json::{Map, Value};

pub use masking::Masking;

use sanitise::Clean;
use words::Word;

/// What stands in the place of a secret that is known by its name or its place.
pub const REDACTED: &str = "[REDACTED]";

/// How deep quoted command lines in command lines are read (`sh -c 'sh -c "…"'`).
const QUOTE_DEPTH: usize = 3;

/// How deep JSON values are read; what lies deeper is replaced by [`REDACTED`].
const VALUE_DEPTH: usize = 64;

/// A part of a text that is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
    label: &'static str,
}

/// Makes bytes printable on one line, hiding nothing: ANSI sequences vanish, control characters (except the tab)
/// become spaces, bytes that are not UTF-8 become U+FFFD.
pub fn sanitise(raw: &[u8]) -> String {
    sanitise::clean(raw).text
}

/// A text that may be written down. For one string whose words are not known: a shell line, a reason, a name.
pub fn text(raw: &[u8]) -> String {
    let clean = sanitise::clean(raw);
    let spans = secrets(&clean, None);
    replace(&clean.text, 0..clean.text.len(), &spans)
}

/// The words of a command line as they may be written down, each word for itself.
pub fn words<'a>(argv: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let (clean, ranges) = join(argv);
    let spans = secrets(&clean, Some(&ranges));
    ranges
        .into_iter()
        .map(|range| replace(&clean.text, range, &spans))
        .collect()
}

/// A command line in raw form (the program, then for each argument a NUL and the argument), as it may be written
/// down: its words joined by one space.
pub fn command(raw: &[u8]) -> String {
    let (clean, ranges) = join(raw.split(|b| *b == 0));
    let spans = secrets(&clean, Some(&ranges));
    replace(&clean.text, 0..clean.text.len(), &spans)
}

/// A JSON value that may be written down: every string in it and every key; all of the value of a key that names
/// a secret; an array of strings as a command line.
pub fn value(value: &Value) -> Value {
    hide_value(value, false, 0)
}

/// The members of a JSON object, as [`value`] treats them.
pub fn members(object: &Map<String, Value>) -> Map<String, Value> {
    hide_members(object, false, 0)
}

fn hide_value(value: &Value, secret: bool, depth: usize) -> Value {
    if depth > VALUE_DEPTH {
        return Value::from(REDACTED);
    }
    match value {
        Value::Number(_) if secret => Value::from(REDACTED),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(s) if secret => Value::from(if s.is_empty() { "" } else { REDACTED }),
        Value::String(s) => Value::from(text(s.as_bytes())),
        Value::Array(items) => {
            let strings: Option<Vec<&[u8]>> = items
                .iter()
                .map(|v| v.as_str().map(str::as_bytes))
                .collect();
            match strings {
                Some(argv) if !secret => Value::from(words(argv)),
                _ => items
                    .iter()
                    .map(|v| hide_value(v, secret, depth + 1))
                    .collect(),
            }
        }
        Value::Object(object) => Value::Object(hide_members(object, secret, depth)),
    }
}

fn hide_members(object: &Map<String, Value>, secret: bool, depth: usize) -> Map<String, Value> {
    let mut out = Map::with_capacity(object.len());
    for (key, value) in object {
        let named = secret || keys::is_secret(&sanitise(key.as_bytes()));
        let key = text(key.as_bytes());
        let value = hide_value(value, named, depth + 1);
        // Two keys that differ only in what was hidden both stay.
        let mut unique = key.clone();
        let mut n = 2;
        while out.contains_key(&unique) {
            unique = format!("{key} ({n})");
            n += 1;
        }
        out.insert(unique, value);
    }
    out
}

/// Sanitises each word and joins them by spaces; the ranges are the words' places.
fn join<'a>(argv: impl IntoIterator<Item = &'a [u8]>) -> (Clean, Vec<Range<usize>>) {
    let mut joined = Clean::default();
    let mut ranges = Vec::new();
    for raw in argv {
        if !ranges.is_empty() {
            joined.text.push(' ');
        }
        let start = joined.text.len();
        let clean = sanitise::clean(raw);
        joined.text.push_str(&clean.text);
        joined
            .joints
            .extend(clean.joints.into_iter().map(|mut joint| {
                joint.at += start;
                joint
            }));
        ranges.push(start..joined.text.len());
    }
    (joined, ranges)
}

/// All secrets, sorted, without overlap.
fn secrets(clean: &Clean, ranges: Option<&[Range<usize>]>) -> Vec<Span> {
    let mut spans = Vec::new();
    search(&clean.text, ranges, &mut spans);
    if !clean.joints.is_empty() {
        // Once more without what splits words only in appearance …
        let (bare, map, bare_ranges) = without_joints(clean, ranges, false);
        let mut more = Vec::new();
        search(&bare, bare_ranges.as_deref(), &mut more);
        spans.extend(more.into_iter().filter_map(|s| map_back(s, &map)));
        // … and, for tokens that no pass has found yet, without line breaks.
        if clean.joints.iter().any(|j| j.separates) {
            let (bare, map, _) = without_joints(clean, None, true);
            let mut more = Vec::new();
            tokens::find(&bare, &mut more);
            let known = merge(std::mem::take(&mut spans));
            let fresh = more
                .into_iter()
                .filter_map(|s| map_back(s, &map))
                .filter(|s| !covers(&known, s.start));
            spans.extend(fresh);
            spans.extend(known);
        }
    }
    merge(spans)
}

/// Whether a span of the sorted list holds this place.
fn covers(spans: &[Span], at: usize) -> bool {
    let next = spans.partition_point(|s| s.start <= at);
    next > 0 && spans[next - 1].end > at
}

fn search(text: &str, ranges: Option<&[Range<usize>]>, spans: &mut Vec<Span>) {
    let Some(ranges) = ranges else {
        search_text(text, 0, spans);
        return;
    };
    for range in ranges {
        search_text(&text[range.clone()], range.start, spans);
    }
    let argv: Vec<Word<'_>> = ranges
        .iter()
        .map(|r| Word {
            start: r.start,
            text: &text[r.clone()],
        })
        .collect();
    words::find(&argv, spans);
}

fn search_text(text: &str, base: usize, spans: &mut Vec<Span>) {
    let first = spans.len();
    tokens::find(text, spans);
    assign::find(text, spans);
    search_line(text, 0, 0, spans);
    for span in &mut spans[first..] {
        span.start += base;
        span.end += base;
    }
}

/// Reads a text as a command line, and quoted command lines in it.
fn search_line(text: &str, base: usize, depth: usize, spans: &mut Vec<Span>) {
    if !text.contains([' ', '\t']) {
        return;
    }
    let mut line = words::split(text);
    for word in &mut line {
        word.start += base;
        if depth < QUOTE_DEPTH && word.text.len() + 1 < text.len() {
            search_line(word.text, word.start, depth + 1, spans);
        }
    }
    words::find(&line, spans);
}

/// The text without its joints (all of them, or those that do not end a word), where each of its bytes came
/// from, and the words' new places.
fn without_joints(
    clean: &Clean,
    ranges: Option<&[Range<usize>]>,
    all: bool,
) -> (String, Vec<usize>, Option<Vec<Range<usize>>>) {
    let mut bare = String::with_capacity(clean.text.len());
    let mut map = Vec::with_capacity(clean.text.len());
    let mut from = 0;
    let mut keep = |part: Range<usize>| {
        bare.push_str(&clean.text[part.clone()]);
        map.extend(part);
    };
    for joint in clean.joints.iter().filter(|j| all || !j.separates) {
        keep(from..joint.at);
        from = joint.at + joint.len;
    }
    keep(from..clean.text.len());
    let place = |at: usize| map.partition_point(|from| *from < at);
    let ranges = ranges.map(|r| r.iter().map(|r| place(r.start)..place(r.end)).collect());
    (bare, map, ranges)
}

/// The span's place in the text that `map` was made from; none for a span without a byte, which has no place.
fn map_back(span: Span, map: &[usize]) -> Option<Span> {
    let bytes = map.get(span.start..span.end)?;
    Some(Span {
        start: *bytes.first()?,
        end: *bytes.last()? + 1,
        label: span.label,
    })
}

/// Sorts and joins overlapping spans; the longer one names the whole.
fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|s| s.start < s.end);
    spans.sort_by_key(|s| (s.start, std::cmp::Reverse(s.end)));
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => out.push(span),
        }
    }
    out
}

/// The part of a text with its secrets replaced.
fn replace(text: &str, part: Range<usize>, spans: &[Span]) -> String {
    let mut out = String::with_capacity(part.len());
    let mut from = part.start;
    let first = spans.partition_point(|s| s.end <= part.start);
    for span in spans[first..].iter().take_while(|s| s.start < part.end) {
        out.push_str(&text[from..span.start.max(from)]);
        out.push_str(span.label);
        from = span.end.min(part.end);
    }
    out.push_str(&text[from..part.end]);
    out
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod redact_tests;

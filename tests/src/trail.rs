//! Reading the trail that a session left.

use std::{fs, path::Path};

use serde_json::Value;

use crate::machine::{Level, level};

/// Top-level keys, in their order. Readers of the trail reject any other.
const KEYS: [&str; 8] = [
    "timestamp",
    "event",
    "agent",
    "tool",
    "reason",
    "security_risk",
    "parameters",
    "denial_count",
];

/// One line of the trail.
#[derive(Clone, Debug)]
pub struct Line(pub Value);

/// How a denial must have been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The exec failed with an errno.
    Errno,
    /// The process was killed.
    Killed,
}

impl Line {
    /// A member of `parameters` as text, empty if it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.0["parameters"][key].as_str().unwrap_or_default()
    }

    /// A member of `parameters` as a number, 0 if it is not there.
    pub fn number(&self, key: &str) -> u64 {
        self.0["parameters"][key].as_u64().unwrap_or_default()
    }

    /// The text that the rules were matched against.
    pub fn command(&self) -> &str {
        self.text("command")
    }

    /// The rule that decided; empty if none did.
    pub fn rule(&self) -> &str {
        self.text("rule")
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// Whether the action was denied.
    pub fn denied(&self) -> bool {
        self.0["event"] == "denial"
    }

    /// Whether it is an exec, not a connect, gap or breaker line.
    pub fn is_exec(&self) -> bool {
        self.0["tool"] == "exec" && self.0["parameters"]["escape"].is_null()
    }

    /// Whether it is a system call that the filter refused.
    pub fn is_syscall(&self) -> bool {
        self.0["tool"] == "syscall"
    }

    /// Whether it is a connect or a socket.
    pub fn is_connect(&self) -> bool {
        self.0["tool"] == "connect"
    }

    /// Whether a task left its cgroup.
    pub fn is_escape(&self) -> bool {
        self.0["parameters"]["escape"] == true
    }

    /// Events lost, if this is a gap record.
    pub fn lost(&self) -> Option<u64> {
        self.0["parameters"]["lost"].as_u64()
    }

    /// The gist of it, for messages.
    pub fn shown(&self) -> String {
        let command: String = self.command().chars().take(200).collect();
        format!(
            "{} {} {}/{} rule {:?} {}{} port {} protocol {}: {command}",
            self.number("seq"),
            self.text("decision"),
            self.text("verdict"),
            self.text("stage"),
            self.rule(),
            self.0["tool"].as_str().unwrap_or("-"),
            self.text("address"),
            self.number("port"),
            self.0["parameters"]["protocol"],
        )
    }

    /// Checks that verdict and stage belong together and are of this kind.
    ///
    /// # Panics
    ///
    /// When they are not.
    pub fn assert_denied_exec(&self, how: Denial) {
        let expected = match (how, level()) {
            (Denial::Errno, Level::Full) => ("errno", "lsm"),
            (Denial::Errno, Level::Partial) => ("errno", "seccomp"),
            (Denial::Killed, _) => ("killed", "exec"),
        };
        assert!(self.denied(), "{self:?}");
        assert_eq!(
            (self.text("verdict"), self.text("stage")),
            expected,
            "{self:?}"
        );
    }
}

/// A whole trail.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Its lines in order.
    pub lines: Vec<Line>,
}

impl Trail {
    /// Reads a trail; a missing file is an empty one.
    ///
    /// # Panics
    ///
    /// When a line is not one whole JSON object with exactly the keys that readers know, in their order, or holds
    /// a control character.
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        assert!(
            bytes.is_empty() || bytes.ends_with(b"\n"),
            "torn last line in {}",
            path.display()
        );
        Self::parse(bytes)
    }

    /// Reads the whole lines of a trail that is being written.
    ///
    /// # Panics
    ///
    /// As [`Trail::read`].
    pub fn read_so_far(path: &Path) -> Self {
        let mut bytes = fs::read(path).unwrap_or_default();
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        bytes.truncate(whole);
        Self::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes).expect("the trail is UTF-8");
        let lines = text
            .split_terminator('\n')
            .map(|line| {
                assert!(
                    !line.contains(char::is_control),
                    "control character: {line:?}"
                );
                let value: Value = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("not one JSON object: {error}: {line:?}"));
                let mut known = KEYS.iter();
                for key in value.as_object().expect("an object").keys() {
                    assert!(known.any(|k| k == key), "key {key:?} in {line}");
                }
                Line(value)
            })
            .collect();
        Self { lines }
    }

    /// The execs, allowed or not.
    pub fn execs(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_exec())
    }

    /// The connects and sockets, allowed or not.
    pub fn connects(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_connect())
    }

    /// What was denied.
    pub fn denials(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.denied())
    }

    /// The denied execs of which `word` is one whole word (or the last part of a path).
    pub fn denied_with_word(&self, word: &str) -> Vec<&Line> {
        let is_it = |part: &str| part.rsplit('/').next() == Some(word);
        self.execs()
            .filter(|line| line.denied() && line.command().split(' ').any(is_it))
            .collect()
    }

    /// The only denied exec whose command holds `text`.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one.
    pub fn denied_exec(&self, text: &str) -> &Line {
        let found: Vec<&Line> = self
            .execs()
            .filter(|line| line.denied() && line.command().contains(text))
            .collect();
        match found[..] {
            [line] => line,
            _ => panic!(
                "{} denied execs with {text:?}, one expected; the trail:\n{}",
                found.len(),
                self.shown()
            ),
        }
    }

    /// The trail, for messages: what was denied, and the last lines.
    pub fn shown(&self) -> String {
        let last = self.lines.len().saturating_sub(20);
        let lines: Vec<String> = self
            .lines
            .iter()
            .enumerate()
            .filter(|(index, line)| *index >= last || line.denied())
            .map(|(_, line)| line.shown())
            .collect();
        lines.join("\n")
    }

    /// Checks that the numbers of the kernel's lines are 0, 1, 2, … without gap or repetition. (Lines of the
    /// supervisor have none.)
    ///
    /// # Panics
    ///
    /// When they are not.
    pub fn assert_whole(&self) {
        let mut numbers: Vec<u64> = self
            .lines
            .iter()
            .filter(|line| line.lost().is_none() && !line.0["parameters"]["seq"].is_null())
            .map(|line| line.number("seq"))
            .collect();
        numbers.sort_unstable();
        let expected: Vec<u64> = (0..numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "events are missing or doubled");
    }
}

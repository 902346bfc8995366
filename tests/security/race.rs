//! A thread that rewrites path, argument or link while execve runs: what really starts is judged, so no try wins.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{fs, path::PathBuf};

use enforcer_tests::{Ended, Session, open, probe, quick, root};
use serde_json::{Value, json};

/// Tries of one kind; there are four.
fn tries() -> u32 {
    quick(10_000, 300)
}

/// Denies the program and the word `forbidden`.
fn policy() -> Value {
    json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "program", "decision": "deny", "argv": {"program": "forbidden"}},
        {"id": "word", "decision": "deny", "regex": ["^.*/fine-name .*forbidden"]},
    ]}})
}

struct Race {
    session: Session,
    mark: PathBuf,
    good: PathBuf,
    bad: PathBuf,
    racer: PathBuf,
}

impl Race {
    fn new() -> Self {
        let session = Session::new(&open());
        let mark = session.work().join("mark");
        // Names of one length: each is a whole name at any moment.
        let good = session.place(probe!("shout"), "bin/fine-name");
        let bad = session.place(probe!("shout"), "bin/forbidden");
        let racer = session.place(probe!("race"), "bin/race");
        let session = session.variable("MARK", &mark);
        Self {
            session,
            mark,
            good,
            bad,
            racer,
        }
    }

    /// Marks of harmless and of forbidden programs that really ran.
    fn marks(&self) -> (usize, usize) {
        let marks = fs::read(&self.mark).unwrap_or_default();
        let good = String::from_utf8(marks).unwrap().matches('g').count();
        let all = fs::metadata(&self.mark).map_or(0, |meta| meta.len() as usize);
        (good, all - good)
    }

    fn run(&self, mode: &str, tries: u32) -> Ended {
        let _ = fs::remove_file(&self.mark);
        let tries = tries.to_string();
        let words = [
            self.racer.as_os_str(),
            mode.as_ref(),
            self.good.as_os_str(),
            self.bad.as_os_str(),
            tries.as_ref(),
        ];
        let ended = self.session.run(words);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended
    }

    fn prove(&self, mode: &str) {
        // Without a rule the race is won often enough; else this test would show nothing.
        self.run(mode, quick(500, 100));
        let (good, bad) = self.marks();
        assert!(
            good > 0 && bad > 0,
            "{mode}: {good} good, {bad} bad of the free tries"
        );

        self.session.set_policy(&policy());
        let ended = self.run(mode, tries());
        let (good, bad) = self.marks();
        assert_eq!(bad, 0, "{mode}: won {bad} times");
        assert!(good > 0, "{mode}: nothing ran at all");

        // Each try is one line, but for the names that were no file at the moment they were read.
        let outcome = |code: i32| {
            ended
                .text()
                .lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(word, _)| word.parse() == Ok(code))
                .map_or(0, |(_, count)| count.parse::<usize>().unwrap())
        };
        let trail = &ended.trail;
        trail.assert_whole();
        let allowed = trail.execs().filter(|line| !line.denied()).count() - 1;
        let killed = trail
            .execs()
            .filter(|line| line.text("verdict") == "killed")
            .count();
        let refused = trail
            .execs()
            .filter(|line| line.text("verdict") == "errno")
            .count();
        assert_eq!(allowed, good, "{mode}: allowed lines and harmless runs");
        assert_eq!(outcome(0), good, "{mode}");
        assert_eq!(
            killed,
            outcome(137),
            "{mode}: killed lines and killed children"
        );
        assert!(
            refused <= outcome(126),
            "{mode}: more refusals than refused children"
        );
        assert!(killed + refused > 0, "{mode}: nothing was denied");
    }
}

#[test]
fn a_path_that_changes() {
    if root() {
        Race::new().prove("path");
    }
}

#[test]
fn an_argument_that_changes() {
    if root() {
        Race::new().prove("word");
    }
}

#[test]
fn an_argument_pointer_that_changes() {
    if root() {
        Race::new().prove("argv");
    }
}

#[test]
fn a_link_that_changes() {
    if root() {
        Race::new().prove("link");
    }
}

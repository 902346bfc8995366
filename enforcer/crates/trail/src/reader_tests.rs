//! What counts as a line, the last lines over several files, and following through rotations.

use std::fs;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::{Entry, Malformed, Reader};
use crate::AuditError;

fn line(n: usize) -> String {
    format!(r#"{{"timestamp":"t","event":"approval","agent":"{n}"}}"#)
}

fn agents(lines: &[Vec<u8>]) -> Vec<String> {
    lines
        .iter()
        .map(|l| Entry::parse(l).expect("entry").text("agent"))
        .collect()
}

#[test]
fn lines_as_the_existing_readers_take_them() {
    let ok = |s: &str| Entry::parse(s.as_bytes());
    assert!(ok(r#"{"timestamp":"t","event":"approval","agent":"a"}"#).is_ok());
    assert!(ok(r#"{"timestamp":1,"event":null,"agent":[]}"#).is_ok());
    assert_eq!(
        ok(r#"{"timestamp":"t","event":"approval","agent":"a","extra":1}"#),
        Err(Malformed::UnknownKey)
    );
    assert_eq!(
        ok(r#"{"timestamp":"t","event":"approval"}"#),
        Err(Malformed::MissingKey)
    );
    assert_eq!(ok("[]"), Err(Malformed::NotAnObject));
    assert_eq!(ok("{bad"), Err(Malformed::NotJson));
    assert_eq!(ok(""), Err(Malformed::NotJson));
    let hook = r#"{"timestamp": "t", "event": "denial", "agent": "a", "tool": "Bash", "parameters": {"command": "rm", "n": 1}}"#;
    let entry = ok(hook).expect("hook line");
    assert_eq!(
        (entry.parameter("command"), entry.parameter("n")),
        ("rm".into(), "1".into())
    );
    assert!(entry.is_denied() && entry.text("reason").is_empty() && entry.parameters().is_some());
}

#[test]
fn vectors_of_the_replaced_trail() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../../shared/fixtures/audit_vectors.json");
    let Ok(file) = fs::read_to_string(&path) else {
        eprintln!("SKIPPED: no {} here", path.display());
        return;
    };
    let vectors: Value = serde_json::from_str(&file).expect("vectors");
    let parse = vectors["parse"].as_array().expect("parse");
    assert!(parse.len() > 10);
    for vector in parse {
        let line = vector["line"].as_str().expect("line");
        assert_eq!(
            u64::from(Entry::parse(line.as_bytes()).is_ok()),
            vector["entries"].as_u64().expect("n"),
            "{line}"
        );
    }
    for sample in vectors["sample_lines"].as_array().expect("samples") {
        Entry::parse(sample.as_str().expect("line").as_bytes()).expect("sample line");
    }
}

#[test]
fn the_last_lines_reach_into_older_files() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("t");
    let put = |name: &str, range: std::ops::Range<usize>| {
        let text: String = range.map(|n| line(n) + "\n\n").collect();
        fs::write(dir.path().join(name), text).expect("write");
    };
    put("t.2", 0..4);
    put("t.1", 4..8);
    put("t", 8..10);
    let last = |n| agents(&Reader::new(&path).last(n, |_| true).expect("last").0);
    assert_eq!(last(1), ["9"]);
    assert_eq!(last(3), ["7", "8", "9"]);
    assert_eq!(last(7), ["3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(last(100).len(), 10);
    assert!(last(0).is_empty());
    let even = Reader::new(&path)
        .last(3, |l| l.ends_with(b"4\"}") || l.ends_with(b"9\"}"))
        .expect("last")
        .0;
    assert_eq!(agents(&even), ["4", "9"]);
    assert!(matches!(
        Reader::new(&dir.path().join("no")).last(1, |_| true),
        Err(AuditError::NoTrail { .. })
    ));
    assert!(matches!(
        Reader::new(dir.path()).last(1, |_| true),
        Err(AuditError::NotAFile { .. })
    ));
}

#[test]
fn following_goes_through_rotations() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("t");
    let name = |n: usize| dir.path().join(format!("t.{n}"));
    fs::write(&path, line(0) + "\n").expect("write");
    let (_, mut follower) = Reader::new(&path).last(1, |_| true).expect("last");
    let mut poll = || {
        let mut seen = Vec::new();
        follower.poll(|l| seen.push(l.to_vec())).expect("poll");
        agents(&seen)
    };
    assert!(poll().is_empty());
    let append = |text: &str| {
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("open")
            .write_all(text.as_bytes())
            .expect("write");
    };
    // A line in two parts is given once it is whole.
    let two = line(1) + "\n" + &line(2);
    append(&two[..two.len() - 5]);
    assert_eq!(poll(), ["1"]);
    append(&(two[two.len() - 5..].to_owned() + "\n"));
    assert_eq!(poll(), ["2"]);
    // Two rotations between two polls, with a line at the end of the old file.
    append(&(line(3) + "\n"));
    fs::rename(&path, name(1)).expect("rename");
    fs::write(&path, line(4) + "\n" + &line(5) + "\n").expect("write");
    fs::rename(name(1), name(2)).expect("rename");
    fs::rename(&path, name(1)).expect("rename");
    assert_eq!(poll(), ["3"], "no file has the name yet");
    fs::write(&path, line(6) + "\n").expect("write");
    assert_eq!(poll(), ["4", "5", "6"]);
    assert!(poll().is_empty());
    // Truncated in place.
    fs::write(&path, "").expect("write");
    poll();
    append(&(line(7) + "\n"));
    assert_eq!(poll(), ["7"]);
}

proptest! {
    #[test]
    fn any_file_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("t");
        fs::write(&path, &bytes).expect("write");
        let (lines, _) = Reader::new(&path).last(10, |_| true).expect("last");
        for line in lines {
            let _ = Entry::parse(&line);
        }
    }
}

//! How the trail is shown.

use std::fs;
use std::path::PathBuf;

use super::{Entry, Style, TailArgs, show};

const DENIED: &str = r#"{"timestamp":"2026-11-21T02:37:44.309895+00:00","event":"denial","agent":"coder","tool":"exec","reason":"never [no-rm]","security_risk":true,"parameters":{"command":"rm -rf /","truncated":true,"rule":"no-rm","verdict":"killed"}}"#;
const CONNECT: &str = r#"{"timestamp":"2026-11-21T02:37:45.000000+00:00","event":"approval","agent":"coder","tool":"connect","reason":"ok","security_risk":false,"parameters":{"address":"2001:db8::1","port":443,"protocol":"tcp","rule":"web"}}"#;
const FOREIGN: &str = r#"{"timestamp":"x","event":"circuit_breaker_trip","agent":"a\u001b[2Jb\u009b1m","reason":"tripped","denial_count":10}"#;
const UNIX: &str = r#"{"timestamp":"2026-11-21T02:37:46.000000+00:00","event":"denial","agent":"coder","tool":"connect","reason":"no","security_risk":true,"parameters":{"exe":"python3.11","address":"/run/docker.sock","protocol":"unix","rule":"socket:docker","verdict":"errno"}}"#;
const ASKED: &str = r#"{"timestamp":"2026-11-21T02:37:47.000000+00:00","event":"denial","agent":"claude","tool":"Write","reason":"why","security_risk":true,"parameters":{"paths":["/home/kim/p/a.txt"],"decision":"ask","verdict":"asked","stage":"hook","pid":7}}"#;

fn plain(line: &str) -> String {
    Style { colour: false }.line(&Entry::parse(line.as_bytes()).expect("entry"))
}

#[test]
fn one_line_each() {
    assert_eq!(
        plain(DENIED),
        "2026-11-21 02:37:44.309  coder  DENIED killed  exec rm -rf / …  (never [no-rm])"
    );
    assert_eq!(
        plain(CONNECT),
        "2026-11-21 02:37:45.000  coder  allowed        connect [2001:db8::1]:443 tcp  (web: ok)"
    );
    assert_eq!(plain(FOREIGN), "x  ab  BREAKER OPEN     (tripped)");
    assert_eq!(
        plain(UNIX),
        "2026-11-21 02:37:46.000  coder  DENIED errno   connect /run/docker.sock unix by python3.11  (socket:docker: no)"
    );
}

#[test]
fn what_a_hook_denied_is_called_so_once() {
    let denied = ASKED.replace(r#""verdict":"asked""#, r#""verdict":"denied""#);
    assert!(
        plain(&denied).contains("claude  DENIED         Write"),
        "{}",
        plain(&denied)
    );
}

#[test]
fn what_an_agent_was_told_to_ask_is_not_called_denied() {
    let entry = Entry::parse(ASKED.as_bytes()).expect("entry");
    assert!(!entry.is_denied());
    assert_eq!(
        plain(ASKED),
        "2026-11-21 02:37:47.000  claude  asked          Write /home/kim/p/a.txt  (why)"
    );
}

#[test]
fn colour_is_only_put_where_it_is_wanted() {
    let entry = Entry::parse(DENIED.as_bytes()).expect("entry");
    assert!(!plain(DENIED).contains('\x1b'));
    assert!(
        Style { colour: true }
            .line(&entry)
            .contains("\x1b[31mDENIED")
    );
}

#[test]
fn odd_values_are_shown_too() {
    for line in [
        r#"{"timestamp":1,"event":null,"agent":[]}"#,
        r#"{"timestamp":"éééééééééééééééé","event":"e","agent":"","parameters":"text"}"#,
        r#"{"timestamp":"t","event":"denial","agent":"a","tool":"Write","parameters":{"file_path":"/x"}}"#,
    ] {
        assert!(!plain(line).is_empty());
    }
}

#[test]
fn a_file_is_shown_and_filtered() {
    let dir = tempfile::tempdir().expect("dir");
    let file: PathBuf = dir.path().join("t");
    fs::write(&file, format!("{DENIED}\n{{torn\n{CONNECT}\n")).expect("write");
    let shown = |json, denied, lines| {
        let mut out = Vec::new();
        let args = TailArgs {
            file: file.clone(),
            follow: false,
            lines,
            json,
            denied,
        };
        show(&args, Style { colour: false }, &mut out).expect("show");
        String::from_utf8(out).expect("utf-8")
    };
    assert_eq!(shown(true, false, 9), format!("{DENIED}\n{CONNECT}\n"));
    assert_eq!(shown(true, true, 9), format!("{DENIED}\n"));
    assert_eq!(shown(false, false, 1), plain(CONNECT) + "\n");
}

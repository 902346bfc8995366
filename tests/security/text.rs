//! Arguments that are long, empty or no text at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
};

use enforcer_tests::{Attempts, Ended, Session, open, probe, root};
use serde_json::{Value, json};

/// Denies the program `tool` with the word `forbidden` anywhere.
fn policy() -> Value {
    json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "word", "decision": "deny", "regex": ["(^|/)tool .*forbidden"]},
        {"id": "subcommand", "decision": "deny", "argv": {"program": "tool", "words": ["push"], "flags_any": ["--force"]}},
        {"id": "many", "decision": "deny", "glob": ["tool *--last"]},
    ]}})
}

/// Runs a Python program in a session. `tool` leaves its mark in `MARK`.
fn python(session: &Session, code: &str) -> Ended {
    let prelude = "import os, sys\n\
        tool, mark = os.environ['TOOL'].encode(), os.environ['MARK']\n\
        def attempt(*words):\n\
        \x20   pid = os.fork()\n\
        \x20   if pid == 0:\n\
        \x20       try: os.execv(tool, [b'tool', *words])\n\
        \x20       except PermissionError: os._exit(126)\n\
        \x20       except BaseException as e: print(e, file=sys.stderr); os._exit(125)\n\
        \x20   status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n\
        \x20   return 128 - status if status < 0 else status\n";
    let ended = session.run(["/usr/bin/python3", "-c", &format!("{prelude}{code}")]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended
}

fn session() -> Session {
    let session = Session::new(&open());
    let tool = session.place(probe!("victim"), "bin/tool");
    let mark = session.work().join("mark");
    session.variable("TOOL", tool).variable("MARK", mark)
}

/// How often the tool ran.
fn ran(session: &Session) -> usize {
    let mark = session.work().join("mark");
    let count = std::fs::read(&mark).map_or(0, |marks| marks.len());
    let _ = std::fs::remove_file(mark);
    count
}

/// Arguments as Python expressions that must be denied, by this rule.
const LONG: [(&str, &str); 9] = [
    ("b'a' * (128 * 1024 - 20) + b'forbidden'", "word"),
    ("b'a' * (128 * 1024 - 1), b'forbidden'", "word"),
    ("*[b'a' * 1000] * 2000, b'forbidden'", "word"),
    (
        "*[b'a' * 50] * 4000, b'x forbidden x', *[b'b' * 50] * 4000",
        "word",
    ),
    ("*[b'a' * 100000] * 15, b'forbidden'", "word"),
    ("*[b'a'] * 100000, b'forbidden'", "word"),
    (
        "*[b'-x'] * 50000, b'push', *[b'x'] * 50000, b'--force'",
        "subcommand",
    ),
    ("b'push', *[b'x' * 130000] * 10, b'--force'", "subcommand"),
    ("*[b''] * 70000, b'--last'", "many"),
];

#[test]
fn the_last_word_of_two_megabytes_is_read() {
    if !root() {
        return;
    }
    let session = session();
    // That the arguments are accepted at all; the stack is made large enough for 2 MiB of them.
    let limit = "import resource; resource.setrlimit(resource.RLIMIT_STACK, (64 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))\n";
    let calls = LONG
        .map(|(words, _)| format!("print(attempt({words}))"))
        .join("\n");
    let code = format!("{limit}{calls}");
    let free = python(&session, &code);
    assert_eq!(ran(&session), LONG.len(), "{} {}", free.text(), free.stderr);

    session.set_policy(&policy());
    let ended = python(&session, &code);
    assert_eq!(ran(&session), 0, "{}", ended.text());
    ended.trail.assert_whole();
    let denials: Vec<_> = ended.trail.denials().collect();
    assert_eq!(denials.len(), LONG.len(), "{}", ended.trail.shown());
    for (line, (words, rule)) in denials.iter().zip(LONG) {
        assert_eq!(line.rule(), rule, "{words}");
        assert_eq!(line.0["parameters"]["truncated"], true, "{words}");
        assert!(
            line.number("argv_bytes") > 65_000,
            "{words}: {}",
            line.number("argv_bytes")
        );
    }
}

#[test]
fn long_arguments_without_the_word_pass() {
    if !root() {
        return;
    }
    let session = session();
    session.set_policy(&policy());
    let ended = python(
        &session,
        "for words in ([b'a' * 131000], [b'a' * 1000] * 1500, [b'a'] * 100000): print(attempt(*words))",
    );
    assert_eq!(
        ran(&session),
        3,
        "{}\n{}",
        ended.text(),
        ended.trail.shown()
    );
    assert_eq!(ended.trail.denials().count(), 0);
}

#[test]
fn the_word_is_found_at_every_offset_around_the_chunks() {
    if !root() {
        return;
    }
    let session = session();
    session.set_policy(&policy());
    let ended = python(
        &session,
        "spots = [s + d for s in (4096, 8192, 16384, 65536) for d in range(-12, 3)]\n\
         for spot in spots: attempt(b'a' * spot + b'forbidden' + b'b' * 100)\n\
         print(len(spots))",
    );
    assert_eq!(ran(&session), 0);
    assert_eq!(ended.trail.denials().count(), 60);
    assert_eq!(ended.text().trim(), "60");
}

#[test]
fn control_characters_do_not_break_lines_or_rules() {
    if !root() {
        return;
    }
    let session = session();
    let odd = [
        "b'a\\nb\\r\\n\\x0b\\x0c forbidden'",
        "b'\\x1b[31mred\\x1b[0m', b'forbidden\\x07'",
        "b'\\x1b]0;title\\x07\\x1b[2J\\x9b1mforbidden'",
        "b'\\xff\\xfe\\xc3\\x28 forbidden \\xe2\\x82'",
        "bytes(range(1, 256)) + b'forbidden'",
        "b'', b'', b'forbidden', b''",
        "b'\"}\\\\u0000\\\\n{\"event\": \"approval\"', b'forbidden'",
        "'\\u2028\\u2029\\u0085\\u202e'.encode(), b'forbidden'",
    ];
    let calls = odd.map(|words| format!("attempt({words})")).join("\n");
    python(&session, &calls);
    // A dot does not match a line's end: that first one is the pattern's own affair.
    assert_eq!(ran(&session), odd.len());
    let mut policy = policy();
    policy["exec"]["rules"][0]["regex"][0] = "(?s)(^|/)tool .*forbidden".into();
    session.set_policy(&policy);
    // Reading the trail checks that each line is whole and free of control characters.
    let ended = python(&session, &calls);
    assert_eq!(ran(&session), 0, "{}", ended.trail.shown());
    let denials: Vec<_> = ended.trail.denials().collect();
    assert_eq!(denials.len(), odd.len());
    for line in &denials {
        assert_eq!(line.rule(), "word");
        line.assert_denied_exec(session.denial());
        assert!(!line.command().contains("[31m"), "{line:?}");
    }
    assert_eq!(ended.trail.lines.len(), odd.len() + 1);
}

#[test]
fn empty_argument_lists_are_judged() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let ways = session.place(probe!("ways"), "bin/ways");
    let session = session.variable("VICTIM", victim).variable("WAYS", ways);
    let attempts = Attempts::new()
        .with("empty-argv", "$WAYS empty-argv $VICTIM")
        .with("null-argv", "$WAYS null-argv $VICTIM")
        .with("empty-argv0", "$WAYS empty-argv0 $VICTIM");
    let outcomes = attempts.prove(&session, &enforcer_tests::forbidding());
    let trail = &outcomes.ended.trail;
    trail.assert_whole();
    let denials: Vec<_> = trail.denials().collect();
    assert_eq!(denials.len(), 3, "{}", trail.shown());
    for line in denials {
        assert_eq!(line.rule(), "forbidden");
        line.assert_denied_exec(session.denial());
    }
}

#[test]
fn a_word_is_a_word_and_not_a_part_of_one() {
    if !root() {
        return;
    }
    let session = session();
    session.set_policy(&policy());
    let ended = python(
        &session,
        "attempt(b'push --force')\nattempt(b'x push', b'--force')\nattempt(b'-c', b'push', b'--force-with')\nattempt(b'push', b'--force')\nattempt(b'push', b'a b', b'--force')",
    );
    assert_eq!(ran(&session), 3, "{}", ended.trail.shown());
    assert_eq!(ended.trail.denials().count(), 2);
}

#[test]
fn the_operators_own_command_may_be_anything() {
    if !root() {
        return;
    }
    let session = Session::new(&json!({"version": "2", "exec": {"default": "deny"}}));
    let victim = session.place(probe!("victim"), "bin/tool");
    let odd = OsString::from_vec(b"\xff\x1b[1m\n".to_vec());
    let ended = session.run([victim.as_os_str(), odd.as_os_str(), OsStr::new("")]);
    assert_eq!((ended.code(), ended.text().trim()), (0, "victim ran"));
    assert_eq!(ended.trail.lines.len(), 1);
    assert_eq!(ended.trail.denials().count(), 0);
}

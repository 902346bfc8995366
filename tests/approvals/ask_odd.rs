//! Execs from odd processes, seen by the supervisor first: what is allowed runs, what is denied does not, and the
//! launcher lives on.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use enforcer_tests::{Ended, Session, probe, quick, root};
use serde_json::{Value, json};

use crate::scene::{asking, marks, session};

/// Ways in which a program starts.
const WORKING: [&str; 15] = [
    "plain",
    "null-argv",
    "empty-argv",
    "last-slot",
    "edge-word",
    "long-word",
    "many-words",
    "thread",
    "threads",
    "vfork",
    "spawn",
    "execveat",
    "execveat-directory",
    "deleted-directory",
    "no-descriptors",
];

/// Ways in which the kernel starts nothing, and how it says so.
const FAILING: [(&str, i32); 8] = [
    ("end-argv", 120),
    ("kernel-argv", 120),
    ("end-path", 120),
    ("null-path", 120),
    ("end-word", 120),
    ("no-end", 120),
    ("torn-word", 120),
    ("too-long-word", 121),
];

/// Asks about one program, which nobody starts here, and denies another: so there is a supervisor everywhere.
fn policy() -> Value {
    let mut policy = asking(json!({}));
    policy["exec"]["rules"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": "no", "decision": "deny", "argv": {"program": "forbidden"}}));
    policy
}

fn odd_session() -> Session {
    let session = session(&policy());
    let forbidden = session.place(probe!("shout"), "bin/forbidden");
    let odd = session.place(probe!("odd"), "bin/odd");
    session
        .variable("FORBIDDEN", forbidden)
        .variable("ODD", odd)
}

/// Names and statuses, one a line.
fn statuses(ended: &Ended) -> BTreeMap<String, i32> {
    ended
        .text()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, status)| (name.to_owned(), status.parse().unwrap()))
        .collect()
}

#[test]
fn odd_ones_are_judged_like_others() {
    if !root() {
        return;
    }
    let session = odd_session();
    let run = |program: &str| {
        let modes: Vec<&str> = WORKING
            .iter()
            .copied()
            .chain(FAILING.iter().map(|(mode, _)| *mode))
            .collect();
        let ended = session.sh(&format!(
            "for mode in {}; do $ODD $mode ${program}; done; true",
            modes.join(" ")
        ));
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let statuses = statuses(&ended);
        assert_eq!(statuses.len(), modes.len(), "{statuses:?} {}", ended.stderr);
        (ended, statuses)
    };
    let (ended, fine) = run("FINE");
    for mode in WORKING {
        assert_eq!(
            fine[mode],
            0,
            "{mode}: {}\n{}",
            ended.stderr,
            ended.trail.shown()
        );
    }
    for (mode, status) in FAILING {
        assert_eq!(fine[mode], status, "{mode}");
    }
    assert_eq!(marks(&session), WORKING.len());
    let allowed = ended
        .trail
        .execs()
        .filter(|line| {
            let command = line.command();
            !command.contains("bin/odd")
                && (command.contains("bin/fine") || command.starts_with("/dev/fd/"))
        })
        .count();
    assert_eq!(allowed, WORKING.len(), "{}", ended.trail.shown());

    let (ended, forbidden) = run("FORBIDDEN");
    for mode in WORKING {
        assert!(
            [126, 137].contains(&forbidden[mode]),
            "{mode}: {}",
            forbidden[mode]
        );
    }
    // `marks` sees to it that none ran.
    assert_eq!(marks(&session), WORKING.len());
    for mode in ["plain", "thread", "vfork", "spawn", "deleted-directory"] {
        assert_eq!(forbidden[mode], 126, "{mode}: {}", ended.trail.shown());
    }
    let denied = ended
        .trail
        .denials()
        .filter(|line| line.rule() == "no")
        .count();
    assert!(denied >= WORKING.len(), "{}", ended.trail.shown());
}

/// Memory that comes and goes, and processes that die, while they are looked at.
#[test]
fn what_goes_away_while_it_is_read_does_no_harm() {
    if !root() {
        return;
    }
    let session = odd_session();
    let ended = session.sh(
        "for i in 1 2 3 4 5; do $ODD unmapped $FINE; done; for i in 1 2 3 4 5; do $ODD unmapped $FORBIDDEN; done\n\
         $ODD storm $FINE; $ODD storm $FORBIDDEN; $FINE last; echo last $?",
    );
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let text = ended.text();
    let unmapped: Vec<i32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("unmapped "))
        .map(|status| status.parse().unwrap())
        .collect();
    assert_eq!(unmapped.len(), 10, "{text} {}", ended.stderr);
    assert!(
        unmapped
            .iter()
            .all(|status| [0, 120, 126, 137].contains(status)),
        "{text}"
    );
    assert_eq!(
        text.matches("storm 0\n").count(),
        2,
        "{text} {}",
        ended.stderr
    );
    assert!(text.ends_with("last 0\n"), "{text} {}", ended.stderr);
    assert!(marks(&session) >= 1);
    ended.trail.assert_whole();
}

/// Scripts, and what they are started by.
#[test]
fn scripts_are_judged_as_themselves() {
    if !root() {
        return;
    }
    let session = odd_session();
    for name in ["fine-script", "forbidden"] {
        let path = session.work().join(name);
        fs::write(&path, "#!/bin/sh\nexec $FINE script\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    let ended = session.sh(
        "./fine-script; echo fine $?; ./forbidden; echo forbidden $?; \
         $ODD plain ./forbidden; $ODD vfork ./forbidden; $ODD execveat ./forbidden; true",
    );
    assert_eq!(marks(&session), 1, "{}", ended.trail.shown());
    let statuses = statuses(&ended);
    assert_eq!(statuses["fine"], 0, "{}", ended.stderr);
    for name in ["forbidden", "plain", "vfork"] {
        assert_eq!(statuses[name], 126, "{name}: {}", ended.trail.shown());
    }
    assert_ne!(statuses["execveat"], 0);
}

/// The odd ones wait like others.
#[test]
fn odd_ones_wait() {
    if !root() {
        return;
    }
    let modes = [
        "plain",
        "thread",
        "vfork",
        "spawn",
        "execveat-directory",
        "deleted-directory",
        "null-argv",
    ];
    let session = odd_session();
    let script = format!(
        "for mode in {}; do $ODD $mode $ASKED; done",
        modes.join(" ")
    );
    let running = session.start(["/bin/sh", "-c", &script]);
    for (done, mode) in modes.iter().enumerate() {
        running.request().approve(&[]);
        running.until(mode, |running| running.stdout().lines().count() > done);
    }
    let ended = running.wait();
    let expected: String = modes.iter().map(|mode| format!("{mode} 0\n")).collect();
    assert_eq!(
        ended.text(),
        expected,
        "{}\n{}",
        ended.stderr,
        ended.trail.shown()
    );
    assert_eq!(marks(&session), modes.len());
}

/// Threads of one process that ask for the same share the answer: one of them becomes the program, once.
#[test]
fn threads_that_ask_together_become_one() {
    if !root() {
        return;
    }
    let rounds = quick(20, 2);
    let session = odd_session();
    let script = format!("for i in $(seq {rounds}); do $ODD threads $ASKED; done");
    let running = session.start(["/bin/sh", "-c", &script]);
    for round in 0..rounds {
        running.until("all wait", |running| {
            running
                .pending()
                .iter()
                .any(|request| request.0["waiting"] == 8)
        });
        running.request().approve(&[]);
        running.until("it has ended", |running| {
            running.stdout().lines().count() > round
        });
    }
    let ended = running.wait();
    assert_eq!(
        ended.text(),
        "threads 0\n".repeat(rounds),
        "{}\n{}",
        ended.stderr,
        ended.trail.shown()
    );
    assert_eq!(marks(&session), rounds);
    ended.trail.assert_whole();
}

/// A program without a name in the file system can be asked about like others.
#[test]
fn one_without_a_name_waits() {
    if !root() {
        return;
    }
    let mut policy = policy();
    policy["exec"]["fileless"] = json!("ask");
    let session = session(&policy);
    let ways = session.place(probe!("ways"), "bin/ways");
    let session = session.variable("WAYS", ways);
    for (approve, status) in [(true, "0"), (false, "126")] {
        let running = session.start(["/bin/sh", "-c", "$WAYS memfd $FINE one; echo status $?"]);
        let request = running.request();
        assert_eq!(request.text("rule"), "fileless", "{request:?}");
        assert_eq!(request.text("sha256").len(), 64);
        if approve {
            request.approve(&[]);
        } else {
            request.deny(&[]);
        }
        let ended = running.wait();
        assert_eq!(
            ended.text(),
            format!("status {status}\n"),
            "{}\n{}",
            ended.stderr,
            ended.trail.shown()
        );
    }
    assert_eq!(marks(&session), 1);
}

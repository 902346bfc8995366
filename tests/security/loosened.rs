//! A policy opens one escape hatch by its name, with a reason, and the others stay shut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{collections::BTreeMap, fs};

use enforcer_tests::{Session, loosening, open, probe, root, shutting};

/// The groups, and for some an attempt that answers otherwise on every kernel when the group is open.
const GROUPS: [(&str, &str); 5] = [
    ("ptrace", "ptrace-traceme"),
    ("namespaces", "clone3"),
    ("mount", "open-tree"),
    ("limits", "prlimit"),
    ("netlink", "netlink-usersock"),
];

fn outcomes(session: &Session) -> BTreeMap<String, i32> {
    let syscalls = session.directory().join("bin/syscalls");
    let ended = session.run([syscalls.as_os_str(), "each".as_ref()]);
    ended
        .text()
        .lines()
        .map(|line| {
            let (name, errno) = line.split_once(' ').unwrap();
            (name.to_owned(), errno.parse().unwrap())
        })
        .collect()
}

#[test]
fn one_group_is_opened_by_its_name() {
    if !root() {
        return;
    }
    let session = Session::new(&shutting(open()));
    session.place(probe!("syscalls"), "bin/syscalls");
    let shut = outcomes(&session);
    assert!(shut.values().all(|errno| *errno != 0), "{shut:?}");
    for (group, attempt) in GROUPS {
        let opening = loosening(open(), &[group]);
        session.set_policy(&if group == "ptrace" {
            opening
        } else {
            shutting(opening)
        });
        let open = outcomes(&session);
        assert_eq!(open[attempt], 0, "{group}");
        for (_, other) in GROUPS.iter().filter(|(name, _)| *name != group) {
            assert_eq!(open[*other], shut[*other], "{group}: {other}");
        }
    }
}

#[test]
fn an_unknown_group_starts_nothing_and_the_known_ones_are_listed() {
    if !root() {
        return;
    }
    let session = Session::new(&loosening(open(), &["ptrase"]));
    let running = session.start(["/bin/true"]);
    // Nothing ran, so there is no trail to read.
    running.until("the launcher ends", |running| {
        running.stderr().contains("ptrase")
    });
    assert!(
        running.stderr().contains("namespaces"),
        "{}",
        running.stderr()
    );
    assert!(
        fs::metadata(running.trail_path()).map_or(0, |meta| meta.len()) == 0,
        "something was recorded"
    );
}

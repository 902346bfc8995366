//! What the tests of this subsystem share.

use std::{net::IpAddr, path::PathBuf, sync::mpsc};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::{Desk, Limits, Store, Waiter};
use crate::decide::{
    Risk,
    approval::{Answer, Asked, ConnectSubject, ExecSubject, FileIdentity, Parent, Place, Subject},
};

pub const INSTANCE: &str = "run-1";

pub fn scratch() -> TempDir {
    // 0700 by itself.
    tempfile::tempdir().unwrap()
}

pub fn db(directory: &TempDir) -> PathBuf {
    directory.path().join("state/approvals.db")
}

pub fn desk(directory: &TempDir, limits: Limits) -> Desk {
    Desk::new(Store::open(&db(directory)).unwrap(), INSTANCE, limits)
}

/// So many seconds after the epoch of the tests.
pub fn at(seconds: i64) -> Timestamp {
    "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

pub fn exec(words: &[&str]) -> Asked {
    Asked {
        agent: "coder".to_owned(),
        pid: 4711,
        ppid: 4710,
        uid: 1000,
        subject: Subject::Exec(ExecSubject {
            path: format!("/usr/bin/{}", words[0]).into_bytes(),
            argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            cwd: Place {
                path: b"/work".to_vec(),
                device: 1,
                inode: 2,
            },
            file: FileIdentity {
                path: format!("/usr/bin/{}", words[0]).into_bytes(),
                device: 1,
                inode: 3,
                changed: (5, 6),
                size: 7,
                sha256: [0xab; 32],
            },
        }),
        parents: vec![Parent {
            pid: 4710,
            command: "bash -c something".to_owned(),
        }],
        rule: Some("push".to_owned()),
        reason: "Pushes to a remote [push]".to_owned(),
        risk: Risk::Medium,
        suggestion: Some("open a pull request".to_owned()),
    }
}

pub fn exec_subject(asked: &mut Asked) -> &mut ExecSubject {
    match &mut asked.subject {
        Subject::Exec(exec) => exec,
        other => panic!("not an exec: {other:?}"),
    }
}

pub fn connect(address: &str, port: u16) -> Asked {
    Asked {
        subject: Subject::Connect(ConnectSubject {
            address: address.parse::<IpAddr>().unwrap(),
            port,
            protocol: 6,
        }),
        ..exec(&["curl"])
    }
}

/// A waiter and what it is told.
pub fn waiter() -> (Waiter, mpsc::Receiver<Answer>) {
    let (sender, receiver) = mpsc::channel();
    (
        // A test that has seen enough has let go of the receiver.
        Waiter::new(move |answer| drop(sender.send(answer))),
        receiver,
    )
}

/// Whether this test can run: peers and owners of other users are made by root alone.
pub fn as_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

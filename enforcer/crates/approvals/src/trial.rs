//! What tests share, here and in the command (feature `trial`).

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "only tests use it, and they end by panics"
)]

use std::{net::IpAddr, path::PathBuf, sync::mpsc};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::{Desk, RequestLimits, Store, Waiter};
use enforcer_decide::approval::{
    Answer, Asked, ConnectRequest, DirectoryIdentity, ExecRequest, FileIdentity, Parent, Request,
};
use enforcer_policy::Risk;

/// The launcher that asks.
pub const INSTANCE: &str = "run-1";

/// A directory that only this process reads.
pub fn scratch() -> TempDir {
    // 0700 by itself.
    tempfile::tempdir().unwrap()
}

/// Where the database lies in it.
pub fn db(directory: &TempDir) -> PathBuf {
    directory.path().join("state/approvals.db")
}

/// A desk over a database of its own.
pub fn desk(directory: &TempDir, limits: RequestLimits) -> Desk {
    Desk::new(Store::open(&db(directory)).unwrap(), INSTANCE, limits)
}

/// So many seconds after the epoch of the tests.
pub fn at(seconds: i64) -> Timestamp {
    "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// A request for an exec with these words.
pub fn exec(words: &[&str]) -> Asked {
    Asked {
        agent: "coder".to_owned(),
        pid: 4711,
        ppid: 4710,
        uid: 1000,
        request: Request::Exec(ExecRequest {
            path: format!("/usr/bin/{}", words[0]).into_bytes(),
            argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            cwd: DirectoryIdentity {
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

/// The exec of a request.
pub fn exec_request(asked: &mut Asked) -> &mut ExecRequest {
    match &mut asked.request {
        Request::Exec(exec) => exec,
        other => panic!("not an exec: {other:?}"),
    }
}

/// A request for a connect.
pub fn connect(address: &str, port: u16) -> Asked {
    Asked {
        request: Request::Connect(ConnectRequest {
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

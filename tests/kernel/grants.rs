//! What a person approved passes, exactly that, and once.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use enforcer_common::{
    address,
    event::{CAUSE_APPROVED, CAUSE_RULE, VERDICT_ALLOWED},
    grant::{ConnectGrant, ExecGrant, ExecGrantKey},
    rule::ASK,
};
use enforcer_kernel::events::Body;

use crate::world::{Child, Exec, World, boottime, connect, grant, tables};

const POLICY: &str = r#"{"version": "2",
    "exec": {"default": "allow", "rules": [
        {"id": "asked", "decision": "ask", "glob": ["*asked*"]}]},
    "connect": {"default": "ask"}}"#;

const ECHO: &str = "/usr/bin/true";

/// Whether an exec ran, was refused or killed. Anything else is a failure.
fn ran(world: &World, status: Option<i32>) -> bool {
    let denied = world.has_lsm().then_some(libc::EPERM);
    assert!(status == Some(0) || status == denied, "{status:?}");
    status == Some(0)
}

fn key(world: &World, child: &Child, exec: &Exec, script: bool) -> ExecGrantKey {
    let area = exec.area(usize::from(script));
    world.grants.exec_key(child.pid, exec.path(), &area, script)
}

#[test]
fn an_approved_exec_runs_once() {
    let mut world = World::new(&tables(POLICY));
    let exec = Exec::new(ECHO, &["true", "asked", "a b", ""]);
    assert!(
        !ran(&world, world.child(exec.act()).go()),
        "without a grant"
    );
    let denied = world.events();
    assert!(denied.iter().any(|event| event.header.decision == ASK
        && event.header.cause == CAUSE_RULE
        && event.header.approval == 0));

    let child = world.child(exec.act());
    let (pid, key) = (child.pid, key(&world, &child, &exec, false));
    world
        .grants
        .allow_exec(&key, &grant(Path::new(ECHO), 77))
        .unwrap();
    assert!(ran(&world, child.go()), "with a grant");
    assert!(!world.grants.revoke_exec(&key).unwrap(), "it was used up");
    let events = world.events();
    let event = events.iter().find(|event| event.header.pid == pid).unwrap();
    assert!(matches!(event.body, Body::Exec(_)));
    let header = event.header;
    assert_eq!(
        (
            header.decision,
            header.verdict,
            header.cause,
            header.approval
        ),
        (ASK, VERDICT_ALLOWED, CAUSE_APPROVED, 77)
    );
    assert_eq!(events.len(), 1, "one event an exec");
}

#[test]
fn anything_else_is_not_approved() {
    let world = World::new(&tables(POLICY));
    let exec = Exec::new(ECHO, &["true", "asked", "x"]);
    let sound = grant(Path::new(ECHO), 1);
    let spoilt: [(&str, ExecGrant); 9] = [
        (
            "expired",
            ExecGrant {
                expires_ns: boottime(),
                ..sound
            },
        ),
        (
            "another inode",
            ExecGrant {
                inode: sound.inode + 1,
                ..sound
            },
        ),
        (
            "another device",
            ExecGrant {
                device: sound.device + 1,
                ..sound
            },
        ),
        (
            "another size",
            ExecGrant {
                size: sound.size + 1,
                ..sound
            },
        ),
        (
            "changed since",
            ExecGrant {
                changed_s: sound.changed_s - 1,
                ..sound
            },
        ),
        (
            "just changed",
            ExecGrant {
                changed_ns: sound.changed_ns ^ 1,
                ..sound
            },
        ),
        (
            "another directory",
            ExecGrant {
                cwd_inode: sound.cwd_inode + 1,
                ..sound
            },
        ),
        (
            "a directory elsewhere",
            ExecGrant {
                cwd_device: sound.cwd_device + 1,
                ..sound
            },
        ),
        ("everything", ExecGrant::default()),
    ];
    for (what, grant) in spoilt {
        let child = world.child(exec.act());
        let key = key(&world, &child, &exec, false);
        world.grants.allow_exec(&key, &grant).unwrap();
        assert!(!ran(&world, child.go()), "{what}");
        assert!(
            world.grants.revoke_exec(&key).unwrap(),
            "{what}: not used up"
        );
    }
    for (what, other) in [
        ("another word", Exec::new(ECHO, &["true", "asked", "y"])),
        ("a word more", Exec::new(ECHO, &["true", "asked", "x", ""])),
        ("words joined", Exec::new(ECHO, &["true", "asked x"])),
        ("another name", Exec::new(ECHO, &["truE", "asked", "x"])),
        (
            "another path",
            Exec::new("/usr/bin/../bin/true", &["true", "asked", "x"]),
        ),
    ] {
        let child = world.child(other.act());
        let key = key(&world, &child, &exec, false);
        world.grants.allow_exec(&key, &sound).unwrap();
        assert!(!ran(&world, child.go()), "{what}");
    }
    let child = world.child(exec.act());
    let mut other = key(&world, &child, &exec, false);
    other.pid += 1;
    world.grants.allow_exec(&other, &sound).unwrap();
    assert!(!ran(&world, child.go()), "another process");
    assert_eq!(world.grants.sweep(u64::MAX).unwrap(), 6);
}

/// Lengths around words, pieces and what the first judgement gathers.
#[test]
fn texts_of_every_length() {
    let world = World::new(&tables(POLICY));
    for length in [0, 1, 7, 8, 9, 2030, 2031, 2032, 2033, 2040, 4096, 100_000] {
        let long = "x".repeat(length);
        // More than one word may be long; one may not exceed 128 KiB.
        let exec = Exec::new(ECHO, &["true", "asked", &long, &long]);
        let child = world.child(exec.act());
        let key = key(&world, &child, &exec, false);
        world
            .grants
            .allow_exec(&key, &grant(Path::new(ECHO), 1))
            .unwrap();
        assert!(ran(&world, child.go()), "{length} bytes");
    }
}

#[test]
fn an_approved_script_runs() {
    let world = World::new(&tables(POLICY));
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("asked.sh");
    let mut file = fs::File::create(&script).unwrap();
    file.write_all(b"#!/bin/sh -e\nexit 0\n").unwrap();
    drop(file);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let exec = Exec::new(script.to_str().unwrap(), &["name", "a"]);
    assert!(
        !ran(&world, world.child(exec.act()).go()),
        "without a grant"
    );

    let sound = grant(&script, 5);
    let child = world.child(exec.act());
    let key_of_script = key(&world, &child, &exec, true);
    world.grants.allow_exec(&key_of_script, &sound).unwrap();
    assert!(ran(&world, child.go()), "with a grant");
    assert!(!world.grants.revoke_exec(&key_of_script).unwrap());

    let child = world.child(exec.act());
    let as_program = key(&world, &child, &exec, false);
    world.grants.allow_exec(&as_program, &sound).unwrap();
    assert!(!ran(&world, child.go()), "a program's grant");

    let other = Exec::new(script.to_str().unwrap(), &["name", "b"]);
    let child = world.child(other.act());
    let key_of_first = key(&world, &child, &exec, true);
    world.grants.allow_exec(&key_of_first, &sound).unwrap();
    assert!(!ran(&world, child.go()), "another word");
    if world.has_lsm() {
        // Where the file itself can be looked at before the interpreter takes over.
        let child = world.child(exec.act());
        let key = key(&world, &child, &exec, true);
        let changed = ExecGrant {
            size: sound.size + 1,
            ..sound
        };
        world.grants.allow_exec(&key, &changed).unwrap();
        assert!(!ran(&world, child.go()), "another file");
    }
}

#[test]
fn an_approved_connect_passes_once() {
    let mut world = World::new(&tables(POLICY));
    let ear = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = ear.local_addr().unwrap().port();
    let connect = connect(port);
    let loopback = address::normalise(address::from_v4([127, 0, 0, 1]));
    let grants = world.grants.clone();
    let key =
        |child: &Child, port: u16| grants.connect_key(child.pid, loopback, 6, u32::from(port));
    let grant = ConnectGrant {
        request: 9,
        expires_ns: boottime() + 60_000_000_000,
    };
    assert_eq!(world.child(connect).go(), Some(libc::EPERM));
    let child = world.child(connect);
    world
        .grants
        .allow_connect(&key(&child, port ^ 1), &grant)
        .unwrap();
    assert_eq!(child.go(), Some(libc::EPERM), "another port");
    let child = world.child(connect);
    let expired = ConnectGrant {
        expires_ns: boottime(),
        ..grant
    };
    world
        .grants
        .allow_connect(&key(&child, port), &expired)
        .unwrap();
    assert_eq!(child.go(), Some(libc::EPERM), "expired");
    world.events();

    let child = world.child(move || match (connect(), connect()) {
        (0, libc::EPERM) => 0,
        (0, _) => 101,
        (first, _) => first,
    });
    let key = key(&child, port);
    world.grants.allow_connect(&key, &grant).unwrap();
    assert_eq!(child.go(), Some(0));
    assert!(!world.grants.revoke_connect(&key).unwrap());
    let events = world.events();
    assert_eq!(events.len(), 2);
    let header = events[0].header;
    assert_eq!(
        (
            header.decision,
            header.verdict,
            header.cause,
            header.approval
        ),
        (ASK, VERDICT_ALLOWED, CAUSE_APPROVED, 9)
    );
    assert_eq!(events[1].header.approval, 0);
}

//! Unix sockets, by their names.

use std::{
    fs,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
    path::Path,
};

use enforcer_common::{
    event::{CAUSE_CONNECTOR, CAUSE_RULE, VERDICT_ALLOWED, VERDICT_ERRNO},
    rule::{ALLOW, DENY},
};
use enforcer_kernel::{
    events::{Body, UnixFacts},
    instance::UnixJudgement,
};
use enforcer_policy::compile::Tables;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, sendto, socket};

use crate::world::{World, tables};

/// The groups for names are those of any text: here the exec rules' own.
fn policy() -> Tables {
    let mut tables = tables(
        r#"{"version": "2", "exec": {"default": "allow", "rules": [
            {"id": "secret", "decision": "deny", "glob": ["*secret*"]},
            {"id": "run", "decision": "deny", "glob": ["/run/enforcer-test-*"]},
            {"id": "log", "decision": "allow", "glob": ["*/plain-log"]}]}}"#,
    );
    let header = &mut tables.header;
    header.unix.count = header.shared_count;
    let groups = header.unix.groups.len();
    header.unix.groups.copy_from_slice(&header.shared[..groups]);
    assert!(header.shared_count as usize <= groups);
    header.unix_default = ALLOW;
    // The sockets here are made by the user who connects, outside the agent.
    header.outside_unix = ALLOW;
    header.unix_ask_from = header.ask_from;
    header.unix_deny_from = header.deny_from;
    tables
}

fn status(result: nix::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(errno) => errno as i32,
    }
}

fn connects(world: &World, address: &UnixAddr, kind: SockType) -> Option<i32> {
    world
        .child(|| {
            status(
                socket(AddressFamily::Unix, kind, SockFlag::empty(), None)
                    .and_then(|socket| connect(socket.as_raw_fd(), address)),
            )
        })
        .go()
}

fn sends(world: &World, address: &UnixAddr) -> Option<i32> {
    world
        .child(|| {
            status(
                socket(
                    AddressFamily::Unix,
                    SockType::Datagram,
                    SockFlag::empty(),
                    None,
                )
                .and_then(|socket| {
                    sendto(
                        socket.as_raw_fd(),
                        b"x",
                        address,
                        nix::sys::socket::MsgFlags::empty(),
                    )
                    .map(drop)
                }),
            )
        })
        .go()
}

fn names(world: &mut World) -> Vec<(String, u32, u32)> {
    world
        .events()
        .into_iter()
        .filter_map(|event| match event.body {
            Body::Unix(UnixFacts { name, .. }) => Some((
                String::from_utf8(name).unwrap(),
                event.header.verdict,
                event.header.cause,
            )),
            _ => None,
        })
        .collect()
}

const REFUSED: Option<i32> = Some(libc::EPERM);
const WENT_ON: Option<i32> = Some(0);

#[test]
fn abstract_names() {
    let mut world = World::new(&policy());
    if world.unix == UnixJudgement::Absent {
        eprintln!("SKIPPED: no hook for unix sockets");
        return;
    }
    let id = std::process::id();
    for (name, expected, verdict) in [
        (format!("enforcer-plain-{id}"), WENT_ON, VERDICT_ALLOWED),
        (format!("enforcer-secret-{id}"), REFUSED, VERDICT_ERRNO),
        // As long as a name can be.
        (format!("{id:-<100}-secret"), REFUSED, VERDICT_ERRNO),
        (format!("{id:-<101}-plain"), WENT_ON, VERDICT_ALLOWED),
    ] {
        let bound = SocketAddr::from_abstract_name(&name).unwrap();
        let stream = UnixListener::bind_addr(&bound).unwrap();
        let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        assert_eq!(
            connects(&world, &address, SockType::Stream),
            expected,
            "{name}"
        );
        let events = names(&mut world);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((&events[0].0, events[0].1), (&format!("@{name}"), verdict));
        drop(stream);
        let _datagram = UnixDatagram::bind_addr(&bound).unwrap();
        assert_eq!(
            connects(&world, &address, SockType::Datagram),
            expected,
            "{name}"
        );
        assert_eq!(sends(&world, &address), expected, "{name}");
        assert_eq!(names(&mut world).len(), 2);
    }
}

fn path(path: &Path) -> UnixAddr {
    UnixAddr::new(path).unwrap()
}

#[test]
fn paths() {
    let mut world = World::new(&policy());
    if world.unix == UnixJudgement::Absent {
        eprintln!("SKIPPED: no hook for unix sockets");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (plain, secret) = (
        directory.path().join("plain"),
        directory.path().join("secret"),
    );
    let _plain = UnixListener::bind(&plain).unwrap();
    let _secret = UnixListener::bind(&secret).unwrap();
    let stream = SockType::Stream;
    assert_eq!(connects(&world, &path(&plain), stream), WENT_ON);
    assert_eq!(connects(&world, &path(&secret), stream), REFUSED);
    let events = names(&mut world);
    assert_eq!(
        events,
        [
            (
                plain.to_str().unwrap().to_owned(),
                VERDICT_ALLOWED,
                events[0].2
            ),
            (
                secret.to_str().unwrap().to_owned(),
                VERDICT_ERRNO,
                CAUSE_RULE
            ),
        ]
    );
    // `/var/run` is `/run`.
    let name = format!("enforcer-test-{}", std::process::id());
    let run = Path::new("/run").join(&name);
    let ear = UnixListener::bind(&run).unwrap();
    let through_var = Path::new("/var/run").join(&name);
    assert_eq!(connects(&world, &path(&through_var), stream), REFUSED);
    fs::remove_file(&run).unwrap();
    drop(ear);
    assert_eq!(names(&mut world)[0].0, run.to_str().unwrap());
}

/// A link whose name is harmless.
#[test]
fn links() {
    let mut world = World::new(&policy());
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    let link = directory.path().join("plain");
    let _secret = UnixListener::bind(&secret).unwrap();
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    let attempt = |world: &World| connects(world, &path(&link), SockType::Stream);
    match world.unix {
        UnixJudgement::Bound => assert_eq!(attempt(&world), REFUSED),
        UnixJudgement::Called => {
            assert_eq!(attempt(&world), WENT_ON, "there is no connector");
            world.events();
            world.agent.set_connector(std::process::id()).unwrap();
            assert_eq!(attempt(&world), REFUSED);
            assert_eq!(names(&mut world)[0].2, CAUSE_CONNECTOR);
            let child = world.child(|| {
                status(
                    socket(
                        AddressFamily::Unix,
                        SockType::Stream,
                        SockFlag::empty(),
                        None,
                    )
                    .and_then(|socket| connect(socket.as_raw_fd(), &path(&link))),
                )
            });
            world.agent.set_connector(child.pid).unwrap();
            assert_eq!(child.go(), WENT_ON, "the connector itself");
            assert!(names(&mut world).is_empty(), "its launcher records it");
        }
        UnixJudgement::Absent => eprintln!("SKIPPED: no hook for unix sockets"),
    }
}

#[test]
fn datagrams_to_paths() {
    let mut world = World::new(&policy());
    let directory = tempfile::tempdir().unwrap();
    let bind = |name: &str| {
        let place = directory.path().join(name);
        (UnixDatagram::bind(&place).unwrap(), path(&place))
    };
    let ((_log, log), (_other, other), (_secret, secret)) =
        (bind("plain-log"), bind("other"), bind("secret"));
    if world.unix == UnixJudgement::Absent {
        eprintln!("SKIPPED: no hook for unix sockets");
        return;
    }
    assert_eq!(sends(&world, &log), WENT_ON, "a rule allows it");
    assert_eq!(sends(&world, &secret), REFUSED);
    let unnamed = match world.unix {
        // The name is the socket's own.
        UnixJudgement::Bound => WENT_ON,
        _ => REFUSED,
    };
    assert_eq!(sends(&world, &other), unnamed);
    assert_eq!(names(&mut world).len(), 3);
}

#[test]
fn pairs_and_sockets_without_a_name() {
    let mut world = World::new(&{
        let mut tables = policy();
        tables.header.unix_default = DENY;
        tables
    });
    let pair = world.child(|| {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        let made =
            unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, ends.as_mut_ptr()) };
        if made != 0 {
            return 99;
        }
        // SAFETY: one byte of a static string.
        i32::from(unsafe { libc::send(ends[0], c"x".as_ptr().cast(), 1, 0) } != 1)
    });
    assert_eq!(pair.go(), WENT_ON);
    assert!(names(&mut world).is_empty());
}

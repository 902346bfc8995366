use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket};

use super::*;
use crate::rig::{PATIENCE, Rig};

fn stream() -> OwnedFd {
    socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap()
}

fn place(path: &Path) -> SocketPlace {
    let file = fs::File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .unwrap();
    SocketPlace::File(file.into())
}

fn server(path: &Path, mode: u32) -> UnixListener {
    let server = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    server
}

#[test]
fn it_connects_as_the_agents_user_and_from_its_cgroup() {
    let Some(rig) = Rig::new("connector", "nobody") else {
        return;
    };
    let connector = Connector::start(&rig.identity, &rig.cgroup).unwrap();
    assert_eq!(rig.cgroup.procs().unwrap(), [connector.pid()]);
    let path = rig.place.path().join("open");
    let server = server(&path, 0o777);
    let ours = stream();
    connector.connect(ours.as_fd(), &place(&path)).unwrap();
    let (mut theirs, _) = server.accept().unwrap();
    let peer =
        nix::sys::socket::getsockopt(&theirs, nix::sys::socket::sockopt::PeerCredentials).unwrap();
    assert_eq!(peer.uid(), rig.identity.uid);
    assert_eq!(peer.pid(), connector.pid().as_raw());
    nix::unistd::write(&ours, b"hello").unwrap();
    drop(ours);
    let mut text = String::new();
    theirs.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    // Nothing of the launcher's is left open, and no privilege.
    let proc = format!("/proc/{}", connector.pid());
    // The socket that it has connected is closed behind the answer.
    let open = || fs::read_dir(format!("{proc}/fd")).unwrap().count();
    let start = Instant::now();
    while open() != 4 && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(open(), 4);
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // The agent's user cannot look into it.
    assert_eq!(fs::metadata(format!("{proc}/mem")).unwrap().uid(), 0);
}

#[test]
fn what_the_user_may_not_connect_to_is_refused() {
    let Some(rig) = Rig::new("connector-refused", "nobody") else {
        return;
    };
    let connector = Connector::start(&rig.identity, &rig.cgroup).unwrap();
    let closed = rig.place.path().join("closed");
    let _server = server(&closed, 0o700);
    assert_eq!(
        connector.connect(stream().as_fd(), &place(&closed)),
        Err(Errno::EACCES)
    );
    let dead = rig.place.path().join("dead");
    drop(server(&dead, 0o777));
    assert_eq!(
        connector.connect(stream().as_fd(), &place(&dead)),
        Err(Errno::ECONNREFUSED)
    );
    let file = fs::File::open("/dev/null").unwrap();
    let error = connector.connect(file.as_fd(), &place(&dead)).unwrap_err();
    assert_eq!(error, Errno::ENOTSOCK);
    kill(connector.pid(), Signal::SIGKILL).unwrap();
    thread::sleep(Duration::from_millis(50));
    for _ in 0..3 {
        assert_eq!(
            connector.connect(stream().as_fd(), &place(&dead)),
            Err(Errno::ECONNREFUSED)
        );
    }
}

#[test]
fn a_server_that_does_not_accept_holds_no_other_up() {
    let Some(rig) = Rig::new("connector-slow", "nobody") else {
        return;
    };
    let connector = Connector::start(&rig.identity, &rig.cgroup).unwrap();
    let path = rig.place.path().join("slow");
    let slow = stream();
    bind(slow.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    listen(&slow, Backlog::new(0).unwrap()).unwrap();
    let mut waiting: Vec<Connecting> = Vec::new();
    for _ in 0..4 {
        waiting.push(connector.begin(stream().as_fd(), &place(&path)).unwrap());
    }
    let other = rig.place.path().join("other");
    let _server = server(&other, 0o777);
    for _ in 0..20 {
        assert_eq!(connector.connect(stream().as_fd(), &place(&other)), Ok(()));
    }
    // The one that fits into the queue has ended; the others still wait, and end with the server.
    let mut ended = Vec::new();
    drop(slow);
    for connecting in waiting {
        ended.push(connecting.wait());
    }
    assert_eq!(ended.iter().filter(|end| end.is_ok()).count(), 1);
}

#[test]
fn a_link_that_is_swapped_never_wins() {
    const ROUNDS: usize = 3000;
    let Some(rig) = Rig::new("connector-swap", "nobody") else {
        return;
    };
    let connector = Connector::start(&rig.identity, &rig.cgroup).unwrap();
    let at = |name: &str| rig.place.path().join(name);
    let good = server(&at("good"), 0o777);
    let bad = server(&at("bad"), 0o777);
    bad.set_nonblocking(true).unwrap();
    let judged = fs::metadata(at("good")).unwrap().ino();
    let stop = AtomicBool::new(false);
    symlink("good", at("link")).unwrap();
    let (allowed, seen_bad) = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for name in ["bad", "good"] {
                    symlink(name, at("next")).unwrap();
                    fs::rename(at("next"), at("link")).unwrap();
                }
            }
        });
        let mut counts = (0, 0);
        for _ in 0..ROUNDS {
            let found = place(&at("link"));
            let SocketPlace::File(file) = &found else {
                unreachable!("a path")
            };
            let inode = fs::File::from(file.try_clone().unwrap())
                .metadata()
                .unwrap()
                .ino();
            if inode == judged {
                let ours = stream();
                connector.connect(ours.as_fd(), &found).unwrap();
                drop(UnixStream::from(ours));
                drop(good.accept().unwrap());
                counts.0 += 1;
            } else {
                counts.1 += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        counts
    });
    assert!(allowed > 0 && seen_bad > 0, "{allowed} {seen_bad}");
    // Nobody has ever come to the forbidden one.
    assert_eq!(
        bad.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
}

//! Unix sockets outside the agent behind which somebody else would act for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    fs,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::{PermissionsExt, chown},
            net::{SocketAddr, UnixDatagram, UnixListener},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

use enforcer_tests::{Session, agent_user, open, probe, program, root, skip};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use serde_json::{Value, json};

/// What the test listens on, outside the agent.
enum Ear {
    Stream(UnixListener),
    Datagram(UnixDatagram),
}

impl Ear {
    fn at(address: &SocketAddr, datagram: bool) -> Self {
        if let Some(path) = address.as_pathname() {
            let _ = fs::remove_file(path);
        }
        let ear = if datagram {
            let socket = UnixDatagram::bind_addr(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self::Datagram(socket)
        } else {
            let socket = UnixListener::bind_addr(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self::Stream(socket)
        };
        if let Some(path) = address.as_pathname() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        ear
    }

    /// How many connections or datagrams have arrived since it was last asked.
    fn heard(&self) -> usize {
        match self {
            Self::Stream(socket) => std::iter::from_fn(|| socket.accept().ok()).count(),
            Self::Datagram(socket) => {
                let mut bytes = [0; 16];
                std::iter::from_fn(|| socket.recv(&mut bytes).ok()).count()
            }
        }
    }
}

/// Everything allowed, by a rule: a datagram to a path needs one where the kernel has no LSM programs.
fn free() -> Value {
    let mut policy = open();
    policy["connect"]["rules"] = json!([{"id": "any", "decision": "allow", "unix": ["*"]}]);
    policy
}

/// As [`free`]; `name` by its name, which lifts what is built in against it.
fn naming(name: &str) -> Value {
    let mut policy = free();
    policy["connect"]["rules"][0]["unix"] = json!(["*", name]);
    policy
}

/// These names denied, all others allowed.
fn denying(names: &[String]) -> Value {
    let mut policy = free();
    policy["connect"]["rules"] = json!([
        {"id": "any", "decision": "allow", "unix": ["*"]},
        {"id": "shut", "decision": "deny", "unix": names},
    ]);
    policy
}

fn session() -> Session {
    let session = Session::new(&open());
    session.place(probe!("dial_unix"), "bin/dial_unix");
    for directory in ["shut", "open"] {
        let path = session.directory().join(directory);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    session
}

/// Dials in an agent; what it printed.
fn dial(session: &Session, words: &[&str]) -> String {
    let dial = session.directory().join("bin/dial_unix");
    let words: Vec<&str> = std::iter::once(dial.to_str().unwrap())
        .chain(words.iter().copied())
        .collect();
    let ended = session.run(words);
    ended.text().trim().to_owned()
}

/// Dials by each way in one agent; what each printed.
fn dial_each(session: &Session, name: &str, ways: &[&str]) -> Vec<String> {
    const EACH: &str = "dial=$1 name=$2; shift 2; for way; do $dial $way $name; done";
    let dial = session.directory().join("bin/dial_unix");
    let mut words = vec!["/bin/sh", "-c", EACH, "sh", dial.to_str().unwrap(), name];
    words.extend(ways);
    let ended = session.run(words);
    let said: Vec<String> = ended.text().lines().map(str::to_owned).collect();
    assert_eq!(said.len(), ways.len(), "{name}: {said:?} {}", ended.stderr);
    said
}

/// Each way is heard where all is allowed, and refused and unheard under the policy.
fn prove(session: &Session, policy: &Value, name: &str, ear: &Ear, ways: &[&str]) {
    session.set_policy(&naming(name));
    for (way, said) in ways.iter().zip(dial_each(session, name, ways)) {
        assert_eq!(said, "0", "{way} {name}");
    }
    assert!(ear.heard() >= ways.len(), "{name}: not each way was heard");
    session.set_policy(policy);
    let refusals = [libc::EPERM.to_string(), libc::EACCES.to_string()];
    for (way, said) in ways.iter().zip(dial_each(session, name, ways)) {
        assert!(refusals.contains(&said), "{way} {name}: {said}");
    }
    assert_eq!(ear.heard(), 0, "{name}");
}

#[test]
fn a_denied_path_by_all_its_names() {
    if !root() {
        return;
    }
    let session = session();
    let path = session.directory().join("shut/s");
    let policy = denying(&[format!("{}/shut/*", session.directory().display())]);
    let ear = Ear::at(&SocketAddr::from_pathname(&path).unwrap(), false);
    prove(
        &session,
        &policy,
        path.to_str().unwrap(),
        &ear,
        &[
            "stream",
            "nonblocking",
            "thread",
            "relative",
            "relative-dots",
            "slashes",
            "proc-root",
            "proc-cwd",
            "proc-fd",
            "proc-fd-itself",
            "symlink",
            "symlink-directory",
        ],
    );
}

#[test]
fn a_denied_path_by_datagrams() {
    if !root() {
        return;
    }
    let session = session();
    let path = session.directory().join("shut/d");
    let policy = denying(&[format!("{}/shut/*", session.directory().display())]);
    let ear = Ear::at(&SocketAddr::from_pathname(&path).unwrap(), true);
    prove(
        &session,
        &policy,
        path.to_str().unwrap(),
        &ear,
        &["datagram", "sendto", "sendmsg"],
    );
    // Names that only the file system leads to it: refused where no rule names their text.
    session.set_policy(&policy);
    for way in ["relative-sendto", "symlink-sendto"] {
        assert_ne!(dial(&session, &[way, path.to_str().unwrap()]), "0", "{way}");
        assert_eq!(ear.heard(), 0, "{way}");
    }
}

#[test]
fn denied_abstract_names() {
    if !root() {
        return;
    }
    let session = session();
    let name = format!("shut-{}", std::process::id());
    let policy = denying(&[format!("@{name}*")]);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let stream = Ear::at(&address, false);
    prove(
        &session,
        &policy,
        &format!("@{name}"),
        &stream,
        &["stream", "nonblocking", "thread"],
    );
    let long = format!("{name}-datagram");
    let datagram = Ear::at(&SocketAddr::from_abstract_name(&long).unwrap(), true);
    prove(
        &session,
        &policy,
        &format!("@{long}"),
        &datagram,
        &["datagram", "sendto", "sendmsg"],
    );
}

#[test]
fn sequenced_packets_are_judged_too() {
    if !root() {
        return;
    }
    let session = session();
    let name = format!("shut-packets-{}", std::process::id());
    let ear = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_NONBLOCK,
        None,
    )
    .unwrap();
    bind(
        ear.as_raw_fd(),
        &UnixAddr::new_abstract(name.as_bytes()).unwrap(),
    )
    .unwrap();
    listen(&ear, Backlog::new(4).unwrap()).unwrap();
    session.set_policy(&free());
    assert_eq!(dial(&session, &["seqpacket", &format!("@{name}")]), "0");
    session.set_policy(&denying(&["@shut-*".to_owned()]));
    assert_ne!(dial(&session, &["seqpacket", &format!("@{name}")]), "0");
}

#[test]
fn another_hard_link_is_the_same_socket() {
    if !root() {
        return;
    }
    let session = session();
    let path = session.directory().join("shut/s");
    let ear = Ear::at(&SocketAddr::from_pathname(&path).unwrap(), false);
    let link = session.directory().join("open/hard");
    fs::hard_link(&path, &link).unwrap();
    let policy = denying(&[format!("{}/shut/*", session.directory().display())]);
    let ways = ["stream", "nonblocking", "relative", "symlink"];
    prove(&session, &policy, link.to_str().unwrap(), &ear, &ways);
}

#[test]
fn a_socket_that_was_moved_is_known_by_the_name_it_was_bound_to() {
    if !root() {
        return;
    }
    let session = session();
    let at = |name: &str| session.directory().join(name);
    let policy = denying(&[format!("{}/shut/*", session.directory().display())]);
    let bound = |datagram| {
        let ear = Ear::at(&SocketAddr::from_pathname(at("shut/s")).unwrap(), datagram);
        fs::rename(at("shut/s"), at("open/moved")).unwrap();
        ear
    };
    let moved = at("open/moved");
    let stream = bound(false);
    prove(
        &session,
        &policy,
        moved.to_str().unwrap(),
        &stream,
        &["stream"],
    );
    let datagram = bound(true);
    prove(
        &session,
        &policy,
        moved.to_str().unwrap(),
        &datagram,
        &["datagram"],
    );
    // The directory, and all that is in it.
    let ear = Ear::at(&SocketAddr::from_pathname(at("shut/s")).unwrap(), false);
    fs::rename(at("shut"), at("elsewhere")).unwrap();
    let there = at("elsewhere/s");
    prove(
        &session,
        &policy,
        there.to_str().unwrap(),
        &ear,
        &["stream", "relative"],
    );
}

#[test]
fn a_link_that_turns_wins_nothing() {
    if !root() {
        return;
    }
    let session = session();
    let [shut, open] = ["shut/s", "open/s"].map(|name| session.directory().join(name));
    let ears = [&shut, &open].map(|path| Ear::at(&SocketAddr::from_pathname(path).unwrap(), false));
    session.set_policy(&denying(&[format!(
        "{}/shut/*",
        session.directory().display()
    )]));
    // The listeners' queues are short: they are emptied while the agent tries.
    let (heard, through) = std::thread::scope(|scope| {
        let agent = scope.spawn(|| {
            dial(
                &session,
                &["swap", shut.to_str().unwrap(), open.to_str().unwrap()],
            )
        });
        let mut heard = [0, 0];
        while !agent.is_finished() {
            for (count, ear) in heard.iter_mut().zip(&ears) {
                *count += ear.heard();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        (heard, agent.join().unwrap())
    });
    assert_eq!(heard[0], 0, "{heard:?}, {through} through");
    assert!(heard[1] > 0, "{heard:?}, {through} through");
}

/// A socket at a path of the system that nobody listens at, taken away when the test ends.
struct Impostor(PathBuf, Ear);

impl Impostor {
    fn new(path: &Path) -> Option<Self> {
        if path.exists() {
            return None;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let ear = Ear::at(&SocketAddr::from_pathname(path).unwrap(), false);
        Some(Self(path.to_owned(), ear))
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn the_usual_servants_are_denied_unless_a_rule_names_them() {
    if !root() {
        return;
    }
    let session = session();
    let (uid, _) = agent_user();
    let here = session.directory().join("open");
    for path in [
        here.join("docker.sock"),
        here.join("containerd.sock"),
        here.join("podman.sock"),
        PathBuf::from("/run/docker.sock"),
        PathBuf::from("/run/dbus/system_bus_socket"),
        PathBuf::from(format!("/tmp/dbus-{}", std::process::id())),
        PathBuf::from("/run/systemd/private"),
        PathBuf::from(format!("/tmp/tmux-{uid}/default")),
    ] {
        // A real one is no plaything.
        let Some(impostor) = Impostor::new(&path) else {
            eprintln!("in use: {}", path.display());
            continue;
        };
        prove(
            &session,
            &open(),
            path.to_str().unwrap(),
            &impostor.1,
            &["stream", "symlink"],
        );
    }
}

#[test]
fn a_tmux_server_of_another_session_takes_no_orders() {
    if !root() {
        return;
    }
    if program("tmux").is_none() {
        skip("no tmux");
        return;
    }
    let session = session();
    let (uid, gid) = agent_user();
    let place = PathBuf::from(format!("/tmp/tmux-{uid}"));
    fs::create_dir_all(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&place, Some(uid), Some(gid)).unwrap();
    let server = place.join(format!("enforcer-{}", std::process::id()));
    let tmux = |words: &[&str]| {
        Command::new("tmux")
            .arg("-S")
            .arg(&server)
            .args(words)
            .env("SHELL", "/bin/sh")
            .uid(uid)
            .gid(gid)
            .current_dir("/")
            .status()
            .unwrap()
            .success()
    };
    assert!(tmux(&["-f", "/dev/null", "new-session", "-d", "sleep 600"]));
    let order = format!(
        "tmux -S {} run-shell 'echo x >{}/mark'",
        server.display(),
        session.work().display()
    );
    let mark = session.work().join("mark");
    session.set_policy(&naming(server.to_str().unwrap()));
    let obeyed = session.sh(&order);
    let marked = mark.exists();
    let _ = fs::remove_file(&mark);
    session.set_policy(&open());
    let refused = session.sh(&order);
    let marked_again = mark.exists();
    assert!(tmux(&["kill-server"]));
    assert!(marked, "{}", obeyed.stderr);
    assert!(!marked_again && refused.code() != 0, "{}", refused.stderr);
}

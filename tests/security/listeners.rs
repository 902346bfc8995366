//! Listeners of the agent's own user outside the agent: daemons that would act for it, ungoverned.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    fs,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
    path::Path,
    thread,
};

use enforcer_tests::{Ended, Level, Session, agent_user, in_guest, level, open, probe, root};
use serde_json::{Value, json};

/// Makes something as the agent's user, which sockets are of from then on, in this process outside the agent.
fn as_agent_user<T: Send>(make: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                let (uid, gid) = agent_user();
                // Raw ones, for the C library changes all threads.
                // SAFETY: numbers only.
                unsafe {
                    assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
                    assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
                }
                make()
            })
            .join()
            .unwrap()
    })
}

fn unix_at(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn with_connect(connect: Value) -> Value {
    let mut policy = open();
    policy["connect"] = connect;
    policy
}

/// Allows this name.
fn naming(name: &str) -> Value {
    with_connect(json!({"default": "allow", "rules": [
        {"id": "named", "decision": "allow", "unix": [name]}]}))
}

/// What is decided of listeners outside.
fn deciding(unix: &str, tcp: &str) -> Value {
    with_connect(json!({"default": "allow", "outside_listeners": {"unix": unix, "tcp": tcp}}))
}

fn dial(session: &Session, policy: &Value, way: &str, name: &str) -> (String, Ended) {
    session.set_policy(policy);
    let dial = session.directory().join("bin/dial_unix");
    let ended = session.run([dial.to_str().unwrap(), way, name]);
    (ended.text().trim().to_owned(), ended)
}

fn session() -> Session {
    let session = Session::new(&open());
    session.place(probe!("dial_unix"), "bin/dial_unix");
    session.place(probe!("dial"), "bin/dial");
    session
}

fn refused() -> String {
    libc::EPERM.to_string()
}

#[test]
fn a_daemon_of_the_agents_user_takes_no_orders_from_it() {
    if !root() {
        return;
    }
    let session = session();
    let path = session.work().join("control.sock");
    let ear = as_agent_user(|| unix_at(&path));
    let name = path.to_str().unwrap();
    for way in ["stream", "nonblocking", "symlink", "proc-cwd"] {
        let (said, ended) = dial(&session, &open(), way, name);
        assert_eq!(said, refused(), "{way}: {}", ended.stderr);
        let denials: Vec<_> = ended.trail.denials().collect();
        assert_eq!(denials.len(), 1, "{}", ended.trail.shown());
        assert_eq!(denials[0].rule(), "outside-listener");
        // What the kernel alone denies is told afterwards: the process may be gone by then.
        if level() == Level::Partial {
            for part in ["outside the agent", "connect.rules[].unix"] {
                assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
            }
        }
        assert!(ear.accept().is_err(), "{way}: heard");
    }
    let moved = session.work().join("moved");
    fs::rename(&path, &moved).unwrap();
    assert_eq!(
        dial(&session, &open(), "stream", moved.to_str().unwrap()).0,
        refused()
    );
    fs::rename(&moved, &path).unwrap();
    assert!(ear.accept().is_err());
    for policy in [naming(name), deciding("allow", "allow")] {
        let (said, ended) = dial(&session, &policy, "stream", name);
        assert_eq!(said, "0", "{}", ended.stderr);
        assert!(ear.accept().is_ok());
    }
}

#[test]
fn an_allowed_name_covers_no_other_socket() {
    if !root() {
        return;
    }
    let session = session();
    let path = session.work().join("out.sock");
    let allowed = session.work().join("allowed.sock");
    let ear = as_agent_user(|| unix_at(&path));
    let by_name = naming(allowed.to_str().unwrap());
    let mut nothing_else = by_name.clone();
    nothing_else["connect"]["unix_default"] = json!("deny");
    let reach = |policy: &Value| {
        let (said, ended) = dial(&session, policy, "stream", allowed.to_str().unwrap());
        assert_eq!(said, refused(), "{} {}", ended.stderr, ended.trail.shown());
        assert!(ear.accept().is_err(), "heard");
    };
    fs::hard_link(&path, &allowed).unwrap();
    reach(&by_name);
    reach(&nothing_else);
    fs::remove_file(&path).unwrap();
    reach(&by_name);
    // What is bound to it is what the rule is about.
    fs::remove_file(&allowed).unwrap();
    let own = as_agent_user(|| unix_at(&allowed));
    for policy in [&by_name, &nothing_else] {
        let (said, ended) = dial(&session, policy, "stream", allowed.to_str().unwrap());
        assert_eq!(said, "0", "{}", ended.stderr);
        assert!(own.accept().is_ok());
    }
}

#[test]
fn so_with_abstract_names_and_datagrams() {
    if !root() {
        return;
    }
    let session = session();
    let name = format!("outside-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let (stream, datagram, file) = as_agent_user(|| {
        let stream = UnixListener::bind_addr(&address).unwrap();
        let other = SocketAddr::from_abstract_name(format!("{name}-d")).unwrap();
        let file = UnixDatagram::bind(session.work().join("d")).unwrap();
        (stream, UnixDatagram::bind_addr(&other).unwrap(), file)
    });
    stream.set_nonblocking(true).unwrap();
    for socket in [&datagram, &file] {
        socket.set_nonblocking(true).unwrap();
    }
    let stream_name = format!("@{name}");
    let datagram_name = format!("@{name}-d");
    let path = session.work().join("d");
    let path = path.to_str().unwrap();
    let mut bytes = [0; 8];
    for way in ["stream", "nonblocking"] {
        let (said, ended) = dial(&session, &open(), way, &stream_name);
        assert_eq!(said, refused(), "{way}: {}", ended.stderr);
        assert!(stream.accept().is_err(), "{way}");
    }
    for way in ["datagram", "sendto", "sendmsg"] {
        for (name, socket) in [(datagram_name.as_str(), &datagram), (path, &file)] {
            let (said, ended) = dial(&session, &open(), way, name);
            assert_eq!(said, refused(), "{way} {name}: {}", ended.stderr);
            assert!(socket.recv(&mut bytes).is_err(), "{way} {name}");
        }
    }
    assert_eq!(
        dial(&session, &naming(&stream_name), "stream", &stream_name).0,
        "0"
    );
    assert!(stream.accept().is_ok());
    for way in ["datagram", "sendto", "sendmsg"] {
        assert_eq!(
            dial(&session, &naming(&datagram_name), way, &datagram_name).0,
            "0"
        );
        assert!(datagram.recv(&mut bytes).is_ok(), "{way}");
    }
}

#[test]
fn other_users_listeners_and_the_agents_own_are_not_meant() {
    if !root() {
        return;
    }
    let session = session();
    let path = session.work().join("roots");
    let roots = unix_at(&path);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let (said, ended) = dial(&session, &open(), "stream", path.to_str().unwrap());
    assert_eq!(said, "0", "{}", ended.stderr);
    assert!(roots.accept().is_ok());
    let name = format!("@roots-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
    let roots = UnixListener::bind_addr(&address).unwrap();
    assert_eq!(dial(&session, &open(), "stream", &name).0, "0");
    drop(roots);
    // Nobody listens.
    assert_eq!(
        dial(&session, &open(), "stream", &name).0,
        libc::ECONNREFUSED.to_string()
    );
    for way in ["own", "own-child"] {
        let path = session.work().join(way);
        for name in [
            path.to_str().unwrap(),
            &format!("@{way}-{}", std::process::id()),
        ] {
            let (said, ended) = dial(&session, &open(), way, name);
            assert_eq!(said, "0", "{way} {name}: {}", ended.stderr);
        }
    }
    assert_eq!(
        dial(&session, &deciding("deny", "deny"), "own-tcp", "x").0,
        "0"
    );
}

#[test]
fn a_listener_in_another_network_namespace_is_asked_who_it_is() {
    if !root() || in_guest() {
        return;
    }
    let session = session();
    let path = session.work().join("far.sock");
    let roots = session.work().join("far-roots.sock");
    let apart = |make: &(dyn Fn() -> UnixListener + Sync)| {
        thread::scope(|scope| {
            let make = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                make()
            });
            make.join().unwrap()
        })
    };
    let ear = apart(&|| as_agent_user(|| unix_at(&path)));
    let theirs = apart(&|| unix_at(&roots));
    fs::set_permissions(&roots, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let (said, ended) = dial(&session, &open(), "stream", path.to_str().unwrap());
    assert_eq!(said, refused(), "{}", ended.stderr);
    let (said, ended) = dial(&session, &open(), "stream", roots.to_str().unwrap());
    assert_eq!(said, "0", "{}", ended.stderr);
    drop((ear, theirs));
}

#[test]
fn tcp_listeners_are_told_apart_where_the_policy_wants_it() {
    if !root() {
        return;
    }
    let session = session();
    let dial = session.directory().join("bin/dial");
    let reach = |policy: &Value, host: &str, listener: &TcpListener| {
        session.set_policy(policy);
        let port = listener.local_addr().unwrap().port().to_string();
        let ended = session.run([dial.to_str().unwrap(), "tcp", host, &port]);
        let heard = listener.accept().is_ok();
        (ended, heard)
    };
    let listen = |address: &str| {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let v4 = as_agent_user(|| listen("127.0.0.1:0"));
    let any = as_agent_user(|| listen("0.0.0.0:0"));
    let deny = deciding("deny", "deny");
    for (host, ear) in [
        ("127.0.0.1", &v4),
        ("0.0.0.0", &v4),
        ("::ffff:127.0.0.1", &v4),
        ("127.0.0.1", &any),
        ("127.3.2.1", &any),
    ] {
        let (free, heard) = reach(&open(), host, ear);
        assert!(heard, "{host}: {}{}", free.text(), free.stderr);
        let (ended, heard) = reach(&deny, host, ear);
        assert!(!heard && ended.code() != 0, "{host}: {}", ended.text());
        let denials: Vec<_> = ended.trail.denials().collect();
        assert_eq!(
            denials[0].rule(),
            "outside-listener",
            "{}",
            ended.trail.shown()
        );
    }
    if let Ok(v6) = as_agent_user(|| TcpListener::bind("[::]:0")) {
        v6.set_nonblocking(true).unwrap();
        for host in ["::1", "::", "127.0.0.1"] {
            assert!(!reach(&deny, host, &v6).1, "{host}");
        }
    }
    // A rule that names the port, and one that does not.
    let port = v4.local_addr().unwrap().port();
    let by_rule = |rule: Value| {
        let mut policy = deciding("deny", "deny");
        policy["connect"]["default"] = "deny".into();
        policy["connect"]["rules"] = json!([rule]);
        policy
    };
    let named = by_rule(json!({"id": "named", "decision": "allow", "ports": [port]}));
    assert!(reach(&named, "127.0.0.1", &v4).1);
    let wide = by_rule(json!({"id": "wide", "decision": "allow", "hosts": ["127.0.0.0/8"]}));
    assert!(!reach(&wide, "127.0.0.1", &v4).1);
    // Root's.
    let roots = listen("127.0.0.1:0");
    assert!(reach(&deny, "127.0.0.1", &roots).1);
}

#[test]
fn a_tcp_listener_can_be_asked_about() {
    if !root() {
        return;
    }
    let session = session();
    session.set_policy(&deciding("deny", "ask"));
    let ear = as_agent_user(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = ear.local_addr().unwrap().port().to_string();
    let dial = session.directory().join("bin/dial");
    let running = session.start([dial.to_str().unwrap(), "tcp", "127.0.0.1", &port]);
    let request = running.request();
    assert!(request.text("command").contains(&port), "{request:?}");
    request.approve(&["--reason", "ours"]);
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{} {}", ended.text(), ended.stderr);
    ear.set_nonblocking(true).unwrap();
    assert!(ear.accept().is_ok());
}

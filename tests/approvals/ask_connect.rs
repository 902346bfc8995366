//! A connect that waits.

use std::{
    fs::{self, Permissions},
    net::{TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    time::Duration,
};

use enforcer_tests::{Ended, Line, Session, open, probe, quick, root};
use serde_json::{Value, json};

use crate::scene::sign;

/// Asks about this port of the machine's own.
fn asking_port(port: u16) -> Value {
    let mut policy = open();
    policy["connect"]["rules"] = json!([
        {"id": "asks", "decision": "ask", "hosts": ["127.0.0.1"], "ports": [port]}]);
    policy
}

fn session(policy: &Value) -> Session {
    let session = Session::new(policy);
    let dial = session.place(probe!("dial"), "bin/dial");
    let asks = session.place(probe!("asks"), "bin/asks");
    session.variable("DIAL", dial).variable("ASKS", asks)
}

fn asked(ended: &Ended) -> Line {
    let lines: Vec<_> = ended
        .trail
        .connects()
        .filter(|line| line.text("decision") == "ask")
        .collect();
    let [line] = lines[..] else {
        panic!("not one line: {}", ended.trail.shown());
    };
    line.clone()
}

/// Dials in one way, with one answer. `heard` is looked at before and after.
fn dialled(way: &str, port: u16, heard: impl Fn() -> bool, approve: bool) {
    let session = session(&asking_port(port)).variable("PORT", port.to_string());
    let script = format!("$DIAL {way} 127.0.0.1 $PORT; echo status $?");
    let running = session.start(["/bin/sh", "-c", &script]);
    let request = running.request();
    assert_eq!(request.text("kind"), "connect", "{way}");
    assert!(
        request
            .text("command")
            .contains(&format!("127.0.0.1:{port}")),
        "{request:?}"
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(running.stdout(), "", "{way}: it does not wait");
    assert!(!heard(), "{way}: heard before anyone answered");
    if approve {
        request.approve(&["--reason", "fine"]);
    } else {
        request.deny(&["--reason", "no"]);
    }
    let ended = running.wait();
    let text = ended.text();
    let line = asked(&ended);
    assert_eq!(line.text("approval"), request.id(), "{way}: {line:?}");
    assert_eq!(line.text("approver"), "root", "{way}");
    assert_eq!(line.number("port"), u64::from(port), "{way}");
    assert_eq!(line.text("exe"), "dial", "{way}");
    assert_eq!(line.denied(), !approve, "{way}: {line:?}");
    if approve {
        assert!(
            text.ends_with("status 0\n"),
            "{way}: {text} {}",
            ended.stderr
        );
        assert!(heard(), "{way}");
        assert_eq!(line.text("approval_reason"), "fine", "{way}");
    } else {
        assert!(
            text.contains(&format!(": {}\n", libc::EPERM)) && text.ends_with("status 1\n"),
            "{way}: {text}"
        );
        assert!(!heard(), "{way}: heard");
        assert!(line.reason().contains("Denied by root"), "{way}: {line:?}");
    }
}

#[test]
fn a_tcp_connect_waits() {
    if !root() {
        return;
    }
    for approve in [false, true] {
        for way in quick(&["tcp", "tcp-thread", "tcp-child"][..], &["tcp"]) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let port = listener.local_addr().unwrap().port();
            dialled(way, port, || listener.accept().is_ok(), approve);
        }
    }
}

#[test]
fn a_datagram_waits() {
    if !root() {
        return;
    }
    for approve in [false, true] {
        for way in ["udp-sendto", "udp-connect"] {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            let port = socket.local_addr().unwrap().port();
            let heard = || socket.recv(&mut [0; 64]).is_ok();
            dialled(way, port, heard, approve);
        }
    }
}

/// A thread whose socket does not block has more to do than to wait for a person: it is told to come again.
#[test]
fn a_socket_that_does_not_block_is_told_to_try_again() {
    if !root() {
        return;
    }
    for approve in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let session = session(&asking_port(port));
        let running = session.start([
            "/bin/sh",
            "-c",
            &format!(
                "D='$DIAL tcp-nonblocking 127.0.0.1 {port}'; eval $D; echo status $?; eval $D; echo status $?; \
                 while [ ! -e go ]; do sleep 0.1; done; eval $D; echo status $?; eval $D; echo status $?"
            ),
        ]);
        running.until("it has tried twice", |running| {
            running.stdout().matches("status 1").count() == 2
        });
        let request = running.request();
        assert!(listener.accept().is_err(), "heard before anyone answered");
        if approve {
            request.approve(&["--reason", "fine"]);
        } else {
            request.deny(&["--reason", "no"]);
        }
        // The answer comes to the launcher by another thread.
        std::thread::sleep(Duration::from_millis(500));
        sign(&session, "go");
        let ended = running.wait();
        let short = request.id().split('-').next().unwrap();
        let hint = format!("it waits for `enforcer approvals approve {short}`; then try again");
        assert_eq!(ended.stderr.matches(&hint).count(), 2, "{}", ended.stderr);
        assert_eq!(listener.accept().is_ok(), approve);
        let statuses: Vec<bool> = ended
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix("status "))
            .map(|status| status == "0")
            .collect();
        // An approval is for one more try; the fourth is asked about anew.
        assert_eq!(statuses, [false, false, approve, false]);
        assert_eq!(ended.requests().len(), if approve { 2 } else { 1 });
        let allowed = ended.trail.connects().filter(|line| !line.denied()).count();
        assert_eq!(allowed, usize::from(approve), "{}", ended.trail.shown());
    }
}

/// What cannot be held is denied.
#[test]
fn a_message_cannot_wait() {
    if !root() {
        return;
    }
    for way in ["udp-sendmsg", "udp-sendmmsg"] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let port = socket.local_addr().unwrap().port();
        let session = session(&asking_port(port));
        let ended = session.sh(&format!("$DIAL {way} 127.0.0.1 {port}; echo status $?"));
        assert!(
            ended.text().ends_with("status 1\n"),
            "{way}: {}",
            ended.text()
        );
        assert!(socket.recv(&mut [0; 64]).is_err(), "{way}: heard");
        assert!(asked(&ended).denied());
        assert!(ended.requests().is_empty());
    }
}

/// The approval is for this address and port, and for once.
#[test]
fn another_port_is_another_request() {
    if !root() {
        return;
    }
    let listeners: Vec<_> = (0..2)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let ports: Vec<_> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect();
    let mut policy = open();
    policy["connect"]["rules"] = json!([
        {"id": "asks", "decision": "ask", "hosts": ["127.0.0.1"], "ports": ports}]);
    let session = session(&policy);
    let script = format!(
        "$DIAL tcp 127.0.0.1 {0}; $DIAL tcp 127.0.0.1 {0}; $DIAL tcp 127.0.0.1 {1}; echo end",
        ports[0], ports[1]
    );
    let running = session.start(["/bin/sh", "-c", &script]);
    let first = running.request();
    first.approve(&["--scope", "session"]);
    running.until("the second is through", |running| {
        running.stdout().matches("0 ok").count() == 2
    });
    let other = running.request();
    assert!(other.text("command").contains(&ports[1].to_string()));
    other.deny(&[]);
    let ended = running.wait();
    assert!(ended.text().ends_with("end\n"));
    assert_eq!(ended.text().matches("0 ok").count(), 2, "{}", ended.text());
}

/// Asks about the sockets below a directory.
fn asking_socket(glob: &Path) -> Value {
    let mut policy = open();
    policy["connect"]["rules"] = json!([
        {"id": "asks", "decision": "ask", "unix": [glob]}]);
    policy
}

#[test]
fn a_connect_to_a_path_waits() {
    if !root() {
        return;
    }
    for approve in [false, true] {
        let session = session(&open());
        let path = session.work().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        session.set_policy(&asking_socket(&path));
        let running = session.start(["/bin/sh", "-c", "$ASKS unix a.sock; echo status $?"]);
        let request = running.request();
        assert_eq!(request.text("kind"), "unix");
        assert!(request.text("command").contains("/a.sock"), "{request:?}");
        std::thread::sleep(Duration::from_millis(300));
        assert!(
            listener.accept().is_err(),
            "connected before anyone answered"
        );
        if approve {
            request.approve(&[]);
        } else {
            request.deny(&[]);
        }
        let ended = running.wait();
        assert_eq!(listener.accept().is_ok(), approve, "{}", ended.text());
        let expected = if approve {
            "0 ok\nstatus 0\n"
        } else {
            "1 connect: 1\nstatus 1\n"
        };
        assert_eq!(ended.text(), expected, "{}", ended.stderr);
        let line = asked(&ended);
        assert_eq!(line.denied(), !approve);
        assert_eq!(line.text("approval"), request.id());
    }
}

/// The path leads to another socket by the time of the answer: that one is not connected to.
#[test]
fn a_path_that_is_swapped_leads_nowhere_else() {
    if !root() {
        return;
    }
    let session = session(&open());
    let (shown, other) = (session.work().join("a.sock"), session.work().join("b.sock"));
    let listeners: Vec<_> = [&shown, &other]
        .iter()
        .map(|path| {
            let listener = UnixListener::bind(path).unwrap();
            listener.set_nonblocking(true).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
            listener
        })
        .collect();
    session.set_policy(&asking_socket(&shown));
    let running = session.start([
        "/bin/sh",
        "-c",
        "$ASKS unix a.sock & while [ ! -e go ]; do sleep 0.05; done; mv b.sock a.sock; echo >swapped; wait",
    ]);
    let request = running.request();
    sign(&session, "go");
    running.await_file(&session.work().join("swapped"));
    request.approve(&[]);
    let ended = running.wait();
    assert!(
        listeners[1].accept().is_err(),
        "connected to the other: {}",
        ended.text()
    );
}

//! Denied addresses, reached for in every way that the kernel offers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod handed;

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::unix::process::CommandExt,
    process::Command,
};

use enforcer_tests::{Ended, Line, Session, Trail, agent_user, loosening, open, probe, root, skip};
use serde_json::{Value, json};

/// A listener for both protocols on one port.
struct Ear {
    stream: TcpListener,
    datagram: UdpSocket,
    port: u16,
}

impl Ear {
    /// Listens on an address; the port is one that is free for both.
    fn new(address: &str) -> Self {
        let ip: IpAddr = address.parse().unwrap();
        for _ in 0..50 {
            let stream = TcpListener::bind(SocketAddr::new(ip, 0)).unwrap();
            let port = stream.local_addr().unwrap().port();
            if let Ok(datagram) = UdpSocket::bind(SocketAddr::new(ip, port)) {
                stream.set_nonblocking(true).unwrap();
                datagram.set_nonblocking(true).unwrap();
                return Self {
                    stream,
                    datagram,
                    port,
                };
            }
        }
        panic!("no free port");
    }

    /// How many connections and datagrams have arrived since it was last asked.
    fn heard(&self) -> usize {
        let mut count = 0;
        loop {
            match self.stream.accept() {
                Ok(_) => count += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("accept: {error}"),
            }
        }
        let mut bytes = [0; 16];
        while self.datagram.recv(&mut bytes).is_ok() {
            count += 1;
        }
        count
    }
}

/// One way to one address; what is heard there, and the address that the trail must show.
struct Dial {
    way: &'static str,
    address: &'static str,
    listens: &'static str,
    judged: &'static str,
}

/// Denies these hosts, allows all else.
fn denying(hosts: &[&str]) -> Value {
    json!({"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow", "rules": [
        {"id": "no-host", "decision": "deny", "hosts": hosts}]}})
}

fn session() -> Session {
    let session = Session::new(&open());
    session.place(probe!("dial"), "bin/dial");
    session
}

/// Makes dials, or sockets, in one session; its output is one line each: exit status, what became of it.
fn dial_each(session: &Session, dials: impl IntoIterator<Item = String>) -> Ended {
    let lines: Vec<String> = dials.into_iter().collect();
    let file = session.directory().join("dials");
    fs::write(&file, lines.join("\n")).unwrap();
    let dial = session.directory().join("bin/dial");
    session.run([dial.as_os_str(), "each".as_ref(), file.as_os_str()])
}

fn connects_to(trail: &Trail, port: u16) -> Vec<&Line> {
    trail
        .connects()
        .filter(|line| line.number("port") == u64::from(port))
        .collect()
}

fn assert_denied(line: &Line, rule: &str) {
    assert!(line.denied(), "{line:?}");
    assert_eq!(line.text("verdict"), "errno", "{line:?}");
    assert!(["lsm", "cgroup"].contains(&line.text("stage")), "{line:?}");
    assert_eq!(line.rule(), rule, "{line:?}");
}

/// The hooks on addresses must hold by themselves, also for a policy that opens `io_uring`.
const HATCHES: &[&str] = &["io-uring"];

/// Each dial is heard where all is allowed, and refused with EPERM, unheard and recorded, where it is denied.
fn prove(session: &Session, hosts: &[&str], dials: &[Dial]) {
    let ears: Vec<Ear> = dials.iter().map(|dial| Ear::new(dial.listens)).collect();
    let calls: Vec<_> = dials
        .iter()
        .zip(&ears)
        .map(|(dial, ear)| format!("{} {} {}", dial.way, dial.address, ear.port))
        .collect();

    session.set_policy(&loosening(open(), HATCHES));
    let free = dial_each(session, calls.clone());
    for (dial, ear) in dials.iter().zip(&ears) {
        assert!(
            ear.heard() > 0,
            "{} to {} reaches nothing even where all is allowed: {} {}",
            dial.way,
            dial.address,
            free.text(),
            free.stderr
        );
        let lines = connects_to(&free.trail, ear.port);
        assert!(
            lines
                .iter()
                .any(|line| !line.denied() && line.text("address") == dial.judged),
            "{} to {}: no approval of {}\n{}",
            dial.way,
            dial.address,
            dial.judged,
            free.trail.shown()
        );
    }
    free.trail.assert_whole();

    session.set_policy(&loosening(denying(hosts), HATCHES));
    let governed = dial_each(session, calls);
    governed.trail.assert_whole();
    let text = governed.text();
    let results: Vec<&str> = text.lines().collect();
    assert_eq!(results.len(), dials.len(), "{text}");
    for ((dial, ear), result) in dials.iter().zip(&ears).zip(results) {
        let what = format!("{} to {}: {result}", dial.way, dial.address);
        assert_eq!(ear.heard(), 0, "{what}: heard");
        assert!(
            result.starts_with("1 ") && result.ends_with(&format!(": {}", libc::EPERM)),
            "{what}: not refused with EPERM"
        );
        let lines = connects_to(&governed.trail, ear.port);
        let [line] = lines[..] else {
            panic!("{what}: {} lines\n{}", lines.len(), governed.trail.shown());
        };
        assert_denied(line, "no-host");
        assert_eq!(line.text("address"), dial.judged, "{what}");
        assert_eq!(line.text("exe"), "dial", "{what}");
        let protocol = if dial.way.starts_with("udp") || dial.way == "uring-sendmsg" {
            "udp"
        } else {
            "tcp"
        };
        assert_eq!(line.text("protocol"), protocol, "{what}");
    }
}

fn dials(
    ways: &[&'static str],
    address: &'static str,
    listens: &'static str,
    judged: &'static str,
) -> Vec<Dial> {
    ways.iter()
        .map(|way| Dial {
            way,
            address,
            listens,
            judged,
        })
        .collect()
}

const WAYS: [&str; 13] = [
    "tcp",
    "tcp-long-address",
    "tcp-bound",
    "tcp-nonblocking",
    "tcp-thread",
    "tcp-child",
    "tcp-fast-open",
    "tcp-fast-open-connect",
    "udp-sendto",
    "udp-connect",
    "udp-sendmsg",
    "udp-sendmmsg",
    "udp-sendto-again",
];

#[test]
fn ipv4() {
    if !root() {
        return;
    }
    let mut list = dials(&WAYS, "127.0.0.2", "127.0.0.2", "127.0.0.2");
    list.extend(dials(
        &[
            "udp-reconnect",
            "udp-unspecified-family",
            "udp-other-family",
            "udp-other-family-connect",
        ],
        "127.0.0.2",
        "127.0.0.2",
        "127.0.0.2",
    ));
    prove(&session(), &["127.0.0.2"], &list);
}

#[test]
fn ipv6() {
    if !root() {
        return;
    }
    if TcpListener::bind("[::1]:0").is_err() {
        skip("no IPv6");
        return;
    }
    // The two ways that first connect elsewhere go to an IPv4 address.
    let ways: Vec<_> = WAYS
        .into_iter()
        .filter(|way| *way != "udp-sendto-again")
        .collect();
    prove(&session(), &["::1"], &dials(&ways, "::1", "::1", "::1"));
}

#[test]
fn ipv4_in_ipv6() {
    if !root() {
        return;
    }
    let list = dials(&WAYS, "::ffff:127.0.0.2", "127.0.0.2", "127.0.0.2");
    prove(&session(), &["127.0.0.2"], &list);
}

#[test]
fn the_address_of_nobody_is_loopback() {
    if !root() {
        return;
    }
    let ways = [
        "tcp",
        "tcp-fast-open",
        "udp-sendto",
        "udp-connect",
        "udp-sendmsg",
    ];
    prove(
        &session(),
        &["127.0.0.0/8"],
        &dials(&ways, "0.0.0.0", "127.0.0.1", "127.0.0.1"),
    );
    if TcpListener::bind("[::1]:0").is_ok() {
        prove(&session(), &["::1"], &dials(&ways, "::", "::1", "::1"));
    }
}

#[test]
fn io_uring() {
    if !root() {
        return;
    }
    let (uid, gid) = agent_user();
    let session = session();
    let dial = session.directory().join("bin/dial");
    let ear = Ear::new("127.0.0.2");
    let possible = Command::new(&dial)
        .args(["uring-connect", "127.0.0.2", &ear.port.to_string()])
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    if possible.status.code() == Some(77) {
        skip("this kernel has no io_uring, or not for ordinary users");
        return;
    }
    assert_eq!(possible.status.code(), Some(0), "{possible:?}");
    prove(
        &session,
        &["127.0.0.2"],
        &dials(
            &["uring-connect", "uring-connect-async", "uring-sendmsg"],
            "127.0.0.2",
            "127.0.0.2",
            "127.0.0.2",
        ),
    );
}

#[test]
fn sockets_that_no_host_rule_can_judge() {
    if !root() {
        return;
    }
    // Domain, type, protocol: SCTP twice, DCCP, UDP-Lite, MPTCP, raw, packet, vsock, TIPC, SMC, KCM, XDP, Bluetooth,
    // CAN, ALG.
    let sockets: [(i32, i32, i32); 18] = [
        (libc::AF_INET, libc::SOCK_STREAM, 132),
        (libc::AF_INET, libc::SOCK_SEQPACKET, 132),
        (libc::AF_INET6, libc::SOCK_STREAM, 132),
        (libc::AF_INET, 6, 33),
        (libc::AF_INET, libc::SOCK_DGRAM, 136),
        (libc::AF_INET, libc::SOCK_STREAM, 262),
        (libc::AF_INET6, libc::SOCK_STREAM, 262),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_UDP),
        (libc::AF_PACKET, libc::SOCK_RAW, 0x0300),
        (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        (30, libc::SOCK_STREAM, 0),
        (43, libc::SOCK_STREAM, 0),
        (41, libc::SOCK_DGRAM, 0),
        (44, libc::SOCK_RAW, 0),
        (libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
        (libc::AF_CAN, libc::SOCK_RAW, 1),
        (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ];
    let (uid, gid) = agent_user();
    let session = session();
    let dial = session.directory().join("bin/dial");
    let free = |(domain, kind, protocol): (i32, i32, i32)| {
        let words = [domain, kind, protocol].map(|number| number.to_string());
        let output = Command::new(&dial)
            .arg("socket")
            .args(words)
            .uid(uid)
            .gid(gid)
            .output()
            .unwrap();
        output.status.success()
    };
    let possible: Vec<_> = sockets.into_iter().filter(|socket| free(*socket)).collect();
    assert!(!possible.is_empty(), "none of them can be made here at all");

    session.set_policy(&open());
    let calls = sockets
        .iter()
        .map(|(domain, kind, protocol)| format!("socket {domain} {kind} {protocol}"));
    let ended = dial_each(&session, calls);
    let text = ended.text();
    for (socket, result) in sockets.iter().zip(text.lines()) {
        assert!(result.starts_with("1 socket: "), "{socket:?}: {result}");
        let (domain, kind, protocol) = *socket;
        let inet = [libc::AF_INET, libc::AF_INET6].contains(&domain);
        if inet && possible.contains(socket) {
            // What the kernel would have given is our own refusal, and one line.
            assert!(
                result.ends_with(&format!(" {}", libc::EPERM)),
                "{socket:?}: {result}"
            );
            let matches = |line: &&Line| {
                line.denied()
                    && line.number("protocol") == u64::from(protocol.cast_unsigned())
                    && line.number("family") == u64::from(domain.cast_unsigned())
                    && line.number("socket_type") == u64::from(kind.cast_unsigned())
            };
            assert_eq!(
                ended.trail.connects().filter(matches).count(),
                1,
                "{socket:?}\n{}",
                ended.trail.shown()
            );
        } else if !inet {
            assert!(
                result.ends_with(&format!(" {}", libc::EAFNOSUPPORT)),
                "{socket:?}: {result}"
            );
        }
    }
    assert_eq!(text.lines().count(), sockets.len());
    ended.trail.assert_whole();
}

/// Sends ICMP echoes; `answered` says of each whether a reply comes.
fn echoes(session: &Session, calls: &[(&str, bool)]) {
    let ended = dial_each(session, calls.iter().map(|(call, _)| format!("{call} 0")));
    ended.trail.assert_whole();
    let text = ended.text();
    let results: Vec<&str> = text.lines().collect();
    assert_eq!(results.len(), calls.len(), "{text}{}", ended.stderr);
    for ((call, answered), result) in calls.iter().zip(results) {
        // A packet of IPv6 is dropped without a word.
        let silent = call.contains("::") && result.ends_with(&format!("recv: {}", libc::EAGAIN));
        let refused = result.ends_with(&format!(": {}", libc::EPERM)) || silent;
        assert!(
            result == "0 ok" && *answered || refused && !answered,
            "{call}: {result}\n{}",
            ended.trail.shown()
        );
    }
}

#[test]
fn an_echo_goes_where_the_rules_allow_it() {
    if !root() {
        return;
    }
    let (uid, gid) = agent_user();
    let session = session();
    let free = Command::new(session.directory().join("bin/dial"))
        .args(["echo", "127.0.0.1", "0"])
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    if !free.status.success() {
        skip("ICMP sockets are not for ordinary users here (net.ipv4.ping_group_range)");
        return;
    }
    session.set_policy(&denying(&["127.0.0.2", "::1"]));
    echoes(
        &session,
        &[
            ("echo 127.0.0.1", true),
            ("echo 127.0.0.2", false),
            ("echo-connected 127.0.0.2", false),
            ("echo ::1", false),
            ("echo-connected 127.0.0.1", true),
        ],
    );
    session.set_policy(&open());
    echoes(&session, &[("echo ::1", true)]);
    // By its own name, where nothing else is allowed; a rule for ports does not speak of it.
    let mut policy = open();
    policy["connect"] = json!({"default": "deny", "rules": [
        {"id": "echo", "decision": "allow", "hosts": ["127.0.0.1"], "protocols": ["icmp"]},
        {"id": "web", "decision": "allow", "hosts": ["127.0.0.2"], "ports": [443]},
        {"id": "asks", "decision": "ask", "hosts": ["127.0.0.3"]},
    ]});
    session.set_policy(&policy);
    echoes(
        &session,
        &[
            ("echo 127.0.0.1", true),
            ("echo 127.0.0.2", false),
            ("echo 127.0.0.3", false),
        ],
    );
    let ended = dial_each(&session, ["echo 127.0.0.2 0".to_owned()]);
    let line = ended.trail.connects().find(|line| line.denied()).unwrap();
    assert_eq!(
        (
            line.text("protocol"),
            line.text("address"),
            line.number("port")
        ),
        ("icmp", "127.0.0.2", 0)
    );
}

#[test]
fn the_metadata_address_is_denied_by_default() {
    if !root() {
        return;
    }
    let session = session();
    let addresses = [
        ("tcp", "169.254.169.254", "169.254.169.254"),
        ("tcp-nonblocking", "169.254.169.254", "169.254.169.254"),
        ("udp-sendto", "169.254.169.254", "169.254.169.254"),
        ("udp-connect", "169.254.1.2", "169.254.1.2"),
        ("tcp", "::ffff:169.254.169.254", "169.254.169.254"),
        ("udp-sendto", "::ffff:169.254.169.254", "169.254.169.254"),
        ("tcp", "fd00:ec2::254", "fd00:ec2::254"),
        ("udp-sendto", "fd00:ec2::254", "fd00:ec2::254"),
        ("tcp", "fe80::1", "fe80::1"),
        ("tcp", "64:ff9b::a9fe:a9fe", "169.254.169.254"),
        ("tcp", "2002:a9fe:a9fe::1", "169.254.169.254"),
        ("tcp", "::169.254.169.254", "169.254.169.254"),
    ];
    session.set_policy(
        &json!({"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"}}),
    );
    let ended = dial_each(
        &session,
        addresses
            .iter()
            .map(|(way, address, _)| format!("{way} {address} 80")),
    );
    let text = ended.text();
    let lines: Vec<&Line> = ended.trail.connects().collect();
    assert_eq!(
        lines.len(),
        addresses.len(),
        "{text}\n{}",
        ended.trail.shown()
    );
    for (((way, address, judged), result), line) in addresses.iter().zip(text.lines()).zip(lines) {
        assert!(
            result.ends_with(&format!(": {}", libc::EPERM)),
            "{way} {address}: {result}"
        );
        assert_denied(line, "metadata");
        assert_eq!(&line.text("address"), judged, "{way} {address}");
    }
}

#[test]
fn networks_ports_and_protocols() {
    if !root() {
        return;
    }
    let session = session();
    let one = Ear::new("0.0.0.0");
    let other = Ear::new("0.0.0.0");
    session.set_policy(&json!({"version": "2", "exec": {"default": "allow"}, "connect": {"default": "deny", "rules": [
        {"id": "low", "decision": "allow", "hosts": ["127.0.0.0/29"]},
        {"id": "hole", "decision": "deny", "hosts": ["127.0.0.4/31"]},
        {"id": "port", "decision": "deny", "hosts": ["127.0.0.3"], "ports": [other.port]},
        {"id": "stream", "decision": "allow", "hosts": ["127.0.0.16"], "protocols": ["tcp"]},
        {"id": "high", "decision": "allow", "hosts": ["127.0.1.0/24"], "ports": [one.port], "protocols": ["udp"]},
        {"id": "ask", "decision": "ask", "hosts": ["127.0.0.6"]},
    ]}, "approvals": {"timeout_s": 1}}));
    let cases: [(&str, &str, u16, bool, &str); 16] = [
        ("tcp", "127.0.0.1", one.port, true, "low"),
        ("tcp", "127.0.0.7", one.port, true, "low"),
        ("tcp", "127.0.0.8", one.port, false, ""),
        ("tcp", "127.0.0.3", one.port, true, "low"),
        ("tcp", "127.0.0.3", other.port, false, "port"),
        ("udp-sendto", "127.0.0.3", other.port, false, "port"),
        ("tcp", "127.0.0.4", one.port, false, "hole"),
        ("udp-connect", "127.0.0.5", one.port, false, "hole"),
        ("tcp", "127.0.0.6", one.port, false, "ask"),
        ("tcp", "127.0.0.16", other.port, true, "stream"),
        ("udp-sendto", "127.0.0.16", other.port, false, ""),
        ("udp-sendto", "127.0.1.9", one.port, true, "high"),
        ("udp-sendto", "127.0.1.9", other.port, false, ""),
        ("tcp", "127.0.1.9", one.port, false, ""),
        ("tcp", "127.0.2.0", one.port, false, ""),
        ("tcp", "::ffff:127.0.0.16", one.port, true, "stream"),
    ];
    let ended = dial_each(
        &session,
        cases
            .iter()
            .map(|(way, address, port, ..)| format!("{way} {address} {port}")),
    );
    let text = ended.text();
    let lines: Vec<&Line> = ended.trail.connects().collect();
    assert_eq!(lines.len(), cases.len(), "{}", ended.trail.shown());
    for ((case, result), line) in cases.iter().zip(text.lines()).zip(lines) {
        let (_, _, port, allowed, rule) = case;
        assert_eq!(result.starts_with("0 ok"), *allowed, "{case:?}: {result}");
        assert_eq!(line.denied(), !allowed, "{case:?}: {line:?}");
        assert_eq!(line.rule(), *rule, "{case:?}: {line:?}");
        assert_eq!(line.number("port"), u64::from(*port));
    }
    let heard = one.heard() + other.heard();
    assert_eq!(heard, cases.iter().filter(|case| case.3).count());
}

//! Connects over loopback.

use std::{
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixListener,
};

use serde_json::{Value, json};

use crate::{
    agent::Bench,
    policies,
    report::{Figure, Report},
    sample::interleave,
    worker::Role,
};

/// A governed worker against a bare one; the kernel alone, which is what `--keep` leaves.
///
/// # Errors
///
/// A worker or `enforcer` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let tcp = listener.local_addr()?.port();
    let datagrams = UdpSocket::bind(("127.0.0.1", 0))?;
    let udp = datagrams.local_addr()?.port();
    // Ends with the process.
    std::thread::spawn(move || listener.incoming().for_each(drop));

    let mut bare = bench.bare(Role::Plain)?;
    let mut policy: Value = serde_json::from_str(&policies::mixed(100))?;
    // Hundreds of thousands of connects a second: what finds no room for its event is denied.
    policy["audit"] = json!({"buffer_kib": 16384});
    let mut agent = bench.governed_with("connect", &policy.to_string(), &["--keep"])?;
    for (name, request, turns) in [
        ("UDP connect", format!("udp 100 {udp}"), 400),
        (
            "UDP socket + bind + connect + close",
            "socket 50".to_owned(),
            300,
        ),
        ("TCP socket + connect + close", format!("tcp 20 {tcp}"), 300),
    ] {
        bare.ask(&request)?;
        agent.worker.ask(&request)?;
        let pairs = interleave(
            bench.rounds(turns, turns / 4),
            || bare.ask(&request),
            || agent.worker.ask(&request),
        )?;
        let added = pairs.difference().value;
        let figure = Figure::difference(name, &pairs, 1e-3, "us");
        report.add(if name == "UDP socket + bind + connect + close" {
            figure
        } else {
            figure.goal("<= bare + 0.3 us", added <= 300.0)
        });
    }
    agent.stop().map(drop)
}

/// Connects that the supervisor sees: to unix sockets, which the connector makes, and to addresses, where a rule asks.
///
/// # Errors
///
/// A worker or `enforcer` fails.
pub fn measure_notified(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let path = bench.place("listener");
    let unix = UnixListener::bind(&path)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let tcp = listener.local_addr()?.port();
    // Both end with the process.
    std::thread::spawn(move || unix.incoming().for_each(drop));
    std::thread::spawn(move || listener.incoming().for_each(drop));

    let policy = json!({
        "version": "2",
        "exec": {"default": "allow"},
        "connect": {"default": "allow",
            // Those above are outside the agent, and its user's.
            "outside_listeners": {"tcp": "allow", "unix": "allow"},
            "rules": [{"id": "asked", "decision": "ask", "hosts": ["192.0.2.0/24"]}],
        },
    });
    let mut bare = bench.bare(Role::Plain)?;
    let mut agent = bench.governed("notified-connect", &policy.to_string())?;
    for (name, request) in [
        (
            "unix socket + connect + close, by the connector",
            format!("unix 20 {}", path.display()),
        ),
        (
            "TCP socket + connect + close, notified",
            format!("tcp 20 {tcp}"),
        ),
    ] {
        bare.ask(&request)?;
        agent.worker.ask(&request)?;
        let pairs = interleave(
            bench.rounds(200, 50),
            || bare.ask(&request),
            || agent.worker.ask(&request),
        )?;
        report.add(Figure::difference(name, &pairs, 1e-3, "us"));
    }
    agent.stop().map(drop)
}

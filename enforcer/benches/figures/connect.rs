//! Connects over loopback.

use std::net::{TcpListener, UdpSocket};

use crate::{
    agent::Bench,
    policies,
    report::{Figure, Report},
    sample::interleave,
    worker::Role,
};

/// A governed worker against a bare one.
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
    let mut agent = bench.governed("connect", &policies::mixed(100))?;
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

//! Addresses that the kernel takes for others, and packets that it sends elsewhere: what is judged is what is reached.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use enforcer_common::event::CAUSE_ROUTED;
use enforcer_kernel::events::Body;
use enforcer_tests::root;

use crate::{
    network::Network,
    world::{World, errno_of, tables},
};

const POLICY: &str =
    r#"{"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"}}"#;

/// Options of IPv4 and their like that no crate names.
const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// How something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Connect,
    SendTo,
    SendMessage,
    ConnectSend,
}

/// A socket's address and its length in bytes.
fn address(address: SocketAddr, scope: u32) -> (libc::sockaddr_in6, u32) {
    // SAFETY: plain data, for which zeros are valid; the smaller structure fits into the larger.
    unsafe {
        let mut storage: libc::sockaddr_in6 = std::mem::zeroed();
        match address {
            SocketAddr::V4(v4) => {
                let place = (&raw mut storage).cast::<libc::sockaddr_in>();
                (*place).sin_family = libc::AF_INET as u16;
                (*place).sin_port = v4.port().to_be();
                (*place).sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                (storage, size_of::<libc::sockaddr_in>() as u32)
            }
            SocketAddr::V6(v6) => {
                storage.sin6_family = libc::AF_INET6 as u16;
                storage.sin6_port = v6.port().to_be();
                storage.sin6_addr.s6_addr = v6.ip().octets();
                storage.sin6_scope_id = scope;
                (storage, size_of::<libc::sockaddr_in6>() as u32)
            }
        }
    }
}

/// Reaches for an address; the errno. `ready` makes the socket ready, `control` is what a message carries besides. System
/// calls only.
fn reach(
    way: Way,
    to: SocketAddr,
    scope: u32,
    ready: impl FnOnce(i32) -> i32,
    control: &[u8],
) -> i32 {
    let family = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = if way == Way::Connect {
        libc::SOCK_STREAM
    } else {
        libc::SOCK_DGRAM
    };
    let (storage, length) = address(to, scope);
    let target = (&raw const storage).cast();
    // SAFETY: plain system calls; every pointer is as long as said.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_NONBLOCK, 0);
        if fd < 0 {
            return 200;
        }
        if ready(fd) != 0 {
            return 201;
        }
        let word = c"x".as_ptr().cast();
        match way {
            Way::Connect => errno_of(libc::connect(fd, target, length).into()),
            Way::SendTo => errno_of(libc::sendto(fd, word, 1, 0, target, length) as i64),
            Way::ConnectSend => {
                let connected = errno_of(libc::connect(fd, target, length).into());
                if connected != 0 {
                    return connected;
                }
                errno_of(libc::send(fd, word, 1, 0) as i64)
            }
            Way::SendMessage => {
                let mut part = libc::iovec {
                    iov_base: word.cast_mut(),
                    iov_len: 1,
                };
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_name = target.cast_mut().cast();
                message.msg_namelen = length;
                message.msg_iov = &raw mut part;
                message.msg_iovlen = 1;
                if !control.is_empty() {
                    message.msg_control = control.as_ptr().cast_mut().cast();
                    message.msg_controllen = control.len();
                }
                errno_of(libc::sendmsg(fd, &raw const message, 0) as i64)
            }
        }
    }
}

/// Binds a socket to an address without a port.
fn bound(fd: i32, to: IpAddr) -> i32 {
    let (storage, length) = address(SocketAddr::new(to, 0), 0);
    // SAFETY: the address is as long as said.
    unsafe { libc::bind(fd, (&raw const storage).cast(), length) }
}

/// Whether anything arrived.
fn heard(stream: &TcpListener, datagram: &UdpSocket) -> bool {
    thread::sleep(Duration::from_millis(20));
    let mut heard = stream.accept().is_ok();
    while datagram.recv(&mut [0; 8]).is_ok() {
        heard = true;
    }
    heard
}

#[test]
fn the_address_of_nobody_is_not_the_address_that_a_socket_is_bound_to() {
    if !root() {
        return;
    }
    let mut world = World::new(&tables(POLICY));
    let bind = Ipv4Addr::new(127, 0, 0, 2);
    let stream = TcpListener::bind((bind, 0)).unwrap();
    let port = stream.local_addr().unwrap().port();
    let datagram = UdpSocket::bind((bind, port)).unwrap();
    stream.set_nonblocking(true).unwrap();
    datagram.set_nonblocking(true).unwrap();
    let any4 = IpAddr::from([0, 0, 0, 0]);
    let mapped = |v4: Ipv4Addr| IpAddr::from(v4.to_ipv6_mapped());
    let ways = [
        Way::Connect,
        Way::SendTo,
        Way::SendMessage,
        Way::ConnectSend,
    ];
    for (own, to) in [
        (IpAddr::from(bind), any4),
        (mapped(bind), mapped(Ipv4Addr::UNSPECIFIED)),
        (mapped(bind), Ipv6Addr::UNSPECIFIED.into()),
    ] {
        for way in ways {
            let go = || reach(way, SocketAddr::new(to, port), 0, |fd| bound(fd, own), &[]);
            // Outside the agent the address of nobody is the socket's own; `::` is loopback there, too.
            let outside = go();
            if outside == 200 || outside == 201 {
                continue;
            }
            let attack = heard(&stream, &datagram);
            assert_eq!(
                attack,
                to != Ipv6Addr::UNSPECIFIED,
                "{way:?} {own} {to}: {outside}"
            );
            let inside = world.child(go).go();
            assert!(!heard(&stream, &datagram), "{way:?} {own} {to}: {inside:?}");
            let addresses: Vec<Ipv6Addr> = world
                .events()
                .iter()
                .filter_map(|event| match &event.body {
                    Body::Connect(facts) if facts.port == port => Some(facts.address),
                    _ => None,
                })
                .collect();
            let judged = match to {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                    if way != Way::SendTo && way != Way::SendMessage =>
                {
                    Ipv6Addr::LOCALHOST
                }
                _ => Ipv4Addr::LOCALHOST.to_ipv6_mapped(),
            };
            // A connected socket of IPv6 that sends to IPv4 is judged at each step.
            assert!(
                !addresses.is_empty() && addresses.iter().all(|address| *address == judged),
                "{way:?} {own} {to}: {addresses:?}, not {judged}"
            );
        }
    }
    // And what is judged is what is reached.
    let stream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = stream.local_addr().unwrap().port();
    let datagram = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_nonblocking(true).unwrap();
    datagram.set_nonblocking(true).unwrap();
    for way in ways {
        let to = SocketAddr::new(any4, port);
        let go = || reach(way, to, 0, |fd| bound(fd, bind.into()), &[]);
        world.child(go).go();
        assert!(heard(&stream, &datagram), "{way:?}");
    }
}

/// Sets an option of a socket.
fn option(fd: i32, level: i32, name: i32, value: &[u8]) -> i32 {
    // SAFETY: the value is as long as said.
    unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as u32) }
}

/// One message of ancillary data.
fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let length = 16 + data.len();
    let mut bytes = (length as u64).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(length.next_multiple_of(8), 0);
    bytes
}

/// What names the interface, how it is sent and where to; what makes the socket ready, what the message carries besides,
/// and the scope id.
type Case<'a> = (&'a str, Way, &'a str, &'a dyn Fn(i32) -> i32, &'a [u8], u32);

#[test]
fn nothing_for_a_loopback_address_leaves_the_machine() {
    if !root() {
        return;
    }
    let Some(network) = Network::new() else {
        enforcer_tests::skip("no network namespaces with veth");
        return;
    };
    let mut world = World::new(&tables(POLICY));
    let tap = network.tap();
    let near = network.near;
    let device = |fd| option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"near");
    let unicast4 = move |fd| option(fd, libc::IPPROTO_IP, IP_UNICAST_IF, &near.to_be_bytes());
    let unicast6 = move |fd| option(fd, libc::IPPROTO_IPV6, IPV6_UNICAST_IF, &near.to_be_bytes());
    let nothing = |_| 0;
    // struct in_pktinfo: interface, own address, destination; struct in6_pktinfo: own address, interface.
    let mut info4 = near.to_ne_bytes().to_vec();
    info4.resize(12, 0);
    let mut info6 = vec![0; 16];
    info6.extend(near.to_ne_bytes());
    let info4 = control(libc::IPPROTO_IP, libc::IP_PKTINFO, &info4);
    let info6 = control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info6);
    let mut port = 40_000;
    let mut real = 0;
    let cases: [Case<'_>; 16] = [
        ("SO_BINDTODEVICE", Way::SendTo, "127.0.0.1", &device, &[], 0),
        ("SO_BINDTODEVICE", Way::SendTo, "0.0.0.0", &device, &[], 0),
        (
            "SO_BINDTODEVICE",
            Way::ConnectSend,
            "127.0.0.1",
            &device,
            &[],
            0,
        ),
        (
            "SO_BINDTODEVICE",
            Way::Connect,
            "127.0.0.9",
            &device,
            &[],
            0,
        ),
        ("IP_UNICAST_IF", Way::SendTo, "127.0.0.1", &unicast4, &[], 0),
        (
            "IP_UNICAST_IF",
            Way::Connect,
            "127.0.0.1",
            &unicast4,
            &[],
            0,
        ),
        (
            "IP_PKTINFO",
            Way::SendMessage,
            "127.0.0.1",
            &nothing,
            &info4,
            0,
        ),
        ("SO_BINDTODEVICE", Way::SendTo, "::1", &device, &[], 0),
        ("SO_BINDTODEVICE", Way::Connect, "::1", &device, &[], 0),
        (
            "SO_BINDTODEVICE",
            Way::SendTo,
            "::ffff:127.0.0.1",
            &device,
            &[],
            0,
        ),
        ("IPV6_UNICAST_IF", Way::SendTo, "::1", &unicast6, &[], 0),
        ("IPV6_PKTINFO", Way::SendMessage, "::1", &nothing, &info6, 0),
        ("scope id", Way::SendTo, "::1", &nothing, &[], near),
        // What is judged as a loopback address, and the kernel sends by the default route.
        ("NAT64", Way::SendTo, "64:ff9b::7f00:1", &nothing, &[], 0),
        ("6to4", Way::SendTo, "2002:7f00:1::1", &nothing, &[], 0),
        (
            "IPv4-compatible",
            Way::SendTo,
            "::127.0.0.1",
            &nothing,
            &[],
            0,
        ),
    ];
    for (what, way, to, ready, control, scope) in cases {
        port += 1;
        let what = format!("{what} {way:?} {to}");
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let go = || {
            if network.enter() != 0 {
                return 202;
            }
            reach(way, to, scope, ready, control)
        };
        let outside = outside(go);
        let attack = tap.saw(port);
        println!(
            "{what}: errno {outside} and {} outside the agent",
            if attack { "out" } else { "not out" }
        );
        real += usize::from(attack);
        let inside = world.child(go).go();
        assert!(!tap.saw(port), "{what}: {inside:?}");
        let dropped: Vec<_> = world
            .events()
            .into_iter()
            .filter(|event| matches!(event.body, Body::Packet(_)))
            .collect();
        if attack {
            assert!(!dropped.is_empty(), "{what}: {inside:?}");
            assert!(
                dropped
                    .iter()
                    .all(|event| event.header.cause == CAUSE_ROUTED)
            );
        }
    }
    assert!(real >= 8, "only {real} of the attacks work here at all");
    // Loopback itself, and other addresses, go on.
    for (way, to) in [
        (Way::SendTo, "127.0.0.1"),
        (Way::SendTo, "10.99.0.2"),
        (Way::SendTo, "::1"),
    ] {
        port += 1;
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let go = || {
            network.enter();
            reach(way, to, 0, |_| 0, &[])
        };
        assert_eq!(world.child(go).go(), Some(0), "{to}");
    }
}

#[test]
fn a_source_route_leads_nowhere() {
    if !root() {
        return;
    }
    let Some(network) = Network::new() else {
        enforcer_tests::skip("no network namespaces with veth");
        return;
    };
    let mut world = World::new(&tables(POLICY));
    let tap = network.tap();
    let mut port = 41_000;
    for kind in [LOOSE_SOURCE_ROUTE, STRICT_SOURCE_ROUTE] {
        for way in [Way::SendTo, Way::Connect, Way::SendMessage] {
            port += 1;
            // By way of 10.99.0.2, whatever is judged.
            let route = [1, kind, 7, 4, 10, 99, 0, 2];
            let by_message = way == Way::SendMessage;
            let message = control(libc::IPPROTO_IP, libc::IP_RETOPTS, &route);
            let to = SocketAddr::new([127, 0, 0, 1].into(), port);
            let go = || {
                if network.enter() != 0 {
                    return 202;
                }
                let ready = |fd| {
                    if by_message {
                        0
                    } else {
                        option(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)
                    }
                };
                reach(way, to, 0, ready, if by_message { &message } else { &[] })
            };
            let outside = outside(go);
            assert!(tap.saw(port), "{kind} {way:?}: no attack, errno {outside}");
            let inside = world.child(go).go();
            assert!(!tap.saw(port), "{kind} {way:?}: {inside:?}");
            assert!(
                world
                    .events()
                    .iter()
                    .any(|event| matches!(event.body, Body::Packet(_))
                        && event.header.cause == CAUSE_ROUTED),
                "{kind} {way:?}: {inside:?}"
            );
        }
    }
}

/// What a child outside the agent comes to.
fn outside(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child makes system calls only.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(act());
        }
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, 0);
        libc::WEXITSTATUS(status)
    }
}

//! What an agent may not do to what is outside it: processes, and addresses behind the one that was judged.

use std::{
    fs,
    net::UdpSocket,
    os::fd::AsRawFd,
    process::{Command, Stdio},
    time::Duration,
};

use enforcer_common::event::{
    CAUSE_OUTSIDER, CAUSE_ROUTED, REACH_SIGNAL, REACH_TRACE, VERDICT_ERRNO,
};
use enforcer_kernel::events::Body;

use crate::world::{World, errno_of, tables};

const POLICY: &str =
    r#"{"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"}}"#;

#[test]
fn processes_outside_are_out_of_reach() {
    let mut world = World::new(&tables(POLICY));
    if !world.in_force.has("task_kill") || !world.in_force.has("ptrace_access_check") {
        eprintln!("SKIPPED: this kernel runs no LSM programs");
        return;
    }
    let mut outsider = Command::new("/usr/bin/sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let target = outsider.id();
    let pid = target as i32;
    let memory = std::ffi::CString::new(format!("/proc/{target}/mem")).unwrap();
    // SAFETY: plain system calls, in each child.
    unsafe {
        let kill = |signal| {
            world
                .child(move || errno_of(libc::kill(pid, signal).into()))
                .go()
        };
        assert_eq!(kill(libc::SIGTERM), Some(libc::EPERM));
        assert_eq!(kill(0), Some(0), "asking whether it is there");
        let attach = world.child(|| errno_of(libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0)));
        assert_eq!(attach.go(), Some(libc::EPERM));
        let open = world.child(|| errno_of(libc::open(memory.as_ptr(), libc::O_RDWR).into()));
        assert!(matches!(open.go(), Some(libc::EPERM | libc::EACCES)));
        // Its own processes it may.
        let own = world.child(|| {
            let child = libc::fork();
            if child == 0 {
                libc::pause();
            }
            let traced = libc::ptrace(libc::PTRACE_ATTACH, child, 0, 0);
            let killed = libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
            (traced != 0 || killed != 0).into()
        });
        assert_eq!(own.go(), Some(0));
    }
    assert!(outsider.try_wait().unwrap().is_none(), "it lives");
    outsider.kill().unwrap();
    outsider.wait().unwrap();
    let reached: Vec<u32> = world
        .events()
        .iter()
        .filter_map(|event| match event.body {
            Body::Process(facts) if facts.target == target => {
                assert_eq!(event.header.cause, CAUSE_OUTSIDER);
                assert_eq!(event.header.verdict, VERDICT_ERRNO);
                Some(facts.reach)
            }
            _ => None,
        })
        .collect();
    assert_eq!(reached, [REACH_SIGNAL, REACH_TRACE, REACH_TRACE]);
}

/// Sends a datagram to `::1`, and with a routing header (RFC 8754) by way of an address that was never judged.
fn send_routed(routed: bool, port: u16) -> i32 {
    // SAFETY: plain system calls; every pointer is as long as said.
    unsafe {
        let fd = libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
        if routed {
            // Next header, length, type 4, segments left, last entry, flags, tag, tag; then the address.
            let mut header = [0_u8; 24];
            header[1] = 2;
            header[2] = 4;
            header[23] = 1;
            let set = libc::setsockopt(
                fd,
                libc::IPPROTO_IPV6,
                libc::IPV6_RTHDR,
                header.as_ptr().cast(),
                24,
            );
            if set != 0 {
                return 200;
            }
        }
        let mut address: libc::sockaddr_in6 = std::mem::zeroed();
        address.sin6_family = libc::AF_INET6 as u16;
        address.sin6_port = port.to_be();
        address.sin6_addr.s6_addr[15] = 1;
        errno_of(libc::sendto(
            fd,
            c"x".as_ptr().cast(),
            1,
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in6>() as u32,
        ) as i64)
    }
}

/// A packet socket on the loopback interface, and the packets with a routing header that it has seen.
struct Tap(std::os::fd::OwnedFd);

impl Tap {
    fn new() -> Self {
        use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
        let fd = socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthIpv6,
        )
        .unwrap();
        Self(fd)
    }

    /// Whether a packet with a routing header and `port` in it went by.
    fn saw(&self, port: u16) -> bool {
        std::thread::sleep(Duration::from_millis(50));
        let mut bytes = [0_u8; 2048];
        while let Ok(length) = nix::unistd::read(&self.0, &mut bytes) {
            // The routing header of 24 bytes, then UDP's ports.
            if length >= 68 && bytes[6] == 43 && bytes[66..68] == port.to_be_bytes() {
                return true;
            }
        }
        false
    }
}

#[test]
fn a_routing_header_leads_nowhere() {
    if fs::metadata("/proc/net/if_inet6").is_err() {
        eprintln!("SKIPPED: no IPv6");
        return;
    }
    let mut world = World::new(&tables(POLICY));
    let Ok(ear) = UdpSocket::bind("[::1]:0") else {
        eprintln!("SKIPPED: no ::1");
        return;
    };
    assert!(ear.as_raw_fd() >= 0);
    let port = ear.local_addr().unwrap().port();
    let tap = Tap::new();
    // Outside the agent such a packet goes out: the attack is a real one.
    match send_routed(true, port) {
        0 => assert!(tap.saw(port)),
        200 => {
            eprintln!("SKIPPED: this kernel makes no segment routing headers");
            return;
        }
        errno => panic!("errno {errno}"),
    }
    assert_eq!(
        world.child(|| send_routed(true, port)).go(),
        Some(libc::EPERM)
    );
    assert!(!tap.saw(port), "no packet left");
    let routed: Vec<_> = world
        .events()
        .into_iter()
        .filter(|event| matches!(event.body, Body::Packet(_)))
        .collect();
    assert_eq!(routed.len(), 1);
    assert_eq!(routed[0].header.cause, CAUSE_ROUTED);
    assert_ne!(routed[0].header.pid, 0);
    let plain = world.child(|| send_routed(false, port));
    assert_eq!(plain.go(), Some(0));
    ear.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The first two were the attack's, if the kernel takes such packets in at all.
    assert_eq!(ear.recv(&mut [0; 8]).unwrap(), 1);
}

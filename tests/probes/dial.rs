//! Reaches for an address in one of the ways that the kernel offers.
//!
//! `dial WAY ADDRESS PORT` connects or sends; `dial socket DOMAIN TYPE PROTOCOL` makes a socket only. Prints
//! `0 ok`, or `1`, the step that was refused and its errno. Exit status: the same, 77 the kernel lacks the way.
//! `dial each FILE` does so for each line of a file, each in a process of its own.
#![allow(
    clippy::cast_ptr_alignment,
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    env,
    io::Error,
    mem::{self, zeroed},
    net::{IpAddr, SocketAddr},
    process::exit,
    ptr,
};

use libc::{c_int, c_void, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// The kernel lacks it.
const LACKING: i32 = 77;
const WORD: &[u8] = b"word";

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
struct Address {
    storage: sockaddr_storage,
    length: socklen_t,
}

impl Address {
    fn new(address: SocketAddr) -> Self {
        let mut storage: sockaddr_storage = unsafe { zeroed() };
        let length = match address {
            SocketAddr::V4(v4) => {
                let place = (&raw mut storage).cast::<sockaddr_in>();
                unsafe {
                    (*place).sin_family = libc::AF_INET as u16;
                    (*place).sin_port = v4.port().to_be();
                    (*place).sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                }
                mem::size_of::<sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let place = (&raw mut storage).cast::<sockaddr_in6>();
                unsafe {
                    (*place).sin6_family = libc::AF_INET6 as u16;
                    (*place).sin6_port = v6.port().to_be();
                    (*place).sin6_addr.s6_addr = v6.ip().octets();
                    // Link-local addresses need one; loopback has always been the first.
                    (*place).sin6_scope_id = u32::from(v6.ip().segments()[0] == 0xfe80);
                }
                mem::size_of::<sockaddr_in6>()
            }
        };
        Self {
            storage,
            length: length as socklen_t,
        }
    }

    fn family(&self) -> c_int {
        c_int::from(self.storage.ss_family)
    }

    fn without_family(mut self) -> Self {
        self.storage.ss_family = libc::AF_UNSPEC as u16;
        self
    }

    fn pointer(&self) -> *const sockaddr {
        (&raw const self.storage).cast()
    }
}

fn fail(step: &str) -> ! {
    let error = Error::last_os_error();
    println!("1 {step}: {}", error.raw_os_error().unwrap_or(0));
    eprintln!("{step}: {error}");
    exit(1);
}

fn check(result: impl Into<i64>, step: &str) -> i64 {
    let result = result.into();
    if result < 0 {
        fail(step);
    }
    result
}

fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    check(unsafe { libc::socket(domain, kind, protocol) }, "socket") as c_int
}

fn connect(fd: c_int, address: &Address) {
    check(
        unsafe { libc::connect(fd, address.pointer(), address.length) },
        "connect",
    );
}

fn send_to(fd: c_int, address: &Address, flags: c_int) {
    let word = WORD.as_ptr().cast::<c_void>();
    check(
        unsafe {
            libc::sendto(
                fd,
                word,
                WORD.len(),
                flags,
                address.pointer(),
                address.length,
            )
        } as i64,
        "sendto",
    );
}

/// A socket for ICMP echo.
fn echo_socket(family: c_int) -> c_int {
    let protocol = if family == libc::AF_INET {
        libc::IPPROTO_ICMP
    } else {
        libc::IPPROTO_ICMPV6
    };
    socket(family, libc::SOCK_DGRAM, protocol)
}

/// Sends an echo request and waits for the reply.
fn send_echo(fd: c_int, family: c_int, to: Option<&Address>) {
    // Type, code, checksum, identifier, sequence number, data: the kernel fills in what it knows better.
    let mut request = [0_u8; 16];
    request[0] = if family == libc::AF_INET { 8 } else { 128 };
    let (pointer, length) = to.map_or((std::ptr::null(), 0), |to| (to.pointer(), to.length));
    let sent = unsafe {
        libc::sendto(
            fd,
            request.as_ptr().cast(),
            request.len(),
            0,
            pointer,
            length,
        )
    };
    check(sent as i64, "sendto");
    let patience = libc::timeval {
        tv_sec: 10,
        tv_usec: 0,
    };
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const patience).cast(),
            size_of_val(&patience) as libc::socklen_t,
        )
    };
    check(result, "SO_RCVTIMEO");
    let mut reply = [0_u8; 64];
    let received = unsafe { libc::recv(fd, reply.as_mut_ptr().cast(), reply.len(), 0) };
    check(received as i64, "recv");
}

fn message(address: &Address, part: &mut libc::iovec) -> libc::msghdr {
    *part = libc::iovec {
        iov_base: WORD.as_ptr().cast_mut().cast(),
        iov_len: WORD.len(),
    };
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = address.pointer().cast_mut().cast();
    header.msg_namelen = address.length;
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header
}

/// One request through an `io_uring`, by system calls alone.
fn ring(prepare: impl FnOnce(&mut [u8; 64])) -> i32 {
    const ENTER_GETEVENTS: u32 = 1;
    unsafe {
        let mut parameters = [0u32; 30];
        let fd = libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr());
        if fd < 0 {
            eprintln!("io_uring_setup: {}", Error::last_os_error());
            exit(LACKING);
        }
        let map = |bytes: usize, offset: i64| -> *mut u8 {
            let place = libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd as c_int,
                offset,
            );
            assert_ne!(place, libc::MAP_FAILED, "the ring is mapped");
            place.cast()
        };
        // struct io_uring_params: 10 words, then the offsets of the two rings, 10 words each.
        let (sq, cq) = (&parameters[10..20], &parameters[20..30]);
        let queue = map(4096, 0);
        let completions = map(4096, 0x0800_0000);
        let entries = map(4096, 0x1000_0000);
        let entry = &mut *entries.cast::<[u8; 64]>();
        entry.fill(0);
        prepare(entry);
        // Offsets: head, tail, ring_mask, ring_entries, flags, dropped, array.
        queue.add(sq[6] as usize).cast::<u32>().write_volatile(0);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        queue.add(sq[1] as usize).cast::<u32>().write_volatile(1);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let done = libc::syscall(
            libc::SYS_io_uring_enter,
            fd,
            1,
            1,
            ENTER_GETEVENTS,
            ptr::null::<c_void>(),
            0,
        );
        check(done, "io_uring_enter");
        // struct io_uring_cqe { u64 user_data; s32 res; u32 flags }; cq offsets: …, overflow, cqes.
        completions
            .add(cq[5] as usize + 8)
            .cast::<i32>()
            .read_volatile()
    }
}

/// Fills in a submission: opcode, descriptor, `off`, `addr`, `len`.
fn request(entry: &mut [u8; 64], opcode: u8, fd: c_int, offset: u64, address: u64, length: u32) {
    entry[0] = opcode;
    entry[4..8].copy_from_slice(&fd.to_ne_bytes());
    entry[8..16].copy_from_slice(&offset.to_ne_bytes());
    entry[16..24].copy_from_slice(&address.to_ne_bytes());
    entry[24..28].copy_from_slice(&length.to_ne_bytes());
}

fn ring_result(result: i32) {
    if result < 0 {
        unsafe { *libc::__errno_location() = -result };
        fail("io_uring");
    }
}

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    if words[0] != "each" {
        one(&words);
        return;
    }
    for line in std::fs::read_to_string(&words[1])
        .expect("the file is read")
        .lines()
    {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                one(&words);
                exit(0);
            }
            let mut status = 0;
            check(libc::waitpid(pid, &raw mut status, 0), "waitpid");
        }
    }
}

fn one(words: &[String]) {
    let number = |index: usize| words[index].parse::<i32>().expect("a number");
    if words[0] == "socket" {
        socket(number(1), number(2), number(3));
        println!("0 ok");
        return;
    }
    let ip: IpAddr = words[1].parse().expect("an address");
    let port: u16 = words[2].parse().expect("a port");
    dial(&words[0], &Address::new(SocketAddr::new(ip, port)));
    println!("0 ok");
}

#[expect(clippy::too_many_lines, reason = "a flat list of ways")]
fn dial(way: &str, target: &Address) {
    let family = target.family();
    let datagram = || socket(family, libc::SOCK_DGRAM, 0);
    let stream = || socket(family, libc::SOCK_STREAM, 0);
    match way {
        "tcp" => connect(stream(), target),
        "tcp-long-address" => {
            let fd = stream();
            let length = mem::size_of::<sockaddr_storage>() as socklen_t;
            check(
                unsafe { libc::connect(fd, target.pointer(), length) },
                "connect",
            );
        }
        "tcp-bound" => {
            let fd = stream();
            let any: Address = Address::new(match family {
                libc::AF_INET => "0.0.0.0:0".parse().expect("an address"),
                _ => "[::]:0".parse().expect("an address"),
            });
            check(unsafe { libc::bind(fd, any.pointer(), any.length) }, "bind");
            connect(fd, target);
        }
        "tcp-nonblocking" => unsafe {
            let fd = socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
            if libc::connect(fd, target.pointer(), target.length) < 0 {
                if Error::last_os_error().raw_os_error() != Some(libc::EINPROGRESS) {
                    fail("connect");
                }
                let mut poll = libc::pollfd {
                    fd,
                    events: libc::POLLOUT,
                    revents: 0,
                };
                libc::poll(&raw mut poll, 1, 10_000);
                let mut error: c_int = 0;
                let mut length = 4;
                libc::getsockopt(
                    fd,
                    libc::SOL_SOCKET,
                    libc::SO_ERROR,
                    (&raw mut error).cast(),
                    &raw mut length,
                );
                *libc::__errno_location() = error;
                if error != 0 {
                    fail("SO_ERROR");
                }
            }
        },
        "tcp-thread" => {
            let target = *target;
            let fd = stream();
            std::thread::spawn(move || connect(fd, &target))
                .join()
                .expect("the thread ends");
        }
        "tcp-child" => unsafe {
            let fd = stream();
            let pid = libc::fork();
            if pid == 0 {
                connect(fd, target);
                libc::_exit(0);
            }
            let mut status = 0;
            libc::waitpid(pid, &raw mut status, 0);
            if status != 0 {
                exit(1);
            }
        },
        "tcp-fast-open" => send_to(stream(), target, libc::MSG_FASTOPEN),
        "tcp-fast-open-connect" => unsafe {
            let fd = stream();
            let on: c_int = 1;
            check(
                libc::setsockopt(
                    fd,
                    libc::IPPROTO_TCP,
                    libc::TCP_FASTOPEN_CONNECT,
                    (&raw const on).cast(),
                    4,
                ),
                "setsockopt",
            );
            connect(fd, target);
            check(
                libc::send(fd, WORD.as_ptr().cast(), WORD.len(), 0) as i64,
                "send",
            );
        },
        "udp-sendto" => send_to(datagram(), target, 0),
        "echo" => {
            let fd = echo_socket(family);
            send_echo(fd, family, Some(target));
        }
        "echo-connected" => {
            let fd = echo_socket(family);
            connect(fd, target);
            send_echo(fd, family, None);
        }
        "udp-sendto-again" => {
            // A socket that is connected elsewhere may still send to any address.
            let fd = datagram();
            let elsewhere = Address::new(match family {
                libc::AF_INET => "127.0.0.1:9".parse().expect("an address"),
                _ => "[::ffff:127.0.0.1]:9".parse().expect("an address"),
            });
            connect(fd, &elsewhere);
            send_to(fd, target, 0);
        }
        "udp-connect" => {
            let fd = datagram();
            connect(fd, target);
            check(
                unsafe { libc::send(fd, WORD.as_ptr().cast(), WORD.len(), 0) } as i64,
                "send",
            );
        }
        "udp-reconnect" => {
            let fd = datagram();
            let elsewhere = Address::new("127.0.0.1:9".parse().expect("an address"));
            connect(fd, &elsewhere);
            connect(fd, &elsewhere.without_family());
            connect(fd, target);
            check(
                unsafe { libc::send(fd, WORD.as_ptr().cast(), WORD.len(), 0) } as i64,
                "send",
            );
        }
        "udp-unspecified-family" => send_to(datagram(), &target.without_family(), 0),
        "udp-other-family" => send_to(socket(libc::AF_INET6, libc::SOCK_DGRAM, 0), target, 0),
        "udp-other-family-connect" => {
            let fd = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
            connect(fd, target);
            check(
                unsafe { libc::send(fd, WORD.as_ptr().cast(), WORD.len(), 0) } as i64,
                "send",
            );
        }
        "udp-sendmsg" => unsafe {
            let mut part = zeroed();
            let header = message(target, &mut part);
            check(
                libc::sendmsg(datagram(), &raw const header, 0) as i64,
                "sendmsg",
            );
        },
        "udp-sendmmsg" => unsafe {
            let mut part = zeroed();
            let mut headers: [libc::mmsghdr; 1] = zeroed();
            headers[0].msg_hdr = message(target, &mut part);
            check(
                libc::sendmmsg(datagram(), headers.as_mut_ptr(), 1, 0),
                "sendmmsg",
            );
        },
        "uring-connect" => {
            let fd = stream();
            // IORING_OP_CONNECT: the address' length stands where an offset does elsewhere.
            ring_result(ring(|entry| {
                request(
                    entry,
                    16,
                    fd,
                    u64::from(target.length),
                    target.pointer() as u64,
                    0,
                );
            }));
        }
        "uring-sendmsg" => {
            let fd = datagram();
            let mut part = unsafe { zeroed() };
            let header = message(target, &mut part);
            // IORING_OP_SENDMSG
            ring_result(ring(|entry| {
                request(entry, 9, fd, 0, (&raw const header) as u64, 1);
            }));
        }
        "uring-connect-async" => {
            let fd = stream();
            ring_result(ring(|entry| {
                request(
                    entry,
                    16,
                    fd,
                    u64::from(target.length),
                    target.pointer() as u64,
                    0,
                );
                // IOSQE_ASYNC: a worker of the kernel does it.
                entry[1] = 1 << 4;
            }));
        }
        other => {
            eprintln!("no such way: {other}");
            exit(125);
        }
    }
}

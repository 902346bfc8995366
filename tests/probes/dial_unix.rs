//! Reaches for a unix socket: `dial_unix WAY NAME [OTHER]`. A `NAME` that begins with `@` is an abstract one.
//!
//! Prints `0`, or the errno. `own` and `own-child` listen there themselves before they connect, `own-tcp` at a port of this
//! machine. `swap` connects again and again through a link that a thread turns from one socket to the
//! other, and prints how often it got through.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    env, fs,
    io::Error,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use libc::{SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET, SOCK_STREAM, c_int};

fn errno(result: isize) -> i32 {
    if result < 0 {
        Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

struct Address {
    raw: libc::sockaddr_un,
    length: u32,
}

impl Address {
    fn new(name: &str) -> Self {
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as u16;
        let bytes = name.as_bytes();
        assert!(bytes.len() <= raw.sun_path.len(), "too long: {name}");
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = from.cast_signed();
        }
        let mut length = 2 + bytes.len();
        if bytes[0] == b'@' {
            raw.sun_path[0] = 0;
        } else if bytes.len() < raw.sun_path.len() {
            length += 1;
        }
        Self {
            raw,
            length: length as u32,
        }
    }
}

fn socket(kind: c_int) -> c_int {
    let socket = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    assert!(socket >= 0, "socket");
    socket
}

fn connect(kind: c_int, name: &str) -> i32 {
    let address = Address::new(name);
    let socket = socket(kind);
    let result = unsafe { libc::connect(socket, (&raw const address.raw).cast(), address.length) };
    let failed = errno(result as isize);
    if failed == 0 && kind == SOCK_DGRAM {
        return errno(unsafe { libc::send(socket, c"x".as_ptr().cast(), 1, 0) });
    }
    failed
}

fn listen(name: &str) -> c_int {
    let address = Address::new(name);
    let socket = socket(SOCK_STREAM);
    let bound = unsafe { libc::bind(socket, (&raw const address.raw).cast(), address.length) };
    assert!(
        bound == 0 && unsafe { libc::listen(socket, 4) } == 0,
        "listen"
    );
    socket
}

fn send(name: &str, by_message: bool) -> i32 {
    let mut address = Address::new(name);
    let socket = socket(SOCK_DGRAM);
    let mut part = libc::iovec {
        iov_base: c"x".as_ptr().cast_mut().cast(),
        iov_len: 1,
    };
    errno(unsafe {
        if by_message {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_name = (&raw mut address.raw).cast();
            header.msg_namelen = address.length;
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            libc::sendmsg(socket, &raw const header, 0)
        } else {
            libc::sendto(
                socket,
                part.iov_base,
                1,
                0,
                (&raw const address.raw).cast(),
                address.length,
            )
        }
    })
}

/// Enters the name's directory; the name that is left.
fn enter(name: &str) -> String {
    let path = Path::new(name);
    env::set_current_dir(path.parent().expect("a directory")).expect("entered");
    path.file_name()
        .expect("a name")
        .to_str()
        .expect("text")
        .to_owned()
}

fn swap(shut: &str, open: &str) {
    static END: AtomicBool = AtomicBool::new(false);
    let (shut, open) = (shut.to_owned(), open.to_owned());
    let swapper = thread::spawn(move || {
        while !END.load(Ordering::Relaxed) {
            for target in [&open, &shut] {
                let _ = fs::remove_file("new");
                symlink(target, "new").expect("linked");
                fs::rename("new", "link").expect("renamed");
            }
        }
    });
    let end = Instant::now() + Duration::from_secs(5);
    let mut through = 0;
    while Instant::now() < end {
        let address = Address::new("link");
        unsafe {
            let socket = libc::socket(libc::AF_UNIX, SOCK_STREAM, 0);
            through += i32::from(
                libc::connect(socket, (&raw const address.raw).cast(), address.length) == 0,
            );
            libc::close(socket);
        }
    }
    END.store(true, Ordering::Relaxed);
    swapper.join().expect("ended");
    println!("{through}");
}

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (way, name) = (words[0], words[1]);
    let result = match way {
        "stream" => connect(SOCK_STREAM, name),
        "seqpacket" => connect(SOCK_SEQPACKET, name),
        "nonblocking" => connect(SOCK_STREAM | SOCK_NONBLOCK, name),
        "datagram" => connect(SOCK_DGRAM, name),
        "sendto" => send(name, false),
        "sendmsg" => send(name, true),
        "thread" => {
            let name = name.to_owned();
            thread::spawn(move || connect(SOCK_STREAM, &name))
                .join()
                .expect("ended")
        }
        "relative" => connect(SOCK_STREAM, &enter(name)),
        "relative-sendto" => send(&enter(name), false),
        "relative-dots" => {
            let name = enter(name);
            connect(SOCK_STREAM, &format!("./.././{}/{name}", here()))
        }
        "slashes" => connect(SOCK_STREAM, &name.replacen('/', "///", 1)),
        "proc-root" => connect(SOCK_STREAM, &format!("/proc/self/root{name}")),
        "proc-cwd" => {
            let name = enter(name);
            connect(SOCK_STREAM, &format!("/proc/self/cwd/{name}"))
        }
        "proc-fd" => {
            let name = enter(name);
            let directory = unsafe { libc::open(c".".as_ptr(), libc::O_PATH) };
            connect(SOCK_STREAM, &format!("/proc/self/fd/{directory}/{name}"))
        }
        "proc-fd-itself" => {
            let path = std::ffi::CString::new(name).expect("no NUL");
            let fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH) };
            connect(SOCK_STREAM, &format!("/proc/self/fd/{fd}"))
        }
        "symlink" | "symlink-sendto" => {
            let _ = fs::remove_file(way);
            symlink(name, way).expect("linked");
            if way == "symlink" {
                connect(SOCK_STREAM, way)
            } else {
                send(way, false)
            }
        }
        "symlink-directory" => {
            let path = Path::new(name);
            let _ = fs::remove_file(way);
            symlink(path.parent().expect("a directory"), way).expect("linked");
            let name = path.file_name().expect("a name").to_str().expect("text");
            connect(SOCK_STREAM, &format!("{way}/{name}"))
        }
        "own" => {
            let _listens = listen(name);
            connect(SOCK_STREAM, name)
        }
        "own-child" => {
            // The listener's own process is gone by the time of the connect; a child has it.
            let listens = listen(name);
            unsafe {
                if libc::fork() == 0 {
                    if libc::fork() == 0 {
                        libc::sleep(5);
                    }
                    libc::_exit(0);
                }
                libc::wait(std::ptr::null_mut());
                libc::close(listens);
            }
            connect(SOCK_STREAM, name)
        }
        "own-tcp" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
            let port = listener.local_addr().expect("an address");
            let connected = std::net::TcpStream::connect(port);
            connected.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0)
        }
        "swap" => return swap(name, words[2]),
        other => panic!("no such way: {other}"),
    };
    println!("{result}");
}

/// The name of the current directory.
fn here() -> String {
    let here = env::current_dir().expect("a directory");
    here.file_name()
        .expect("a name")
        .to_str()
        .expect("text")
        .to_owned()
}

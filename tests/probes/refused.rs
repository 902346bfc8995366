//! Makes system calls that are refused, from one process, and prints each with its errno (0: it went through).
//!
//! `refused each [READY GO]` makes some of them once; with two files it makes the first, and waits for the second,
//! before. `refused flood N` makes one of them N times, and once more when two seconds have passed.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{env, fs, io::Error, path::Path, ptr, thread::sleep, time::Duration};

use libc::c_long;

fn errno(result: c_long) -> i32 {
    if result < 0 {
        Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

fn tiocsti() -> i32 {
    errno(unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) }.into())
}

type Call = (&'static str, fn() -> i32);

const CALLS: [Call; 6] = [
    ("terminal-input", tiocsti),
    // PTRACE_ATTACH to ourselves, which the kernel refuses with EPERM too.
    ("ptrace", || {
        errno(unsafe { libc::syscall(libc::SYS_ptrace, 16, libc::getpid(), 0, 0) })
    }),
    ("io-uring", || {
        errno(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, ptr::null_mut::<u8>()) })
    }),
    ("socket-families", || {
        errno(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) }.into())
    }),
    ("namespaces", || {
        errno(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
    }),
    // Not worth a line: every thread is made by way of it.
    ("clone3", || {
        errno(unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<u8>(), 0) })
    }),
];

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["each"] => each(),
        ["each", ready, go] => {
            let _ = fs::write(ready, "");
            while !Path::new(go).exists() {
                sleep(Duration::from_millis(20));
            }
            each();
        }
        ["flood", count] => {
            for _ in 0..count.parse().unwrap_or(0) {
                tiocsti();
            }
            sleep(Duration::from_secs(2));
            println!("terminal-input {}", tiocsti());
            tiocsti();
        }
        _ => eprintln!("refused each [READY GO] | flood N"),
    }
}

fn each() {
    for (name, call) in CALLS {
        println!("{name} {}", call());
    }
}

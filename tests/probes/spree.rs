//! Does things over and over, from several threads at once: `spree STEP…`, each step one word of these forms, done one
//! after another. Files are in the working directory.
//!
//! * `exec PROGRAM THREADS COUNT`: each of so many threads executes PROGRAM so often; prints `exec ALLOWED DENIED`.
//! * `steady PROGRAM MILLISECONDS PAUSE`: executes PROGRAM for so long with a pause of so many milliseconds between.
//! * `until PROGRAM`: executes PROGRAM until it is allowed.
//! * `arguments PROGRAM COUNT BYTES`: executes PROGRAM with so many arguments of so many bytes.
//! * `deep PROGRAM LEVELS`: forks so many times, each parent ends at once, and the last child executes PROGRAM.
//! * `dial PORT THREADS COUNT`: connects to 127.0.0.1; prints `dial ALLOWED DENIED`.
//! * `dials PORT COUNT`: connects to so many addresses, 127.0.1.1 and on; prints `dials ALLOWED DENIED`.
//! * `again PROGRAM COUNT`: executes PROGRAM so often from one process, which never forks; prints `again DENIED`.
//! * `unix NAME COUNT`: connects to a unix socket; prints `unix ALLOWED DENIED`.
//! * `sign NAME`: makes a file. `await NAME`: waits for one. `say TEXT`: prints it.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    env,
    ffi::CString,
    fs,
    io::{self, Write},
    net::TcpStream,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio, exit},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// When it gives up.
const LONG: Duration = Duration::from_secs(200);

/// Whether something was allowed; anything but a plain denial ends the program.
fn allowed<T>(result: io::Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => false,
        Err(error) => panic!("{error}"),
    }
}

fn exec(program: &str, arguments: &[String]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    match status {
        Ok(status) if status.signal() == Some(libc::SIGKILL) => false,
        status => allowed(status),
    }
}

/// How often `act` was allowed and denied, `threads` times `count` times.
fn many(name: &str, threads: u32, count: u32, act: impl Fn() -> bool + Sync) {
    let (yes, no) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..count {
                    let counter = if act() { &yes } else { &no };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{name} {} {}", yes.into_inner(), no.into_inner());
}

fn deep(program: &str, levels: u32) {
    let name = CString::new(program).expect("no NUL");
    let argv = [name.as_ptr(), ptr::null()];
    let environment = [ptr::null()];
    let mut ends = [0; 2];
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let mut level = 0;
    while level < levels {
        match unsafe { libc::fork() } {
            0 => level += 1,
            child if level == 0 => {
                let mut status = 0;
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                unsafe { libc::close(ends[1]) };
                let mut byte = 0_u8;
                // The end comes when nobody holds the pipe any more.
                while unsafe { libc::read(ends[0], (&raw mut byte).cast(), 1) } > 0 {}
                unsafe { libc::close(ends[0]) };
                return;
            }
            _ => unsafe { libc::_exit(0) },
        }
    }
    // An orphan by now, whose parent is init.
    unsafe {
        libc::execve(name.as_ptr(), argv.as_ptr(), environment.as_ptr());
        libc::_exit(1)
    }
}

fn step(words: &[&str]) {
    let number = |at: usize| -> u32 { words[at].parse().expect("a number") };
    match words[0] {
        "exec" => many("exec", number(2), number(3), || exec(words[1], &[])),
        "dial" => many("dial", number(2), number(3), || {
            allowed(TcpStream::connect(("127.0.0.1", number(1) as u16)))
        }),
        "dials" => {
            let (mut yes, mut no) = (0, 0);
            for last in 1..=number(2) as u8 {
                let to = (std::net::Ipv4Addr::new(127, 0, 1, last), number(1) as u16);
                *(if allowed(TcpStream::connect(to)) {
                    &mut yes
                } else {
                    &mut no
                }) += 1;
            }
            println!("dials {yes} {no}");
        }
        "again" => {
            let name = CString::new(words[1]).expect("no NUL");
            let argv = [name.as_ptr(), ptr::null()];
            let denied = (0..number(2)).filter(|_| {
                let environment = [ptr::null()];
                unsafe { libc::execve(name.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
                io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
            });
            println!("again {}", denied.count());
        }
        "unix" => many("unix", 1, number(2), || {
            allowed(UnixStream::connect(words[1]))
        }),
        "steady" => {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(number(2).into()) {
                exec(words[1], &[]);
                thread::sleep(Duration::from_millis(number(3).into()));
            }
        }
        "until" => {
            let start = Instant::now();
            while !exec(words[1], &[]) {
                assert!(start.elapsed() < LONG, "never allowed");
                thread::sleep(Duration::from_millis(20));
            }
        }
        "arguments" => {
            let argument = "x".repeat(number(3) as usize);
            exec(words[1], &vec![argument; number(2) as usize]);
        }
        "deep" => deep(words[1], number(2)),
        "sign" => fs::write(words[1], "").expect("the sign is made"),
        "await" => {
            let start = Instant::now();
            while !Path::new(words[1]).exists() {
                assert!(start.elapsed() < LONG, "no {}", words[1]);
                thread::sleep(Duration::from_millis(10));
            }
        }
        "say" => println!("{}", words[1]),
        other => panic!("no step {other}"),
    }
    io::stdout().flush().expect("standard output");
}

fn main() {
    for words in env::args().skip(1) {
        step(&words.split(' ').collect::<Vec<_>>());
    }
    exit(0)
}

//! Execs from odd processes: `odd MODE PROGRAM`. Prints the mode and how it ended: the exit status or `128 + signal`;
//! when the exec failed, 119 to 127.
//!
//! 126 stands for EPERM, 120 for EFAULT, 121 for E2BIG.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    env,
    ffi::{CString, OsString},
    os::unix::ffi::OsStringExt,
    process::exit,
    ptr, thread,
    time::Duration,
};

use libc::{c_char, c_int, c_void};

/// Longest argument that the kernel takes, with its NUL: `MAX_ARG_STRLEN`.
const LONGEST: usize = 128 * 1024;
/// Children in a storm.
const STORM: u32 = 200;

fn environment() -> &'static [*const c_char] {
    let mut entries: Vec<*const c_char> = env::vars_os()
        .map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).expect("no NUL").into_raw().cast_const()
        })
        .collect();
    entries.push(ptr::null());
    entries.leak()
}

/// The status that says why an exec failed.
fn failed() -> c_int {
    match unsafe { *libc::__errno_location() } {
        libc::EPERM => 126,
        libc::ENOENT => 127,
        libc::EFAULT => 120,
        libc::E2BIG => 121,
        libc::ENOSYS => 122,
        _ => 119,
    }
}

fn ended(pid: i32) -> i32 {
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

fn exec(path: *const c_char, argv: *const *const c_char) -> ! {
    let environment = environment();
    unsafe {
        libc::execve(path, argv, environment.as_ptr());
        libc::_exit(failed())
    }
}

/// Two pages of which the second cannot be read; the address where it begins.
fn edge() -> *mut u8 {
    unsafe {
        let pages = libc::mmap(
            ptr::null_mut(),
            8192,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(pages, libc::MAP_FAILED, "mmap");
        let second = pages.cast::<u8>().add(4096);
        assert_eq!(libc::munmap(second.cast(), 4096), 0);
        second
    }
}

fn storm(program: &CString) {
    let environment = environment();
    let argv = [program.as_ptr(), c"storm".as_ptr(), ptr::null()];
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..STORM {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            unsafe {
                libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr());
                libc::_exit(failed());
            }
        }
        thread::sleep(Duration::from_micros(u64::from(round * 37 % 2000)));
        unsafe { libc::kill(pid, libc::SIGKILL) };
        *counts.entry(ended(pid)).or_insert(0) += 1;
    }
    let known = counts.keys().all(|code| [0, 3, 126, 137].contains(code));
    println!("storm {}", if known { "0" } else { "1" });
    eprintln!("{counts:?}");
}

/// In the child of `main`; what it returns is its exit status.
fn odd(mode: &str, program: &CString) -> c_int {
    let path = program.as_ptr();
    let plain = [path, c"word".as_ptr(), ptr::null()];
    let environment = environment();
    match mode {
        "plain" => exec(path, plain.as_ptr()),
        "null-argv" => exec(path, ptr::null()),
        "empty-argv" => exec(path, [ptr::null()].as_ptr()),
        "end-argv" => exec(path, (usize::MAX - 7) as *const _),
        "kernel-argv" => exec(path, 0xffff_8000_0000_0000usize as *const _),
        "end-path" => exec(usize::MAX as *const c_char, plain.as_ptr()),
        "null-path" => exec(ptr::null(), plain.as_ptr()),
        "end-word" => exec(
            path,
            [path, (usize::MAX - 1) as *const _, ptr::null()].as_ptr(),
        ),
        // The list ends, or the page does.
        "last-slot" => unsafe {
            let slots = edge().cast::<*const c_char>().sub(2);
            slots.write(path);
            slots.add(1).write(ptr::null());
            exec(path, slots)
        },
        "no-end" => unsafe {
            let slots = edge().cast::<*const c_char>().sub(2);
            slots.write(path);
            slots.add(1).write(c"word".as_ptr());
            exec(path, slots)
        },
        "edge-word" => unsafe {
            let word = edge().sub(5);
            ptr::copy(c"word".as_ptr().cast(), word, 5);
            exec(path, [path, word.cast(), ptr::null()].as_ptr())
        },
        "torn-word" => unsafe {
            let word = edge().sub(4);
            ptr::copy(c"word".as_ptr().cast(), word, 4);
            exec(path, [path, word.cast(), ptr::null()].as_ptr())
        },
        "long-word" | "too-long-word" => {
            let length = LONGEST - usize::from(mode == "long-word");
            let word = CString::new(vec![b'x'; length]).expect("no NUL");
            exec(path, [path, word.as_ptr(), ptr::null()].as_ptr())
        }
        "many-words" => {
            let mut argv = vec![c"x".as_ptr(); 30_000];
            argv[0] = path;
            argv.push(ptr::null());
            exec(path, argv.as_ptr())
        }
        // The memory comes and goes while it is read.
        "unmapped" => unsafe {
            let page = edge().sub(4096);
            let place = page as usize;
            thread::spawn(move || {
                loop {
                    let page = place as *mut c_void;
                    libc::munmap(page, 4096);
                    libc::mmap(
                        page,
                        4096,
                        libc::PROT_READ | libc::PROT_WRITE,
                        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                        -1,
                        0,
                    );
                    ptr::copy(c"word".as_ptr().cast(), page.cast::<u8>(), 5);
                }
            });
            for _ in 0..200 {
                let argv = [path, page.cast_const().cast(), ptr::null()];
                libc::execve(path, argv.as_ptr(), environment.as_ptr());
                if *libc::__errno_location() == libc::EPERM {
                    libc::_exit(126);
                }
            }
            libc::_exit(120)
        },
        "thread" => {
            let (path, plain) = (path as usize, plain.as_ptr() as usize);
            thread::spawn(move || exec(path as *const _, plain as *const _))
                .join()
                .expect("it does not return");
            1
        }
        // Each of many threads tries; one of them wins.
        "threads" => {
            let (path, plain) = (path as usize, plain.as_ptr() as usize);
            let threads: Vec<_> = (0..8)
                .map(|_| thread::spawn(move || exec(path as *const _, plain as *const _)))
                .collect();
            for thread in threads {
                let _ = thread.join();
            }
            1
        }
        "vfork" => unsafe {
            #[allow(deprecated, reason = "what is tried here")]
            let pid = libc::vfork();
            if pid == 0 {
                libc::execve(path, plain.as_ptr(), environment.as_ptr());
                libc::_exit(126);
            }
            ended(pid)
        },
        "spawn" => unsafe {
            let mut pid = 0;
            let argv = plain.as_ptr().cast::<*mut c_char>();
            let errno = libc::posix_spawn(
                &raw mut pid,
                path,
                ptr::null(),
                ptr::null(),
                argv,
                environment.as_ptr().cast::<*mut c_char>(),
            );
            match errno {
                0 => ended(pid),
                libc::EPERM => 126,
                _ => 119,
            }
        },
        "execveat" => unsafe {
            let fd = libc::open(path, libc::O_PATH | libc::O_CLOEXEC);
            libc::syscall(
                libc::SYS_execveat,
                fd,
                c"".as_ptr(),
                plain.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            libc::_exit(failed())
        },
        "execveat-directory" => unsafe {
            let bytes = program.as_bytes();
            let slash = bytes.iter().rposition(|b| *b == b'/').expect("a path");
            let directory = CString::new(&bytes[..slash]).expect("no NUL");
            let name = CString::new(&bytes[slash + 1..]).expect("no NUL");
            let fd = libc::open(directory.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            libc::syscall(
                libc::SYS_execveat,
                fd,
                name.as_ptr(),
                plain.as_ptr(),
                environment.as_ptr(),
                0,
            );
            libc::_exit(failed())
        },
        "deleted-directory" => unsafe {
            assert_eq!(libc::mkdir(c"gone".as_ptr(), 0o700), 0, "mkdir");
            assert_eq!(libc::chdir(c"gone".as_ptr()), 0, "chdir");
            assert_eq!(libc::rmdir(c"../gone".as_ptr()), 0, "rmdir");
            exec(path, plain.as_ptr())
        },
        // The number 0 stands for no descriptor here.
        "no-descriptors" => unsafe {
            for fd in 0..3 {
                libc::close(fd);
            }
            exec(path, plain.as_ptr())
        },
        other => panic!("no such mode: {other}"),
    }
}

fn main() {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let program = CString::new(words[1].clone().into_vec()).expect("no NUL");
    let mode = words[0].to_str().expect("a mode");
    if mode == "storm" {
        storm(&program);
        return;
    }
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        exit(odd(mode, &program));
    }
    println!("{mode} {}", ended(pid));
}

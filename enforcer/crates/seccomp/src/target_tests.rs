use std::ffi::CString;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::rig::{EXEC, execve, may_run, supervised};
use crate::{Notified, NotifiedCall};

const PAGE: usize = 4096;

/// Pages of which the last cannot be read.
struct Fenced(*mut u8, usize);

impl Fenced {
    fn new(pages: usize) -> Self {
        // SAFETY: a new mapping, wherever the kernel likes.
        let start = unsafe {
            let start = libc::mmap(
                ptr::null_mut(),
                (pages + 1) * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(start, libc::MAP_FAILED);
            libc::mprotect(start.byte_add(pages * PAGE), PAGE, libc::PROT_NONE);
            start
        };
        Self(start.cast(), pages * PAGE)
    }

    /// Puts bytes right before the fence; their address.
    fn at_end(&self, bytes: &[u8]) -> u64 {
        // SAFETY: the bytes fit into the readable part.
        unsafe {
            let at = self.0.add(self.1 - bytes.len());
            ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            at as u64
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing points into it any more.
        unsafe { libc::munmap(self.0.cast(), self.1 + PAGE) };
    }
}

/// What the supervisor reads of an exec with these pointers.
fn read(path: u64, argv: u64) -> Result<ExecText, ReadError> {
    let (errno, text) = supervised(
        EXEC,
        || execve(path, argv),
        |listener| {
            let stopped = listener.recv().unwrap().unwrap();
            let NotifiedCall::Exec(call) = stopped.call else {
                panic!("{stopped:?}")
            };
            let text = exec_text(stopped.tid, &call);
            assert!(listener.is_valid(stopped.id));
            listener.refuse(stopped.id, libc::EDOM).unwrap();
            text
        },
    );
    assert_eq!(errno, libc::EDOM);
    text
}

fn pointers(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

const PATH: &std::ffi::CStr = c"/bin/true";

fn path() -> u64 {
    PATH.as_ptr() as u64
}

#[test]
fn odd_argument_lists_are_read_as_the_kernel_reads_them() {
    if !may_run("odd-argv") {
        return;
    }
    let empty = [0_u64];
    for argv in [0, empty.as_ptr() as u64] {
        let text = read(path(), argv).unwrap();
        assert_eq!(text.path, b"/bin/true");
        assert_eq!(text.argv, [b""]);
    }
    // Strings and pointers that end with their page; pointers that are not aligned; empty words.
    let strings = Fenced::new(1);
    let word = strings.at_end(b"last\0");
    let list = Fenced::new(2);
    let blank = word + 4;
    let argv = list.at_end(&pointers(&[word, blank, word, 0]));
    let text = read(path(), argv).unwrap();
    assert_eq!(text.argv, [&b"last"[..], b"", b"last"]);
    let mut unaligned = vec![1, 2, 3];
    unaligned.extend(pointers(&[word, 0]));
    let argv = unaligned.as_ptr() as u64 + 3;
    assert_eq!(read(path(), argv).unwrap().argv, [b"last"]);
    // The pointers cross a page within one of them.
    let mut many = vec![word; 700];
    many.push(0);
    let mut bytes = pointers(&many);
    bytes.extend([0; 5]);
    let argv = list.at_end(&bytes);
    assert_eq!(read(path(), argv).unwrap().argv, vec![b"last"; 700]);
}

#[test]
fn pointers_that_lead_nowhere_are_faults() {
    if !may_run("faults") {
        return;
    }
    let fenced = Fenced::new(1);
    let open = fenced.at_end(b"no end");
    let list = Fenced::new(1);
    let unended = list.at_end(&pointers(&[path(), path()]));
    let bad = [open, 0];
    let wild = [
        1,
        8,
        open + 6,
        0x7fff_ffff_f000 - 8,
        0x8000_0000_0000,
        0xffff_8000_0000_0000,
        u64::MAX - 7,
        u64::MAX,
    ];
    for argv in [unended, bad.as_ptr() as u64].into_iter().chain(wild) {
        let error = read(path(), argv).unwrap_err();
        assert!(matches!(error, ReadError::Fault(_)), "{argv:#x} {error}");
        assert_eq!(error.errno(), libc::EFAULT);
    }
    for path in [0, open].into_iter().chain(wild) {
        let error = read(path, 0).unwrap_err();
        assert!(matches!(error, ReadError::Fault(_)), "{path:#x} {error}");
    }
    for word in wild {
        let argv = [path(), word, 0];
        let error = read(path(), argv.as_ptr() as u64).unwrap_err();
        assert!(matches!(error, ReadError::Fault(_)), "{word:#x} {error}");
    }
}

#[test]
fn lengths_end_where_the_kernels_do() {
    if !may_run("lengths") {
        return;
    }
    let string = |length: usize| CString::new(vec![b'x'; length]).unwrap();
    for (length, taken) in [(PAGE, true), (131_071, true), (131_072, false)] {
        let word = string(length);
        let argv = [path(), word.as_ptr() as u64, path(), 0];
        match read(path(), argv.as_ptr() as u64) {
            Ok(text) => {
                assert!(taken);
                assert_eq!(text.argv[1].len(), length);
                assert_eq!(text.argv[2], b"/bin/true");
            }
            Err(error) => assert!(!taken && error.errno() == libc::E2BIG, "{length} {error}"),
        }
    }
    for (length, taken) in [(4095, true), (4096, false)] {
        let path = string(length);
        let text = read(path.as_ptr() as u64, 0);
        assert_eq!(text.is_ok(), taken, "{length}");
        if let Err(error) = text {
            assert_eq!(error.errno(), libc::ENAMETOOLONG);
        }
    }
    // Many words: in order, and up to 6 MiB of them with their pointers.
    let words: Vec<CString> = (0..50_000)
        .map(|number| CString::new(format!("word {number}")).unwrap())
        .collect();
    let mut argv: Vec<u64> = words.iter().map(|word| word.as_ptr() as u64).collect();
    argv.push(0);
    let text = read(path(), argv.as_ptr() as u64).unwrap();
    assert!(text.argv.iter().zip(&words).all(|(a, b)| a == b.as_bytes()));
    assert_eq!(text.argv.len(), words.len());
    let word = string(100_000);
    for (count, taken) in [(62, true), (63, false)] {
        let mut argv = vec![word.as_ptr() as u64; count];
        argv.push(0);
        let text = read(path(), argv.as_ptr() as u64);
        assert_eq!(text.is_ok(), taken, "{count}");
    }
    // A list without an end.
    let endless = vec![word.as_ptr() as u64 + 100_000; 1 << 20];
    let error = read(path(), endless.as_ptr() as u64).unwrap_err();
    assert!(matches!(error, ReadError::TooLong), "{error}");
}

#[test]
fn arguments_that_vanish_while_they_are_read_are_faults() {
    if !may_run("racing-unmap") {
        return;
    }
    let stop = AtomicBool::new(false);
    let pages = 16;
    let fenced = Fenced::new(pages);
    let mut list = pointers(&vec![path(); pages * 500]);
    list.extend([0; 8]);
    let argv = fenced.at_end(&list);
    let middle = fenced.0 as u64 + (pages / 2 * PAGE) as u64;
    let (whole, faults) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for protection in [libc::PROT_NONE, libc::PROT_READ | libc::PROT_WRITE] {
                    // SAFETY: pages of our own mapping, which nothing but the supervisor reads meanwhile.
                    unsafe { libc::mprotect(middle as *mut _, PAGE, protection) };
                    std::thread::yield_now();
                }
            }
        });
        let ((), counts) = supervised(
            EXEC,
            || {
                for _ in 0..200 {
                    execve(path(), argv);
                }
            },
            |listener| {
                let mut counts = (0, 0);
                while let Some(stopped) = listener.recv().unwrap() {
                    let NotifiedCall::Exec(call) = stopped.call else {
                        panic!("{stopped:?}")
                    };
                    match exec_text(stopped.tid, &call) {
                        Ok(text) => {
                            assert_eq!(text.argv.len(), pages * 500);
                            counts.0 += 1;
                        }
                        Err(ReadError::Fault(at)) => {
                            assert_eq!(at & !(PAGE as u64 - 1), middle);
                            counts.1 += 1;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    listener.refuse(stopped.id, libc::EPERM).unwrap();
                }
                counts
            },
        );
        stop.store(true, Ordering::Relaxed);
        counts
    });
    assert_eq!(whole + faults, 200);
    assert!(faults > 0, "nothing raced");
}

#[test]
fn a_caller_that_is_gone_cannot_be_read() {
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let call = ExecCall {
        dirfd: libc::AT_FDCWD,
        path: path(),
        argv: 0,
        flags: 0,
    };
    let error = exec_text(pid, &call).unwrap_err();
    assert!(matches!(error, ReadError::Gone), "{error}");
    assert!(who(pid).is_err() && command_line(pid).is_err());
}

#[test]
fn addresses_of_sockets_have_the_kernels_lengths() {
    if !may_run("addresses") {
        return;
    }
    let fenced = Fenced::new(1);
    let address = fenced.at_end(b"0123456789abcdef");
    let calls = Notified {
        connect: true,
        ..Notified::default()
    };
    for (length, expected) in [(16_u32, Ok(16)), (0, Ok(0)), (17, Err(14)), (129, Err(22))] {
        let (_, read) = supervised(
            calls,
            // SAFETY: the call is refused before the kernel reads anything.
            || unsafe { libc::syscall(libc::SYS_connect, 0, address, length) },
            |listener| {
                let stopped = listener.recv().unwrap().unwrap();
                let NotifiedCall::Connect(call) = stopped.call else {
                    panic!("{stopped:?}")
                };
                let read = socket_address(stopped.tid, &call);
                listener.refuse(stopped.id, libc::EPERM).unwrap();
                read
            },
        );
        match read {
            Ok(bytes) => assert_eq!(Ok(bytes.len()), expected),
            Err(error) => assert_eq!(Err(error.errno()), expected),
        }
    }
}

#[test]
fn a_thread_says_whose_it_is() {
    let (tid, me) = std::thread::spawn(|| {
        let tid = nix::unistd::gettid().as_raw().unsigned_abs();
        (tid, who(tid).unwrap())
    })
    .join()
    .unwrap();
    assert_eq!(me.tgid, std::process::id());
    assert_ne!(tid, me.tgid);
    assert_eq!(me.ppid, nix::unistd::getppid().as_raw().unsigned_abs());
    assert_eq!(me.uid, nix::unistd::getuid().as_raw());
    let own = command_line(std::process::id()).unwrap();
    assert!(own.contains("enforcer") && !own.contains('\0'), "{own}");
    // Below this process: a shell, and what it started.
    let mut shell = std::process::Command::new("/bin/sh")
        .args(["-c", "sleep 61 & echo $!; wait"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = shell.stdout.take().unwrap();
    io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).unwrap();
    let sleep: u32 = line.trim().parse().unwrap();
    let parents = ancestors(sleep);
    assert_eq!(parents.len(), 1);
    assert_eq!(parents[0].pid, shell.id());
    assert!(parents[0].command.starts_with("/bin/sh -c sleep"));
    for pid in [sleep, shell.id()] {
        // SAFETY: numbers only; both are our own and have not been reaped.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
    shell.wait().unwrap();
}

//! Attacks on what waits for a person: `asks MODE …`. Files in the working directory are signs: it waits for `go`, and
//! makes `swapped` when it has done its deed.
//!
//! * `word|argv|path PROGRAM OTHER`: a thread changes the argument, the pointer to it, or the path to OTHER while the
//!   exec of PROGRAM waits.
//! * `chdir PROGRAM DIRECTORY`: a thread changes the working directory meanwhile.
//! * `answer SOCKET LINE`: writes a line to a socket and prints what comes back.
//! * `flood SOCKET`: many connections, with garbage, kept open until `end` is there.
//! * `many PROGRAM COUNT`: so many processes exec PROGRAM, each with a number of its own; prints how they ended.
//! * `storm PROGRAM`: execs as fast as it can until an exec fails with ENOSYS; prints how they ended.
//! * `signals PROGRAM SIGNAL…`: execs PROGRAM in a child while these signals arrive there, which have handlers.
//! * `unix PATH`: connects to a unix socket.
//! * `spawn PROGRAM [SIGNAL…]`: starts PROGRAM as most languages do (`vfork`), makes `spawned` when the call returns, sends
//!   the signals to the child when it sees `go`, makes `sent`, and prints how it ended.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    collections::BTreeMap,
    env,
    ffi::{CString, OsString},
    fs::{self, File},
    io::{Read, Write},
    os::unix::{ffi::OsStringExt, net::UnixStream},
    path::Path,
    process::exit,
    ptr,
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use libc::c_char;

/// When it gives up.
const LONG: Duration = Duration::from_secs(200);

fn text(word: OsString) -> CString {
    CString::new(word.into_vec()).expect("no NUL")
}

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

fn wait_for(sign: &str) {
    let start = Instant::now();
    while !Path::new(sign).exists() {
        if start.elapsed() > LONG {
            exit(124);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The words of the exec: argument, pointers, path; what a thread writes to while it waits.
struct Memory {
    path: *mut u8,
    word: *mut u8,
    argv: *mut *const c_char,
}
unsafe impl Send for Memory {}

impl Memory {
    fn new(path: &CString, word: &CString) -> Self {
        let place = |text: &CString| {
            // Room for a longer one.
            let mut bytes = text.as_bytes_with_nul().to_vec();
            bytes.resize(4096, 0);
            bytes.leak().as_mut_ptr()
        };
        let (path, word) = (place(path), place(word));
        let argv = vec![c"asks".as_ptr(), word.cast_const().cast(), ptr::null()];
        Self {
            path,
            word,
            argv: argv.leak().as_mut_ptr(),
        }
    }

    fn exec(&self) -> i32 {
        let environment = environment();
        unsafe { libc::execve(self.path.cast(), self.argv, environment.as_ptr()) };
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }
}

fn overwrite(place: *mut u8, text: &CString) {
    let bytes = text.as_bytes_with_nul();
    unsafe { ptr::copy(bytes.as_ptr(), place, bytes.len()) };
}

fn swap(mode: String, program: &CString, other: CString) -> i32 {
    let memory = Memory::new(program, &c"fine".to_owned());
    let theirs = Memory { ..memory };
    thread::spawn(move || {
        let Memory { path, word, argv } = { theirs };
        wait_for("go");
        match mode.as_str() {
            "word" => overwrite(word, &other),
            "argv" => unsafe { argv.add(1).write_volatile(other.into_raw().cast_const()) },
            "path" => overwrite(path, &other),
            // Threads share the directory.
            "chdir" => assert_eq!(unsafe { libc::chdir(other.as_ptr()) }, 0, "chdir"),
            mode => panic!("no such mode: {mode}"),
        }
        // By its whole name: the directory may be another.
        let sign = env::var_os("SWAPPED").expect("SWAPPED");
        File::create(sign).expect("a sign");
    });
    memory.exec()
}

fn answer(socket: &OsString, line: &OsString) -> i32 {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => {
            println!("connect {}", error.raw_os_error().unwrap_or(0));
            return 1;
        }
    };
    let mut bytes = line.clone().into_vec();
    bytes.push(b'\n');
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    println!("{}", reply.trim());
    0
}

fn flood(socket: &OsString) {
    let mut kept = Vec::new();
    for round in 0..200 {
        let Ok(mut stream) = UnixStream::connect(socket) else {
            continue;
        };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let _ = match round % 5 {
            0 => stream.write_all(&[0xff; 4096]),
            1 => stream.write_all(b"{\"op\":\"answer\",\n\n\n{}[]\0\n"),
            2 => stream.write_all(&vec![b'x'; 256 * 1024]),
            3 => stream.write_all("[".repeat(60_000).as_bytes()),
            _ => Ok(()),
        };
        kept.push(stream);
    }
    File::create("flooded").expect("a sign");
    wait_for("end");
}

fn many(program: &CString, count: u32) {
    let environment = environment();
    let mut outcomes: BTreeMap<i32, u32> = BTreeMap::new();
    for number in 0..count {
        let word = CString::new(number.to_string()).expect("no NUL");
        let argv = [program.as_ptr(), word.as_ptr(), ptr::null()];
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            unsafe {
                libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr());
                libc::_exit(126);
            }
        }
        assert!(pid > 0, "fork");
    }
    for _ in 0..count {
        *outcomes.entry(ended(-1)).or_default() += 1;
    }
    for (code, count) in outcomes {
        println!("{code} {count}");
    }
}

/// The exit status of a child, 128 + signal when it was killed.
fn ended(pid: i32) -> i32 {
    let mut status = 0;
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waitpid: {error}");
    }
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

fn storm(program: &CString) {
    let environment = environment();
    let argv = [program.as_ptr(), c"storm".as_ptr(), ptr::null()];
    let mut outcomes: BTreeMap<i32, u32> = BTreeMap::new();
    let start = Instant::now();
    while outcomes.get(&libc::ENOSYS).is_none_or(|count| *count < 20) && start.elapsed() < LONG {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            unsafe {
                libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr());
                libc::_exit(*libc::__errno_location());
            }
        }
        assert!(pid > 0, "fork");
        *outcomes.entry(ended(pid)).or_default() += 1;
    }
    for (code, count) in outcomes {
        println!("{code} {count}");
    }
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// An exec that waits while handled signals arrive, without `SA_RESTART`.
fn signals(program: &CString, signals: &[i32]) {
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(i32) as usize;
        for signal in signals {
            assert_eq!(
                libc::sigaction(*signal, &raw const action, ptr::null_mut()),
                0
            );
        }
    }
    let environment = environment();
    let argv = [program.as_ptr(), c"signals".as_ptr(), ptr::null()];
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        unsafe {
            // A child of its own that ends while it waits.
            if libc::fork() == 0 {
                libc::usleep(300_000);
                libc::_exit(0);
            }
            libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr());
            let errno = *libc::__errno_location();
            libc::_exit(if HANDLED.load(Ordering::Relaxed) > 0 {
                errno
            } else {
                99
            });
        }
    }
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(10));
        for signal in signals {
            unsafe { libc::kill(pid, *signal) };
        }
    }
    fs::write("signalled", "").expect("a sign");
    println!("status {}", ended(pid));
}

/// Starts a program by `posix_spawn`, which returns when the exec is done.
fn spawn(program: &OsString, signals: &[i32]) {
    let mut child = std::process::Command::new(program)
        .arg("spawn")
        .spawn()
        .expect("a child");
    fs::write("spawned", "").expect("a sign");
    if !signals.is_empty() {
        wait_for("go");
        let pid = i32::try_from(child.id()).expect("a pid");
        for signal in signals {
            unsafe { libc::kill(pid, *signal) };
        }
        fs::write("sent", "").expect("a sign");
    }
    let status = child.wait().expect("an end");
    let code = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    println!("status {}", code.or(status.code()).expect("a status"));
}

fn numbers(words: &[OsString]) -> Vec<i32> {
    words
        .iter()
        .map(|word| {
            let number = word.to_str().and_then(|word| word.parse().ok());
            number.expect("a number")
        })
        .collect()
}

fn main() {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let mode = words[0].to_str().expect("a mode").to_owned();
    let word = |index: usize| text(words[index].clone());
    match mode.as_str() {
        "answer" => exit(answer(&words[1], &words[2])),
        "flood" => flood(&words[1]),
        "many" => many(
            &word(1),
            word(2)
                .to_str()
                .expect("a number")
                .parse()
                .expect("a number"),
        ),
        "storm" => storm(&word(1)),
        "signals" => signals(&word(1), &numbers(&words[2..])),
        "spawn" => spawn(&words[1], &numbers(&words[2..])),
        "unix" => match UnixStream::connect(&words[1]) {
            Ok(_) => println!("0 ok"),
            Err(error) => {
                println!("1 connect: {}", error.raw_os_error().unwrap_or(0));
                exit(1);
            }
        },
        _ => {
            let errno = swap(mode, &word(1), word(2));
            println!("errno {errno}");
            exit(126);
        }
    }
}

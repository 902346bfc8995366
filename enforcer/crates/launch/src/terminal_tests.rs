//! The launcher on a real terminal: this test binary starts itself as the launcher on a pseudo-terminal.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;

use super::*;
use crate::rig::{PATIENCE, Rig};
use crate::{CgroupRoot, Signals, spawn};

/// Where the launcher finds the agent's command, one word a line.
const WORDS: &str = "ENFORCER_TEST_WORDS";
/// The name of the launcher's cgroup.
const NAME: &str = "ENFORCER_TEST_NAME";
/// Set once the signals are blocked for all threads of the launcher.
const BLOCKED: &str = "ENFORCER_TEST_BLOCKED";
const SELF: &str = "child::tests::launcher";
/// Time for what nothing on the terminal tells of: a stop to be over, or a shell to give the foreground away.
const SETTLE: Duration = Duration::from_millis(300);
/// Reports whether it has the foreground, then waits for Ctrl-C. One process, no shell: a key that comes while a shell is
/// between its vfork and the exec of `sleep` finds the shell's handler in the child, and nobody says that it came.
const WAITS_FOR_INTERRUPT: [&str; 3] = [
    "/usr/bin/perl",
    "-e",
    "$| = 1; $SIG{INT} = sub { print 'g', \"ot\\n\"; exit 3 }; open F, '<', '/proc/self/stat'; \
     my @f = split ' ', <F>; print 'in', \"front\\n\" if $f[4] == $$ && $f[7] == $$; print 'rea', \"dy\\n\"; \
     select(undef, undef, undef, 0.1) for 1..10_000; exit 9",
];

/// Not a test of its own: the launcher with its event loop, in a process of its own.
#[test]
#[ignore = "the other tests start it on a terminal"]
fn launcher() {
    let words = std::env::var(WORDS).unwrap();
    let words: Vec<&str> = words.split('\x1f').collect();
    let signals = Signals::block().unwrap();
    if std::env::var_os(BLOCKED).is_none() {
        // The test harness has a thread already that does not block them. A new image takes the mask of
        // this thread for all its threads.
        let this = std::env::current_exe().unwrap();
        let error = Command::new(this)
            .args(std::env::args_os().skip(1))
            .env(BLOCKED, "1")
            .exec();
        panic!("{error}");
    }
    let rig = Rig::new(&std::env::var(NAME).unwrap(), "nobody").unwrap();
    let mut child = spawn(&rig.plan(&words))
        .unwrap()
        .go(Terminal::detect())
        .unwrap();
    let ended = loop {
        let mut ready = [
            PollFd::new(signals.fd(), PollFlags::POLLIN),
            PollFd::new(child.pidfd(), PollFlags::POLLIN),
        ];
        poll(&mut ready, PollTimeout::NONE).unwrap();
        while let Some(received) = signals.next().unwrap() {
            child.on_signal(received);
        }
        if let Some(ended) = child.on_change().unwrap() {
            break ended;
        }
    };
    drop((child, rig));
    std::process::exit(ended.code().into());
}

/// Numbers the sessions.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A program on a terminal of its own.
struct Session {
    master: std::fs::File,
    _slave: OwnedFd,
    seen: Arc<Mutex<String>>,
    process: std::process::Child,
    name: String,
}

impl Session {
    /// `shell` is the command line of a shell in which `LAUNCH` stands for the launcher; none: the launcher
    /// leads the session.
    fn start(shell: Option<&[&str]>, words: &[&str]) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let name = format!(
            "pty-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let launcher = std::env::current_exe().unwrap();
        let arguments = [
            "--exact",
            SELF,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
            "-q",
        ];
        let line = format!("{} {}", launcher.display(), arguments.join(" "));
        let mut command = match shell {
            None => {
                let mut command = Command::new(&launcher);
                command.args(arguments);
                command
            }
            Some(words) => {
                let mut command = Command::new(words[0]);
                command.args(words[1..].iter().map(|word| word.replace("LAUNCH", &line)));
                command
            }
        };
        let pty = openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        command
            .env(WORDS, words.join("\x1f"))
            .env(NAME, &name)
            .env("LAUNCH", &line)
            .env("PS1", "$ ")
            .stdin(end())
            .stdout(end())
            .stderr(end());
        // SAFETY: both calls are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let process = command.spawn().unwrap();
        let master = std::fs::File::from(pty.master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, sink) = (master.try_clone().unwrap(), Arc::clone(&seen));
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Some(Self {
            master,
            _slave: pty.slave,
            seen,
            process,
            name,
        })
    }

    fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the terminal has shown a text, and forgets all up to its end.
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let mut seen = self.seen.lock().unwrap();
                if let Some(at) = seen.find(text) {
                    seen.drain(..at + text.len());
                    return;
                }
                assert!(Instant::now() < deadline, "no `{text}` in: {seen}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            let seen = self.seen.lock().unwrap().clone();
            assert!(Instant::now() < deadline, "it does not end: {seen}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Only after a failure there is something to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for left in CgroupRoot::find().unwrap().list_existing().unwrap() {
            if left.name().starts_with(&format!("test-{}-", self.name)) {
                left.kill_all(PATIENCE).unwrap();
                left.remove().unwrap();
            }
        }
    }
}

#[test]
fn the_agent_gets_the_foreground_and_its_keys() {
    let Some(mut session) = Session::start(None, &WAITS_FOR_INTERRUPT) else {
        return;
    };
    session.expect("infront");
    session.expect("ready");
    session.send("\x03");
    session.expect("got");
    assert_eq!(session.end(), Some(3));
}

#[test]
fn a_stop_that_nobody_could_undo_does_not_hang() {
    let Some(mut session) = Session::start(None, &WAITS_FOR_INTERRUPT) else {
        return;
    };
    session.expect("ready");
    session.send("\x1a");
    // Nothing is to be seen of a stop that is undone at once.
    thread::sleep(SETTLE);
    session.send("\x03");
    session.expect("got");
    assert_eq!(session.end(), Some(3));
}

#[test]
fn the_operators_shell_stops_and_continues_the_agent() {
    let shell = ["bash", "--norc", "--noprofile", "-i"];
    let Some(mut session) = Session::start(Some(&shell), &WAITS_FOR_INTERRUPT) else {
        return;
    };
    session.send("$LAUNCH\n");
    session.expect("infront");
    session.expect("ready");
    for _ in 0..2 {
        session.send("\x1a");
        session.expect("Stopped");
        session.send("echo ba''ck\n");
        session.expect("back");
        session.send("fg\n");
        // The line that `fg` prints is the job's.
        session.expect("$LAUNCH");
        // Not before shell and launcher have given the foreground to the agent.
        thread::sleep(SETTLE);
    }
    session.send("\x03");
    session.expect("got");
    session.send("echo en''d=$?\n");
    session.expect("end=3");
    session.send("exit\n");
    session.end();
}

#[test]
fn an_interactive_shell_in_the_agent_does_job_control() {
    let words = ["bash", "--norc", "--noprofile", "-i"];
    let Some(mut session) = Session::start(None, &words) else {
        return;
    };
    session.expect("$ ");
    session.send("echo sta''rt; sleep 1000\n");
    session.expect("start");
    // Not before the shell has given the foreground to `sleep`.
    thread::sleep(SETTLE);
    session.send("\x1a");
    session.expect("Stopped");
    session.send("kill -9 %1; exit 5\n");
    // A shell with a job left asks once more.
    thread::sleep(SETTLE);
    let _ = session.master.write_all(b"exit 5\n");
    assert_eq!(session.end(), Some(5));
}

#[test]
fn settings_of_the_terminal_are_put_back() {
    let shell = [
        "bash",
        "-c",
        "LAUNCH; stty -a | tr ' ;' '\\n\\n' | grep -x -e -*echo -e -*icanon",
    ];
    let words = [
        "/bin/sh",
        "-c",
        "stty raw -echo; stty -a | grep -o -e -echo; kill -9 $$",
    ];
    let Some(mut session) = Session::start(Some(&shell), &words) else {
        return;
    };
    session.expect("-echo");
    session.end();
    thread::sleep(Duration::from_millis(50));
    let seen = session.seen.lock().unwrap().clone();
    let after: Vec<&str> = seen.split_whitespace().collect();
    assert!(
        after.contains(&"echo") && after.contains(&"icanon"),
        "{after:?}"
    );
}

#[test]
fn in_a_pipeline_the_agent_shares_the_group_and_is_signalled_once() {
    let shell = ["bash", "-c", "sleep 1000 | LAUNCH; echo sta''tus=$?"];
    // Perl counts: a shell takes two signals in quick succession for one.
    let script = "$| = 1; my $n = 0; $SIG{INT} = sub { $n++ }; open F, '<', '/proc/self/stat'; \
                  my @f = split ' ', <F>; print 'in', \"front\\n\" if $f[4] == $f[7]; print 'rea', \"dy\\n\"; \
                  select(undef, undef, undef, 0.1) for 1..10; print 'int', \"errupts\\n\"; exit 3 + $n";
    let Some(mut session) = Session::start(Some(&shell), &["/usr/bin/perl", "-e", script]) else {
        return;
    };
    session.expect("infront");
    session.expect("ready");
    session.send("\x03");
    session.expect("interrupts");
    session.expect("status=4");
    session.end();
}

//! An interactive `bash` on a pseudo-terminal.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{Session, Trail, enforcer, left_over, patience, root};
use nix::{
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};

use crate::observe::policy;

/// A person at a terminal.
struct Person {
    child: Child,
    keys: File,
    shown: String,
    screen: Receiver<Vec<u8>>,
    /// The terminal itself, to look at its settings.
    tty: OwnedFd,
}

impl Person {
    /// Starts a command as the leader of a session that has a terminal of its own.
    fn sits_down(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: 40,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: setsid and ioctl are async-signal-safe; standard input is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let mut reader = File::from(pty.master.try_clone().unwrap());
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal's other end is closed: an error.
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keys: pty.master.into(),
            shown: String::new(),
            screen,
            tty: pty.slave,
        }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown this since the last time it was waited for.
    fn sees(&mut self, what: &str) {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(at) = self.shown.find(what) {
                self.shown.drain(..at + what.len());
                return;
            }
            match self.screen.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => {
                    let _ = self.child.kill();
                    panic!("{what:?} is not shown; shown is {:?}", self.shown);
                }
            }
        }
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.tty)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ECHO | LocalFlags::ICANON)
    }

    fn ends(mut self) -> i32 {
        let deadline = Instant::now() + patience();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("it does not end; shown is {:?}", self.shown);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn bash(session: &Session, agent: &str) -> Command {
    let mut command = enforcer();
    command
        .args(["run", "-q", "--agent", agent, "--policy"])
        .arg(session.policy())
        .arg("--audit")
        .arg(session.directory().join("t.jsonl"))
        .args(["--user", &session.uid().to_string()])
        .args(["--", "bash", "--norc", "--noprofile", "-i"])
        .current_dir(session.work())
        .env("PS1", "ready> ")
        .env("TERM", "dumb")
        .env("HOME", session.work());
    command
}

#[test]
fn an_interactive_shell_behaves() {
    if !root() {
        return;
    }
    let session = Session::new(&policy("coding-agent.json"));
    let agent = format!("tty{}", std::process::id());
    let mut person = Person::sits_down(bash(&session, &agent));
    assert!(person.tty.as_raw_fd() > 2);
    person.sees("ready> ");
    // No complaint that there is no job control.
    assert!(!person.shown.contains("no job control"), "{}", person.shown);
    person.types("echo $((6*7)); stty size; tty\n");
    person.sees("42");
    person.sees("40 200");
    person.sees("/dev/pts/");
    person.sees("ready> ");

    // Ctrl-C ends the sleep, not the shell, and not us.
    person.types("sleep 1000\n");
    thread::sleep(Duration::from_millis(500));
    person.types("\x03");
    person.sees("ready> ");
    person.types("echo status=$?\n");
    person.sees("status=130");
    person.sees("ready> ");

    // Ctrl-Z stops the job; bg and fg move it on.
    person.types("sleep 1000\n");
    thread::sleep(Duration::from_millis(500));
    person.types("\x1a");
    person.sees("Stopped");
    person.sees("ready> ");
    person.types("jobs; bg; jobs\n");
    person.sees("Running");
    person.types("fg\n");
    person.sees("sleep 1000");
    thread::sleep(Duration::from_millis(500));
    person.types("\x03");
    person.sees("ready> ");
    person.types("sleep 0.2 & wait; echo waited=$?\n");
    person.sees("waited=0");

    // A pipeline, and what is denied there.
    person.types(": >f; chmod u+s f | cat; echo pipe=${PIPESTATUS[0]}\n");
    person.sees(match session.denial() {
        enforcer_tests::Denial::Errno => "pipe=126",
        enforcer_tests::Denial::Killed => "pipe=137",
    });
    person.types("exit 23\n");
    let status = {
        let tty = person.tty.try_clone().unwrap();
        let status = person.ends();
        // As it was before us.
        assert!(
            tcgetattr(&tty)
                .unwrap()
                .local_flags
                .contains(LocalFlags::ECHO | LocalFlags::ICANON)
        );
        status
    };
    assert_eq!(status, 23);
    assert_eq!(left_over(&agent).len(), 0);
    let trail = Trail::read(&session.directory().join("t.jsonl"));
    trail.assert_whole();
    let commands: Vec<_> = trail.execs().map(enforcer_tests::Line::command).collect();
    for expected in [
        "bash --norc --noprofile -i",
        "stty size",
        "tty",
        "sleep 1000",
        "sleep 1000",
        "sleep 0.2",
        "chmod u+s f",
        "cat",
    ] {
        assert!(commands.contains(&expected), "{expected}: {commands:?}");
    }
    assert_eq!(commands.len(), 8, "{commands:?}");
}

#[test]
fn a_program_that_dies_leaves_the_terminal_as_it_was() {
    if !root() {
        return;
    }
    let session = Session::new(&policy("coding-agent.json"));
    let agent = format!("raw{}", std::process::id());
    let mut person = Person::sits_down(bash(&session, &agent));
    person.sees("ready> ");
    person.types("exec sh -c 'stty raw -echo; echo gone raw; kill -KILL $$'\n");
    person.sees("gone raw");
    let tty = person.tty.try_clone().unwrap();
    let echoes_now = person.echoes();
    let _ = echoes_now;
    assert_eq!(person.ends(), 137);
    assert!(
        tcgetattr(&tty)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ECHO | LocalFlags::ICANON),
        "the terminal stays raw"
    );
}

#[test]
fn a_terminal_that_goes_away_ends_the_tree() {
    if !root() {
        return;
    }
    let session = Session::new(&policy("coding-agent.json"));
    let agent = format!("hup{}", std::process::id());
    let mut person = Person::sits_down(bash(&session, &agent));
    person.sees("ready> ");
    person.types("sleep 1000 &\n");
    person.sees("ready> ");
    let Person {
        mut child,
        keys,
        screen,
        tty,
        ..
    } = person;
    // Closing the window: all descriptors of the terminal's other side.
    // The thread that reads the screen still holds one, so the signal is what is left. A shell that is just about
    // to wait for a key can miss it until the next one: it is told again.
    drop((keys, tty, screen));
    let deadline = Instant::now() + patience();
    let mut round = 0;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it stays");
        if round % 50 == 0 {
            // SAFETY: the pid is our child's, which has not been waited for.
            unsafe { libc::kill(child.id().cast_signed(), libc::SIGHUP) };
        }
        round += 1;
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left_over(&agent).len(), 0);
}

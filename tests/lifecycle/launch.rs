//! Launches that the harness's sessions do not cover: with pipes, another environment, or none of the usual options.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{Session, agent_user, cgroups, enforcer, left_over, open, patience};

/// One `enforcer run` in the files of a session.
pub struct Launch {
    pub command: Command,
    pub agent: String,
    pub trail: PathBuf,
}

/// A launch under the session's policy, as the unprivileged user.
pub fn launch(session: &Session) -> Launch {
    let mut launch = bare(session, &session.policy());
    launch.command.args(["--user", &agent_user().0.to_string()]);
    launch
}

/// A launch under another policy, without `--user`.
pub fn bare(session: &Session, policy: &Path) -> Launch {
    let agent = fresh_name();
    let trail = session.directory().join(format!("{agent}.jsonl"));
    let mut command = enforcer();
    command
        .arg("run")
        .arg("--policy")
        .arg(policy)
        .args(["--agent", &agent])
        .arg("--audit")
        .arg(&trail)
        .current_dir(session.work());
    Launch {
        command,
        agent,
        trail,
    }
}

/// A name that no other launch has.
pub fn fresh_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("l{}n{number}", std::process::id())
}

/// A session in which everything is allowed.
pub fn free() -> Session {
    Session::new(&open())
}

impl Launch {
    /// Runs a command to its end with this on its standard input; nothing may be left behind.
    pub fn feed(mut self, words: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command
            .arg("--")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = thread::spawn(move || pipe.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // The command need not read it all.
        let _ = writer.join().unwrap();
        let left = left_over(&self.agent);
        assert!(left.is_empty(), "left behind: {left:?}");
        output
    }

    /// Runs a command to its end.
    pub fn run(self, words: &[&str]) -> Output {
        self.feed(words, b"")
    }

    /// A start that must fail: this exit status, one message that holds all of `says`, and nothing left behind.
    pub fn refused(self, words: &[&str], status: i32, says: &[&str]) {
        let trail = self.trail.clone();
        let before = fs::symlink_metadata(&trail).is_ok();
        let output = self.run(words);
        refusal(&output, status, says);
        assert_eq!(output.stdout, b"", "the command ran");
        assert_eq!(
            fs::symlink_metadata(&trail).is_ok(),
            before,
            "the trail {} was left behind",
            trail.display()
        );
    }
}

/// Checks a refusal's exit status and its one message.
pub fn refusal(output: &Output, status: i32, says: &[&str]) {
    let stderr = own(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "not one message: {stderr}");
    for part in says {
        assert!(stderr.contains(part), "no {part:?} in: {stderr}");
    }
    assert!(stderr.starts_with("enforcer: "), "{stderr}");
    // What, then the mend behind a semicolon or a colon; the system's words are not told twice.
    for cause in stderr
        .trim_end()
        .split(": ")
        .filter(|c| c.contains("os error"))
    {
        let cause = cause.split("; ").next().unwrap();
        assert_eq!(stderr.matches(cause).count(), 1, "told twice: {stderr}");
    }
}

/// The common directory of the agents' cgroups goes with the last agent.
pub fn no_empty_parent() {
    let deadline = Instant::now() + patience();
    let parent = cgroups();
    loop {
        let empty = fs::read_dir(&parent).is_ok_and(|mut entries| {
            !entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            })
        });
        if !empty {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} stays, and is empty",
            parent.display()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What was printed, without what a start says of the agents that others have left behind.
pub fn own(bytes: &[u8]) -> String {
    text(bytes)
        .lines()
        .filter(|line| !line.starts_with("enforcer: left-over agent"))
        .map(|line| format!("{line}\n"))
        .collect()
}

//! What the launcher says, on a descriptor that it shares with the agent: nothing that becomes of it ends or holds up
//! what is enforced.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, pipe},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{Session, enforcer, left_over, open, patience, program, quick, root, skip};
use serde_json::json;

use crate::launch::{Launch, fresh_name, launch, text};

/// Three denials open the breaker, of which the launcher tells.
fn session() -> Session {
    let mut policy = open();
    policy["exec"]["rules"] = json!([{
        "id": "no-id", "decision": "deny", "argv": {"program": "id"}, "justification": "Nobody needs to know",
    }]);
    policy["breaker"] = json!({"denials": 3});
    Session::new(&policy)
}

/// Fills descriptor 2, is denied until the breaker is open and a while longer, and ends with 7. The first word says how
/// the descriptor is left.
const FILL: &str = r#"
import fcntl, os, subprocess, sys
old = fcntl.fcntl(2, fcntl.F_GETFL)
fcntl.fcntl(2, fcntl.F_SETFL, old | os.O_NONBLOCK)
try:
    while True:
        os.write(2, b"x" * 4096)
except OSError:
    pass
try:
    while True:
        os.write(2, b"x")
except OSError:
    pass
if sys.argv[1] == "blocking":
    fcntl.fcntl(2, fcntl.F_SETFL, old & ~os.O_NONBLOCK)
for _ in range(20):
    try:
        subprocess.run(["/usr/bin/id"], stderr=subprocess.DEVNULL)
    except PermissionError:
        pass
os._exit(7)
"#;

struct Started {
    launch: Launch,
    child: Child,
}

/// Starts `python3 -c SCRIPT WORD` with this standard error.
fn start(session: &Session, script: &str, word: &str, error: impl Into<Stdio>) -> Started {
    let mut launch = launch(session);
    launch.command.args(["--", "python3", "-c", script, word]);
    let child = launch
        .command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(error)
        .spawn()
        .unwrap();
    // The copy in the command must not keep the pipe open.
    launch.command.stderr(Stdio::null());
    Started { launch, child }
}

impl Started {
    /// Its exit status; nothing stays behind, and the trail has everything.
    fn ends(mut self, what: &str) -> Option<i32> {
        let deadline = Instant::now() + patience();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("{what}: the launcher hangs");
            }
            thread::sleep(Duration::from_millis(20));
        };
        let left = left_over(&self.launch.agent);
        assert!(left.is_empty(), "{what}: left behind: {left:?}");
        let trail = std::fs::read_to_string(&self.launch.trail).unwrap();
        assert_eq!(trail.matches("\"denial\"").count(), 20, "{what}");
        assert!(trail.contains("circuit_breaker_trip"), "{what}");
        status.code()
    }
}

fn python() -> bool {
    if !root() {
        return false;
    }
    if program("python3").is_none() {
        skip("no python3");
        return false;
    }
    true
}

fn a_pipe() -> (PipeReader, PipeWriter) {
    pipe().unwrap()
}

#[test]
fn a_full_standard_error_ends_and_holds_up_nothing() {
    if !python() {
        return;
    }
    let session = session();
    for word in ["non-blocking", "blocking"] {
        // Nobody reads it.
        let (reader, writer) = a_pipe();
        let started = start(&session, FILL, word, OwnedFd::from(writer));
        assert_eq!(started.ends(word), Some(7), "{word}");
        drop(reader);
    }
    // A reader that is gone.
    let (reader, writer) = a_pipe();
    drop(reader);
    let started = start(&session, FILL, "gone", OwnedFd::from(writer));
    assert_eq!(started.ends("gone"), Some(7));
    // A disk that is full.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let started = start(&session, FILL, "full", full);
    assert_eq!(started.ends("full"), Some(7));
}

#[test]
fn a_terminal_that_is_stopped_ends_and_holds_up_nothing() {
    if !python() {
        return;
    }
    // `script` has no way to stop its terminal: a pseudo-terminal whose other end nobody reads.
    let session = session();
    let open = nix::pty::openpty(None, None).unwrap();
    for word in ["non-blocking", "blocking"] {
        let slave = open.slave.try_clone().unwrap();
        let started = start(&session, FILL, word, slave);
        assert_eq!(started.ends(word), Some(7), "{word}");
    }
}

#[test]
fn closed_descriptors_end_nothing() {
    if !python() {
        return;
    }
    let session = session();
    let agent = fresh_name();
    let trail = session.directory().join(format!("{agent}.jsonl"));
    let output = Command::new("sh")
        .args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"])
        .arg(enforcer().get_program())
        .args([
            "run",
            "--agent",
            &agent,
            "--user",
            &session.uid().to_string(),
        ])
        .arg("--policy")
        .arg(session.policy())
        .arg("--audit")
        .arg(&trail)
        .args(["--", "sh", "-c", "for i in 1 2 3 4; do id; done; exit 7"])
        .current_dir(session.work())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(left_over(&agent).is_empty());
}

#[test]
fn commands_wait_for_a_reader_that_is_slow_and_end_with_one_that_is_gone() {
    if !python() {
        return;
    }
    let session = session();
    let trail = session.directory().join("long.jsonl");
    let line = "{\"timestamp\":\"2026-01-01T00:00:00+00:00\",\"event\":\"approval\",\"agent\":\"a\",\"tool\":\"exec\",\
                \"reason\":\"r\",\"parameters\":{\"command\":\"true\"}}\n";
    let count = quick(20_000, 5_000);
    std::fs::write(&trail, line.repeat(count)).unwrap();
    // A pipe that does not block: it is full long before the end.
    let slow = "import fcntl, os, subprocess, sys, time
r, w = os.pipe(); fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
p = subprocess.Popen(sys.argv[1:], stdout=w); os.close(w); time.sleep(0.5); n = 0
while b := os.read(r, 1 << 16): n += b.count(b'\\n')
print(n, p.wait())";
    let binary = enforcer().get_program().to_owned();
    let output = Command::new("python3")
        .args(["-c", slow])
        .arg(&binary)
        .args(["audit", "tail", "-n", "1000000"])
        .arg(&trail)
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stdout),
        format!("{count} 0\n"),
        "{}",
        text(&output.stderr)
    );
    for words in [
        "audit tail \"$T\"",
        "breaker status",
        "approvals list",
        "doctor",
        "policy schema",
    ] {
        let script = format!("{{ \"$E\" {words}; echo $? >&2; }} | :");
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("E", &binary)
            .env("T", &trail)
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(
            !said.contains("panicked") && !said.contains("101"),
            "{words}: {said}"
        );
    }
}

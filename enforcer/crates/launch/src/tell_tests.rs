use std::fs;
use std::time::{Duration, Instant};

use super::StderrNotifier;
use crate::rig::{PATIENCE, Rig};

fn notifier(rig: &Rig) -> StderrNotifier {
    StderrNotifier::start(&rig.identity, &rig.cgroup).unwrap()
}

#[test]
fn a_line_reaches_standard_error_or_the_parents() {
    let Some(rig) = Rig::new("tell", "nobody") else {
        return;
    };
    let notifier = notifier(&rig);
    let child = rig.start(&[
        "/bin/sh",
        "-c",
        "exec 2>err; echo ready > ready; while :; do sleep 0.05; done",
    ]);
    rig.wait_for("ready");
    let pid = child.pid().as_raw().unsigned_abs();
    assert!(notifier.tell(pid, None, "first", PATIENCE));
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    assert!(notifier.tell(dead.id(), Some(pid), "second", PATIENCE));
    assert!(!notifier.tell(dead.id(), None, "nobody", PATIENCE));
    // Two bytes a letter: cut between letters, and short enough for a pipe.
    assert!(notifier.tell(pid, None, &"ä".repeat(5000), PATIENCE));
    let text = rig.read("err");
    assert_eq!(text, format!("first\nsecond\n{}\n", "ä".repeat(2047)));
}

#[test]
fn processes_outside_the_agent_are_told_nothing() {
    let Some(rig) = Rig::new("tell-others", "nobody") else {
        return;
    };
    let err = fs::File::create(rig.place.path().join("err")).unwrap();
    let mut other = std::process::Command::new("sleep")
        .arg("60")
        .stderr(err)
        .spawn()
        .unwrap();
    assert!(!notifier(&rig).tell(other.id(), None, "line", PATIENCE));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(rig.read("err"), "");
}

#[test]
fn a_full_pipe_holds_nobody_up() {
    let Some(rig) = Rig::new("tell-full", "nobody") else {
        return;
    };
    let notifier = notifier(&rig);
    // A pipe that nobody reads, full; another process writes to a file.
    let full = rig.start(&[
        "/usr/bin/perl",
        "-e",
        "pipe(R, W); open STDERR, '>&', \\*W; use Fcntl; \
         fcntl(STDERR, F_SETFL, O_NONBLOCK); 1 while syswrite(STDERR, 'x' x 4096); \
         fcntl(STDERR, F_SETFL, 0); open F, '>', 'ready'; print F \"x\\n\"; close F; sleep 60",
    ]);
    let fine = rig.start(&["/bin/sh", "-c", "exec 2>err; echo x > fine; sleep 60"]);
    rig.wait_for("ready");
    rig.wait_for("fine");
    let start = Instant::now();
    let wait = Duration::from_millis(50);
    for _ in 0..3 {
        assert!(!notifier.tell(full.pid().as_raw().unsigned_abs(), None, "x", wait));
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(notifier.tell(fine.pid().as_raw().unsigned_abs(), None, "told", PATIENCE));
    assert_eq!(rig.read("err"), "told\n");
}

#[test]
fn the_kernel_takes_no_command_from_a_line() {
    let Some(rig) = Rig::new("tell-proc", "nobody") else {
        return;
    };
    let child = rig.start(&[
        "/bin/sh",
        "-c",
        "exec 2>/proc/self/oom_score_adj; echo x > ready; sleep 60",
    ]);
    rig.wait_for("ready");
    let pid = child.pid().as_raw().unsigned_abs();
    let file = format!("/proc/{pid}/oom_score_adj");
    let before = fs::read_to_string(&file).unwrap();
    assert!(!notifier(&rig).tell(pid, None, "-900", PATIENCE));
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

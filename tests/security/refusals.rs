//! What the seccomp filter refuses: written down where a supervisor runs, refused everywhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use enforcer_tests::{Ended, Line, Session, loosening, open, probe, root, shutting};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What is written down when it is refused, by group: the system call and its errno.
const RECORDED: [(&str, &str, i32); 5] = [
    ("terminal-input", "ioctl", libc::EPERM),
    ("ptrace", "ptrace", libc::EPERM),
    ("io-uring", "io_uring_setup", libc::EPERM),
    ("socket-families", "socket", libc::EAFNOSUPPORT),
    ("namespaces", "unshare", libc::EPERM),
];

/// Everything allowed but for a program that nobody starts: what asks has a supervisor on every kernel.
fn asking() -> Value {
    let mut policy = open();
    policy["exec"]["rules"] =
        json!([{"id": "asked", "decision": "ask", "argv": {"program": "nobody-starts-this"}}]);
    shutting(policy)
}

fn session() -> (Session, PathBuf) {
    let session = Session::new(&asking());
    let probe = session.place(probe!("refused"), "bin/refused");
    (session, probe)
}

fn run(session: &Session, probe: &Path, words: &[&str]) -> Ended {
    let mut command = vec![probe.as_os_str()];
    command.extend(words.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    session.run(command)
}

/// Names and errnos, one a line.
fn outcomes(text: &str) -> BTreeMap<String, i32> {
    text.lines()
        .map(|line| {
            let (name, errno) = line.split_once(' ').unwrap();
            (name.to_owned(), errno.parse().unwrap())
        })
        .collect()
}

fn refusals(ended: &Ended) -> Vec<&Line> {
    let lines = ended.trail.lines.iter();
    lines.filter(|line| line.is_syscall()).collect()
}

#[test]
fn what_is_refused_is_written_down() {
    if !root() {
        return;
    }
    let (as_user, probe) = session();
    let (as_root, its_probe) = session();
    for (session, probe) in [(as_user, probe), (as_root.as_root(), its_probe)] {
        let ended = run(&session, &probe, &["each"]);
        let errnos = outcomes(&ended.text());
        let lines = refusals(&ended);
        for (group, call, errno) in RECORDED {
            assert_eq!(errnos[group], errno, "{group}");
            let of: Vec<_> = lines
                .iter()
                .filter(|line| line.text("group") == group)
                .collect();
            let [line] = of[..] else {
                panic!("{group}: not one line in\n{}", ended.trail.shown());
            };
            assert!(line.denied());
            assert_eq!(line.text("syscall"), call);
            assert_eq!(line.rule(), format!("syscall:{group}"));
            assert_eq!(
                (line.text("decision"), line.text("verdict")),
                ("deny", "errno")
            );
            assert_eq!(line.text("stage"), "seccomp");
            assert_eq!(line.number("uid"), u64::from(session.uid()));
            assert!(line.number("pid") > 1 && line.number("cgroup") > 1);
            assert_eq!(line.number("left_out"), 0);
            assert!(line.reason().len() > 40, "{line:?}");
            let told = format!("enforcer: blocked: {call}: ");
            assert!(ended.stderr.contains(&told), "{}", ended.stderr);
        }
        assert_eq!(errnos["clone3"], libc::ENOSYS);
        assert_eq!(lines.len(), RECORDED.len(), "{}", ended.trail.shown());
    }
}

#[test]
fn a_flood_is_counted() {
    if !root() {
        return;
    }
    let (session, probe) = session();
    let ended = run(&session, &probe, &["flood", "500"]);
    let lines = refusals(&ended);
    let left_out: u64 = lines.iter().map(|line| line.number("left_out")).sum();
    assert_eq!(lines.len() as u64 + left_out, 502);
    // One at the start, one that counts, one at the end for the last one; one more a second that the flood takes.
    assert!((3..40).contains(&lines.len()), "{}", ended.trail.shown());
    assert!(lines[1].number("left_out") > 0);
    assert_eq!(outcomes(&ended.text())["terminal-input"], libc::EPERM);
}

#[test]
fn what_the_policy_allows_is_not_refused() {
    if !root() {
        return;
    }
    let (session, probe) = session();
    session.set_policy(&shutting(loosening(asking(), &["io-uring"])));
    let ended = run(&session, &probe, &["each"]);
    // What the kernel says to a null pointer.
    assert_ne!(outcomes(&ended.text())["io-uring"], libc::ENOSYS);
    let groups: Vec<_> = refusals(&ended)
        .iter()
        .map(|line| line.text("group").to_owned())
        .collect();
    assert!(!groups.contains(&"io-uring".to_owned()), "{groups:?}");
    assert_eq!(groups.len(), RECORDED.len() - 1);
}

#[test]
fn without_a_supervisor_the_same_is_refused() {
    if !root() {
        return;
    }
    let (session, probe) = session();
    let session = session.option("--keep");
    let ended = run(&session, &probe, &["each"]);
    let errnos = outcomes(&ended.text());
    for (group, _, errno) in RECORDED {
        assert_eq!(errnos[group], errno, "{group}");
    }
    assert_eq!(refusals(&ended).len(), 0, "{}", ended.trail.shown());
}

#[test]
fn when_the_launcher_is_killed_all_stays_refused() {
    if !root() {
        return;
    }
    let (session, probe) = session();
    let (ready, go) = (session.work().join("ready"), session.work().join("go"));
    let words = [probe.as_path(), "each".as_ref(), &ready, &go];
    let running = session.start(words);
    running.until("the probe waits", |_| ready.exists());
    let cgroup = running.cgroup().expect("the agent has a cgroup");
    running.signal(Signal::SIGKILL);
    running.until("the launcher is gone", |running| {
        fs::read_to_string(format!("/proc/{}/stat", running.pid()))
            .is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('Z'))
    });
    fs::write(&go, "").unwrap();
    running.until("the probe has ended", |_| {
        fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
    });
    let killed = running.wait_kept();
    let errnos = outcomes(&killed.text());
    for (group, _, _) in RECORDED {
        assert_eq!(errnos[group], libc::ENOSYS, "{group}: {errnos:?}");
    }
    // The next one takes down what is left.
    let next = Session::new(&open()).run(["/bin/true"]);
    assert_eq!(next.code(), 0, "{}", next.stderr);
    killed.await_taken_away();
}

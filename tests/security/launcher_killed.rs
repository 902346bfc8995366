//! The launcher is killed: its tree stays governed, what happened is written by the next one, nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{fs, net::TcpListener, path::PathBuf};

use enforcer_tests::{Level, Session, level, open, probe, root};
use nix::sys::signal::Signal;
use serde_json::json;

/// Waits for `go`, tries everything, says `done`, waits for `end`.
const SCRIPT: &str = "\
    echo >ready; while [ ! -e go ]; do sleep 0.05; done\n\
    $VICTIM orphan; echo \"victim $?\" >>result\n\
    setsid sh -c '$VICTIM orphan-session'; echo \"session $?\" >>result\n\
    $DIAL tcp 127.0.0.2 $PORT >/dev/null 2>&1; echo \"dial $?\" >>result\n\
    $DIAL tcp 127.0.0.1 $PORT >/dev/null 2>&1; echo \"reach $?\" >>result\n\
    $SHOUT fine; echo \"fine $?\" >>result\n\
    echo >done; while [ ! -e end ]; do sleep 0.05; done\n";

/// Killed when the test is over, however it ends.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

#[test]
fn a_tree_without_its_launcher_stays_governed() {
    if !root() {
        return;
    }
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let session = Session::new(&json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "forbidden", "decision": "deny", "argv": {"program": "forbidden"}}]},
        "connect": {"default": "allow", "rules": [
            {"id": "no-host", "decision": "deny", "hosts": ["127.0.0.2"]}]},
    }));
    // Supervised execs and connects would all fail without their supervisor, which says nothing of the kernel programs.
    let session = session.unsupervised();
    let work = session.work();
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let shout = session.place(probe!("shout"), "bin/shout");
    let dial = session.place(probe!("dial"), "bin/dial");
    let denial = session.denial();
    let session = session
        .variable("VICTIM", victim)
        .variable("SHOUT", shout)
        .variable("DIAL", dial)
        .variable("PORT", port.to_string())
        .variable("MARK", work.join("mark"));

    let running = session.start(["/bin/sh", "-c", SCRIPT]);
    running.until("the script waits", |_| work.join("ready").exists());
    let trail_path: PathBuf = running.trail_path().to_owned();
    let cgroup = running.cgroup().expect("the agent has a cgroup");
    // A test that fails must not leave a tree that waits for ever.
    let _tree = Tree(cgroup.clone());
    running.signal(Signal::SIGKILL);
    let killed = running.wait_kept();
    assert_eq!(killed.code(), 137);
    assert!(!killed.left_over().is_empty(), "nothing holds the tree");

    let wait = |name: &str| {
        let path = work.join(name);
        let deadline = std::time::Instant::now() + enforcer_tests::patience();
        while !path.exists() {
            assert!(std::time::Instant::now() < deadline, "no {name}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    fs::write(work.join("go"), "").unwrap();
    wait("done");
    let results = fs::read_to_string(work.join("result")).unwrap();
    // Where the supervisor sees connects, because of unix sockets, they fail without it.
    let reach = match level() {
        Level::Full => "reach 0",
        Level::Partial => "reach 1",
    };
    for wanted in ["dial 1", reach, "fine 0"] {
        assert!(
            results.lines().any(|line| line == wanted),
            "{wanted}: {results}"
        );
    }
    for way in ["victim", "session"] {
        let ended = [format!("{way} 137"), format!("{way} 126")];
        assert!(
            results.lines().any(|line| ended.iter().any(|e| e == line)),
            "{results}"
        );
    }
    let marks = fs::read(work.join("mark")).unwrap();
    assert_eq!(marks, b"g", "what really ran");

    // The next one writes what nobody has read, and leaves the tree alone as long as it lives.
    let next = Session::new(&open());
    let first = next.run(["/bin/true"]);
    assert_eq!(first.code(), 0, "{}", first.stderr);
    let trail = enforcer_tests::Trail::read(&trail_path);
    trail.assert_whole();
    for word in ["orphan", "orphan-session"] {
        let [line] = trail.denied_with_word(word)[..] else {
            panic!("{word}: not one denial in\n{}", trail.shown());
        };
        assert_eq!(line.rule(), "forbidden");
        line.assert_denied_exec(denial);
    }
    let connects = |denied| {
        let lines = trail.connects().filter(|line| line.denied() == denied);
        lines.count()
    };
    // Those that failed for want of the supervisor were not judged.
    let judged = match level() {
        Level::Full => (1, 1),
        Level::Partial => (0, 0),
    };
    assert_eq!((connects(true), connects(false)), judged);
    assert!(
        trail
            .execs()
            .any(|line| line.command().ends_with("shout fine") && !line.denied())
    );
    assert!(
        cgroup.exists() && !killed.left_over().is_empty(),
        "a living tree was taken down"
    );

    fs::write(work.join("end"), "").unwrap();
    let deadline = std::time::Instant::now() + enforcer_tests::patience();
    while !fs::read_to_string(cgroup.join("cgroup.procs"))
        .unwrap_or_default()
        .is_empty()
    {
        assert!(
            std::time::Instant::now() < deadline,
            "the tree does not end"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = next.run(["/bin/true"]);
    assert_eq!(second.code(), 0, "{}", second.stderr);
    killed.await_taken_away();
    enforcer_tests::Trail::read(&trail_path).assert_whole();
}

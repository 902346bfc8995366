//! The launcher is killed while execs wait and others are under way: nothing runs unjudged, what waited is denied.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{Session, Trail, open, patience, root};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::scene::{asking, marks, session};

/// Killed when the test is over, however it ends.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

const SCRIPT: &str = "\
    (exec $ASKS storm $FINE >storm-1) &\n\
    (exec $ASKS storm $FINE >storm-2) & (exec $ASKS storm $FINE >storm-3) &\n\
    (MARK=$PWD/asked-mark $ASKED first; echo first $? >held-1) &\n\
    (MARK=$PWD/asked-mark $ASKED second; echo second $? >held-2) &\n\
    wait; : >done\n";

fn await_in(directory: &Path, name: &str) {
    let deadline = Instant::now() + patience();
    while !directory.join(name).exists() {
        assert!(Instant::now() < deadline, "no {name}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How often each ending was counted in a storm.
fn endings(path: &Path) -> BTreeMap<i32, usize> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let (code, count) = line.split_once(' ').unwrap();
            (code.parse().unwrap(), count.parse().unwrap())
        })
        .collect()
}

#[test]
fn nothing_runs_unjudged_and_what_waited_is_denied() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let work = session.work();
    let running = session.start(["/bin/sh", "-c", SCRIPT]);
    let held = running.await_pending(2);
    let _tree = Tree(running.cgroup().unwrap());
    running.until("the storm rages", |_| marks(&session) > 50);
    let trail_path = running.trail_path().to_owned();
    running.signal(Signal::SIGKILL);
    let killed = running.wait_kept();
    assert_eq!(killed.code(), 137);

    // The storms end by ENOSYS alone, and so do those that waited.
    await_in(&work, "done");
    for name in ["held-1", "held-2"] {
        let text = fs::read_to_string(work.join(name)).unwrap();
        assert!(text.trim().ends_with(" 126"), "{text}");
    }
    assert!(!work.join("asked-mark").exists(), "what waited ran");
    let mut ran = 0;
    for name in ["storm-1", "storm-2", "storm-3"] {
        let endings = endings(&work.join(name));
        assert!(
            endings.keys().all(|code| [0, libc::ENOSYS].contains(code)),
            "{name}: {endings:?}"
        );
        assert!(endings[&libc::ENOSYS] >= 20, "{name}: {endings:?}");
        ran += endings[&0];
    }
    assert_eq!(marks(&session), ran);

    // The next run writes what nobody has read, and what nobody has answered.
    let next = Session::new(&open());
    let first = next.run(["/bin/true"]);
    assert_eq!(first.code(), 0, "{}", first.stderr);
    let trail = Trail::read(&trail_path);
    let fine: Vec<_> = trail
        .execs()
        .filter(|line| line.command().ends_with("fine storm"))
        .collect();
    assert!(fine.iter().all(|line| !line.denied()));
    assert_eq!(fine.len(), ran, "execs that ran and lines");
    for request in &held {
        let lines: Vec<_> = trail
            .lines
            .iter()
            .filter(|line| line.text("approval") == request.id())
            .collect();
        let [line] = lines[..] else {
            panic!("{}: {lines:?}\n{}", request.id(), trail.shown());
        };
        assert!(line.denied(), "{line:?}");
        assert_eq!(line.text("approval_state"), "denied", "{line:?}");
        assert!(line.reason().contains("ended before"), "{line:?}");
        assert_eq!(line.0["security_risk"], true, "{line:?}");
        assert_ne!(line.rule(), "", "{line:?}");
    }
    let requests = killed.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.state(), "denied", "{request:?}");
        assert!(request.text("answer_reason").contains("ended before"));
    }
    killed.await_taken_away();
}

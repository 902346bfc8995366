//! A run without its launcher: its breaker works, is closed by root, and the trail has it all.

use std::{fs, path::PathBuf};

use enforcer_tests::{Session, Trail, open, root};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::scene::{BY_RULE, OPEN, Scene, breaker, policy, status, times, told};

/// Killed when the test is over, however it ends.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

#[test]
fn a_run_that_is_left_behind_keeps_its_breaker() {
    if !root() {
        return;
    }
    let session = Session::new(&policy(&json!({"breaker": {"denials": 3}})));
    let scene = Scene::of(session.unsupervised());
    let running = scene.start(&[
        "sign ready",
        "await go",
        "exec F 1 3",
        "exec A 1 1",
        "sign open",
        "await again",
        "exec A 1 1",
        "sign done",
        "await end",
    ]);
    let work = scene.session.work();
    running.await_file(&work.join("ready"));
    let (agent, trail) = (running.agent().to_owned(), running.trail_path().to_owned());
    let cgroup = running.cgroup().unwrap();
    let tree = Tree(cgroup.clone());
    running.signal(Signal::SIGKILL);
    let killed = running.wait_kept();
    let wait = |name: &str| {
        let deadline = std::time::Instant::now() + enforcer_tests::patience();
        while !work.join(name).exists() {
            assert!(std::time::Instant::now() < deadline, "no {name}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    fs::write(work.join("go"), "").unwrap();
    wait("open");
    assert_eq!(status(&agent)["state"], "open");
    let reset = breaker(&["reset", &agent]);
    assert!(reset.status.success(), "{reset:?}");
    assert_eq!(status(&agent)["state"], "closed");
    fs::write(work.join("again"), "").unwrap();
    wait("done");
    assert!(!killed.left_over().is_empty());
    // The next run writes what nobody has read.
    let next = Session::new(&open());
    assert_eq!(next.run(["/bin/true"]).code(), 0);
    let text = fs::read_to_string(scene.session.directory().join("stdout-0")).unwrap();
    assert_eq!(text, "exec 0 3\nexec 0 1\nexec 1 0\n");
    let trail = Trail::read(&trail);
    let wanted = [times(3, BY_RULE), times(1, "trip 3"), times(1, OPEN)].concat();
    assert_eq!(told(&trail), wanted);
    let resets = trail
        .lines
        .iter()
        .filter(|line| line.0["tool"] == "breaker");
    assert_eq!(resets.count(), 1);
    drop(tree);
    let deadline = std::time::Instant::now() + enforcer_tests::patience();
    while fs::read_to_string(cgroup.join("cgroup.events"))
        .is_ok_and(|text| text.contains("populated 1"))
    {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(next.run(["/bin/true"]).code(), 0);
    killed.await_taken_away();
}

//! Claude Code alone: its sessions in the background.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::patience;

use crate::{agent::CLAUDE, scene::Scene};

/// Does nothing before the file is there; says in which cgroup it ran.
const ARMED: &str =
    "if [ -e ~/armed ]; then rm -rf ~/precious; fi; echo said: $(tail -1 /proc/self/cgroup)";
const BACKGROUND: &str = "claude --bg --permission-mode acceptEdits --allowedTools Bash -- x";

/// A scene with a daemon of Claude's that has done something, and does harm from now on.
fn armed() -> Scene {
    let scene = Scene::commands(&CLAUDE, &[ARMED]);
    let done = scene.sh(BACKGROUND);
    assert_eq!(done.code, 0, "{}", done.text);
    await_said(&scene, 1);
    assert!(scene.precious());
    scene.write("armed", "");
    scene.model.forget();
    scene
}

fn await_said(scene: &Scene, count: usize) {
    let deadline = Instant::now() + patience();
    while scene.said().len() < count {
        assert!(Instant::now() < deadline, "{:#?}", scene.model.told());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_daemon_outside_takes_no_orders_from_below_a_run() {
    let scene = armed();
    let ended = scene.governed(&["sh", "-c", &format!("{BACKGROUND}; sleep 8")]);
    assert!(
        scene.precious(),
        "{:#?}\n{}",
        scene.model.told(),
        ended.stderr
    );
    for place in scene.said() {
        assert!(place.contains("/enforcer/"), "it ran outside: {place}");
    }
    assert!(ended.trail.denials().count() > 0, "{}", ended.trail.shown());
}

#[test]
fn a_daemon_outside_obeys_who_is_outside() {
    let scene = armed();
    let done = scene.sh(BACKGROUND);
    assert_eq!(done.code, 0, "{}", done.text);
    await_said(&scene, 1);
    assert!(!scene.precious());
}

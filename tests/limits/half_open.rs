//! An open breaker that lets one process try after a while.

use std::time::Duration;

use enforcer_tests::{Trail, root};
use serde_json::json;

use crate::scene::{BY_RULE, OPEN, Scene, fine, policy, told};

fn at(trail: &Trail, position: usize) -> f64 {
    let text = trail.lines[position].0["timestamp"].as_str().unwrap();
    let time: jiff::Timestamp = text.parse().unwrap();
    time.as_microsecond() as f64 / 1e6
}

fn positions(trail: &Trail, is_it: impl Fn(&enforcer_tests::Line) -> bool) -> Vec<usize> {
    let lines = trail.lines.iter().enumerate();
    lines
        .filter(|(_, line)| is_it(line))
        .map(|(position, _)| position)
        .collect()
}

fn trips(trail: &Trail) -> Vec<usize> {
    positions(trail, |line| line.0["event"] == "circuit_breaker_trip")
}

#[test]
fn after_the_time_an_allowed_action_closes_it() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(
        &json!({"breaker": {"denials": 2, "half_open_after_s": 1}}),
    ));
    let ended = scene.run(&[
        "exec F 1 2",
        "until A",
        "exec A 1 3",
        "exec F 1 1",
        "exec A 1 1",
    ]);
    assert!(
        ended.text().ends_with("exec 3 0\nexec 0 1\nexec 1 0\n"),
        "{}",
        ended.text()
    );
    let trail = &ended.trail;
    let [trip] = trips(trail)[..] else {
        panic!("{}", trail.shown())
    };
    let allowed = positions(trail, |line| {
        !line.denied() && line.command().ends_with("/fine")
    });
    assert!(
        at(trail, allowed[0]) - at(trail, trip) >= 0.99,
        "{}",
        trail.shown()
    );
    assert_eq!(fine(trail), 5);
    let open = told(trail).iter().filter(|line| *line == OPEN).count();
    assert!(open > 0);
    // What is denied when it is closed again is one denial, not a row of three.
    assert_eq!(told(trail).last().unwrap(), BY_RULE);
}

#[test]
fn a_denied_trial_opens_it_again() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(
        &json!({"breaker": {"denials": 2, "half_open_after_s": 1}}),
    ));
    let running = scene.start(&[
        "exec F 1 2",
        "sign open",
        "await go",
        "exec F 1 1",
        "exec A 1 1",
    ]);
    running.await_file(&scene.session.work().join("open"));
    std::thread::sleep(Duration::from_millis(1_100));
    std::fs::write(scene.session.work().join("go"), "").unwrap();
    let ended = running.wait();
    assert_eq!(ended.text(), "exec 0 2\nexec 0 1\nexec 0 1\n");
    assert_eq!(
        told(&ended.trail),
        [BY_RULE, BY_RULE, "trip 2", BY_RULE, "trip 3", OPEN]
    );
}

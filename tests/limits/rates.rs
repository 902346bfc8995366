//! Rates: as many as may be, not one more, not one less.

use std::{fs, net::TcpListener, path::PathBuf};

use enforcer_tests::{Line, Session, Trail, quick, root};
use serde_json::json;

use crate::scene::{Scene, fine, policy, status, times, told, used};

#[test]
fn the_hundred_and_first_exec_is_denied() {
    if !root() {
        return;
    }
    // What a rate denies is no denial in a row.
    let scene = Scene::new(&policy(
        &json!({"limits": {"exec": "100/1h"}, "breaker": {"denials": 3}}),
    ));
    let running = scene.start(&["exec A 1 100", "exec A 1 5", "sign counted", "await go"]);
    running.await_file(&scene.session.work().join("counted"));
    let standing = status(running.agent());
    assert_eq!(used(&standing, "exec", false), 100, "{standing}");
    assert_eq!(standing["denials"], 0, "{standing}");
    fs::write(scene.session.work().join("go"), "").unwrap();
    let ended = running.wait();
    assert_eq!(ended.text(), "exec 100 0\nexec 0 5\n");
    assert_eq!(
        told(&ended.trail),
        times(5, "Rate limit exceeded: 100/100 calls per hour")
    );
    assert_eq!(fine(&ended.trail), 100);
}

#[test]
fn a_denial_takes_nothing_from_the_rate() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"limits": {"exec": "4/1d"}})));
    let ended = scene.run(&["exec F 1 6", "exec A 1 4", "exec F 1 1", "exec A 1 1"]);
    assert_eq!(ended.text(), "exec 0 6\nexec 4 0\nexec 0 1\nexec 0 1\n");
    let told = told(&ended.trail);
    assert_eq!(
        told.last().unwrap(),
        "Rate limit exceeded: 4/4 calls per day"
    );
}

#[test]
fn a_policy_that_was_met_before_limits_as_at_first() {
    if !root() {
        return;
    }
    // The tables of the first start are kept for the second.
    let scene = Scene::new(&policy(&json!({"limits": {"exec": "4/1d"}})));
    for _ in 0..2 {
        let ended = scene.run(&["exec A 1 4", "exec F 1 1", "exec A 1 1"]);
        assert_eq!(ended.text(), "exec 4 0\nexec 0 1\nexec 0 1\n");
    }
}

fn seconds(line: &Line) -> f64 {
    let text = line.0["timestamp"].as_str().unwrap();
    let time: jiff::Timestamp = text.parse().unwrap();
    time.as_microsecond() as f64 / 1e6
}

/// No more than `count` in any `window`, and nothing denied that could have been allowed. A line is written a moment
/// after its allowance was taken: `slack` seconds.
fn assert_slides(trail: &Trail, count: usize, window: f64, slack: f64) {
    let of_fine = |line: &&Line| line.command().ends_with("/fine");
    let (denied, allowed): (Vec<&Line>, Vec<&Line>) = trail
        .execs()
        .filter(of_fine)
        .partition(|line| line.denied());
    let mut allowed: Vec<f64> = allowed.into_iter().map(seconds).collect();
    allowed.sort_by(f64::total_cmp);
    assert!(
        allowed.len() > 2 * count,
        "the window never slid: {allowed:?}"
    );
    assert!(!denied.is_empty(), "nothing was denied: {allowed:?}");
    for stretch in allowed.windows(count + 1) {
        let length = stretch[count] - stretch[0];
        assert!(length >= window - slack, "{length}: {stretch:?}");
    }
    for line in denied {
        let now = seconds(line);
        let before = allowed
            .iter()
            .filter(|at| **at <= now && now - **at < window + slack);
        assert!(before.count() >= count, "at {now}: {allowed:?}");
    }
}

#[test]
fn the_window_slides() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"limits": {"exec": "5/2s"}})));
    let ended = scene.run(&["steady A 7000 50"]);
    assert_slides(&ended.trail, 5, 2.0, quick(0.05, 0.5));
    assert!(
        told(&ended.trail)
            .iter()
            .all(|line| line == "Rate limit exceeded: 5/5 calls per 2 seconds")
    );
}

#[test]
fn connects_have_a_rate_of_their_own() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(
        &json!({"limits": {"exec": "100/1h", "connect": "20/1m"}}),
    ));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ended = scene.run(&[&format!("dial {port} 3 10"), "exec A 1 3"]);
    assert_eq!(ended.text(), "dial 20 10\nexec 3 0\n");
    assert_eq!(
        told(&ended.trail),
        times(10, "Rate limit exceeded: 20/20 calls per minute")
    );
}

/// A rate of an hour or so that no other run of these tests has: its memory outlives the run.
fn own_window() -> u32 {
    3_601 + std::process::id() % 100_000
}

fn pins() -> Vec<PathBuf> {
    let wanted = format!("-{}s-", own_window());
    let Ok(entries) = fs::read_dir("/sys/fs/bpf/enforcer/users") else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.display().to_string().contains(&wanted))
        .collect()
}

#[test]
fn agents_of_one_user_share_a_rate_across_launchers() {
    if !root() {
        return;
    }
    let window = own_window();
    let policy = policy(&json!({"limits": {"per_user": {"exec": format!("60/{window}s")}}}));
    // Whoever they run as: the user is the one for whom they act.
    let of = |session: Session, user: &str| Scene::of(session.option("--label-user").option(user));
    let one = of(Session::new(&policy), "kim");
    let two = of(Session::new(&policy).as_root(), "kim");
    let steps = ["await go", "exec A 2 25"];
    let (first, second) = (one.start(&steps), two.start(&steps));
    for scene in [&one, &two] {
        fs::write(scene.session.work().join("go"), "").unwrap();
    }
    let (first, second) = (first.wait(), second.wait());
    assert_eq!(fine(&first.trail) + fine(&second.trail), 60);
    let reason = format!("Rate limit exceeded: 60/60 calls per {window} seconds (user kim)");
    let told = [told(&first.trail), told(&second.trail)].concat();
    assert_eq!(told, times(40, &reason));
    // An agent that starts anew has no rate anew, and another user has one of its own.
    let third = one.run(&["exec A 1 1"]);
    assert_eq!(third.text(), "exec 0 1\n");
    let other = of(Session::new(&policy), "lee").run(&["exec A 1 1"]);
    assert_eq!(other.text(), "exec 1 0\n");
    let pins = pins();
    assert_eq!(pins.len(), 2, "{pins:?}");
    for pin in pins {
        fs::remove_file(pin).unwrap();
    }
}

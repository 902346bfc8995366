//! Denials in a row: which count, and that each counts once.

use enforcer_tests::{Denial, Session, quick, root};
use serde_json::json;

use crate::scene::{BY_RULE, OPEN, Scene, policy, status, times, told};

#[test]
fn an_allowance_ends_a_row() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"breaker": {"denials": 10}})));
    let ended = scene.run(&["exec F 1 9", "exec A 1 1", "exec F 1 9", "exec A 1 1"]);
    assert_eq!(ended.text(), "exec 0 9\nexec 1 0\nexec 0 9\nexec 1 0\n");
    assert_eq!(told(&ended.trail), times(18, BY_RULE));
    assert!(
        !ended.stderr.contains("circuit breaker"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_shell_that_may_start_because_it_is_transparent_ends_no_row() {
    if !root() {
        return;
    }
    let mut policy = policy(&json!({"breaker": {"denials": 4}}));
    policy["exec"]["default"] = json!("deny");
    policy["exec"]["transparent"] = json!(["sh", "dash", "bash"]);
    let scene = Scene::new(&policy);
    // A transparent shell, then what no rule allows.
    let ended = scene.run(&[
        "exec F 1 3",
        "exec /bin/sh 1 2",
        "exec F 1 1",
        "exec /bin/sh 1 1",
    ]);
    assert_eq!(ended.text(), "exec 0 3\nexec 2 0\nexec 0 1\nexec 0 1\n");
    let wanted = [times(4, BY_RULE), times(1, "trip 4"), times(1, OPEN)].concat();
    assert_eq!(told(&ended.trail), wanted);
}

#[test]
fn five_times_a_hundred_denials_at_once_count_exactly_five_hundred() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"breaker": {"denials": 502}})));
    let running = scene.start(&[
        "exec F 5 100",
        "sign counted",
        "await go",
        "exec F 1 1",
        "exec F 1 2",
    ]);
    let work = scene.session.work();
    running.await_file(&work.join("counted"));
    let standing = status(running.agent());
    assert_eq!(standing["state"], "closed", "{standing}");
    assert_eq!(standing["denials"], 500, "{standing}");
    std::fs::write(work.join("go"), "").unwrap();
    let ended = running.wait();
    assert_eq!(ended.text(), "exec 0 500\nexec 0 1\nexec 0 2\n");
    let wanted = [times(502, BY_RULE), times(1, "trip 502"), times(1, OPEN)].concat();
    assert_eq!(told(&ended.trail), wanted);
}

#[test]
fn of_many_denials_at_once_one_opens_it() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"breaker": {"denials": 10}})));
    let threads = quick(8, 4);
    let ended = scene.run(&[&format!("exec F {threads} 20"), "exec A 1 1"]);
    assert!(ended.text().ends_with("exec 0 1\n"), "{}", ended.text());
    let told = told(&ended.trail);
    assert_eq!(
        told.iter().filter(|line| line.starts_with("trip")).count(),
        1
    );
    assert!(told.contains(&"trip 10".to_owned()));
    let by_rule = told.iter().filter(|line| *line == BY_RULE).count();
    // Those that were being judged when it opened have the rule's reason, too: one a thread at most.
    assert!((10..10 + threads).contains(&by_rule), "{by_rule}");
    assert_eq!(told.last().unwrap(), OPEN);
}

#[test]
fn denials_that_kill_count_as_well() {
    if !root() {
        return;
    }
    let scene =
        Scene::of(Session::new(&policy(&json!({"breaker": {"denials": 3}}))).on_deny_kill());
    let ended = scene.run(&["exec F 1 3", "exec A 1 2"]);
    assert_eq!(ended.text(), "exec 0 3\nexec 0 2\n");
    let wanted = [times(3, BY_RULE), times(1, "trip 3"), times(2, OPEN)].concat();
    assert_eq!(told(&ended.trail), wanted);
    for line in ended.trail.denials() {
        line.assert_denied_exec(Denial::Killed);
    }
}

#[test]
fn a_policy_in_the_form_of_hooks_has_a_breaker_too() {
    if !root() {
        return;
    }
    let scene = Scene::new(&json!({
        "version": "1.1",
        "bash": {"whitelist": ["*/fine*"], "blacklist": []},
        "file_paths": {"whitelist": ["*"], "blacklist": []},
        "agents": {"trusted": [], "restricted": []},
    }));
    let ended = scene.run(&["exec F 1 10", "exec A 1 1"]);
    assert_eq!(ended.text(), "exec 0 10\nexec 0 1\n");
    let by_default = "Command not in whitelist (deny by default)";
    let wanted = [times(10, by_default), times(1, "trip 10"), times(1, OPEN)].concat();
    assert_eq!(told(&ended.trail), wanted);
}

//! Who may close a breaker: an operator, by no way the agent.

use std::{fs, process::Command};

use enforcer_tests::{Running, enforcer, root};
use serde_json::json;

use crate::scene::{BY_RULE, OPEN, Scene, breaker, policy, status, times, told};

fn opened(scene: &Scene, after: &[&str]) -> Running {
    let steps = [&["exec F 1 3", "sign open", "await go"], after].concat();
    let running = scene.start(&steps);
    running.await_file(&scene.session.work().join("open"));
    running
}

fn go_on(scene: &Scene) {
    fs::write(scene.session.work().join("go"), "").unwrap();
}

#[test]
fn root_closes_it_and_the_trail_says_who() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"breaker": {"denials": 3}})));
    let running = opened(&scene, &["exec A 1 2", "exec F 1 2", "exec A 1 1"]);
    let agent = running.agent().to_owned();
    let open = status(&agent);
    assert_eq!(
        (&open["state"], &open["denials"]),
        (&json!("open"), &json!(3))
    );
    assert!(open["since"].is_string(), "{open}");
    let shown = breaker(&["status", &agent]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains(&format!("{agent} [")) && text.contains("OPEN"),
        "{text}"
    );
    let reset = breaker(&["reset", &agent]);
    assert!(reset.status.success(), "{reset:?}");
    assert_eq!(status(&agent)["state"], "closed");
    go_on(&scene);
    let ended = running.wait();
    assert_eq!(ended.text(), "exec 0 3\nexec 2 0\nexec 0 2\nexec 1 0\n");
    let wanted = [times(3, BY_RULE), times(1, "trip 3"), times(2, BY_RULE)].concat();
    assert_eq!(told(&ended.trail), wanted);
    let line = ended
        .trail
        .lines
        .iter()
        .find(|line| line.0["tool"] == "breaker")
        .unwrap();
    assert_eq!(line.0["event"], "approval");
    let reason = line.reason();
    assert!(
        reason.starts_with("Circuit breaker reset by root"),
        "{reason}"
    );
}

#[test]
fn an_agent_that_does_not_run_is_named() {
    if !root() {
        return;
    }
    for verb in ["status", "reset"] {
        let output = breaker(&[verb, "no-such-agent-here"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("no-such-agent-here"), "{text}");
    }
}

#[test]
fn the_agent_cannot_close_it() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"breaker": {"denials": 3}})));
    let running = opened(&scene, &["exec A 1 1"]);
    let agent = running.agent().to_owned();
    // A process of the agent's user outside: it may look, and no more.
    let own = scene.session.place(
        &std::path::PathBuf::from(enforcer().get_program()),
        "bin/enforcer",
    );
    let uid = scene.session.uid();
    let as_agent = |words: &[&str]| {
        use std::os::unix::process::CommandExt;
        Command::new(&own)
            .arg("breaker")
            .args(words)
            .uid(uid)
            .gid(uid)
            .output()
            .unwrap()
    };
    let reset = as_agent(&["reset", &agent]);
    let text = String::from_utf8_lossy(&reset.stderr).into_owned();
    assert_eq!(reset.status.code(), Some(2), "{text}");
    assert!(text.contains("cannot close its breaker"), "{text}");
    let looked = as_agent(&["status", &agent, "--json"]);
    assert!(looked.status.success(), "{looked:?}");
    assert_eq!(status(&agent)["state"], "open");
    go_on(&scene);
    let ended = running.wait();
    assert_eq!(ended.text(), "exec 0 3\nexec 0 1\n");
    assert_eq!(told(&ended.trail).last().unwrap(), OPEN);
    assert!(
        ended
            .trail
            .lines
            .iter()
            .all(|line| line.0["tool"] != "breaker")
    );
}

/// The agent is root: only its cgroup tells it from an operator. What it can run is its first program alone.
#[test]
fn an_agent_that_is_root_cannot_close_it_by_the_socket_or_the_pins() {
    if !root() {
        return;
    }
    let session = enforcer_tests::Session::new(&policy(&json!({"breaker": {"denials": 3}})));
    let scene = Scene::of(session.as_root());
    let own = scene.session.place(
        &std::path::PathBuf::from(enforcer().get_program()),
        "bin/enforcer",
    );
    // The shell is the operator's command; `enforcer` runs while the breaker is closed and waits for it to open.
    let script = format!(
        "({own} breaker reset \"$NAME\"; echo \"before $?\") 2>&1\n\
         {spree} 'exec {forbidden} 1 3' 'sign open' 'await go'\n\
         {own} breaker reset \"$NAME\"; echo \"after $?\"\n\
         ls /sys/fs/bpf/enforcer 2>&1; echo end",
        own = own.display(),
        spree = scene.spree.display(),
        forbidden = scene.forbidden.display(),
    );
    let name = "breaker-root";
    let session = scene.session.variable("NAME", name);
    let running = session.start(["/bin/sh", "-c", &script]);
    running.await_file(&session.work().join("open"));
    assert_eq!(status(running.agent())["state"], "open");
    fs::write(session.work().join("go"), "").unwrap();
    let ended = running.wait();
    let text = ended.text();
    assert!(
        !text.contains("before 0") && !text.contains("after 0"),
        "{text}"
    );
    assert!(text.ends_with("end\n"), "{text}");
    assert!(
        ended
            .trail
            .lines
            .iter()
            .all(|line| line.0["tool"] != "breaker")
    );
}

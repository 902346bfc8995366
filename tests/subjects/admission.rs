//! Who is not let in starts nothing, and leaves one line.

use std::fs;

use enforcer_tests::{Ended, Session, open, root};
use serde_json::{Value, json};

/// The status of a run that is not let in.
const REFUSED: i32 = 126;

fn policy() -> Value {
    let mut policy = open();
    policy["agents"] = json!({"trusted": []});
    policy
}

/// Runs a command that leaves a file, with these options, under a policy that trusts the session's agents if `trusted`.
fn run(policy: &Value, options: &[&str]) -> (Ended, bool) {
    let mut session = Session::new(policy);
    for option in options {
        session = session.option(*option);
    }
    let ended = session.run(["/bin/sh", "-c", "touch ran"]);
    let ran = session.work().join("ran").exists();
    (ended, ran)
}

fn assert_refused((ended, ran): &(Ended, bool), reason: &str) {
    assert!(!ran, "{reason}: it ran");
    assert_eq!(ended.code(), REFUSED, "{}", ended.stderr);
    assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    let [line] = ended.trail.lines.as_slice() else {
        panic!("not one line: {}", ended.trail.shown());
    };
    assert_eq!(line.0["event"], "denial");
    assert_eq!(line.0["tool"], "exec");
    assert_eq!(line.0["reason"], reason);
    assert_eq!(line.0["security_risk"], false);
    assert_eq!(line.0["agent"], ended.agent());
    assert_eq!(line.command(), "/bin/sh -c touch ran");
    assert_eq!(line.text("stage"), "admission");
    assert!(line.0["parameters"]["pid"].is_null());
}

#[test]
fn a_disabled_mode_starts_nothing() {
    if !root() {
        return;
    }
    for word in ["disabled", "off", "0"] {
        assert_refused(
            &run(&policy(), &["--mode", word]),
            "Auto-approval disabled (MCP_AUTO_APPROVE not enabled)",
        );
    }
}

#[test]
fn everywhere_is_for_everybody() {
    if !root() {
        return;
    }
    for options in [&[][..], &["--mode", "everywhere"]] {
        let (ended, ran) = run(&policy(), options);
        assert!(ran && ended.code() == 0, "{}", ended.stderr);
    }
}

#[test]
fn subagent_only_is_for_agents_that_the_policy_trusts() {
    if !root() {
        return;
    }
    let session = Session::new(&policy())
        .option("--mode")
        .option("subagent_only");
    let ended = session.run(["/bin/sh", "-c", "touch ran"]);
    let ran = session.work().join("ran").exists();
    let reason = format!(
        "Agent '{}' is not in trusted whitelist (subagent_only mode)",
        ended.agent()
    );
    assert_refused(&(ended, ran), &reason);
    // The session gives the next start the next name; upper and lower case are the same.
    let next = session.next_agent().to_uppercase();
    let mut trusting = policy();
    trusting["agents"]["trusted"] = json!([next]);
    session.set_policy(&trusting);
    let ended = session.run(["/bin/sh", "-c", "touch ran"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(session.work().join("ran").exists());
}

#[test]
fn a_tenants_policy_is_for_its_agents() {
    if !root() {
        return;
    }
    let mut own = policy();
    own["tenants"] = json!(["acme", "globex"]);
    assert_refused(
        &run(&own, &["--tenant", "initech"]),
        "Policy belongs to other tenants: acme, globex (the agent's tenant is 'initech')",
    );
    assert_refused(
        &run(&own, &[]),
        "Policy belongs to other tenants: acme, globex (the agent has no tenant)",
    );
    let (ended, ran) = run(&own, &["--tenant", "globex"]);
    assert!(ran && ended.code() == 0, "{}", ended.stderr);
}

#[test]
fn bad_labels_are_bad_use() {
    if !root() {
        return;
    }
    for options in [
        ["--mode", "sometimes"],
        ["--tenant", "../acme"],
        ["--label-user", "a\nb"],
        ["--capability", ""],
    ] {
        let session = Session::new(&policy())
            .option(options[0])
            .option(options[1]);
        let running = session.start(["/bin/true"]);
        let trail = running.trail_path().to_owned();
        running.until("it ends", |running| !running.stderr().is_empty());
        assert!(!trail.exists(), "{options:?}");
        let mut left = fs::read_dir(session.work()).unwrap();
        assert!(left.next().is_none());
    }
}

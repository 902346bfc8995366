//! What an operator is told about an agent that runs, and of what was done to it: as it is, and no more.

use std::fs;

use enforcer_tests::{Level, Session, approvals, enforcer, level};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    fresh::both,
    obedient::{DENIED, Obedient, but, made, refused},
};

/// What `status` says of an agent.
fn status(agent: &Obedient) -> (Value, String) {
    let name = agent.running.agent();
    let json = enforcer().args(["status", "--json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&json.stdout).unwrap();
    let mut agents = all["agents"].as_array().unwrap().iter();
    let own = agents.find(|one| one["name"] == name).unwrap().clone();
    let text = enforcer().arg("status").output().unwrap();
    let text = both(&text).0;
    let own_text = text
        .split_once(&format!("{name} ["))
        .unwrap()
        .1
        .split_inclusive('\n')
        .enumerate()
        .take_while(|(at, line)| *at == 0 || line.starts_with("  "))
        .map(|(_, line)| line)
        .collect();
    (own, own_text)
}

/// Why the trail's lines say that the agent was changed.
fn changes(agent: &Obedient) -> Vec<String> {
    let trail = agent.running.trail();
    let lines = trail.lines.iter().map(|line| line.reason().to_owned());
    lines.filter(|why| why.contains("Changed by")).collect()
}

#[test]
fn what_is_so_already_is_no_change() {
    let Some(agent) = Obedient::start(&but("env", "192.0.2.0/24")) else {
        return;
    };
    let said = made(&agent.set(&["--grant", "deploy", "--rate", "exec=100000/1h"]));
    for words in [
        ": changed\n",
        "enforced: ",
        "mode everywhere",
        "capabilities: deploy",
        "/100000 in 1 h",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(changes(&agent).len(), 1);
    for (words, says) in [
        (
            ["--grant", "deploy"],
            "it has the capability `deploy` already",
        ),
        (["--revoke", "other"], "it had no capability `other`"),
        (
            ["--rate", "exec=100000/60m"],
            "rate exec is 100000/60m already",
        ),
        (
            ["--rate", "connect=policy"],
            "rate connect is the policy's already",
        ),
        (["--observe", "no"], "it is blocked already"),
        (["--mode", "everywhere"], "its mode is everywhere already"),
    ] {
        let said = made(&agent.set(&words));
        assert!(
            said.contains("nothing changed") && said.contains(says),
            "{said}"
        );
    }
    assert_eq!(changes(&agent).len(), 1, "{:?}", changes(&agent));
    made(&agent.set(&["--grant", "deploy", "--grant", "next", "--revoke", "other"]));
    let told = changes(&agent);
    assert!(told[1].ends_with(": granted next"), "{told:?}");

    let nothing = agent.set(&[]);
    let (_, err) = both(&nothing);
    assert_eq!(nothing.status.code(), Some(2), "{err}");
    assert!(
        err.contains("--grant") && err.contains("Usage: enforcer agent set <AGENT>"),
        "{err}"
    );
    for words in [["--grant", "a b"], ["--revoke", "a,b"]] {
        let output = agent.set(&words);
        let (_, err) = both(&output);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains("no name of a capability"), "{err}");
    }
    assert_eq!(changes(&agent).len(), 2);
    // Nothing is obedient any more, and it ends by itself.
    made(&agent.set(&["--mode", "disabled"]));
    let told = changes(&agent);
    assert!(
        told[2].ends_with(": its mode is disabled (was everywhere)"),
        "{told:?}"
    );
    made(&agent.set(&["--mode", "everywhere"]));
    agent.end();
}

#[test]
fn a_capability_that_is_no_name_is_refused_at_the_start() {
    let output = enforcer()
        .args(["run", "--capability", "a b", "--", "true"])
        .output()
        .unwrap();
    let (_, err) = both(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("it has a blank"), "{err}");
}

#[test]
fn status_counts_what_the_supervisor_refused() {
    let Some(agent) = Obedient::start(&but("env", "192.0.2.0/24")) else {
        return;
    };
    for _ in 0..2 {
        assert_eq!(agent.does("/usr/bin/env").1, DENIED);
    }
    // Each has its line before its program fails.
    let denials = agent.running.trail().denials().count();
    let (own, text) = status(&agent);
    assert_eq!(own["counted_by"], "launcher", "{own}");
    assert_eq!(own["execs"]["denied"], json!(denials), "{own}");
    assert!(own["policy_sha256"].as_str().unwrap().len() == 64, "{own}");
    for words in [
        "enforced: ",
        &format!("{denials} denied\n"),
        "connects: 0 allowed, 0 denied\n",
        "breaker closed: ",
        "no events lost",
        " process",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    made(&agent.set(&["--observe", "yes"]));
    assert_eq!(agent.does("/usr/bin/env").1, 0);
    let (own, text) = status(&agent);
    assert_eq!(own["governed"], "observe");
    assert!(text.contains("only observed: "), "{text}");
    agent.end();
}

#[test]
fn an_open_breaker_of_who_is_observed_is_not_said_to_deny() {
    let mut policy = but("env", "192.0.2.0/24");
    policy["breaker"] = json!({"denials": 3});
    let observed = || Session::new(&policy).option("--observe");
    let (Some(from_the_start), Some(later)) = (Obedient::of(observed), Obedient::start(&policy))
    else {
        return;
    };
    made(&later.set(&["--observe", "yes"]));
    for agent in [from_the_start, later] {
        // In a row: nothing that is allowed comes between.
        assert_eq!(agent.does(&"/usr/bin/env; ".repeat(4)).1, 0);
        agent.running.until("it is said", |running| {
            running.stderr().contains("circuit breaker open")
        });
        let breaker = enforcer()
            .args(["breaker", "status", agent.running.agent()])
            .output()
            .unwrap();
        let said = both(&breaker).0;
        assert!(
            said.contains("OPEN") && said.contains("blocks nothing"),
            "{said}"
        );
        let (_, text) = status(&agent);
        assert!(
            text.contains("OPEN: after 3 denials in a row; nothing is blocked"),
            "{text}"
        );
        let ended = agent.end();
        let said = &ended.stderr;
        assert!(said.contains("everything would be denied"), "{said}");
        assert!(said.contains("nothing was blocked"), "{said}");
        assert!(!said.contains("everything is denied"), "{said}");
    }
}

/// A policy that asks about one program.
fn asking() -> Value {
    let mut policy = but("env", "192.0.2.0/24");
    policy["exec"]["rules"][0]["decision"] = json!("ask");
    policy
}

/// Has the agent begin something that waits for a person.
fn begins(agent: &Obedient, number: usize) {
    let work = agent.session.work();
    fs::write(work.join("new"), "/usr/bin/env").unwrap();
    fs::rename(work.join("new"), work.join(format!("q{number}"))).unwrap();
}

#[test]
fn who_has_lost_its_launcher_is_told_as_that() {
    let Some(agent) = Obedient::start(&asking()) else {
        return;
    };
    begins(&agent, 1);
    let request = agent.running.request();
    agent.running.signal(Signal::SIGKILL);
    agent.running.until("the launcher is gone", |_| {
        status(&agent).0["launcher"] == "gone"
    });
    let (own, text) = status(&agent);
    let id = own["id"].as_str().unwrap().to_owned();
    assert_eq!(own["waiting"], 0, "{own}");
    assert_eq!(own["counted_by"], "kernel", "{own}");
    assert!(
        text.contains("launcher is gone") && text.contains("by the kernel programs"),
        "{text}"
    );
    let stop = format!("enforcer stop {id}");
    for output in [agent.reload(&[]), agent.set(&["--grant", "deploy"])] {
        let said = refused(&output);
        assert!(
            said.contains("its launcher is gone") && said.contains(&stop),
            "{said}"
        );
        assert!(!said.contains("refused"), "{said}");
    }
    for verb in ["approve", "deny", "show"] {
        let output = approvals(&[verb, request.id()]);
        let (_, said) = both(&output);
        assert!(
            said.contains("its launcher is gone") && said.contains(&stop),
            "{said}"
        );
        assert_eq!(
            output.status.code(),
            Some(i32::from(verb != "show")),
            "{said}"
        );
    }
    let name = agent.running.agent().to_owned();
    let reset = enforcer().args(["breaker", "reset", &name]).output();
    assert!(reset.unwrap().status.success());
    let stopped = enforcer().args(["stop", &name]).output().unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    agent
        .running
        .until("nothing is left", |running| running.left_over().is_empty());
    let trail = agent.running.trail();
    let last = trail.lines.last().unwrap();
    assert!(
        last.reason().starts_with("Stopped by root"),
        "{}",
        trail.shown()
    );
}

/// Whether somebody can be asked is decided at the start. `--quiet` is about what is said alone.
#[test]
fn a_quiet_run_asks_if_there_is_somebody_to_hold_what_is_asked() {
    let Some(agent) = Obedient::of(|| Session::new(&but("env", "192.0.2.0/24")).option("--quiet"))
    else {
        return;
    };
    let file = agent.file("asking.json", &asking());
    let said = made(&agent.reload(&["--policy", file.to_str().unwrap()]));
    match level() {
        Level::Full => {
            assert!(
                said.contains("what the policy asks about is denied"),
                "{said}"
            );
            assert_eq!(agent.does("/usr/bin/env").1, DENIED);
        }
        Level::Partial => {
            assert!(
                said.contains("waits for an answer") && said.contains("--quiet"),
                "{said}"
            );
            begins(&agent, 1);
            agent.running.request().approve(&[]);
            let reply = agent.session.work().join("r1");
            agent.running.until("it is answered", |_| reply.exists());
            let reply = fs::read_to_string(reply).unwrap();
            assert!(reply.ends_with("status 0\n"), "{reply}");
            assert_eq!(agent.running.stderr(), "");
        }
    }
    fs::write(agent.session.work().join("end"), "").unwrap();
    agent.running.wait();
}

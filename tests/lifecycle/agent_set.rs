//! What else than its policy is changed of an agent that runs: capabilities, trust, rates, whether it is blocked at all.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
};

use enforcer_tests::{Session, enforcer};
use serde_json::{Value, json};

use crate::{
    fresh::both,
    obedient::{DENIED, Obedient, but, made, refused},
};

#[test]
fn capabilities_come_and_go() {
    let policy = json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "deploys", "decision": "allow", "argv": {"program": "id"}, "requires": ["deploy"]},
        ]},
        "connect": {"default": "allow"},
        "breaker": {"denials": 1_000_000},
    });
    let Some(agent) = Obedient::start(&policy) else {
        return;
    };
    let (said, status) = agent.does("/usr/bin/id");
    assert_eq!(status, DENIED);
    assert!(said.contains("deploy"), "{said}");
    let said = made(&agent.set(&["--grant", "deploy"]));
    assert!(said.contains("capabilities: deploy"), "{said}");
    assert_eq!(agent.does("/usr/bin/id").1, 0);
    // A policy that is read anew takes nothing away.
    made(&agent.reload(&[]));
    assert_eq!(agent.does("/usr/bin/id").1, 0);
    let status = enforcer().args(["status", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let agents = status["agents"].as_array().unwrap();
    let own = agents
        .iter()
        .find(|other| other["name"] == agent.running.agent())
        .unwrap();
    assert_eq!(own["capabilities"], json!(["deploy"]));
    made(&agent.set(&["--revoke", "deploy"]));
    assert_eq!(agent.does("/usr/bin/id").1, DENIED);
    assert!(made(&agent.set(&["--revoke", "deploy"])).contains("had no capability"));
    agent.end();
}

#[test]
fn trust_and_rates_can_be_taken_away() {
    let mut policy = but("env", "192.0.2.0/24");
    policy["agents"] = json!({"trusted": ["somebody-else"]});
    let Some(agent) = Obedient::start(&policy) else {
        return;
    };
    let said = made(&agent.set(&["--mode", "subagent_only"]));
    assert!(said.contains("not in trusted whitelist"), "{said}");
    // Without `sleep` and `mv` it is not so obedient any more.
    fs::write(
        agent.session.work().join("new"),
        "/usr/bin/id; echo > asked",
    )
    .unwrap();
    let denials = agent.running.trail().denials().count();
    agent.running.until("all is denied", |running| {
        running.trail().denials().count() > denials + 3
    });
    let trail = agent.running.trail();
    let last = trail.denials().last().unwrap();
    assert!(
        last.reason().contains("not in trusted whitelist"),
        "{}",
        trail.shown()
    );
    // Twenty more, and the breaker has counted none.
    let breaker = enforcer()
        .args(["breaker", "status", agent.running.agent()])
        .output()
        .unwrap();
    assert!(both(&breaker).0.contains("closed"), "{breaker:?}");
    made(&agent.set(&["--mode", "everywhere"]));
    assert_eq!(agent.does("/usr/bin/id").1, 0);

    made(&agent.set(&["--rate", "connect=2/1h"]));
    let connects = || {
        let (said, _) = agent.does("bash -c 'echo > /dev/udp/127.0.0.1/9'");
        !said.contains("not permitted")
    };
    assert_eq!([connects(), connects(), connects()], [true, true, false]);
    // What is counted is counted on, whatever else is changed.
    made(&agent.set(&["--grant", "deploy"]));
    assert!(!connects());
    made(&agent.set(&["--rate", "connect=policy"]));
    assert!(connects());
    let why = refused(&agent.set(&["--rate", "connect=many"]));
    assert!(why.contains("100/1h"), "{why}");
    agent.end();
}

#[test]
fn observing_is_switched_on_and_off() {
    let Some(agent) = Obedient::start(&but("env", "192.0.2.0/24")) else {
        return;
    };
    assert_eq!(agent.does("/usr/bin/env").1, DENIED);
    made(&agent.set(&["--observe", "yes"]));
    assert_eq!(agent.does("/usr/bin/env").1, 0);
    made(&agent.set(&["--observe", "no"]));
    assert_eq!(agent.does("/usr/bin/env").1, DENIED);
    let ended = agent.end();
    let how: Vec<_> = ended
        .trail
        .execs()
        .filter(|line| line.rule() == "no-env")
        .map(|line| {
            (
                line.text("verdict") == "allowed",
                line.0["parameters"]["observed"] == true,
            )
        })
        .collect();
    assert_eq!(how, [(false, false), (true, true), (false, false)]);
}

#[test]
fn what_was_only_observed_can_be_blocked() {
    let Some(agent) =
        Obedient::of(|| Session::new(&but("env", "192.0.2.0/24")).option("--observe"))
    else {
        return;
    };
    // It would have opened the breaker by now.
    for _ in 0..12 {
        assert_eq!(agent.does("/usr/bin/env").1, 0);
    }
    made(&agent.set(&["--observe", "no"]));
    assert_ne!(agent.does("/usr/bin/env").1, 0);
    assert_eq!(agent.does("/usr/bin/id").1, 0);
    agent.end();
}

#[test]
fn what_is_only_observed_is_told_as_it_would_be_decided() {
    let mut policy = but("env", "192.0.2.0/24");
    policy["breaker"] = json!({"denials": 3});
    let Some(agent) = Obedient::start(&policy) else {
        return;
    };
    let socket = agent.session.work().join("listener");
    let listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let name = format!("enforcer-observed-{}", std::process::id());
    let named = SocketAddr::from_abstract_name(&name).unwrap();
    let abstract_listener = UnixListener::bind_addr(&named).unwrap();
    let script = format!(
        "python3 -c 'import socket
for name in [\"{}\", \"\\0{name}\"]:
    for _ in range(4):
        socket.socket(socket.AF_UNIX).connect(name)'",
        socket.display()
    );
    assert_eq!(agent.does(&script), (String::new(), 0));
    made(&agent.set(&["--observe", "yes"]));
    assert_eq!(agent.does(&script), (String::new(), 0));
    made(&agent.set(&["--observe", "no"]));
    assert_eq!(agent.does(&script), (String::new(), 0));
    let ended = agent.end();
    drop((listener, abstract_listener));
    let decisions: Vec<_> = ended
        .trail
        .connects()
        .map(|line| {
            line.0["parameters"]["decision"]
                .as_str()
                .unwrap_or_default()
        })
        .collect();
    // Where LSM programs judge, each datagram and stream has a line too.
    assert!(decisions.len() >= 24, "{decisions:?}");
    assert!(
        decisions.iter().all(|decision| *decision == "allow"),
        "{:#?}",
        ended.trail.lines
    );
}

//! Keys, order, redaction, and what must hold for any bytes.

use std::net::IpAddr;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Action, Approval, Connect, Event, Exec, Record, Stage, Syscall, Verdict};
use enforcer_policy::{Cause, Decision, Risk};

const KEYS: [&str; 8] = [
    "timestamp",
    "event",
    "agent",
    "tool",
    "reason",
    "security_risk",
    "parameters",
    "denial_count",
];
const PARAMETERS: [&str; 22] = [
    "command",
    "argv_bytes",
    "truncated",
    "words",
    "exe",
    "resolved",
    "pid",
    "ppid",
    "uid",
    "cgroup",
    "host",
    "address",
    "port",
    "protocol",
    "rule",
    "cause",
    "decision",
    "verdict",
    "stage",
    "risk",
    "seq",
    "latency_ns",
];

fn action<'a>(agent: &'a str, reason: &'a str) -> Action<'a> {
    Action {
        cause: Cause::Rule,
        timestamp: Timestamp::from_microsecond(1_795_228_664_309_895).expect("time"),
        agent,
        reason,
        security_risk: true,
        rule: Some("no-rm"),
        decision: Decision::Deny,
        verdict: Verdict::Killed,
        stage: Stage::Exec,
        risk: Some(Risk::Critical),
        pid: 2,
        ppid: 1,
        uid: 1000,
        cgroup: 77,
        seq: Some(5),
        latency_ns: Some(1800),
        approval: None,
    }
}

fn line(record: &Record) -> String {
    let mut line = Vec::new();
    record.write_line(&mut line).expect("line");
    assert_eq!(line.pop(), Some(b'\n'));
    String::from_utf8(line).expect("utf-8")
}

/// Whether `keys` come in the order of `all`, none of them unknown.
fn in_order<'a>(keys: impl Iterator<Item = &'a String>, all: &[&str]) -> bool {
    let places: Option<Vec<usize>> = keys.map(|k| all.iter().position(|a| a == k)).collect();
    places.is_some_and(|p| p.is_sorted_by(|a, b| a < b))
}

#[test]
fn an_exec() {
    let exec = Exec {
        text: b"rm\0-rf\0/",
        argv_bytes: 9,
        truncated: true,
        exe: b"/usr/bin/rm",
        name: b"rm",
    };
    assert_eq!(
        line(&Record::exec(&action("coder", "never [no-rm]"), &exec)),
        r#"{"timestamp":"2026-11-21T02:37:44.309895+00:00","event":"denial","agent":"coder","tool":"exec","reason":"never [no-rm]","security_risk":true,"parameters":{"command":"rm -rf /","argv_bytes":9,"truncated":true,"exe":"/usr/bin/rm","pid":2,"ppid":1,"uid":1000,"cgroup":77,"rule":"no-rm","cause":"rule","decision":"deny","verdict":"killed","stage":"exec","risk":"CRITICAL","seq":5,"latency_ns":1800}}"#
    );
}

#[test]
fn a_connect_and_a_socket() {
    let address: IpAddr = "::ffff:169.254.169.254".parse().expect("address");
    let mut denied = action("", "metadata");
    denied.verdict = Verdict::Errno;
    denied.stage = Stage::Cgroup;
    let connect = Connect {
        host: None,
        address: Some(address),
        port: Some(80),
        protocol: 6,
        socket: None,
        program: b"curl",
    };
    let v: Value = serde_json::from_str(&line(&Record::connect(&denied, &connect))).expect("json");
    assert_eq!(v["parameters"]["exe"], "curl");
    assert_eq!(v["agent"], "unknown");
    assert_eq!(v["tool"], "connect");
    let p = v["parameters"].as_object().expect("parameters");
    assert_eq!(
        (&p["address"], &p["port"], &p["protocol"]),
        (&json!("169.254.169.254"), &json!(80), &json!("tcp"))
    );
    assert!(!p.contains_key("host") && in_order(p.keys(), &PARAMETERS));

    let v: Value =
        serde_json::from_str(&line(&Record::socket(&denied, b"", 17, 3, 768))).expect("json");
    assert_eq!(
        (&v["parameters"]["family"], &v["parameters"]["protocol"]),
        (&json!(17), &json!(768))
    );
    assert!(v["parameters"].get("address").is_none() && v["parameters"].get("exe").is_none());
}

#[test]
fn a_request_that_was_left_unanswered_is_one_that_a_rule_asked_about() {
    let line_of = |rule, risk| {
        let approval = Approval {
            request: "d5631c61",
            state: "denied",
            approver: None,
            reason: None,
            scope: None,
        };
        let at = action("coder", "").timestamp;
        let asked = ("exec", "git push --force");
        let record = Record::unanswered(at, "coder", asked, (rule, risk), "it ended", approval);
        serde_json::from_str::<Value>(&line(&record)).expect("json")
    };
    let by_rule = line_of(Some("push-force"), Some(Risk::High));
    assert_eq!(by_rule["security_risk"], true);
    assert_eq!(
        (
            &by_rule["parameters"]["rule"],
            &by_rule["parameters"]["risk"]
        ),
        (&json!("push-force"), &json!("HIGH"))
    );
    assert_eq!(line_of(None, Some(Risk::Medium))["security_risk"], false);
}

#[test]
fn a_refused_system_call() {
    let action = Action {
        rule: Some("syscall:terminal-input"),
        verdict: Verdict::Errno,
        stage: Stage::Seccomp,
        seq: None,
        latency_ns: None,
        ..action("coder", "types")
    };
    let of = |left_out| {
        let call = Syscall {
            name: "ioctl",
            group: "terminal-input",
            left_out,
        };
        serde_json::from_str::<Value>(&line(&Record::syscall(&action, &call))).unwrap()
    };
    let first = of(0);
    assert_eq!(first["event"], "denial");
    assert_eq!(first["tool"], "syscall");
    assert_eq!(
        first["parameters"],
        json!({"syscall": "ioctl", "group": "terminal-input", "pid": 2, "ppid": 1, "uid": 1000, "cgroup": 77,
            "rule": "syscall:terminal-input", "cause": "rule", "decision": "deny", "verdict": "errno", "stage": "seccomp",
            "risk": "CRITICAL"})
    );
    assert_eq!(of(7)["parameters"]["left_out"], 7);
}

#[test]
fn the_other_kinds() {
    let now = Timestamp::from_second(0).expect("time");
    assert_eq!(
        line(&Record::gap(now, "a", 3, 41)),
        r#"{"timestamp":"1970-01-01T00:00:00.000000+00:00","event":"denial","agent":"a","reason":"events lost: 3","security_risk":true,"parameters":{"decision":"deny","seq":41,"lost":3}}"#
    );
    assert_eq!(
        line(&Record::breaker_trip(
            now,
            "a",
            "Circuit breaker tripped after 10 denials",
            10
        )),
        r#"{"timestamp":"1970-01-01T00:00:00.000000+00:00","event":"circuit_breaker_trip","agent":"a","reason":"Circuit breaker tripped after 10 denials","security_risk":false,"denial_count":10}"#
    );
    let escape = Record::escape(&action("a", "left its cgroup"));
    assert_eq!(escape.event(), Event::Denial);
    assert!(line(&escape).contains(r#""escape":true"#));
    let mut allowed = action("a", "");
    allowed.verdict = Verdict::Allowed;
    let exec = Exec {
        text: b"true",
        argv_bytes: 5,
        truncated: false,
        exe: b"",
        name: b"",
    };
    let shown = line(&Record::exec(&allowed, &exec));
    assert!(
        shown.contains(r#""event":"approval""#)
            && !shown.contains("reason")
            && !shown.contains("truncated")
    );
    assert!(!shown.contains("\"exe\""));
}

#[test]
fn secrets_are_hidden_in_every_string() {
    let secret = "ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let text = format!("x\0--password\0{secret}\0token={secret}");
    let reason = format!("Matches blacklist pattern: {secret}");
    let agent = format!("a\n{secret}");
    let mut a = action(&agent, &reason);
    a.rule = Some(&reason);
    let exec = Exec {
        text: text.as_bytes(),
        argv_bytes: 1,
        truncated: false,
        exe: text.as_bytes(),
        name: text.as_bytes(),
    };
    let connect = Connect {
        host: Some(&agent),
        address: None,
        port: None,
        protocol: 6,
        socket: None,
        program: text.as_bytes(),
    };
    let mut parameters = Map::new();
    parameters.insert(secret.into(), json!({"nested": [secret, {"token": 7}]}));
    for record in [
        Record::exec(&a, &exec),
        Record::connect(&a, &connect),
        Record::escape(&a),
        Record::gap(a.timestamp, &agent, 1, 0),
        Record::breaker_trip(a.timestamp, &agent, &reason, 1),
        Record::tool_call(
            a.timestamp,
            Event::Denial,
            &agent,
            &agent,
            &reason,
            true,
            &parameters,
        ),
    ] {
        let shown = line(&record);
        assert!(!shown.contains("aaaaaaaa"), "{shown}");
    }
}

#[test]
fn long_strings_are_cut_and_say_so() {
    let long = "é".repeat(100_000);
    let mut parameters = Map::new();
    parameters.insert("content".into(), json!([long]));
    let now = Timestamp::from_second(0).expect("time");
    let shown = line(&Record::tool_call(
        now,
        Event::Approval,
        "a",
        "Write",
        "r",
        false,
        &parameters,
    ));
    assert!(
        shown.len() < 70_000
            && shown.contains(r#""truncated":true"#)
            && !shown.contains('\u{fffd}')
    );
    let exec = Exec {
        text: long.as_bytes(),
        argv_bytes: 1,
        truncated: false,
        exe: b"",
        name: b"",
    };
    assert!(line(&Record::exec(&action("a", "r"), &exec)).contains(r#""truncated":true"#));
}

#[test]
fn numbers_of_the_kernel() {
    use enforcer_common::event as kernel;
    assert_eq!(
        Verdict::from_number(kernel::VERDICT_ALLOWED),
        Verdict::Allowed
    );
    assert_eq!(
        Verdict::from_number(kernel::VERDICT_KILLED),
        Verdict::Killed
    );
    assert_eq!(Verdict::from_number(99), Verdict::Errno);
    assert_eq!(Stage::from_number(kernel::STAGE_LSM).as_str(), "lsm");
    assert_eq!(Stage::from_number(kernel::STAGE_EXEC).as_str(), "exec");
    assert_eq!(Stage::from_number(kernel::STAGE_CGROUP).as_str(), "cgroup");
    assert_eq!(Stage::from_number(0).as_str(), "unknown");
}

proptest! {
    #[test]
    fn any_bytes_make_one_valid_line(
        text in proptest::collection::vec(any::<u8>(), 0..400),
        exe in proptest::collection::vec(any::<u8>(), 0..60),
        agent in any::<String>(), reason in any::<String>(), key in any::<String>(), value in any::<String>(),
        truncated in any::<bool>(), denied in any::<bool>(),
    ) {
        let mut a = action(&agent, &reason);
        a.rule = Some(&value);
        a.verdict = if denied { Verdict::Errno } else { Verdict::Allowed };
        let exec = Exec { text: &text, argv_bytes: 3, truncated, exe: &exe, name: &exe };
        let mut parameters = Map::new();
        parameters.insert(key, json!([{"v": value.clone()}]));
        let connect = Connect { host: Some(&value), address: None, port: Some(1), protocol: 17, socket: None, program: &exe };
        for (record, ordered) in [
            (Record::exec(&a, &exec), true),
            (Record::connect(&a, &connect), true),
            (Record::tool_call(a.timestamp, Event::Denial, &agent, &value, &reason, true, &parameters), false),
        ] {
            let shown = line(&record);
            // Not even escaped ones, the tab apart.
            prop_assert!(!shown.contains(char::is_control));
            let parsed: Value = serde_json::from_str(&shown).expect("json");
            let top = parsed.as_object().expect("object");
            prop_assert!(in_order(top.keys(), &KEYS), "{shown}");
            let p = top["parameters"].as_object().expect("parameters");
            prop_assert!(!ordered || in_order(p.keys(), &PARAMETERS), "{shown}");
            prop_assert!(!shown.contains("\\u00") && !shown.contains("\\n") || shown.contains("\\\\"), "{shown}");
            prop_assert!(crate::Entry::parse(shown.as_bytes()).is_ok());
        }
    }
}

#[test]
fn the_name_behind_a_link_is_told_where_it_differs() {
    let action = action("a", "r");
    let shown = |exe: &'static [u8], name: &'static [u8]| {
        let exec = Exec {
            text: b"x",
            argv_bytes: 2,
            truncated: false,
            exe,
            name,
        };
        let mut line = Vec::new();
        Record::exec(&action, &exec)
            .write_line(&mut line)
            .expect("line");
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        value["parameters"]["resolved"].as_str().map(str::to_owned)
    };
    assert_eq!(shown(b"/tmp/harmless", b"rm").as_deref(), Some("rm"));
    assert_eq!(shown(b"/usr/bin/rm", b"rm"), None);
    assert_eq!(shown(b"/usr/bin/rm", b""), None);
}

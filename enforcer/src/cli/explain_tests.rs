use std::collections::BTreeMap;

use super::*;
use enforcer_policy::{
    Policy,
    model::{
        Agents, Approvals, BreakerSettings, ConnectPolicy, DEFAULT_TRUSTED_DIRS, ExecPolicy, Form,
        Limits, PathLists, Patterns, Rule, Syscalls, Tools, WebTools,
    },
};
use enforcer_redact::Masking;

fn engine() -> Engine {
    let rule = |pattern: &str, decision| Rule {
        id: pattern.to_owned(),
        decision,
        // An allow rule of high risk would ask about `rm -rf` wherever it stands.
        risk: match decision {
            Decision::Allow => Risk::Low,
            _ => Risk::High,
        },
        matcher: Patterns::Glob(vec![pattern.to_owned()]),
        unless: Vec::new(),
        justification: None,
        suggestion: Some("do not".to_owned()),
        requires: Vec::new(),
        examples: Vec::new(),
        counter_examples: Vec::new(),
    };
    let policy = Policy {
        form: Form::Hook,
        version: "1.1".to_owned(),
        exec: ExecPolicy {
            default: Decision::Deny,
            trusted_dirs: DEFAULT_TRUSTED_DIRS.map(str::to_owned).to_vec(),
            transparent: vec!["sh".to_owned()],
            fileless: Decision::Deny,
            descriptor: Decision::Deny,
            loader: Decision::Deny,
            rules: vec![
                rule("rm -rf*", Decision::Deny),
                rule("ls*", Decision::Allow),
                rule("git *", Decision::Allow),
            ],
        },
        connect: ConnectPolicy {
            outside: enforcer_policy::model::OutsideListeners::default(),
            default: Decision::Allow,
            unix_default: Decision::Allow,
            rules: Vec::new(),
        },
        agents: Agents::default(),
        approvals: Approvals::default(),
        syscalls: Syscalls::default(),
        guard: enforcer_policy::model::Guard::default(),
        capabilities: BTreeMap::new(),
        tenants: Vec::new(),
        limits: Limits::default(),
        breaker: BreakerSettings::default(),
        masking: Masking::default(),
        event_buffer: enforcer_policy::model::EVENT_BUFFER,
        file_paths: PathLists::default(),
        web_tools: WebTools::default(),
        tools: Tools::default(),
    };
    Engine::new(policy, 7).unwrap()
}

fn lines(input: &[u8]) -> Vec<serde_json::Value> {
    let mut output = Vec::new();
    stdin(&engine(), None, None, input, &mut output).unwrap();
    String::from_utf8(output)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn answers_come_in_order_and_bad_lines_are_denied() {
    let input = br#"{"argv":["ls","-l"]}
{"command":"git log; rm -rf /"}

{"host":"169.254.169.254","port":80}
{"host":"[::1]","port":80,"protocol":"UDP"}
{"host":"example.org","port":443}
{"argv":[]}
{"argv":["ls"],"host":"::1"}
{"argv":["ls"],"port":1}
{"nonsense":1}
not json
{"host":"::1","port":80,"protocol":"sctp"}
{"host":"::1","port":65536}
{"argv":["make"]}"#;
    let answers = lines(input);
    let decisions: Vec<_> = answers
        .iter()
        .map(|answer| answer["decision"].as_str().unwrap())
        .collect();
    assert_eq!(
        decisions,
        [
            "allow", "deny", "deny", "allow", "allow", "deny", "deny", "deny", "deny", "deny",
            "deny", "deny", "deny"
        ]
    );
    assert_eq!(answers[1]["reason"], "Matches blacklist pattern: rm -rf*");
    assert_eq!(answers[1]["suggestion"], "do not");
    assert_eq!(answers[2]["rule"], "metadata");
    assert!(
        answers[4]["reason"]
            .as_str()
            .unwrap()
            .contains("not judged yet")
    );
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(
            answer.get("error").is_some(),
            (5..12).contains(&at),
            "{answer}"
        );
    }
}

#[test]
fn keys_are_always_there_in_order() {
    let answers = lines(br#"{"argv":["make"]}"#);
    let keys: Vec<_> = answers[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "decision",
            "rule",
            "reason",
            "risk",
            "suggestion",
            "matched",
            "suggestions",
            "cause"
        ]
    );
}

#[test]
fn the_strictest_part_of_a_text_wins() {
    let engine = engine();
    let decides = |text: &str| judge_command(&engine, text, &ByText).decision;
    assert_eq!(decides("ls && git log | ls"), Decision::Allow);
    assert_eq!(decides("ls && (git log; 'rm' -rf x)"), Decision::Deny);
    assert_eq!(decides("git commit -m 'x | rm -rf y'"), Decision::Allow);
    // The hooks of this form deny it, quoted or not.
    assert_eq!(decides("git commit -m 'x; rm -rf y'"), Decision::Deny);
    // What a substitution starts is a part like any other.
    let inside = judge_command(&engine, "ls $(make)", &ByText);
    assert_eq!(inside.decision, Decision::Deny);
    assert_eq!(inside.part, ["make"]);
    assert_eq!(decides(""), Decision::Allow);
}

#[test]
fn a_line_that_is_too_long_is_denied_and_the_next_is_answered() {
    let mut input = vec![b'x'; LINE_MAX as usize + 5];
    input.extend(b"\n{\"argv\":[\"ls\"]}\n");
    let answers = lines(&input);
    assert_eq!(answers.len(), 2);
    assert!(answers[0]["error"].as_str().unwrap().contains("longer"));
    assert_eq!(answers[1]["decision"], "allow");
}

#[test]
fn unix_sockets_are_judged_by_their_names() {
    let input = br#"{"unix":"/var/run/docker.sock"}
{"unix":"@/tmp/dbus-x"}
{"unix":"/tmp/ssh-a/agent.1"}
{"unix":"/run/nscd/socket"}
{"unix":"run/docker.sock"}
{"unix":"/run/nscd/socket","port":1}
{"unix":"/run/nscd/socket","argv":["ls"]}"#;
    let answers = lines(input);
    let said: Vec<_> = answers
        .iter()
        .map(|answer| {
            let rule = answer["rule"].as_str().unwrap_or("-");
            (
                answer["decision"].as_str().unwrap(),
                rule,
                answer.get("error").is_some(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("deny", "socket:docker", false),
            ("deny", "socket:dbus-session", false),
            ("ask", "socket:ssh-agent", false),
            ("allow", "-", false),
            ("deny", "-", true),
            ("deny", "-", true),
            ("deny", "-", true),
        ]
    );
    let keys: Vec<_> = answers[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "decision",
            "rule",
            "reason",
            "risk",
            "suggestion",
            "matched",
            "suggestions",
            "cause"
        ]
    );
    let reason = answers[0]["reason"].as_str().unwrap();
    assert!(reason.ends_with(" [socket:docker]"), "{reason}");
    assert!(answers[0]["suggestion"].is_string());
    assert_eq!(answers[3]["reason"], "No rule matches (default: allow)");
}

#[test]
fn one_thing_is_judged_at_a_time() {
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }
    let parse = |words: &[&str]| {
        let line = ["explain", "--policy", "p.json"].iter().chain(words);
        Line::try_parse_from(line).map(|line| line.args.unix)
    };
    assert_eq!(
        parse(&["--unix", "@x"]).unwrap(),
        Some(OsString::from("@x"))
    );
    assert_eq!(parse(&["--", "ls"]).unwrap(), None);
    for bad in [
        &[][..],
        &["--unix", "/x", "--", "ls"],
        &["--unix", "/x", "--stdin"],
        &["--unix"],
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

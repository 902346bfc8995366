use super::*;
use enforcer_policy::{ConnectAction, Decision, UnixAction};

fn bare() -> Engine {
    let text = r#"{"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"}}"#;
    Engine::new(enforcer_policy::parse(text).unwrap().policy, 0).unwrap()
}

fn ran(line: &[&str]) -> ExecAction {
    let mut argv: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
    if !line[0].contains('/') {
        argv[0] = format!("/usr/bin/{}", line[0]).into_bytes();
    }
    ExecAction {
        path: argv[0].clone(),
        argv,
        ..ExecAction::default()
    }
}

fn exec(line: &[&str], whole: bool) -> Observed {
    Observed {
        when: "2026-11-21T10:00:00+00:00".to_owned(),
        what: What::Exec {
            action: Box::new(ran(line)),
            whole,
        },
    }
}

fn engine(suggestion: &Suggestion) -> Engine {
    let text = suggestion.policy.to_string();
    let parsed = enforcer_policy::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(parsed.warnings, [], "{text}");
    Engine::new(parsed.policy, 0).unwrap()
}

const LINES: [&[&str]; 14] = [
    &["git", "status", "--short"],
    &["git", "commit", "-m", "a * [b] \\ c"],
    &["git", "-C", "dir", "log"],
    &["git"],
    &["cargo", "test", "-q"],
    &["ls", "-la", "src"],
    &["rm", "-rf", "target/tmp x"],
    &["python3", "tools/gen.py", "--all"],
    &["python3", "-c", "print(1) "],
    &["gh", "pr", "view", "12"],
    &["/home/kim/project/run.sh", "x"],
    &["./configure"],
    &["default"],
    &["bash", "-c", "anything"],
];

#[test]
fn what_was_seen_is_allowed_and_nothing_like_it() {
    let suggestion = suggest(LINES.iter().map(|line| exec(line, true)), &bare());
    assert!(suggestion.left_out.is_empty(), "{:?}", suggestion.left_out);
    let engine = engine(&suggestion);
    for line in LINES {
        let outcome = engine.exec(&ran(line));
        assert_eq!(
            outcome.decision,
            Decision::Allow,
            "{line:?}: {}",
            suggestion.policy
        );
    }
    for other in [
        &["git", "push"][..],
        &["git", "-C", "other", "log"],
        &["cargo", "publish"],
        &["rm", "-rf", "/"],
        &["python3", "-c", "print(2) "],
        &["python3", "other.py"],
        &["gh", "pr", "merge"],
        &["/tmp/run.sh", "x"],
        &["/tmp/ls"],
        &["curl", "x"],
    ] {
        let outcome = engine.exec(&ran(other));
        assert_eq!(
            outcome.decision,
            Decision::Deny,
            "{other:?}: {}",
            suggestion.policy
        );
    }
    // Files are listed with any arguments.
    assert_eq!(engine.exec(&ran(&["ls", "/"])).decision, Decision::Allow);
    let careful: Vec<&str> = suggestion.careful.iter().map(String::as_str).collect();
    assert_eq!(careful, ["python3", "rm"]);
}

#[test]
fn the_examples_of_the_rules_hold() {
    let suggestion = suggest(LINES.iter().map(|line| exec(line, true)), &bare());
    let parsed = enforcer_policy::parse(&suggestion.policy.to_string()).unwrap();
    let faults = enforcer_policy::validate::examples(&parsed, &|rule, words| {
        let words = words.iter().map(|word| word.clone().into_bytes()).collect();
        enforcer_policy::RuleCheck::new(rule, &parsed.policy.exec.trusted_dirs)
            .unwrap()
            .matches(&ExecAction::from_words(words))
    });
    assert_eq!(faults, []);
}

#[test]
fn what_was_replaced_gets_into_no_rule() {
    let observed = [
        exec(&["git", "clone", "https://[REDACTED]@host/x"], false),
        exec(&["curl", "-H", "[REDACTED]"], false),
        exec(&["/opt/[REDACTED_TOKEN]/tool"], false),
        exec(&["ls", "[REDACTED]"], false),
    ];
    let suggestion = suggest(observed, &bare());
    let text = suggestion.policy.to_string();
    assert!(!text.contains("REDACTED"), "{text}");
    assert_eq!(suggestion.left_out.len(), 2, "{:?}", suggestion.left_out);
    let engine = engine(&suggestion);
    let allowed = |line: &[&str]| engine.exec(&ran(line)).decision == Decision::Allow;
    assert!(allowed(&["git", "clone", "https://kim:x@host/x"]));
    assert!(allowed(&["ls", "x"]));
    assert!(!allowed(&["curl", "-H", "x"]));
}

#[test]
fn what_no_allow_rule_can_hold_is_named() {
    let mut memfd = exec(&["/proc/self/fd/3"], true);
    if let What::Exec { action, .. } = &mut memfd.what {
        action.fileless = true;
    }
    let observed = [
        memfd,
        exec(&["/lib64/ld-linux-x86-64.so.2", "/bin/ls"], true),
        exec(&["/home/kim/my dir/tool"], true),
    ];
    let suggestion = suggest(observed, &bare());
    assert_eq!(suggestion.left_out.len(), 3, "{:?}", suggestion.left_out);
    assert_eq!(suggestion.policy["exec"]["rules"], json!([]));
}

#[test]
fn connects_are_allowed_by_address_port_and_protocol() {
    let when = |what| Observed {
        when: "2026-11-21T10:00:00+00:00".to_owned(),
        what,
    };
    let tcp = |address: &str, port| {
        when(What::Connect {
            address: address.to_owned(),
            port,
            protocol: Some(Protocol::Tcp),
        })
    };
    let observed = [
        tcp("10.0.0.1", 5432),
        tcp("10.0.0.2", 5432),
        tcp("::1", 80),
        tcp("10.0.0.1", 0),
        when(What::Unix("/run/x[1].sock".to_owned())),
        when(What::Unix("@abstract".to_owned())),
    ];
    let suggestion = suggest(observed, &bare());
    let engine = engine(&suggestion);
    let decision = |address: &str, port, protocol| {
        let action = ConnectAction::new(address.parse().unwrap(), port, protocol);
        engine.connect(&action).decision
    };
    assert_eq!(decision("10.0.0.2", 5432, 6), Decision::Allow);
    assert_eq!(decision("::1", 80, 6), Decision::Allow);
    assert_eq!(decision("10.0.0.1", 80, 6), Decision::Deny);
    assert_eq!(decision("10.0.0.1", 5432, 17), Decision::Deny);
    let unix = |name: &str| engine.unix(&UnixAction::new(name)).decision;
    assert_eq!(unix("/run/x[1].sock"), Decision::Allow);
    assert_eq!(unix("@abstract"), Decision::Allow);
    assert_eq!(unix("/run/x1.sock"), Decision::Deny);
    assert_eq!(suggestion.left_out.len(), 1);
}

#[test]
fn a_rule_says_how_often_and_when() {
    let mut second = exec(&["ls"], true);
    second.when = "2026-11-20T10:00:00+00:00".to_owned();
    let suggestion = suggest([exec(&["ls"], true), second], &bare());
    assert_eq!(
        suggestion.policy["exec"]["rules"][0]["justification"],
        "seen 2 times, first 2026-11-20T10:00:00+00:00, last 2026-11-21T10:00:00+00:00"
    );
}

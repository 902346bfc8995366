use crate::Decision;
use crate::{parse, parse_all};

fn faults(text: &str) -> Vec<String> {
    let errors = parse_all(text).unwrap_err();
    errors.iter().map(|error| error.in_file("p.json")).collect()
}

#[test]
fn rules_about_unix_sockets_are_read() {
    let parsed = parse(
        r#"{"version": "2", "exec": {}, "connect": {"unix_default": "deny", "rules": [
{"id": "a", "decision": "allow", "unix": ["/var/run/nscd/*", "@x"]},
{"id": "b", "decision": "deny", "ports": [1]}]}}"#,
    )
    .unwrap();
    let connect = &parsed.policy.connect;
    assert_eq!(
        (connect.default, connect.unix_default),
        (Decision::Deny, Decision::Deny)
    );
    let [a, b] = connect.rules.as_slice() else {
        panic!("{connect:?}")
    };
    assert_eq!(a.unix, ["/run/nscd/*", "@x"]);
    assert!(a.hosts.is_empty());
    assert!(b.unix.is_empty() && b.hosts.len() == 1);
    assert_eq!(
        parsed.error_at_connect_rule(1, "x", "y").to_string(),
        "line 3, column 1: connect.rules[1]: x; y"
    );
    let open = parse(r#"{"version": "2", "exec": {}}"#).unwrap();
    assert_eq!(open.policy.connect.unix_default, Decision::Allow);
}

#[test]
fn faults_of_rules_about_unix_sockets_are_told() {
    let text = r#"{"version": "2", "exec": {}, "connect": {"rules": [
{"id": "a", "decision": "deny", "unix": ["/run/x"], "ports": [1]},
{"id": "b", "decision": "deny", "unix": []},
{"id": "c", "decision": "deny", "unix": ["docker.sock", "/run/../x"]},
{"id": "d", "decision": "allow", "protocols": ["tcp", "icmp"], "ports": [1]},
{"id": "socket:docker", "decision": "deny", "unix": ["/x"]}]}}"#;
    let told = faults(text);
    for wanted in [
        ":2:1: connect.rules[0]: the rule has `unix` beside `hosts`, `ports` or `protocols`",
        ":3:33: connect.rules[1].unix: the list is empty",
        ":4:42: connect.rules[2].unix[0]: \"docker.sock\" names no unix socket; write an absolute path",
        ":4:57: connect.rules[2].unix[1]: \"/run/../x\" is not a path in its shortest form",
        ":5:64: connect.rules[3].ports: ICMP has no ports",
        ":6:2: connect.rules[4].id: the id \"socket:docker\" is kept",
    ] {
        assert!(
            told.iter()
                .any(|line| line.starts_with(&format!("p.json{wanted}"))),
            "{wanted}\n{told:#?}"
        );
    }
    assert_eq!(told.len(), 6, "{told:#?}");
}

#[test]
fn system_calls_are_given_back_by_name_and_with_a_reason() {
    let parsed = parse(
        r#"{"version": "2", "exec": {}, "connect": {}, "syscalls": {"allow": [
{"name": "ptrace", "reason": "the agent debugs its own programs"},
{"name": "io_uring", "reason": "the database under test needs it"}]}}"#,
    )
    .unwrap();
    assert_eq!(parsed.warnings, []);
    let allow = &parsed.policy.syscalls.allow;
    assert_eq!(allow.len(), 2);
    assert_eq!(
        (allow[0].name.as_str(), allow[0].reason.as_str()),
        ("ptrace", "the agent debugs its own programs")
    );
    assert_eq!(
        parsed.error_at_syscall("allow", 1, "x", "y").to_string(),
        "line 3, column 2: syscalls.allow[1].name: x; y"
    );
    let told = faults(
        r#"{"version": "2", "exec": {}, "connect": {}, "syscalls": {"allow": [
{"name": "ptrace", "reason": " "},
{"name": "ptrace", "reason": "twice"},
{"name": "", "reason": "x"}], "deny": [
{"name": "ptrace", "reason": "both"},
{"name": "bpf", "reason": ""}]}}"#,
    );
    assert_eq!(
        told,
        [
            "p.json:2:20: syscalls.allow[0].reason: the reason is empty; say why the agent needs it: this opens a \
             way around the policy",
            "p.json:3:2: syscalls.allow[1].name: \"ptrace\" stands twice (first at line 2); keep one of the two",
            "p.json:4:2: syscalls.allow[2].name: the name is empty; write the name of a group of \
             `policies/built-in/syscall-groups.json`, such as \"ptrace\"",
            "p.json:5:2: syscalls.deny[0].name: \"ptrace\" stands twice (first at line 2); keep one of the two",
            "p.json:6:17: syscalls.deny[1].reason: the reason is empty; say why the agent must not have it",
        ]
    );
}

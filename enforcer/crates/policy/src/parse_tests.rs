//! Every fault of a policy's text gives one message with place, fault and mend; good policies become the model.

use super::super::model::{ArgvPattern, Example, Form, Patterns, Protocol};
use super::*;
use crate::{Decision, Risk};

/// Errors, one a line, as `policy check` prints them.
fn faults(text: &str) -> Vec<String> {
    match parse_all(text) {
        Ok(parsed) => panic!("accepted: {:?}", parsed.policy),
        Err(errors) => errors.iter().map(|error| error.in_file("p.json")).collect(),
    }
}

fn fault(text: &str) -> String {
    let faults = faults(text);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    assert!(!faults[0].contains('\n'), "{}", faults[0]);
    faults[0].clone()
}

/// A native policy with this text as its list of exec rules.
fn with_rules(rules: &str) -> String {
    format!("{{\"version\": \"2\", \"exec\": {{\"rules\": [\n{rules}\n]}}, \"connect\": {{}}}}")
}

/// A native policy with this text as its list of connect rules.
fn with_connects(rules: &str) -> String {
    format!("{{\"version\": \"2\", \"exec\": {{}}, \"connect\": {{\"rules\": [\n{rules}\n]}}}}")
}

const FULL: &str = r#"{
  "$schema": "policy.schema.json",
  "version": "2",
  "description": "everything that the form has",
  "exec": {
    "default": "allow",
    "trusted_dirs": ["/usr/bin", "/opt/tools/bin/"],
    "transparent": ["sh", "bash"],
    "fileless": "ask",
    "loader": "allow",
    "rules": [
      {"id": "rm", "decision": "deny", "risk": "CRITICAL", "glob": ["rm -rf /*", "rm -fr /*"],
       "justification": "loses data", "suggestion": "name the directory", "requires": ["files"],
       "match": ["rm -rf /home", ["rm", "-rf", "/a b"]], "not_match": ["rm -rf build"]},
      {"id": "force", "decision": "ask", "argv": {"program": "git", "words": ["push", ["a", "b"]],
       "flags_any": ["-f", "--force"], "flags_all": ["--all"]}},
      {"id": "curl", "decision": "allow", "regex": ["^curl .*\\d$"]}
    ]
  },
  "connect": {
    "default": "allow",
    "rules": [
      {"id": "db", "decision": "deny", "hosts": ["10.0.0.0/8", "::1", "10.0.0.0/8"], "ports": [5432, 5433, 5432],
       "protocols": ["tcp"]},
      {"id": "mail", "decision": "ask", "ports": [25]}
    ]
  },
  "agents": {"trusted": ["a"], "restricted": ["b"]},
  "capabilities": {"a": ["files"]},
  "limits": {"exec": "100/1h", "connect": "50/1m"},
  "breaker": {"denials": 10, "half_open_after_s": null},
  "approvals": {"timeout_s": 300},
  "audit": {"pii": "standard"}
}"#;

#[test]
fn the_whole_native_form_becomes_the_model() {
    let parsed = parse(FULL).unwrap();
    let policy = &parsed.policy;
    assert_eq!((policy.form, policy.version.as_str()), (Form::Native, "2"));
    let exec = &policy.exec;
    assert_eq!(exec.trusted_dirs, ["/usr/bin", "/opt/tools/bin"]);
    assert_eq!(exec.transparent, ["sh", "bash"]);
    assert_eq!(
        (exec.default, exec.fileless, exec.loader),
        (Decision::Allow, Decision::Ask, Decision::Allow)
    );
    let [rm, force, curl] = exec.rules.as_slice() else {
        panic!("{:?}", exec.rules)
    };
    assert_eq!((rm.decision, rm.risk), (Decision::Deny, Risk::Critical));
    assert_eq!(
        rm.matcher,
        Patterns::Glob(vec!["rm -rf /*".into(), "rm -fr /*".into()])
    );
    assert_eq!(rm.justification.as_deref(), Some("loses data"));
    assert_eq!(rm.suggestion.as_deref(), Some("name the directory"));
    assert_eq!(rm.requires, ["files"]);
    assert_eq!(
        rm.examples,
        [
            Example::Line("rm -rf /home".into()),
            Example::Words(vec!["rm".into(), "-rf".into(), "/a b".into()])
        ]
    );
    assert_eq!(rm.counter_examples, [Example::Line("rm -rf build".into())]);
    assert_eq!((force.decision, force.risk), (Decision::Ask, Risk::Medium));
    assert_eq!(
        force.matcher,
        Patterns::Argv(ArgvPattern {
            program: vec!["git".into()],
            words: vec![vec!["push".into()], vec!["a".into(), "b".into()]],
            flags_any: vec!["-f".into(), "--force".into()],
            flags_all: vec!["--all".into()],
            ..ArgvPattern::default()
        })
    );
    assert_eq!((curl.decision, curl.risk), (Decision::Allow, Risk::Low));
    assert_eq!(curl.matcher, Patterns::Regex(vec![r"^curl .*\d$".into()]));

    let [db, mail] = policy.connect.rules.as_slice() else {
        panic!("{:?}", policy.connect.rules)
    };
    assert_eq!(policy.connect.default, Decision::Allow);
    assert_eq!(db.hosts.len(), 2);
    assert_eq!(db.hosts[0].prefix, 104);
    assert_eq!(db.ports, [5432, 5433]);
    assert_eq!(db.protocols, [Protocol::Tcp]);
    assert_eq!(db.risk, Risk::High);
    assert_eq!(
        (mail.hosts[0].prefix, mail.ports.as_slice()),
        (0, &[25][..])
    );
    assert!(mail.protocols.is_empty());
    assert_eq!(policy.agents.trusted, ["a"]);
    assert_eq!(policy.agents.restricted, ["b"]);
}

#[test]
fn what_is_left_out_is_denied_and_a_missing_section_is_said() {
    let parsed = parse(r#"{"version": "2", "exec": {}}"#).unwrap();
    let policy = &parsed.policy;
    assert_eq!(policy.exec.default, Decision::Deny);
    assert_eq!(
        (policy.exec.fileless, policy.exec.loader),
        (Decision::Deny, Decision::Deny)
    );
    assert!(policy.exec.transparent.is_empty());
    assert!(policy.exec.trusted_dirs.contains(&"/usr/bin".to_owned()));
    assert_eq!(policy.connect.default, Decision::Deny);
    assert_eq!(parsed.warnings.len(), 1);
    assert!(
        parsed.warnings[0]
            .text
            .contains("every connect to an address is denied")
    );
}

#[test]
fn a_text_that_is_no_policy_is_refused() {
    for (text, wanted) in [
        ("", "p.json: the policy is empty; "),
        (" \n\t", "p.json: the policy is empty; "),
        (
            "\u{feff}{}",
            "p.json: the policy starts with a byte order mark; ",
        ),
        ("{}", "p.json: this is not a policy: "),
        (
            "[]",
            "p.json:1:1: sequence cannot stand here; write an object: {…}",
        ),
        (
            "7",
            "p.json:1:1: integer `7` cannot stand here; write an object: {…}",
        ),
        (
            "{\"version\": \"2\",\n \"exec\": {\"rul",
            "p.json:2:14: the JSON ends too early (EOF while parsing a string); the file may have been cut short",
        ),
        (
            "{\"version\": \"2\",}",
            "p.json:1:17: this is not JSON: key must be a string; ",
        ),
        (
            "{\"exec\": {}}\n{}",
            "p.json:2:1: this is not JSON: trailing characters; ",
        ),
        (
            "version: 2",
            "p.json:1:1: this is not JSON: expected value; ",
        ),
    ] {
        let found = fault(text);
        assert!(found.starts_with(wanted), "{text:?}\n{found}");
    }
}

#[test]
fn a_text_that_is_not_utf8_is_refused_at_its_line() {
    let errors = parse_bytes(b"{\"version\": \"2\",\n \"description\": \"\xff\"}").unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        errors[0].to_string(),
        "line 2, column 18: the text is not UTF-8 (byte 0xff at offset 34); save the file as UTF-8"
    );
}

#[test]
fn a_text_that_is_too_large_or_too_deep_is_refused() {
    let large = format!("{{\"description\": \"{}\"}}", "x".repeat(MAX_BYTES));
    assert!(fault(&large).contains("the policy is too large"));
    let deep = format!(
        "{{\"version\": \"2\",\n\"exec\": {}{}}}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let found = fault(&deep);
    assert!(found.starts_with("p.json:2:"), "{found}");
    assert!(found.contains("nested deeper than 32 levels"), "{found}");
    // Just inside the limit it is the types that say no.
    let inside = format!("{{\"exec\": {}{}}}", "[".repeat(31), "]".repeat(31));
    assert!(!fault(&inside).contains("nested"));
}

#[test]
fn a_key_that_stands_twice_is_refused_with_both_lines() {
    assert_eq!(
        fault(
            "{\"version\": \"2\",\n\"exec\": {\"default\": \"deny\",\n\"rules\": [],\n \"default\": \"allow\"}}"
        ),
        "p.json:4:2: exec.default: the key stands twice in one object (first at line 2); keep one of the two"
    );
    // Written with an escape it is the same key.
    assert!(fault(r#"{"exec": {}, "\u0065xec": {}}"#).contains("stands twice"));
    let rule = r#"{"id": "a", "decision": "deny", "id": "b", "glob": ["x"]}"#;
    assert!(fault(&with_rules(rule)).contains("exec.rules[0].id: the key stands twice"));
}

#[test]
fn an_unknown_key_is_named_with_its_nearest() {
    for (text, wanted) in [
        (
            "{\"version\": \"2\",\n  \"exce\": {}}".to_owned(),
            "p.json:2:3: exce: unknown key \"exce\"; did you mean \"exec\"?",
        ),
        (
            with_rules(r#"{"id": "a", "decison": "deny", "glob": ["x"]}"#),
            "p.json:2:13: exec.rules[0].decison: unknown key \"decison\"; did you mean \"decision\"?",
        ),
        (
            with_rules(
                r#"{"id": "a", "decision": "deny", "argv": {"program": "x", "flag_any": ["-f"]}}"#,
            ),
            "p.json:2:58: exec.rules[0].argv.flag_any: unknown key \"flag_any\"; did you mean \"flags_any\"?",
        ),
        (
            with_connects(r#"{"id": "a", "decision": "deny", "hosts": ["::1"], "match": []}"#),
            "p.json:2:51: connect.rules[0].match: unknown key \"match\"; remove it; the keys known here are id, ",
        ),
        (
            r#"{"version": "2", "exec": {}, "bash": {}}"#.to_owned(),
            "p.json:1:30: bash: unknown key \"bash\"; the native form (`version` \"2\", `exec`, `connect`) and",
        ),
        (
            r#"{"bash": {"whitelist": [], "blacklst": []}, "file_paths": {}, "agents": {}}"#
                .to_owned(),
            "p.json:1:28: bash.blacklst: unknown key \"blacklst\"; did you mean \"blacklist\"?",
        ),
        (
            "{\"exec\": {}, \"a`, expected `b\": 1}".to_owned(),
            "p.json:1:14: [\"a`, expected `b\"]: unknown key \"a`, expected `b\"; remove it",
        ),
    ] {
        let found = fault(&text);
        assert!(found.starts_with(wanted), "{text}\n{found}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_at_its_place() {
    for (text, wanted) in [
        (
            r#"{"version": 2, "exec": {}}"#.to_owned(),
            "p.json:1:2: version: integer `2` cannot stand here; write a string: \"…\"",
        ),
        (
            r#"{"version": "2", "exec": ["allow"]}"#.to_owned(),
            "p.json:1:18: exec: sequence cannot stand here; write an object: {…}",
        ),
        (
            with_rules(r#"["a", "allow", "LOW", ["*"]]"#),
            "p.json:2:1: exec.rules[0]: sequence cannot stand here; write an object: {…}",
        ),
        (
            r#"{"version": "3", "exec": {}, "connect": {}}"#.to_owned(),
            "p.json:1:2: version: version \"3\" of the native form is not known; write \"2\"",
        ),
        (
            with_rules(r#"{"id": "a", "decision": "alow", "glob": ["x"]}"#),
            "p.json:2:13: exec.rules[0].decision: \"alow\" is not known here; write one of \"allow\", \"ask\", \"deny\"",
        ),
        (
            with_rules(r#"{"id": "a", "decision": "deny", "glob": "x"}"#),
            "p.json:2:33: exec.rules[0].glob: string \"x\" cannot stand here; write a list: […]",
        ),
        (
            with_rules("{\"id\": \"a\", \"decision\": \"deny\", \"glob\": [\"x\",\n7]}"),
            "p.json:3:1: exec.rules[0].glob[1]: integer `7` cannot stand here; write a string: \"…\"",
        ),
        (
            with_rules(r#"{"id": "a", "decision": "deny", "argv": {"program": ["x", null]}}"#),
            "p.json:2:59: exec.rules[0].argv.program[1]: null cannot stand here; write a string: \"…\"",
        ),
        (
            with_rules(r#"{"id": "a", "decision": "deny", "argv": {"program": 7}}"#),
            "p.json:2:42: exec.rules[0].argv.program: integer `7` cannot stand here; write a string or a list of strings",
        ),
        (
            with_rules(r#"{"decision": "deny", "glob": ["x"]}"#),
            "p.json:2:1: exec.rules[0]: the key \"id\" is missing; add it",
        ),
        (
            with_connects(r#"{"id": "a", "decision": "deny", "ports": [70000]}"#),
            "p.json:2:43: connect.rules[0].ports[0]: integer `70000` cannot stand here; write a number from 1 to 65535",
        ),
        (
            r#"{"bash": {"whitelist": [], "blacklist": []}, "agents": {"trusted": []}}"#.to_owned(),
            "p.json:1:1: the key \"file_paths\" is missing; add it",
        ),
    ] {
        assert_eq!(fault(&text), wanted, "{text}");
    }
}

#[test]
fn faults_of_content_are_all_told_with_place_and_mend() {
    let text = with_rules(
        r#"{"id": "rm-root", "decision": "deny", "glob": ["rm -rf /*"]},
{"id": "a", "decision": "deny", "regex": ["ok", "git (push"]},
{"id": "rm-root", "decision": "deny", "glob": ["x"]},
{"id": "metadata", "decision": "deny", "glob": ["x"]},
{"id": "", "decision": "deny", "glob": ["x"]},
{"id": "b", "decision": "deny"},
{"id": "c", "decision": "deny", "glob": ["x"], "regex": ["y"]},
{"id": "d", "decision": "deny", "glob": []},
{"id": "e", "decision": "deny", "argv": {"program": [], "words": ["a", [""]], "flags_any": []}},
{"id": "f", "decision": "deny", "glob": ["a\u0000b"]},
{"id": "g", "decision": "deny", "glob": ["x"], "match": ["echo 'x"], "not_match": [[], " "]},
{"id": "h", "decision": "deny", "regex": ["(?=x)y"]}"#,
    );
    let wanted = [
        "3:49: exec.rules[1].regex[1]: bad regular expression \"git (push\": unclosed group, at its character 5; correct it (in JSON every backslash is written twice)",
        "4:2: exec.rules[2].id: duplicate id \"rm-root\" (first at line 2); give each rule an id of its own",
        "5:2: exec.rules[3].id: the id \"metadata\" is kept for decisions that no rule of the policy makes; give the rule another id",
        "6:2: exec.rules[4].id: \"\" cannot be an id; write 1 to 200 characters without control characters",
        "7:1: exec.rules[5]: the rule says nothing of what it matches; give it one of `glob`, `regex` and `argv`",
        "8:1: exec.rules[6]: the rule has more than one of `glob`, `regex` and `argv`; keep one, and make a rule of its own for each other",
        "9:33: exec.rules[7].glob: the list is empty; add an entry, or remove the key",
        "10:42: exec.rules[8].argv.program: the list is empty; add an entry, or remove the key",
        "10:73: exec.rules[8].argv.words[1][0]: the text is empty; fill it in, or remove it",
        "10:79: exec.rules[8].argv.flags_any: the list is empty; add an entry, or remove the key",
        "11:42: exec.rules[9].glob[0]: the text holds a NUL, which no argument can; remove the NUL",
        "12:58: exec.rules[10].match[0]: the example cannot be split into words: a quote or backslash is left open; close it, or write the words as a list: [\"echo\", \"it's\"]",
        "12:84: exec.rules[10].not_match[0]: the example is empty; write a command, or remove it",
        "12:88: exec.rules[10].not_match[1]: the example is empty; write a command, or remove it",
        "13:43: exec.rules[11].regex[0]: bad regular expression \"(?=x)y\": look-around, including look-ahead and look-behind, is not supported, at its character 1; correct it (in JSON every backslash is written twice)",
    ];
    let wanted: Vec<String> = wanted.iter().map(|line| format!("p.json:{line}")).collect();
    assert_eq!(faults(&text), wanted);
}

#[test]
fn faults_of_settings_and_connect_rules_are_told() {
    let text = r#"{"version": "2",
"exec": {"trusted_dirs": ["/", "bin", "/usr/../bin", "/usr//bin"], "transparent": ["/bin/sh"]},
"connect": {"rules": [
{"id": "a", "decision": "deny", "hosts": ["example.com", "10.1.0.0/8"], "ports": [22, 0]},
{"id": "a", "decision": "deny"},
{"id": "b", "decision": "deny", "hosts": [], "protocols": []}]},
"limits": {"exec": "100 per hour", "connect": "0/1m"},
"breaker": {"denials": 0}, "approvals": {"timeout_s": 0}}"#;
    let told = faults(text);
    for wanted in [
        ":2:27: exec.trusted_dirs[0]: \"\" is not an absolute directory",
        ":2:32: exec.trusted_dirs[1]: \"bin\" is not an absolute directory",
        ":2:39: exec.trusted_dirs[2]: ",
        ":2:54: exec.trusted_dirs[3]: ",
        ":2:84: exec.transparent[0]: \"/bin/sh\" is not a base name",
        ":4:43: connect.rules[0].hosts[0]: `example.com` is a host name, and connect rules cannot judge names yet; name the addresses",
        ":4:58: connect.rules[0].hosts[1]: `10.1.0.0/8` has address bits beyond its prefix; write `10.0.0.0/8`",
        ":4:87: connect.rules[0].ports[1]: 0 is not a port",
        ":5:2: connect.rules[1].id: duplicate id \"a\" (first at line 4)",
        ":5:1: connect.rules[1]: the rule would match every connect",
        ":6:33: connect.rules[2].hosts: the list is empty",
        ":6:46: connect.rules[2].protocols: the list is empty",
        ":7:12: limits.exec: \"100 per hour\" is not a rate",
        ":7:36: limits.connect: \"0/1m\" is not a rate",
        ":8:13: breaker.denials: 0 is not allowed",
        ":8:42: approvals.timeout_s: 0 seconds are not a time to wait",
    ] {
        assert!(
            told.iter()
                .any(|line| line.starts_with(&format!("p.json{wanted}"))),
            "{wanted}\n{told:#?}"
        );
    }
    assert_eq!(told.len(), 16, "{told:#?}");
}

#[test]
fn ids_are_unique_over_exec_and_connect_rules() {
    let text = r#"{"version": "2", "exec": {"rules": [{"id": "a", "decision": "deny", "glob": ["x"]}]},
        "connect": {"rules": [{"id": "a", "decision": "deny", "ports": [1]}]}}"#;
    assert!(fault(text).contains("connect.rules[0].id: duplicate id \"a\" (first at line 1)"));
}

#[test]
fn thousands_of_faults_end_in_a_count() {
    let rules = vec![r#"{"id": "a", "decision": "deny", "glob": ["x"]}"#; 5000].join(",\n");
    let told = faults(&with_rules(&rules));
    assert_eq!(told.len(), 21);
    assert_eq!(
        told[20],
        "p.json: 4979 more errors are not shown; mend these first, then check again"
    );
}

#[test]
fn ten_thousand_rules_are_read() {
    let rules: Vec<String> = (0..10_000)
        .map(|index| {
            format!(
                r#"{{"id": "r{index}", "decision": "deny", "argv": {{"program": "p{index}"}}}}"#
            )
        })
        .collect();
    let parsed = parse(&with_rules(&rules.join(",\n"))).unwrap();
    assert_eq!(parsed.policy.exec.rules.len(), 10_000);
    assert_eq!(
        parsed.error_at_rule(9_999, "x", "y").to_string(),
        "line 10001, column 1: exec.rules[9999]: x; y"
    );
}

#[test]
fn no_cut_or_changed_byte_makes_reading_panic() {
    for end in 0..FULL.len() {
        assert!(parse_all(&FULL[..end]).is_err(), "{end}");
    }
    for at in 0..FULL.len() {
        for byte in [b'"', b'{', b']', b'\\', b',', b'0', 0, 0xff] {
            let mut bytes = FULL.as_bytes().to_vec();
            bytes[at] = byte;
            if let Err(errors) = parse_bytes(&bytes) {
                assert!(!errors.is_empty());
            }
        }
    }
}

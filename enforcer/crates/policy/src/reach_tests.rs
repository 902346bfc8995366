use crate::{parse, parse_all};

/// The faults of one rule, each from its column on.
fn faults(rule: &str) -> Vec<String> {
    let text = format!(
        "{{\"version\": \"2\", \"connect\": {{}}, \"exec\": {{\"rules\": [\n{{\"id\": \"a\", {rule}}}]}}}}"
    );
    match parse_all(&text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn patterns_that_no_exec_can_match_are_errors_at_their_place() {
    for (rule, column, path, said) in [
        (
            r#""decision": "deny", "glob": ["ls", "a\u001bb *"]"#,
            48,
            "glob[1]",
            "control character",
        ),
        (
            r#""decision": "deny", "glob": ["~ann/bin/x *"]"#,
            42,
            "glob[0]",
            "another user's home",
        ),
        (
            r#""decision": "ask", "argv": {"program": "/usr//bin/x"}"#,
            41,
            "argv.program",
            "shortest form",
        ),
        (
            r#""decision": "deny", "argv": {"program": ["x", "/opt/./x"]}"#,
            59,
            "argv.program[1]",
            "shortest form",
        ),
        (
            r#""decision": "deny", "glob": ["/opt/../x*"]"#,
            42,
            "glob[0]",
            "shortest form",
        ),
        (
            r#""decision": "deny", "glob": ["/usr/bin/ *"]"#,
            42,
            "glob[0]",
            "shortest form",
        ),
        (
            r#""decision": "allow", "glob": ["/usr/bin/git *"]"#,
            43,
            "glob[0]",
            "write \"git\"",
        ),
        (
            r#""decision": "allow", "argv": {"program": "/bin/ls"}"#,
            43,
            "argv.program",
            "write \"ls\"",
        ),
    ] {
        let said_of = faults(rule);
        let [fault] = said_of.as_slice() else {
            panic!("{rule}: {said_of:?}");
        };
        let place = format!("line 2, column {column}: exec.rules[0].{path}: ");
        assert!(fault.starts_with(&place), "{rule}: {fault}");
        assert!(fault.contains(said), "{rule}: {fault}");
    }
}

#[test]
fn patterns_that_can_match_are_none() {
    for rule in [
        r#""decision": "deny", "glob": ["/usr/bin/id*", "*/bin/sh*", "~/bin/x", "$HOME/x *", "./x", "../x *", "/opt/*/../x"]"#,
        r#""decision": "deny", "argv": {"program": "/usr/bin/whoami"}"#,
        r#""decision": "allow", "glob": ["/opt/x/git *", "/usr/bin/g*", "x a/../b", "printf a\tb\nc"]"#,
        r#""decision": "deny", "glob": ["rm ~ann", "x //y"]"#,
    ] {
        assert_eq!(faults(rule), [""; 0], "{rule}");
    }
}

#[test]
fn a_pattern_that_takes_the_agents_shell_away_is_told() {
    let text = r#"{"bash": {"whitelist": ["ls"], "blacklist": ["sudo*", "*/bin/bash*", "/opt/sh*"]},
"file_paths": {"whitelist": [], "blacklist": []}, "agents": {"trusted": []}}"#;
    let warnings: Vec<String> = parse(text)
        .unwrap()
        .warnings
        .iter()
        .map(ToString::to_string)
        .filter(|text| text.contains("the shell"))
        .collect();
    assert_eq!(
        warnings,
        [
            "line 1, column 55: bash.blacklist[1]: the pattern \"*/bin/bash*\" denies the shell /usr/local/bin/bash itself: an \
          agent that starts its commands with it cannot run any; remove the pattern if what shells start is enough to judge"
        ]
    );
}

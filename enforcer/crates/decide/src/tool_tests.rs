use serde_json::json;

use super::*;

fn sample() -> Policy {
    let text = r#"{"version":"1","bash":{"whitelist":[],"blacklist":[]},
        "file_paths":{"whitelist":["*"],"blacklist":[]},"agents":{"trusted":[]},
        "web_tools":{"whitelist":["WebFetch","mcp__*__search"],"allow_all_domains":true},
        "tools":{"always_allowed":["Task","Todo*","mcp__notes__*"]}}"#;
    enforcer_policy::parse(text).unwrap().policy
}

fn made(tool: &str, input: Value) -> Result<ToolAction, ToolFault> {
    let Value::Object(input) = input else {
        panic!("an object")
    };
    call(&sample(), tool, &input)
}

fn paths_of(tool: &str, input: Value) -> Vec<String> {
    match made(tool, input).unwrap() {
        ToolAction::Paths { paths, .. } => paths,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_are_texts_or_words() {
    assert_eq!(
        made("Bash", json!({"command": "ls -l", "timeout": 5})),
        Ok(ToolAction::Text("ls -l".to_owned()))
    );
    assert_eq!(
        made("shell", json!({"command": ["bash", "-lc", "ls"]})),
        Ok(ToolAction::Words(
            ["bash", "-lc", "ls"].map(String::from).to_vec()
        ))
    );
    for (input, why) in [
        (json!({}), "missing"),
        (json!({"command": null}), "missing"),
        (json!({"command": 5}), "not a string"),
        (json!({"command": {"a": 1}}), "not a string"),
        (json!({"command": ["ls"]}), "takes a string"),
        (json!({"command": ["bash", "-lc", "ls"]}), "takes a string"),
        (json!({"command": "ls\u{0}rm"}), "NUL"),
        (json!({"command": " \n"}), "empty"),
        (json!({"command": "ls", "cmd": "rm -rf /"}), "both"),
    ] {
        let said = made("Bash", input.clone()).unwrap_err();
        assert!(said.contains(why), "{input}: {said}");
    }
}

#[test]
fn a_shell_tool_names_its_directory() {
    let named = |tool: &str, input: Value| {
        let Value::Object(input) = input else {
            panic!("an object")
        };
        directories(tool, &input)
    };
    for field in [
        "directory",
        "dir_path",
        "workdir",
        "working_directory",
        "cwd",
    ] {
        let input = json!({"command": "ls", field: "a b"});
        assert_eq!(
            named("run_shell_command", input),
            Ok(vec!["a b".to_owned()])
        );
    }
    let none = json!({"command": "ls", "directory": "", "cwd": null});
    assert_eq!(named("Shell", none), Ok(Vec::new()));
    let of_a_file = json!({"path": "x", "directory": "a"});
    assert_eq!(named("read_file", of_a_file), Ok(Vec::new()));
    for odd in [json!(["/"]), json!({}), json!("a\u{0}b")] {
        let input = json!({"command": "ls", "directory": odd});
        assert!(named("run_shell_command", input).is_err());
    }
}

#[test]
fn words_are_for_tools_that_take_them() {
    for tool in ["shell", "local_shell", "container.exec"] {
        for (input, why) in [
            (json!({"command": ["ls", 5]}), "not a string"),
            (json!({"command": ["ls", "a\u{0}b"]}), "NUL"),
            (json!({"command": []}), "empty"),
        ] {
            let said = made(tool, input.clone()).unwrap_err();
            assert!(said.contains(why), "{tool} {input}: {said}");
        }
    }
    for tool in ["Bash", "run_shell_command", "Shell", "exec_command", "bash"] {
        let said = made(tool, json!({"command": ["ls"]})).unwrap_err();
        assert!(said.contains("is a list"), "{tool}: {said}");
    }
}

#[test]
fn every_path_of_a_call_counts() {
    for (tool, input, expected) in [
        ("Read", json!({"file_path": "/a"}), &["/a"][..]),
        ("NotebookEdit", json!({"notebook_path": "n"}), &["n"]),
        ("read_many_files", json!({"paths": ["a", "b"]}), &["a", "b"]),
        (
            "Write",
            json!({"file_path": "a", "path": "/etc/b"}),
            &["a", "/etc/b"],
        ),
        ("Grep", json!({"pattern": "x"}), &["."]),
        ("LS", json!({"path": "/etc"}), &["/etc"]),
    ] {
        assert_eq!(paths_of(tool, input.clone()), expected, "{tool} {input}");
    }
    let Ok(ToolAction::Paths { patterns, .. }) = made("Glob", json!({"pattern": "/etc/**"})) else {
        panic!("paths")
    };
    assert_eq!(patterns, ["/etc/**"]);
    for (tool, input) in [
        ("Read", json!({})),
        ("Read", json!({"file_path": ""})),
        ("Write", json!({"file_path": ["a"]})),
        ("Edit", json!({"file_path": "a\u{0}"})),
    ] {
        assert!(made(tool, input.clone()).is_err(), "{tool} {input}");
    }
}

#[test]
fn a_patch_names_its_files() {
    let patch = "*** Begin Patch\n*** Add File: a.txt\n+*** Delete File: no\n*** Update File: b\n*** Move to: /etc/c\n@@\n-x\n  *** Delete File: d \n*** End Patch";
    for input in [
        json!({"command": patch}),
        json!({"input": patch}),
        json!({"command": ["apply_patch", patch]}),
    ] {
        assert_eq!(
            paths_of("apply_patch", input),
            ["a.txt", "b", "/etc/c", "d"]
        );
    }
    assert!(made("apply_patch", json!({"command": "rm -rf /"})).is_err());
}

#[test]
fn every_url_of_a_web_tool_counts() {
    let urls = |tool: &str, input: Value| match made(tool, input).unwrap() {
        ToolAction::Web(urls) => urls,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        urls(
            "WebFetch",
            json!({"url": "example.com", "prompt": "and http://127.0.0.1/"})
        ),
        ["example.com", "http://127.0.0.1/"]
    );
    assert_eq!(
        urls(
            "web_fetch",
            json!({"prompt": "read https://a.test and http://b.test"})
        ),
        ["https://a.test", "http://b.test"]
    );
    assert_eq!(
        urls("mcp__x__search", json!({"q": {"deep": ["file:///etc/x"]}})),
        ["file:///etc/x"]
    );
    assert_eq!(urls("WebSearch", json!({"query": "rust"})), [""; 0]);
    assert!(made("WebFetch", json!({"prompt": "x"})).is_err());
    let many: Vec<_> = (0..=MOST_URLS)
        .map(|n| format!("http://{n}.test"))
        .collect();
    assert!(made("WebFetch", json!({"urls": many})).is_err());
}

#[test]
fn other_tools_are_allowed_by_name_or_not_at_all() {
    let policy = sample();
    for (tool, decision) in [
        ("Task", Decision::Allow),
        ("TodoWrite", Decision::Allow),
        ("mcp__notes__add", Decision::Allow),
        ("Foo", Decision::Deny),
        ("task", Decision::Deny),
        ("mcp__x__do_search_y", Decision::Deny),
        ("", Decision::Deny),
    ] {
        assert_eq!(made(tool, json!({})), Ok(ToolAction::Other), "{tool}");
        assert_eq!(judge(&policy, tool, false).decision, decision, "{tool}");
    }
    let said = judge(&policy, "Foo", false).suggestions.join("; ");
    assert!(
        said.contains("\"Foo\"") && said.contains("tools.always_allowed"),
        "{said}"
    );
    let said = judge(&policy, "x\" y", false).suggestions.join("; ");
    assert!(said.contains("add it to"), "{said}");
    assert!(
        judge(&policy, "PowerShell", false)
            .reason
            .contains("code that is not judged")
    );
    assert!(
        judge(&policy, "AskUserQuestion", false)
            .reason
            .contains("of Claude Code")
    );
    assert_eq!(judge(&policy, "WebFetch", true).decision, Decision::Allow);
    let denied = judge(&policy, "WebSearch", true);
    assert_eq!(denied.decision, Decision::Deny);
    assert!(denied.reason.contains("Web tool not in whitelist"));
}

#[test]
fn the_first_of_the_strictest_wins() {
    let of = |decision, reason: &str| Outcome {
        decision,
        ..denied(Cause::Rule, reason.to_owned())
    };
    let all = [
        of(Decision::Allow, "a"),
        of(Decision::Ask, "b"),
        of(Decision::Ask, "c"),
    ];
    assert_eq!(strictest(all).unwrap().reason, "b");
    assert!(strictest([]).is_none());
}

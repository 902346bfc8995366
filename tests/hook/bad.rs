//! Whatever is wrong ends in an answer that denies, and never in a crash.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::{Value, json};

use crate::scene::{Scene, decided, hook_policy, run, said};

#[test]
fn bad_events_are_denied_in_the_contracts_words() {
    let scene = Scene::new(&hook_policy());
    let deep = format!(
        "{{\"hook_event_name\":{}1{}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let good = scene.event("Bash", json!({"command": "ls"})).to_string();
    let texts: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\n".to_vec(),
        good.as_bytes()[..good.len() - 10].to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\xff\xfe".to_vec(),
        deep.into_bytes(),
        b"{\"hook_event_name\":\"Unheard\",\"tool_name\":\"Bash\"}".to_vec(),
        b"{\"hook_event_name\":[],\"tool_name\":\"Bash\"}".to_vec(),
        [
            b"{\"hook_event_name\":\"".as_slice(),
            &vec![b'x'; 50 << 20],
            b"\"}",
        ]
        .concat(),
    ];
    for text in &texts {
        let start = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        // Nobody can tell whose event it is.
        let output = run(scene.hook(&[]), text);
        assert_eq!(output.status.code(), Some(2), "{start}: {output:?}");
        assert!(
            output.stdout.is_empty() && output.stderr.starts_with(b"enforcer: "),
            "{start}"
        );
        for (format, key, denied) in [
            ("claude", "/hookSpecificOutput/permissionDecision", "deny"),
            ("codex", "/hookSpecificOutput/permissionDecision", "deny"),
            ("gemini", "/decision", "deny"),
            ("qwen", "/hookSpecificOutput/permissionDecision", "deny"),
            ("cursor", "/permission", "deny"),
        ] {
            let output = run(scene.hook(&["--format", format]), text);
            assert_eq!(output.status.code(), Some(0), "{start}: {output:?}");
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                answer.pointer(key),
                Some(&denied.into()),
                "{start}: {answer}"
            );
        }
    }
}

#[test]
fn bad_calls_are_denied() {
    let scene = Scene::new(&hook_policy());
    for (tool, input) in [
        ("Bash", json!({})),
        ("Bash", json!({"command": null})),
        ("Bash", json!({"command": 7})),
        ("Bash", json!({"command": ["ls"], "cmd": "ls"})),
        ("Bash", json!({"command": "ls\u{0}"})),
        ("Bash", json!({"command": "  "})),
        (
            "Bash",
            json!({"command": format!("{}ls{}", "$(".repeat(5000), ")".repeat(5000))}),
        ),
        ("Read", json!({"file_path": {"a": 1}})),
        ("Read", json!({})),
        ("WebFetch", json!({"url": 5})),
    ] {
        let (decision, reason) = scene.ask(tool, input.clone());
        assert_eq!(decision, "deny", "{tool} {input}");
        assert!(!reason.is_empty());
    }
}

#[test]
fn without_a_usable_policy_everything_is_denied() {
    let scene = Scene::new(&hook_policy());
    let event = scene.event("Bash", json!({"command": "ls"}));
    let with = |policy: &Path| {
        let mut command = scene.command(&["hook", "--mode", "everywhere", "--policy"]);
        command.arg(policy);
        decided(&said(command, &event))
    };
    let link = scene.path().join("link.json");
    symlink(scene.policy(), &link).unwrap();
    let broken = scene.path().join("broken.json");
    fs::write(
        &broken,
        "{\"version\": \"2\", \"exec\": {\"default\": \"perhaps\"}}",
    )
    .unwrap();
    for (policy, why) in [
        (scene.path().join("none.json"), "does not exist"),
        (link, "symlink"),
        (broken, "enforcer policy check"),
        (scene.path().to_owned(), "a directory"),
    ] {
        let (decision, reason) = with(&policy);
        assert_eq!(decision, "deny");
        assert!(reason.contains(why), "{reason}");
    }
    // Where none is named and none is installed there is the one that comes along.
    if !Path::new("/etc/enforcer/policies/coding-agent.json").exists() {
        let ask = |command: &str| {
            let event = scene.event("Bash", json!({"command": command}));
            let none = scene.command(&["hook", "--mode", "everywhere"]);
            decided(&said(none, &event))
        };
        assert_eq!(ask("ls").0, "allow");
        let (decision, reason) = ask("mkfs.ext4 /dev/sda1");
        assert_eq!(decision, "deny");
        assert!(reason.contains("disk-format"), "{reason}");
    }
}

#[test]
fn the_projects_own_policy_is_found_and_a_link_is_refused() {
    let scene = Scene::new(&hook_policy());
    let event = scene.event("Bash", json!({"command": "ls"}));
    let own = scene.project().join(".enforcer");
    fs::create_dir(&own).unwrap();
    fs::copy(scene.policy(), own.join("policy.json")).unwrap();
    let ask = || {
        decided(&said(
            scene.command(&["hook", "--mode", "everywhere"]),
            &event,
        ))
    };
    assert_eq!(ask().0, "allow");
    fs::remove_file(own.join("policy.json")).unwrap();
    symlink(scene.policy(), own.join("policy.json")).unwrap();
    let (decision, reason) = ask();
    assert_eq!(decision, "deny");
    assert!(reason.contains("symbolic link"), "{reason}");
    let mut named = scene.command(&["hook", "--mode", "everywhere"]);
    named.env("ENFORCER_POLICY", scene.policy());
    assert_eq!(decided(&said(named, &event)).0, "allow");
}

#[test]
fn what_cannot_be_recorded_is_denied() {
    let scene = Scene::new(&hook_policy());
    let event = scene.event("Bash", json!({"command": "ls"}));
    let (decision, reason) = decided(&said(scene.hook(&["--audit", "/proc/none/x"]), &event));
    assert_eq!(decision, "deny");
    assert!(reason.contains("cannot be recorded"), "{reason}");
}

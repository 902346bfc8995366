//! Tools that are no shell: files, the web, others.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use crate::scene::{Scene, decided, hook_policy, native_policy, said};

#[test]
fn files_stay_in_the_project() {
    let scene = Scene::new(&hook_policy());
    let project = scene.project();
    fs::create_dir(project.join("src")).unwrap();
    symlink("/etc", project.join("out")).unwrap();
    symlink(scene.path(), project.join("up")).unwrap();
    for (tool, path, decision, reason) in [
        ("Read", "src/x", "allow", "Matches whitelist pattern: *"),
        ("Write", "src/../y", "allow", "Matches whitelist pattern: *"),
        ("Edit", "/tmp/x", "allow", "Matches whitelist pattern: *"),
        (
            "Read",
            "../../../../../etc/passwd",
            "deny",
            "Matches blacklist pattern: /etc/* (/etc/passwd)",
        ),
        (
            "Read",
            "out/passwd",
            "deny",
            "Matches blacklist pattern: /etc/* (/etc/passwd, named as",
        ),
        (
            "Read",
            "out/../etc/shadow",
            "deny",
            "Matches blacklist pattern: /etc/*",
        ),
        ("Read", "up/policy.json", "deny", "Path outside the project"),
        (
            "Write",
            "src/.env",
            "deny",
            "Matches blacklist pattern: */.env",
        ),
        ("Read", "~/x", "deny", "Path outside the project"),
        ("Read", "/proc/self/root/etc/passwd", "deny", "The path"),
        (
            "Write",
            ".claude/settings.json",
            "deny",
            "Path belongs to what guards the agent",
        ),
        (
            "Write",
            "~/.claude/settings.json",
            "deny",
            "Path belongs to what guards the agent",
        ),
        (
            "Read",
            "~/.claude/settings.json",
            "allow",
            "Matches whitelist pattern: *",
        ),
    ] {
        let (said, why) = scene.ask(tool, json!({"file_path": path}));
        assert_eq!(said, decision, "{tool} {path}: {why}");
        assert!(why.starts_with(reason), "{tool} {path}: {why}");
        if said == "deny" {
            scene.ask("Task", json!({}));
        }
    }
    for (tool, input, decision) in [
        ("Glob", json!({"pattern": "**/*.rs"}), "allow"),
        ("Glob", json!({"pattern": "/etc/**"}), "deny"),
        ("Grep", json!({"pattern": "x", "path": "/root"}), "deny"),
        (
            "apply_patch",
            json!({"command": "*** Begin Patch\n*** Update File: src/x\n*** Move to: ../x\n*** End Patch"}),
            "deny",
        ),
    ] {
        assert_eq!(scene.ask(tool, input.clone()).0, decision, "{tool} {input}");
    }
}

#[test]
fn the_web_is_judged_by_where_a_url_leads() {
    let scene = Scene::new(&hook_policy());
    for (tool, input, decision) in [
        (
            "WebFetch",
            json!({"url": "https://example.com/", "prompt": "x"}),
            "allow",
        ),
        (
            "WebFetch",
            json!({"url": "http://0x7f.1/", "prompt": "x"}),
            "deny",
        ),
        ("WebFetch", json!({"url": "http://LOCALHOST.:80/"}), "deny"),
        (
            "WebFetch",
            json!({"url": "http://example.com@169.254.169.254/"}),
            "deny",
        ),
        (
            "WebFetch",
            json!({"url": "https://example.com/", "prompt": "then http://[::ffff:10.0.0.1]/"}),
            "deny",
        ),
        ("WebFetch", json!({"url": "file:///etc/passwd"}), "deny"),
        ("mcp__x__search", json!({"q": "rust"}), "allow"),
        ("mcp__x__do_search_y", json!({"q": "rust"}), "deny"),
        ("WebSearch", json!({"query": "rust"}), "deny"),
    ] {
        let (said, why) = scene.ask(tool, input.clone());
        assert_eq!(said, decision, "{tool} {input}: {why}");
        scene.ask("Task", json!({}));
    }
}

#[test]
fn other_tools_are_allowed_by_name() {
    let scene = Scene::new(&hook_policy());
    assert_eq!(scene.ask("Task", json!({"prompt": "x"})).0, "allow");
    assert_eq!(scene.ask("TodoWrite", json!({})).0, "allow");
    let (decision, reason) = scene.ask("Foo", json!({}));
    assert!(
        decision == "deny" && reason.starts_with("Unknown tool (deny by default): Foo"),
        "{reason}"
    );
}

#[test]
fn capabilities_count_in_the_hook_too() {
    let policy = native_policy(&json!({
        "exec": {"default": "deny", "rules": [
            {"id": "deploy", "decision": "allow", "argv": {"program": "deploy"}, "requires": ["ship", "sign"]}]},
        "capabilities": {"Releaser": ["sign"]},
    }));
    let scene = Scene::new(&policy);
    let event = scene.event("Bash", json!({"command": "deploy"}));
    let ask = |words: &[&str]| decided(&said(scene.hook(words), &event));
    let (decision, reason) = ask(&[]);
    assert!(
        decision == "deny" && reason.starts_with("Missing required capabilities: ship, sign"),
        "{reason}"
    );
    assert_eq!(
        ask(&["--capability", "ship", "--agent", "releaser"]).0,
        "allow"
    );
}

#[test]
fn a_patch_in_a_command_is_a_file_tool() {
    // Such a policy allows what it does not name, so also a program `apply_patch`.
    let mut open = native_policy(&json!({}));
    open["exec"]["default"] = "allow".into();
    for policy in [native_policy(&json!({})), open] {
        let scene = Scene::new(&policy);
        let patch =
            |path: &str| format!("*** Begin Patch\n*** Add File: {path}\n+{{}}\n*** End Patch");
        let allowed = policy["exec"]["default"] == "allow";
        for (path, codex, others) in [
            ("src/x", "allow", if allowed { "allow" } else { "deny" }),
            (".codex/hooks.json", "deny", "deny"),
            ("/etc/passwd", "deny", "deny"),
            ("../x", "deny", "deny"),
        ] {
            let text = format!("apply_patch <<'EOF'\n{}\nEOF", patch(path));
            let up = if path.starts_with('/') { "" } else { "../" };
            let below = format!(
                "cd src && apply_patch <<'EOF'\n{}\nEOF",
                patch(&format!("{up}{path}"))
            );
            for command in [&text, &below] {
                let mut event = scene.event("Bash", json!({"command": command}));
                let (said_to_claude, why) = decided(&said(scene.hook(&[]), &event));
                assert_eq!(said_to_claude, others, "{command}: {why}");
                event["model"] = "gpt-5".into();
                let answer = said(scene.hook(&[]), &event);
                let decision = if answer == json!({}) { "allow" } else { "deny" };
                assert_eq!(decision, codex, "{command}: {answer}");
                scene.ask("Task", json!({}));
            }
            for words in [
                json!(["apply_patch", patch(path)]),
                json!(["bash", "-lc", text]),
            ] {
                let mut event = scene.event("shell", json!({"command": words}));
                event["model"] = "gpt-5".into();
                let answer = said(scene.hook(&[]), &event);
                let decision = if answer == json!({}) { "allow" } else { "deny" };
                assert_eq!(decision, codex, "{words}: {answer}");
                scene.ask("Task", json!({}));
            }
        }
        let (decision, reason) = scene.bash("apply_patch < x");
        assert!(decision == "deny", "{reason}");
        if allowed {
            assert!(reason.contains("its patch cannot be read"), "{reason}");
        }
        let data = format!("cat <<'EOF'\n{}\nEOF", patch("/etc/passwd"));
        assert_eq!(scene.bash(&data).0, "allow");
    }
}

#[test]
fn a_denied_tool_says_which_key_allows_it() {
    let scene = Scene::new(&hook_policy());
    for (tool, key) in [
        ("Foo", "tools.always_allowed"),
        ("WebSearch", "web_tools.whitelist"),
    ] {
        let (decision, reason) = scene.ask(tool, json!({"query": "x"}));
        assert_eq!(decision, "deny");
        let hint = format!("the operator can add \"{tool}\" to `{key}` of the policy");
        assert!(reason.contains(&hint), "{reason}");
    }
    let (decision, reason) = scene.ask("Bash", json!({"command": ["ls"]}));
    assert!(
        decision == "deny" && reason.contains("takes a string"),
        "{reason}"
    );
}

//! What guards the agent is not taken away by it: by commands, by file tools, in whatever spelling.

use std::fs;

use enforcer_tests::{Session, enforcer, open, root};
use serde_json::{Value, json};

use crate::scene::{Scene, decided, hook_policy, run, said};

/// A policy that allows everything that it can, in both forms.
fn permissive(more: &Value) -> [Value; 2] {
    let mut native = json!({"version": "2", "exec": {"default": "allow", "transparent": ["sh", "bash"]},
        "connect": {"default": "allow"}, "file_paths": {"whitelist": ["*"]}});
    let mut hook = hook_policy();
    hook["bash"] = json!({"whitelist": ["*"], "blacklist": []});
    hook["file_paths"] = json!({"whitelist": ["*"], "blacklist": []});
    for policy in [&mut native, &mut hook] {
        for (key, value) in more.as_object().unwrap() {
            policy[key] = value.clone();
        }
    }
    [native, hook]
}

/// The decision on a command, whatever was denied before.
fn bash(scene: &Scene, command: &str) -> (String, String) {
    close(scene);
    scene.bash(command)
}

/// Closes the hook's breaker.
fn close(scene: &Scene) {
    let output = run(scene.command(&["hook", "breaker", "reset"]), b"");
    assert!(output.status.success(), "{output:?}");
}

const COMMANDS: [&str; 12] = [
    "enforcer hook uninstall claude",
    "enforcer hook consent yes",
    "enforcer hook breaker reset",
    "enforcer hook install claude --policy /tmp/mine.json",
    "enforcer approvals approve d5631c61",
    "enforcer breaker reset coder",
    "enforcer reload",
    "true && sudo -n /usr/local/bin/enforcer hook uninstall claude",
    "e=enforcer; $e hook consent yes",
    "sh -c 'enforcer hook breaker reset'",
    "xargs -n1 enforcer hook uninstall < agents",
    "ln -s $(command -v enforcer) e; ./e hook uninstall claude",
];

#[test]
fn the_guard_cannot_be_taken_away_by_commands() {
    for policy in permissive(&json!({})) {
        let scene = Scene::new(&policy);
        for command in COMMANDS {
            let (decision, reason) = bash(&scene, command);
            assert_eq!(decision, "deny", "{command}: {reason}");
        }
        for command in [
            "enforcer explain --policy p.json -- enforcer hook uninstall claude",
            "enforcer policy check p.json",
            "enforcer hook --format claude",
            "enforcer hook breaker status",
            "enforcer audit tail",
        ] {
            let (decision, reason) = bash(&scene, command);
            assert_eq!(decision, "allow", "{command}: {reason}");
        }
    }
}

#[test]
fn the_guard_cannot_be_rewritten() {
    for policy in permissive(&json!({})) {
        let scene = Scene::new(&policy);
        let home = scene.path().join("home");
        fs::create_dir_all(home.join(".claude")).unwrap();
        fs::create_dir_all(scene.project().join(".claude")).unwrap();
        std::os::unix::fs::symlink(".claude", scene.project().join("other")).unwrap();
        for command in [
            "echo '{}' > .claude/settings.json",
            "echo x >> ~/.claude/settings.json",
            "cat > .codex/hooks.json <<X\n{}\nX",
            "cp mine .gemini/settings.json",
            "tee .cursor/hooks.json < mine",
            "mv .qwen/settings.json x",
            "echo QWEN_CODE_SIMPLE=1 > .qwen/.env",
            "ln -sf /tmp/mine opencode.json",
            "sed -i s/deny/allow/ .claude/settings.json",
            "rm -rf .enforcer",
            "cd .claude && echo x > settings.json",
            "echo yes > ~/.local/state/enforcer/consent.json",
            "D=.claude; rm $D/settings.json",
            "python3 -c \"open('.claude/settings.json','w')\"",
            "find . -name x -exec rm .claude/settings.json ';'",
        ] {
            let (decision, reason) = bash(&scene, command);
            assert_eq!(decision, "deny", "{command}: {reason}");
        }
        for path in [
            ".claude/settings.json",
            ".claude/hooks/x.sh",
            ".codex/config.toml",
            ".gemini/settings.json",
            ".cursor/hooks.json",
            ".qwen/settings.json",
            ".qwen/.env",
            "opencode.json",
            ".enforcer/policy.json",
            "src/../.claude/./settings.json",
            "other/settings.json",
        ] {
            for (tool, input) in [
                ("Write", json!({"file_path": path, "content": "x"})),
                (
                    "Edit",
                    json!({"file_path": path, "old_string": "a", "new_string": "b"}),
                ),
                (
                    "apply_patch",
                    json!({"input": format!("*** Begin Patch\n*** Add File: {path}\n+x\n*** End Patch")}),
                ),
            ] {
                close(&scene);
                let (decision, reason) = scene.ask(tool, input);
                assert_eq!(decision, "deny", "{tool} {path}: {reason}");
                assert!(
                    reason.contains("guards the agent"),
                    "{tool} {path}: {reason}"
                );
            }
        }
        for command in [
            "cat .claude/settings.json",
            "echo x > .claude/commands/x.md",
            "ls .codex",
        ] {
            let (decision, reason) = bash(&scene, command);
            assert_eq!(decision, "allow", "{command}: {reason}");
        }
        let (decision, reason) = scene.ask(
            "Write",
            json!({"file_path": ".claude/agents/x.md", "content": "x"}),
        );
        assert_eq!(decision, "allow", "{reason}");
    }
}

#[test]
fn a_policy_opens_what_it_names() {
    let open = json!({"guard": {"allow": [{"name": "files", "reason": "it sets up agents"}]}});
    for policy in permissive(&open) {
        let scene = Scene::new(&policy);
        let write = |path: &str| {
            scene
                .ask("Write", json!({"file_path": path, "content": "x"}))
                .0
        };
        assert_eq!(scene.bash("echo x > .claude/settings.json").0, "allow");
        assert_eq!(write(".claude/settings.json"), "allow");
        assert_eq!(scene.bash("enforcer hook uninstall claude").0, "deny");
        // The hook's own policy stays out of reach.
        assert_eq!(write(scene.policy().to_str().unwrap()), "deny");
    }
}

#[test]
fn the_kernel_holds_it_too() {
    if !root() {
        return;
    }
    let session = Session::new(&open()).installed();
    let enforcer = session.enforcer();
    let enforcer = enforcer.display();
    let ended = session.run([
        "/bin/bash",
        "-c",
        &format!(
            "export HOME=$PWD XDG_STATE_HOME=$PWD/state; mkdir .claude; echo '{{}}' > .claude/settings.json; ln -s {enforcer} e\n\
             t() {{ \"$@\" </dev/null >/dev/null 2>&1; echo \"$? $*\"; }}\n\
             t {enforcer} hook uninstall claude; t ./e hook consent yes; t env {enforcer} hook breaker reset\n\
             t {enforcer} breaker reset x; t rm .claude/settings.json; t cp e .claude/settings.json; t mv .claude x\n\
             t {enforcer} hook consent; t {enforcer} policy check {}; t cat .claude/settings.json",
            session.policy().display()
        ),
    ]);
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10, "{text}{}", ended.stderr);
    for line in &lines[..7] {
        // `env` starts and says 126 of what it may not.
        assert!(
            line.starts_with("126 ") || line.starts_with("137 "),
            "{text}"
        );
    }
    for line in &lines[7..] {
        assert!(line.starts_with("0 "), "{text}{}", ended.stderr);
    }
    let by_guard = ended.trail.denials().filter(|line| {
        let rule = line.0["parameters"]["rule"].as_str().unwrap_or_default();
        rule.starts_with("guard:")
    });
    assert_eq!(by_guard.count(), 7, "{}", ended.trail.shown());
}

#[test]
fn settings_in_a_directory_of_the_agents_choice_are_guarded_too() {
    let scene = Scene::new(&hook_policy());
    for (variable, file) in [
        ("CODEX_HOME", "config.toml"),
        ("CODEX_HOME", "hooks.json"),
        ("CLAUDE_CONFIG_DIR", "settings.json"),
        ("QWEN_HOME", "settings.json"),
        ("QWEN_HOME", "trustedFolders.json"),
    ] {
        // In the project, where file tools may write otherwise.
        let directory = scene.project().join("own");
        let event = scene.event(
            "Write",
            json!({"file_path": directory.join(file), "content": ""}),
        );
        assert_eq!(decided(&said(scene.hook(&[]), &event)).0, "allow");
        let mut hook = scene.hook(&[]);
        hook.env(variable, &directory);
        let (decision, reason) = decided(&said(hook, &event));
        assert!(
            decision == "deny" && reason.contains("what guards the agent"),
            "{variable} {file}: {reason}"
        );
    }
}

#[test]
fn the_directory_of_a_call_is_where_its_command_is_judged() {
    for policy in permissive(&json!({})) {
        let scene = Scene::new(&policy);
        let guarded = scene.project().join(".gemini");
        fs::create_dir_all(&guarded).unwrap();
        std::os::unix::fs::symlink(".gemini", scene.project().join("a link")).unwrap();
        for (tool, field, directory) in [
            ("run_shell_command", "dir_path", "a link"),
            ("run_shell_command", "dir_path", ".gemini"),
            ("run_shell_command", "directory", ".qwen"),
            ("shell", "workdir", ".codex"),
            ("Shell", "working_directory", ".cursor"),
        ] {
            let there = scene.project().join(directory);
            for (place, wanted) in [
                (there.display().to_string(), "deny"),
                (directory.to_owned(), "deny"),
                (format!("./x/../{directory}/"), "deny"),
                ("src".to_owned(), "allow"),
            ] {
                let (decision, reason) = {
                    close(&scene);
                    let input = json!({"command": "echo {} > settings.json; ls", field: place});
                    scene.ask(tool, input)
                };
                assert_eq!(decision, wanted, "{tool} {field} {place}: {reason}");
            }
        }
    }
}

/// What a call names as its directory makes nothing stricter that lies below the session's.
#[test]
fn a_directory_of_the_project_makes_nothing_stricter() {
    let scene = Scene::new(&hook_policy());
    let here = scene.project().display().to_string();
    let inside = format!("{here}/src");
    let patch = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: x\n+y\n*** End Patch\nEOF";
    for directory in ["src", ".", "a b", here.as_str(), inside.as_str()] {
        for (command, wanted) in [
            ("ls -l", "allow"),
            ("git status", "allow"),
            ("make", "deny"),
        ] {
            close(&scene);
            let input = json!({"command": command, "directory": directory});
            let (decision, reason) = scene.ask("run_shell_command", input);
            assert_eq!(decision, wanted, "{directory}: {command}: {reason}");
        }
        for (command, wanted) in [
            (patch.to_owned(), "allow"),
            (patch.replace(": x", ": ../../.env"), "deny"),
        ] {
            close(&scene);
            let mut event = scene.event("shell", json!({"command": command, "workdir": directory}));
            event["model"] = "m".into();
            let answer = said(scene.hook(&[]), &event);
            let denied = answer.to_string().contains("\"deny\"");
            assert_eq!(denied, wanted == "deny", "{directory}: {command}: {answer}");
        }
    }
}

/// Whoever starts the hook may have set the limit of a file's size: that the hook cannot keep its state then is a denial,
/// not an end without an answer, after which most agents go on.
#[test]
fn a_limit_of_file_sizes_does_not_end_the_hook() {
    let scene = Scene::new(&hook_policy());
    let event = scene.event("Bash", json!({"command": "ls"}));
    let program = enforcer();
    for blocks in ["0", "1"] {
        let mut hook = scene.command_of(
            std::process::Command::new("sh"),
            &["-c", "ulimit -f $0; exec \"$@\"", blocks],
        );
        hook.arg(program.get_program());
        hook.args(["hook", "--mode", "everywhere", "--policy"]);
        hook.arg(scene.policy());
        let output = run(hook, event.to_string().as_bytes());
        assert!(output.status.success(), "{blocks}: {output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        // The state of one call fits into a block.
        let wanted = if blocks == "0" { "deny" } else { "allow" };
        assert_eq!(decided(&answer).0, wanted, "{blocks}: {answer}");
    }
}

//! Into an agent's settings, and out again.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use enforcer_tests::{copy_program, enforcer, root};
use serde_json::{Value, json};

use crate::scene::{Scene, decided, hook_policy, run};

#[test]
fn what_is_installed_answers_and_comes_out_without_a_trace() {
    let scene = Scene::new(&hook_policy());
    scene.trusted();
    let config = fs::read_to_string(scene.codex_config()).unwrap();
    for (agent, file, event) in [
        ("claude", ".claude/settings.json", "PreToolUse"),
        ("codex", ".codex/hooks.json", "PreToolUse"),
        ("gemini", ".gemini/settings.json", "BeforeTool"),
        ("qwen", ".qwen/settings.json", "PreToolUse"),
        ("cursor", ".cursor/hooks.json", "beforeShellExecution"),
    ] {
        for (reach, top) in [
            ("--project", scene.project()),
            ("--user", scene.path().join("home")),
        ] {
            let path = top.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let before = "{\n\t\"mine\": [1,2],\n\t\"version\": 1,\n\t\"hooks\": {\"Stop\": []}\n}";
            fs::write(&path, before).unwrap();
            let go = |words: &[&str]| {
                let mut command = scene.command(&["hook"]);
                command
                    .args(words)
                    .args([agent, reach, "--policy"])
                    .arg(scene.policy());
                let output = run(command, b"");
                assert!(output.status.success(), "{output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            let shown = go(&["install", "--dry-run"]);
            assert!(
                shown.contains('+') && shown.contains("hook --format"),
                "{shown}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
            go(&["install"]);
            assert!(go(&["install"]).contains("has the hook already"));
            let tables = fs::read_dir(scene.state().join("tables")).unwrap();
            assert_ne!(tables.count(), 0, "the first call would compile");
            let settings: Value =
                serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(settings["mine"], json!([1, 2]));
            let trusted = fs::read_to_string(scene.codex_config()).unwrap();
            assert_eq!(trusted != config, agent == "codex", "{trusted}");
            let text = settings["hooks"][event].to_string();
            assert!(text.contains(&format!("--format {agent}")), "{text}");
            go(&["uninstall"]);
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                before,
                "{agent} {reach}"
            );
            let left = fs::read_to_string(scene.codex_config()).unwrap();
            assert_eq!(left, config, "{agent} {reach}");
        }
    }
}

#[test]
fn the_installed_command_is_one_that_works() {
    let scene = Scene::new(&hook_policy());
    let mut command = scene.command(&["hook", "install", "claude", "--policy"]);
    command.arg(scene.policy());
    assert!(run(command, b"").status.success());
    let path = scene.project().join(".claude/settings.json");
    let settings: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let entry = &settings["hooks"]["PreToolUse"][0];
    assert_eq!(entry["hooks"][0]["type"], "command");
    let line = entry["hooks"][0]["command"].as_str().unwrap();
    // As the agent runs it.
    let mut shell = scene.command(&[]);
    let variables: Vec<_> = shell
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
        .collect();
    shell = std::process::Command::new("/bin/sh");
    for (name, value) in variables {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
        .args(["-c", line])
        .env("MCP_AUTO_APPROVE", "true")
        .current_dir(scene.project());
    let event = scene
        .event("Bash", json!({"command": "sudo id"}))
        .to_string();
    let output = run(shell, event.as_bytes());
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(decided(&answer).0, "deny");
}

#[test]
fn settings_with_comments_are_refused_with_the_place() {
    let scene = Scene::new(&hook_policy());
    let path = scene.project().join(".claude/settings.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{\n  // mine\n}").unwrap();
    let output = run(scene.command(&["hook", "install", "claude"]), b"");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("line 2 column 3"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  // mine\n}");
}

#[test]
fn settings_of_the_machine_are_shown_and_want_what_only_root_can_change() {
    if !root() {
        return;
    }
    let scene = Scene::new(&hook_policy());
    let program = scene.path().join("enforcer");
    copy_program(Path::new(enforcer().get_program()), &program);
    let dry = |agent: &str, policy: &Path| {
        let mut command = Command::new(&program);
        command
            .args([
                "hook",
                "install",
                agent,
                "--managed",
                "--dry-run",
                "--policy",
            ])
            .arg(policy)
            .current_dir(scene.project());
        run(command, b"")
    };
    for (agent, file) in [
        ("claude", "/etc/claude-code/managed-settings.json"),
        ("codex", "/etc/codex/hooks.json"),
        ("gemini", "/etc/gemini-cli/settings.json"),
        ("qwen", "/etc/qwen-code/settings.json"),
        ("cursor", "/etc/cursor/hooks.json"),
    ] {
        let there = fs::read(file).ok();
        let output = dry(agent, &scene.policy());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        // It may be there already, on the tester's machine.
        assert!(
            said.contains(file) && (there.is_some() || said.contains("--format")),
            "{said}"
        );
        assert_eq!(fs::read(file).ok(), there, "{file}");
    }
    fs::set_permissions(scene.policy(), Permissions::from_mode(0o666)).unwrap();
    let output = dry("claude", &scene.policy());
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("can be changed by others than root"),
        "{said}"
    );
}

#[test]
fn codex_trusts_the_hook_that_was_put_in_and_no_other() {
    let scene = Scene::new(&hook_policy());
    scene.trusted();
    let hooks = scene.project().join(".codex/hooks.json");
    fs::create_dir_all(hooks.parent().unwrap()).unwrap();
    let other = json!({"hooks": {"PreToolUse": [{"hooks": [{"type": "command", "command": "/opt/other"}]}]}});
    fs::write(&hooks, other.to_string()).unwrap();
    let install = |policy: &Path| {
        let mut command = scene.command(&["hook", "install", "codex", "--project", "--policy"]);
        command.arg(policy);
        let output = run(command, b"");
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(scene.codex_config()).unwrap()
    };
    let first = install(&scene.policy());
    let key = format!("{}:pre_tool_use:1:0", hooks.display());
    assert!(
        first.contains(&format!("[hooks.state.\"{key}\"]")),
        "{first}"
    );
    assert_eq!(first.matches("trusted_hash").count(), 1, "{first}");
    let another = scene.path().join("another.json");
    fs::copy(scene.policy(), &another).unwrap();
    let second = install(&another);
    assert_ne!(first, second, "another definition has another hash");
    assert_eq!(second.matches("trusted_hash").count(), 1, "{second}");
}

#[test]
fn what_keeps_codex_from_asking_is_said_aloud() {
    let scene = Scene::new(&hook_policy());
    let install = || {
        let output = run(
            scene.command(&["hook", "install", "codex", "--project"]),
            b"",
        );
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = install();
    assert!(
        code == Some(1) && said.contains("NOT ask this hook") && said.contains("trusted projects"),
        "{said}"
    );
    scene.trusted();
    let trusted = fs::read_to_string(scene.codex_config()).unwrap();
    fs::write(
        scene.codex_config(),
        format!("{trusted}[features]\nhooks = false\n"),
    )
    .unwrap();
    let (code, said) = install();
    assert!(
        code == Some(1) && said.contains("`hooks = false`"),
        "{said}"
    );
    // The settings are written all the same where the trust cannot be.
    fs::write(scene.codex_config(), "a = \n").unwrap();
    let (code, said) = install();
    assert!(
        code == Some(1) && said.contains("is no TOML") && said.contains("/hooks"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(scene.codex_config()).unwrap(), "a = \n");
    assert!(scene.project().join(".codex/hooks.json").exists());
}

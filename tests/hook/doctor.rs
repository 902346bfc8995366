//! Whether agents ask their hook, as `enforcer hook doctor` finds out.

use std::{fs, path::Path, process::Command};

use enforcer_tests::{copy_program, enforcer};
use serde_json::{Value, json};

use crate::scene::{Scene, hook_policy, run};

const AGENTS: [&str; 5] = ["claude", "codex", "gemini", "qwen", "cursor"];

/// A scene in which all agents have the hook, on a machine that has none of the agents.
fn hooked(policy: &Value) -> Scene {
    let scene = Scene::new(policy);
    scene.trusted();
    // Root starts no program that others could have changed, and a checkout may belong to anybody.
    let program = enforcer();
    copy_program(
        Path::new(program.get_program()),
        &scene.path().join("enforcer"),
    );
    for agent in AGENTS {
        let mut command = own(&scene, &["hook", "install", agent, "--project", "--policy"]);
        command.arg(scene.policy());
        let output = run(command, b"");
        assert!(output.status.success(), "{output:?}");
    }
    fs::create_dir(scene.path().join("bin")).unwrap();
    scene
}

/// The scene's own program, where it has one.
fn own(scene: &Scene, words: &[&str]) -> Command {
    let program = scene.path().join("enforcer");
    if program.exists() {
        scene.command_of(Command::new(program), words)
    } else {
        scene.command(words)
    }
}

fn doctor(scene: &Scene, words: &[&str]) -> Command {
    let mut command = own(scene, &["hook", "doctor"]);
    command
        .args(words)
        .env("MCP_AUTO_APPROVE", "true")
        .env("PATH", scene.path().join("bin"));
    command
}

/// The verdict on an agent, what is wrong, and whether the status says so.
fn verdict(scene: &Scene, agent: &str) -> (String, String) {
    let output = run(doctor(scene, &[agent, "--json"]), b"");
    let reports: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let report = &reports[0];
    assert_eq!(report["agent"], agent);
    let word = report["verdict"].as_str().unwrap().to_owned();
    let expected = i32::from(word != "asked");
    assert_eq!(output.status.code(), Some(expected), "{report}");
    let mut wrong = report["problems"].to_string();
    for hook in report["hooks"].as_array().unwrap() {
        wrong.push_str(&hook["problems"].to_string());
    }
    (word, wrong)
}

fn change(scene: &Scene, file: &str, change: impl FnOnce(&mut Value)) {
    let path = scene.project().join(file);
    let mut settings: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut settings);
    fs::write(path, settings.to_string()).unwrap();
}

#[test]
fn hooks_that_answer_are_asked_and_no_probe_counts() {
    let scene = hooked(&hook_policy());
    for _ in 0..6 {
        let output = run(doctor(&scene, &[]), b"");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            said.matches("is asked and answers").count(),
            AGENTS.len(),
            "{said}"
        );
    }
    // Twelve denials in a row would have opened any breaker.
    assert!(scene.trail().is_empty(), "{:?}", scene.trail());
    let status = run(scene.command(&["hook", "breaker", "status"]), b"");
    assert_eq!(
        String::from_utf8(status.stdout).unwrap(),
        "no agent is known\n"
    );
    assert_eq!(scene.bash("ls").0, "allow");
}

#[test]
fn a_hook_that_is_turned_off_is_not_asked() {
    for (agent, file, edit, said) in [
        (
            "claude",
            ".claude/settings.json",
            (|settings| settings["disableAllHooks"] = true.into()) as fn(&mut Value),
            "disableAllHooks",
        ),
        (
            "claude",
            ".claude/settings.json",
            |settings| settings["hooks"]["PreToolUse"][0]["matcher"] = "Bash".into(),
            "some tools only",
        ),
        (
            "gemini",
            ".gemini/settings.json",
            |settings| settings["hooksConfig"] = json!({"disabled": ["enforcer"]}),
            "hooksConfig.disabled",
        ),
        (
            "gemini",
            ".gemini/settings.json",
            |settings| settings["hooksConfig"] = json!({"enabled": false}),
            "hooksConfig.enabled",
        ),
        (
            "qwen",
            ".qwen/settings.json",
            |settings| settings["disableAllHooks"] = true.into(),
            "disableAllHooks",
        ),
        (
            "qwen",
            ".qwen/settings.json",
            |settings| settings["hooks"]["PreToolUse"][0]["hooks"][0]["timeout"] = 30.into(),
            "for 30 milliseconds only",
        ),
        (
            "qwen",
            ".qwen/settings.json",
            |settings| settings["env"] = json!({"QWEN_CODE_SIMPLE": "1"}),
            "QWEN_CODE_SIMPLE",
        ),
        (
            "cursor",
            ".cursor/hooks.json",
            |settings| settings["hooks"]["beforeReadFile"] = json!([]),
            "beforeReadFile",
        ),
        (
            "codex",
            ".codex/hooks.json",
            |settings| settings["hooks"]["PreToolUse"][0]["hooks"][0]["timeout"] = 31.into(),
            "not the one that was trusted",
        ),
        (
            "claude",
            ".claude/settings.json",
            |settings| {
                settings["hooks"]["PreToolUse"][0]["hooks"][0]["command"] =
                    "/nonexistent/enforcer hook".into();
            },
            "no program that could be started",
        ),
    ] {
        let scene = hooked(&hook_policy());
        assert_eq!(verdict(&scene, agent).0, "asked");
        change(&scene, file, edit);
        let (word, wrong) = verdict(&scene, agent);
        assert!(
            word == "not_asked" && wrong.contains(said),
            "{agent}: {word} {wrong}"
        );
    }
    let scene = hooked(&hook_policy());
    let config = fs::read_to_string(scene.codex_config()).unwrap();
    for (text, said) in [
        (
            config.replace("sha256:", "sha256:0"),
            "not the one that was trusted",
        ),
        (
            format!("{config}enabled = false\n"),
            "turned off in the user",
        ),
        (
            format!("{config}[features]\ncodex_hooks = false\n"),
            "`codex_hooks = false`",
        ),
        (
            config.replace("\"trusted\"", "\"untrusted\""),
            "trusted projects alone",
        ),
        (String::new(), "nobody has trusted"),
    ] {
        fs::write(scene.codex_config(), &text).unwrap();
        let (word, wrong) = verdict(&scene, "codex");
        assert!(
            word == "not_asked" && wrong.contains(said),
            "{text}: {word} {wrong}"
        );
    }
}

#[test]
fn what_lies_beside_the_settings_of_qwen_turns_its_hook_off() {
    let scene = hooked(&hook_policy());
    let home = scene.path().join("home/.qwen");
    fs::create_dir_all(&home).unwrap();
    for (file, text) in [
        (scene.project().join(".env"), "QWEN_CODE_SIMPLE=true\n"),
        (scene.project().join(".qwen/.env"), "QWEN_CODE_SIMPLE=1\n"),
        (home.join(".env"), "QWEN_CODE_SIMPLE=on\n"),
        (
            home.join("settings.json"),
            r#"{"security": {"folderTrust": {"enabled": true}}}"#,
        ),
    ] {
        let trust = json!({scene.project().display().to_string(): "DO_NOT_TRUST"});
        fs::write(home.join("trustedFolders.json"), trust.to_string()).unwrap();
        assert_eq!(verdict(&scene, "qwen").0, "asked");
        fs::write(&file, text).unwrap();
        let (word, wrong) = verdict(&scene, "qwen");
        assert_eq!(word, "not_asked", "{}: {wrong}", file.display());
        fs::remove_file(&file).unwrap();
    }
    // Who wants it off has the last word over a project's file, and who wants it on, too.
    fs::write(scene.project().join(".env"), "QWEN_CODE_SIMPLE=1\n").unwrap();
    for (value, code) in [("0", 0), ("1", 1)] {
        let mut command = doctor(&scene, &["qwen"]);
        command.env("QWEN_CODE_SIMPLE", value);
        assert_eq!(run(command, b"").status.code(), Some(code));
    }
}

#[test]
fn codex_has_the_last_word_on_its_trust() {
    let scene = hooked(&hook_policy());
    let program = scene.path().join("bin/codex");
    let answer = |trust: &str| {
        let hooks = scene.project().join(".codex/hooks.json");
        let settings: Value = serde_json::from_str(&fs::read_to_string(&hooks).unwrap()).unwrap();
        let command = &settings["hooks"]["PreToolUse"][0]["hooks"][0]["command"];
        let reply = json!({"id": 2, "result": {"data": [{"hooks": [
            {"command": command, "sourcePath": hooks, "enabled": true, "trustStatus": trust}]}]}});
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo codex-cli 0.171.0; exit; }}\nwhile read -r line; do case $line in \
             *hooks/list*) cat <<'E'\n{reply}\nE\n;; esac; done\n"
        );
        let text = scene.path().join("codex-script");
        fs::write(&text, script).unwrap();
        copy_program(&text, &program);
        let mut command = doctor(&scene, &["codex", "--json"]);
        command.env(
            "PATH",
            format!("{}/bin:/usr/bin:/bin", scene.path().display()),
        );
        let output = run(command, b"");
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, said) = answer("trusted");
    assert!(
        code == Some(0) && said.contains("\"version\": \"0.171.0\""),
        "{said}"
    );
    let (code, said) = answer("untrusted");
    assert!(
        code == Some(1) && said.contains("Codex itself says"),
        "{said}"
    );
}

#[test]
fn a_hook_that_denies_everything_is_no_good() {
    let scene = hooked(&hook_policy());
    fs::write(scene.policy(), "{").unwrap();
    let (word, wrong) = verdict(&scene, "claude");
    assert!(
        word == "not_asked" && wrong.contains("The policy cannot be used"),
        "{wrong}"
    );
    fs::write(scene.policy(), hook_policy().to_string()).unwrap();
    for _ in 0..10 {
        scene.bash("sudo id");
    }
    let (_, wrong) = verdict(&scene, "claude");
    assert!(wrong.contains("Circuit breaker tripped"), "{wrong}");
    assert_eq!(verdict(&scene, "gemini").0, "asked");
}

#[test]
fn an_agent_that_is_named_must_be_asked() {
    let scene = Scene::new(&hook_policy());
    fs::create_dir(scene.path().join("bin")).unwrap();
    assert_eq!(run(doctor(&scene, &[]), b"").status.code(), Some(0));
    let output = run(doctor(&scene, &["claude"]), b"");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), said.contains("absent")),
        (Some(1), true),
        "{said}"
    );
    let output = run(doctor(&scene, &["nosuch"]), b"");
    assert_eq!(output.status.code(), Some(2));
}

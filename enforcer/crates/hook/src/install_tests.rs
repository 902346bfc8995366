use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::*;

fn plan(directory: &Path, format: Format) -> InstallPlan {
    InstallPlan {
        format,
        file: directory.join("settings.json"),
        command: "/usr/bin/enforcer hook --format x".to_owned(),
        managed: false,
        trusted_in: None,
    }
}

const ALL: [Format; 5] = [
    Format::Claude,
    Format::Codex,
    Format::Gemini,
    Format::Qwen,
    Format::Cursor,
];

fn made(plan: &InstallPlan) -> Value {
    serde_json::from_str(&fs::read_to_string(&plan.file).unwrap()).unwrap()
}

#[test]
fn it_goes_in_once_and_comes_out_whole() {
    for format in ALL {
        let scratch = tempfile::tempdir().unwrap();
        let plan = plan(scratch.path(), format);
        let before = "{\n    \"model\": \"x\",\n    \"a\": [1, 2],\n    \"hooks\": {\"Stop\": [{\"command\":\"me\"}]}}";
        let before = if format == Format::Cursor {
            before.replace("\"model\"", "\"version\": 1, \"model\"")
        } else {
            before.to_owned()
        };
        fs::write(&plan.file, &before).unwrap();
        let change = plan.install().unwrap();
        assert!(change.is_needed());
        assert!(change.diff().contains('+') && change.diff().contains("/usr/bin/enforcer hook"));
        assert_eq!(
            fs::read_to_string(&plan.file).unwrap(),
            before,
            "nothing yet"
        );
        change.make().unwrap();
        let keys: Vec<String> = made(&plan).as_object().unwrap().keys().cloned().collect();
        assert!(
            keys.ends_with(&["model".into(), "a".into(), "hooks".into()]),
            "{keys:?}"
        );
        assert_eq!(made(&plan)["hooks"]["Stop"], json!([{"command": "me"}]));
        let again = plan.install().unwrap();
        assert!(!again.is_needed(), "{format:?}: {}", again.diff());
        plan.uninstall().unwrap().make().unwrap();
        assert_eq!(
            fs::read_to_string(&plan.file).unwrap(),
            before,
            "{format:?}"
        );
        assert_eq!(
            fs::read_dir(scratch.path()).unwrap().count(),
            1,
            "no backup stays"
        );
        assert!(!plan.uninstall().unwrap().is_needed());
    }
}

#[test]
fn where_there_was_no_file_there_is_none_afterwards() {
    for format in ALL {
        let scratch = tempfile::tempdir().unwrap();
        let plan = plan(scratch.path(), format);
        assert!(!plan.uninstall().unwrap().is_needed());
        plan.install().unwrap().make().unwrap();
        plan.uninstall().unwrap().make().unwrap();
        assert_eq!(
            fs::read_dir(scratch.path()).unwrap().count(),
            0,
            "{format:?}"
        );
    }
}

#[test]
fn what_has_come_since_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let plan = plan(scratch.path(), Format::Claude);
    fs::write(&plan.file, "{\"a\": 1}").unwrap();
    plan.install().unwrap().make().unwrap();
    let mut settings = made(&plan);
    settings["b"] = json!(2);
    settings["hooks"]["PreToolUse"][0]["hooks"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "command", "command": "other"}));
    fs::write(&plan.file, settings.to_string()).unwrap();
    plan.uninstall().unwrap().make().unwrap();
    assert_eq!(
        made(&plan),
        json!({"a": 1, "b": 2, "hooks": {"PreToolUse": [
            {"matcher": "*", "hooks": [{"type": "command", "command": "other"}]}]}})
    );
}

#[test]
fn a_new_command_replaces_the_old_one() {
    let scratch = tempfile::tempdir().unwrap();
    let mut plan = plan(scratch.path(), Format::Cursor);
    plan.install().unwrap().make().unwrap();
    plan.command = "/opt/enforcer hook --format cursor --policy /p.json".to_owned();
    plan.install().unwrap().make().unwrap();
    for event in [
        "beforeShellExecution",
        "beforeMCPExecution",
        "beforeReadFile",
        "preToolUse",
    ] {
        assert_eq!(
            made(&plan)["hooks"][event],
            json!([{"command": plan.command, "timeout": 30, "failClosed": true}])
        );
    }
}

#[test]
fn settings_that_are_not_understood_are_left_alone() {
    for (text, said) in [
        ("{\n  // mine\n  \"a\": 1}", "line 2 column 3"),
        ("{\"a\": 1,}", "line 1"),
        ("[]", "no object"),
        ("{\"hooks\": []}", "`hooks`, which is no object"),
        (
            "{\"hooks\": {\"PreToolUse\": {}}}",
            "`hooks.PreToolUse`, which is no list",
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let plan = plan(scratch.path(), Format::Claude);
        fs::write(&plan.file, text).unwrap();
        let error = plan.install().unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
        assert_eq!(fs::read_to_string(&plan.file).unwrap(), text);
    }
    let scratch = tempfile::tempdir().unwrap();
    let plan = plan(scratch.path(), Format::Claude);
    std::os::unix::fs::symlink("/etc/passwd", &plan.file).unwrap();
    assert!(plan.install().is_err());
}

#[test]
fn settings_of_the_machine_are_for_all_to_read_and_root_alone_to_write() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    for format in ALL {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("etc/agent");
        let managed = InstallPlan {
            managed: true,
            ..plan(&directory, format)
        };
        managed.install().unwrap().make().unwrap();
        assert!(!managed.install().unwrap().is_needed());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&managed.file), mode(&directory)), (0o644, 0o755));
        // What somebody else has made loose is tight again.
        fs::set_permissions(&managed.file, fs::Permissions::from_mode(0o666)).unwrap();
        fs::write(&managed.file, "{\"a\": 1}").unwrap();
        managed.install().unwrap().make().unwrap();
        assert_eq!(mode(&managed.file), 0o644);
        managed.uninstall().unwrap().make().unwrap();
        assert!(!managed.uninstall().unwrap().is_needed());
        assert!(
            !fs::read_to_string(&managed.file)
                .unwrap()
                .contains("hooksConfig")
        );
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        fs::remove_file(&managed.file).unwrap();
        let error = managed.install().unwrap().make().unwrap_err().to_string();
        assert!(
            error.contains("can be changed by others than root"),
            "{error}"
        );
    }
}

#[test]
fn users_cannot_turn_off_what_the_machine_turns_on() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let managed = |format| InstallPlan {
        managed: true,
        ..plan(scratch.path(), format)
    };
    let gemini = managed(Format::Gemini);
    fs::write(
        &gemini.file,
        "{\"hooksConfig\": {\"enabled\": false, \"x\": 1}}",
    )
    .unwrap();
    gemini.install().unwrap().make().unwrap();
    assert_eq!(
        made(&gemini)["hooksConfig"],
        json!({"enabled": true, "x": 1})
    );
    assert!(gemini.requirement(true).unwrap().is_none());
    fs::remove_file(&gemini.file).unwrap();
    fs::remove_file(backup(&gemini.file)).unwrap();

    let qwen = managed(Format::Qwen);
    fs::write(&qwen.file, "{\"disableAllHooks\": true}").unwrap();
    qwen.install().unwrap().make().unwrap();
    assert_eq!(made(&qwen)["disableAllHooks"], json!(false));
    let hook = &made(&qwen)["hooks"]["PreToolUse"][0];
    assert_eq!(
        (&hook["matcher"], &hook["hooks"][0]["timeout"]),
        (&json!("*"), &json!(30000))
    );
    assert!(qwen.limit().is_some() && plan(scratch.path(), Format::Qwen).limit().is_none());
    qwen.uninstall().unwrap().make().unwrap();
    assert_eq!(made(&qwen), json!({"disableAllHooks": true}));
    fs::remove_file(&qwen.file).unwrap();
    qwen.install().unwrap().make().unwrap();
    qwen.uninstall().unwrap().make().unwrap();
    assert!(!qwen.file.exists());

    let codex = managed(Format::Codex);
    let file = scratch.path().join("requirements.toml");
    let of = |installs| codex.requirement(installs).unwrap().unwrap();
    assert!(of(true).says && of(true).change.is_needed());
    of(true).change.make().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), REQUIREMENT);
    assert!(!of(true).change.is_needed());
    of(false).change.make().unwrap();
    assert!(!file.exists());
    for (text, says) in [
        ("[features]\nhooks=true # ours\n", true),
        ("features.hooks = true\n", true),
        ("[features]\nx = 1\n[other]\nhooks = true\n", false),
        ("# [features]\n# hooks = true\n", false),
    ] {
        fs::write(&file, text).unwrap();
        assert_eq!(
            (of(true).says, of(true).change.is_needed()),
            (says, false),
            "{text}"
        );
        of(false).change.make().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

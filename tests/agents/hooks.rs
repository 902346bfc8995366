//! Agents really ask the hook that `enforcer hook install` has written, without `enforcer run` and below it.

use enforcer_tests::model::Step;
use serde_json::json;

use crate::{
    agent::{Agent, CLAUDE, CODEX, CODEX_UNSANDBOXED, GEMINI, QWEN},
    scene::{Scene, policy},
};

/// What the hook denies, and what it does not. (`rm -rf` Codex refuses by itself.)
const STEPS: [&str; 2] = ["rm -r ~/precious", "echo said: went on"];
const REASON: &str = "Removes a home directory";

/// The word for an agent on the command line of `enforcer hook`.
fn word(agent: &Agent) -> &'static str {
    match agent.name {
        "Claude Code" => "claude",
        "Gemini CLI" => "gemini",
        "Qwen Code" => "qwen",
        _ => "codex",
    }
}

fn install(scene: &Scene, reach: &str) {
    let (word, policy) = (word(scene.agent), policy(scene.agent.policy));
    let policy = policy.display().to_string();
    let words = ["hook", "install", word, reach, "--policy", &policy];
    if reach == "--managed" {
        let output = scene.root(&words);
        assert!(output.status.success(), "{output:?}");
    } else {
        let done = scene.ungoverned(&[&["enforcer"], &words[..]].concat());
        assert_eq!(done.code, 0, "{}", done.text);
    }
    let done = scene.sh("enforcer hook consent yes");
    assert_eq!(done.code, 0, "{}", done.text);
}

/// What `enforcer hook doctor` finds: its status, and what it says.
fn doctor(scene: &Scene) -> (i32, String) {
    let done = scene.ungoverned(&["enforcer", "hook", "doctor", word(scene.agent)]);
    (done.code, done.text)
}

/// Runs the agent by itself; returns what the model was told.
fn told(scene: &Scene) -> String {
    scene.model.forget();
    let done = scene.agent_ungoverned();
    let told = scene.model.told_text();
    assert_eq!(done.code, 0, "{told}\n{}", done.text);
    assert!(
        scene.said().contains(&"went on".to_owned()),
        "{told}\n{}",
        done.text
    );
    told
}

fn is_asked_wherever_it_stands(agent: &'static Agent, reaches: &[&str]) {
    for reach in reaches {
        let scene = Scene::commands(agent, &STEPS).managed();
        let (code, said) = doctor(&scene);
        assert_eq!(code, 1, "{reach}, before: {said}");
        install(&scene, reach);
        let (code, said) = doctor(&scene);
        assert_eq!(code, 0, "{reach}: {said}");
        let told_governed = told(&scene);
        assert!(told_governed.contains(REASON), "{reach}: {told_governed}");
        assert!(scene.precious(), "{reach}: {told_governed}");
        if *reach == "--managed" {
            continue;
        }
        let done = scene.ungoverned(&["enforcer", "hook", "uninstall", word(agent), reach]);
        assert_eq!(done.code, 0, "{}", done.text);
        told(&scene);
        assert!(!scene.precious(), "{reach}: nothing else is in its way");
    }
}

#[test]
fn claude_is_asked() {
    is_asked_wherever_it_stands(&CLAUDE, &["--project", "--user", "--managed"]);
}

#[test]
fn codex_is_asked() {
    is_asked_wherever_it_stands(&CODEX_UNSANDBOXED, &["--project", "--user", "--managed"]);
}

#[test]
fn codex_is_asked_in_its_sandbox() {
    let scene = Scene::commands(&CODEX, &STEPS);
    install(&scene, "--project");
    assert!(told(&scene).contains(REASON));
    assert!(scene.precious());
}

#[test]
fn gemini_is_asked() {
    is_asked_wherever_it_stands(&GEMINI, &["--project", "--user", "--managed"]);
}

#[test]
fn qwen_is_asked() {
    is_asked_wherever_it_stands(&QWEN, &["--project", "--user", "--managed"]);
}

#[test]
fn no_other_hook_of_qwen_allows_what_ours_denies() {
    // Of several hooks Qwen hears the last; which one that is, is its own order.
    for reach in ["--project", "--user"] {
        let scene = Scene::commands(&QWEN, &STEPS);
        let allow = json!({"hookSpecificOutput": {"hookEventName": "PreToolUse",
            "permissionDecision": "allow", "permissionDecisionReason": "I like it"}});
        scene.write("allow.json", &allow.to_string());
        let hook = json!({"hooks": {"PreToolUse": [{"hooks": [
            {"type": "command", "command": "cat ~/allow.json"}]}]}});
        scene.write("project/.qwen/settings.json", &hook.to_string());
        install(&scene, reach);
        assert!(told(&scene).contains(REASON), "{reach}");
        assert!(scene.precious(), "{reach}");
    }
}

#[test]
fn what_keeps_qwen_from_asking_the_doctor_says() {
    // What a repository may bring along.
    let hooks = json!({"hooks": {}}).to_string();
    let off = json!({"disableAllHooks": true}).to_string();
    for (reach, file, text) in [
        ("--user", "project/.qwen/settings.json", off.as_str()),
        ("--user", "project/.env", "QWEN_CODE_SIMPLE=1\n"),
        ("--managed", "project/.env", "QWEN_CODE_SIMPLE=1\n"),
        ("--managed", "project/.qwen/settings.json", hooks.as_str()),
    ] {
        let scene = Scene::commands(&QWEN, &STEPS).managed();
        let before = std::fs::read_to_string(scene.user.home.join(".qwen/settings.json"));
        let mut own: serde_json::Value = serde_json::from_str(&before.unwrap()).unwrap();
        own["hooks"] = json!({});
        scene.write(".qwen/settings.json", &own.to_string());
        install(&scene, reach);
        assert_eq!(doctor(&scene).0, 0, "{reach}");
        scene.write(file, text);
        let (code, said) = doctor(&scene);
        assert_eq!(code, 1, "{reach} {file}: {said}");
        told(&scene);
        assert!(!scene.precious(), "{reach} {file}: {said}");
    }
    // Settings of the machine are stronger than what turns hooks off in others.
    let scene = Scene::commands(&QWEN, &STEPS).managed();
    install(&scene, "--managed");
    scene.write("project/.qwen/settings.json", &off);
    assert_eq!(doctor(&scene).0, 0);
    assert!(told(&scene).contains(REASON));
    assert!(scene.precious());
}

#[test]
fn codex_asks_no_hook_that_nobody_has_trusted_and_the_doctor_says_so() {
    let scene = Scene::commands(&CODEX_UNSANDBOXED, &STEPS);
    install(&scene, "--project");
    let config = scene.user.home.join(".codex/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, _) = text.split_once("[hooks.state").expect("the trust");
    scene.write(".codex/config.toml", before);
    let (code, said) = doctor(&scene);
    assert!(code == 1 && said.contains("trust"), "{said}");
    told(&scene);
    assert!(!scene.precious());
    install(&scene, "--project");
    assert_eq!(doctor(&scene).0, 0);
    assert_eq!(
        scene
            .sh("mkdir ~/precious && echo keep >~/precious/file")
            .code,
        0
    );
    assert!(told(&scene).contains(REASON));
    assert!(scene.precious());
}

#[test]
fn both_the_hook_and_the_kernel_say_no_below_a_run() {
    // The hook sees the text, the kernel what is behind a variable and a script.
    for agent in [&CLAUDE, &CODEX_UNSANDBOXED, &GEMINI, &QWEN] {
        let scene = Scene::commands(agent, &[STEPS[0], "sh clean.sh", STEPS[1]]);
        scene.write("project/clean.sh", "rm -rf \"$HOME/precious\"\n");
        install(&scene, "--project");
        let ended = scene.agent_governed();
        let told = scene.model.told();
        let all = || {
            format!(
                "{}: {told:#?}\n{}\n{}",
                agent.name,
                ended.stderr,
                ended.trail.shown()
            )
        };
        assert_eq!(ended.code(), 0, "{}", all());
        assert!(
            told[0].contains(REASON) && !told[0].contains("enforcer: blocked"),
            "{}",
            all()
        );
        assert!(told[1].contains("enforcer: blocked: rm -rf"), "{}", all());
        assert_eq!(scene.said(), ["went on"], "{}", all());
        assert!(scene.precious());
        let by_hook = ended
            .trail
            .denials()
            .filter(|line| line.text("stage") == "hook");
        assert_eq!(by_hook.count(), 1, "{}", all());
    }
}

#[test]
fn claude_that_asks_nobody_is_denied_what_would_be_asked() {
    // In this mode Claude takes a question for a yes where the call touches `.git`.
    let push = "git push --force origin HEAD:refs/heads/other; echo x >.git/touched";
    let scene = Scene::commands(&CLAUDE, &[push, STEPS[1]]);
    install(&scene, "--project");
    let text = told(&scene);
    assert!(
        text.contains("in the mode `bypassPermissions` nobody"),
        "{text}"
    );
    assert!(!scene.project().join(".git/touched").exists());
    assert!(
        !scene
            .sh("git ls-remote --heads origin")
            .text
            .contains("other")
    );
}

#[test]
fn without_consent_claude_does_nothing() {
    let scene = Scene::new_in(&CLAUDE, |project| {
        let write = CLAUDE.write.unwrap();
        vec![
            write(&project.join(".mcp.json"), "{}\n"),
            write(&project.join("notes.txt"), "one\n"),
            Step::shell("echo one >notes.txt"),
            CLAUDE.last(),
        ]
    });
    install(&scene, "--project");
    assert_eq!(scene.sh("enforcer hook consent no").code, 0);
    let done = scene.agent_ungoverned();
    let told = scene.model.told();
    assert_eq!((done.code, told.len()), (0, 3), "{told:#?}");
    for name in [".mcp.json", "notes.txt"] {
        assert!(!scene.project().join(name).exists(), "{told:#?}");
    }
    // With it, what the policy allows is done, and what it denies is not.
    assert_eq!(scene.sh("enforcer hook consent yes").code, 0);
    assert_eq!(scene.agent_ungoverned().code, 0);
    assert!(!scene.project().join(".mcp.json").exists());
    assert_eq!(scene.file("notes.txt"), "one\n");
}

#[test]
fn an_open_breaker_leaves_claude_its_hook() {
    let scene = Scene::new_in(&CLAUDE, |project| {
        let key = project.join("../.ssh/id_rsa");
        let read = Step::call("Read", json!({"file_path": key}));
        vec![read.clone(), Step::shell("sh loop.sh"), read, CLAUDE.last()]
    });
    scene.write(
        "project/loop.sh",
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do rm -rf \"$HOME/precious\"; done\n",
    );
    install(&scene, "--project");
    let ended = scene.agent_governed();
    let told = scene.model.told_text();
    assert!(
        ended.stderr.contains("circuit breaker open"),
        "{told}\n{}",
        ended.stderr
    );
    assert!(!told.contains("SECRET-KEY"), "{told}");
    assert!(
        told.contains("Circuit breaker tripped"),
        "{told}\n{}",
        ended.trail.shown()
    );
    // Without a hook Claude reads it.
    assert_eq!(scene.sh("enforcer hook uninstall claude --project").code, 0);
    scene.model.forget();
    scene.agent_governed();
    assert!(scene.model.told_text().contains("SECRET-KEY"));
}

//! Rule sets by the command: what is checked, shown, explained, tried and compared is a policy with all that it
//! includes, and so is what a hook judges by.
#![allow(
    clippy::unwrap_used,
    reason = "an integration test: clippy only knows tests by their attribute"
)]

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

const SITE: &str = r#"{"version": "2",
"exec": {"rules": [
  {"id": "no-rm", "decision": "deny", "argv": {"program": "rm"}, "match": ["rm x"], "not_match": ["ls"],
   "justification": "Deletes", "suggestion": "leave it"}]},
"file_paths": {"blacklist": ["*/secret"]}}"#;

/// A directory with a policy that includes `rules/site.json`, and a project. Not below `/tmp`, which file tools may use.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let scene = Self(scratch);
        for directory in ["rules", "project/.git", "home"] {
            fs::create_dir_all(scene.at(directory)).unwrap();
        }
        scene.write(
            "p.json",
            &json!({
                "version": "2", "include": ["site", "git"], "connect": {"default": "allow"},
                "exec": {"default": "allow", "transparent": ["sh", "bash"], "rules": [
                    {"id": "own", "decision": "ask", "glob": ["own *"]}]},
                "file_paths": {"whitelist": ["*"]},
            })
            .to_string(),
        );
        scene.write("rules/site.json", SITE);
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
        fs::set_permissions(self.at(name), Permissions::from_mode(0o644)).unwrap();
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_enforcer"))
            .args(words)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.at("home"))
            .env("XDG_STATE_HOME", self.at("state"))
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Exit status, output and error output.
    fn said(&self, words: &[&str]) -> (i32, String, String) {
        let output = self.run(words, "");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// What a hook says of a call, by this policy.
    fn hook(&self, policy: &str, tool: &str, input: &Value) -> (String, String) {
        let event = json!({"hook_event_name": "PreToolUse", "session_id": "s", "cwd": self.at("project"),
            "permission_mode": "default", "tool_name": tool, "tool_input": input});
        let output = self.run(
            &["hook", "--mode", "everywhere", "--policy", policy],
            &event.to_string(),
        );
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let text = |key: &str| {
            let text = answer["hookSpecificOutput"][key].as_str();
            text.unwrap_or_default().to_owned()
        };
        (text("permissionDecision"), text("permissionDecisionReason"))
    }
}

#[test]
fn a_policy_is_checked_shown_and_tried_with_all_that_it_includes() {
    let scene = Scene::new();
    let (status, out, err) = scene.said(&["policy", "check", "p.json"]);
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("exec: allow by default, 8 rules"), "{out}");

    let (_, out, _) = scene.said(&["policy", "show", "p.json"]);
    assert!(out.contains("includes site: rules/site.json\n"), "{out}");
    assert!(
        out.contains("includes git: built-in rule set git\n"),
        "{out}"
    );
    for (id, place) in [
        ("no-rm", "rules/site.json:3"),
        ("git-clean", "built-in rule set git:"),
        ("own", "p.json:1"),
    ] {
        let line = out.lines().find(|line| line.contains(&format!(" {id} ")));
        let line = line.unwrap_or_else(|| panic!("{id}: {out}"));
        assert!(line.contains(place), "{line}");
    }

    let (status, out, err) = scene.said(&["policy", "test", "p.json"]);
    assert_eq!(status, 0, "{err}");
    assert!(!out.contains(" 0 examples"), "{out}");
    scene.write("rules/site.json", &SITE.replace("\"rm x\"", "\"mv x\""));
    let (status, _, err) = scene.said(&["policy", "test", "p.json"]);
    assert_eq!(status, 1);
    assert!(
        err.contains("rules/site.json:3:76: exec.rules[0].match[0]: rule \"no-rm\" does not match"),
        "{err}"
    );
    let (status, out, _) = scene.said(&["policy", "check", "--json", "p.json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &told["ok"]), (2, &json!(false)));
    assert_eq!(told["errors"][0]["file"], "rules/site.json");
}

#[test]
fn the_whole_says_the_same_wherever_it_lies() {
    let scene = Scene::new();
    let (_, whole, _) = scene.said(&["policy", "show", "--whole", "p.json"]);
    fs::create_dir(scene.at("elsewhere")).unwrap();
    scene.write("elsewhere/whole.json", &whole);
    let (status, out, _) = scene.said(&["policy", "diff", "p.json", "elsewhere/whole.json"]);
    // What was recorded on this machine may be judged, too.
    assert!(
        status == 0 && out.starts_with("the policies say the same\n"),
        "{out}"
    );
    // What is included is compared, too.
    scene.write("rules/site.json", &SITE.replace("deny", "ask"));
    let (status, out, _) = scene.said(&["policy", "diff", "p.json", "elsewhere/whole.json"]);
    assert_eq!(status, 1);
    assert!(
        out.contains("~ exec.rules no-rm: decision ask -> deny"),
        "{out}"
    );
}

#[test]
fn explain_names_the_place_of_the_rule() {
    let scene = Scene::new();
    for (command, place) in [
        (["rm", "x"], "rules/site.json:3:3: exec.rules[0]"),
        (["own", "x"], "p.json:1:"),
    ] {
        let words = [
            "explain", "--policy", "p.json", "--", command[0], command[1],
        ];
        let (_, out, err) = scene.said(&words);
        assert!(out.contains(&format!("\n  place: {place}")), "{out}{err}");
    }
    let words = [
        "explain", "--json", "--policy", "p.json", "--", "git", "clean", "-fd",
    ];
    let (_, out, _) = scene.said(&words);
    let told: Value = serde_json::from_str(&out).unwrap();
    let place = told["place"].as_str().unwrap();
    assert!(place.starts_with("built-in rule set git:"), "{place}");
}

#[test]
fn a_shipped_policy_is_the_same_away_from_its_rule_sets() {
    let scene = Scene::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    for name in ["coding-agent.json", "strict.json"] {
        fs::copy(shipped.join(name), scene.at(name)).unwrap();
        let there = shipped.join(name).display().to_string();
        let (_, there, _) = scene.said(&["policy", "show", "--whole", &there]);
        let (_, here, _) = scene.said(&["policy", "show", "--whole", name]);
        assert!(!here.is_empty() && here == there, "{name}");
    }
}

#[test]
fn a_hook_judges_by_what_is_included_and_sees_it_change() {
    let scene = Scene::new();
    let remove = json!({"command": "rm x"});
    let (decision, reason) = scene.hook("p.json", "Bash", &remove);
    assert_eq!(decision, "deny", "{reason}");
    assert!(reason.contains("no-rm"), "{reason}");
    let secret = json!({"file_path": scene.at("project/secret")});
    assert_eq!(scene.hook("p.json", "Read", &secret).0, "deny");
    // Kept tables are those of all texts together.
    scene.write("rules/site.json", &SITE.replace("deny", "allow"));
    assert_eq!(scene.hook("p.json", "Bash", &remove).0, "allow");
    scene.write("rules/site.json", SITE);
    assert_eq!(scene.hook("p.json", "Bash", &remove).0, "deny");
    // What cannot be used allows nothing.
    scene.write("rules/site.json", "{");
    let (decision, reason) = scene.hook("p.json", "Bash", &json!({"command": "ls"}));
    assert_eq!(decision, "deny");
    assert!(reason.contains("rules/site.json:1:1"), "{reason}");
    fs::remove_file(scene.at("rules/site.json")).unwrap();
    let (decision, reason) = scene.hook("p.json", "Bash", &json!({"command": "ls"}));
    assert_eq!(decision, "deny");
    assert!(reason.contains("there is no rule set"), "{reason}");
}

/// An agent neither changes a rule set nor puts a file where it would stand for a built-in one.
#[test]
fn a_hook_guards_what_its_policy_includes() {
    let scene = Scene::new();
    let policy = scene.at("project/p.json");
    fs::copy(scene.at("p.json"), &policy).unwrap();
    fs::create_dir(scene.at("project/rules")).unwrap();
    fs::copy(
        scene.at("rules/site.json"),
        scene.at("project/rules/site.json"),
    )
    .unwrap();
    let policy = policy.display().to_string();
    for (name, wanted) in [
        ("p.json", "deny"),
        ("rules/site.json", "deny"),
        ("rules/git.json", "deny"),
        ("rules/../rules/git.json", "deny"),
        ("rules/other.json", "allow"),
        ("notes.json", "allow"),
    ] {
        let input = json!({"file_path": scene.at("project").join(name), "content": "{}"});
        let (decision, reason) = scene.hook(&policy, "Write", &input);
        assert_eq!(decision, wanted, "{name}: {reason}");
    }
    // Where projects and machines have their policies commands are kept away, too.
    for file in [
        ".enforcer/rules/git.json",
        "/etc/enforcer/policies/rules/git.json",
    ] {
        let input = json!({"command": format!("cp x {file}")});
        let (decision, reason) = scene.hook(&policy, "Bash", &input);
        assert_eq!(decision, "deny", "{file}: {reason}");
    }
}

//! A project with a policy, and a hook that keeps its state beside it.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use enforcer_tests::enforcer;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Variables of the tester's own session that would decide something.
const UNSET: [&str; 15] = [
    "CODEX_HOME",
    "CLAUDE_CONFIG_DIR",
    "CLAUDE_AGENT_NAME",
    "GEMINI_CLI_SYSTEM_SETTINGS_PATH",
    "QWEN_HOME",
    "QWEN_CODE_SIMPLE",
    "QWEN_CODE_SYSTEM_SETTINGS_PATH",
    "MCP_AUTO_APPROVE",
    "ENFORCER_POLICY",
    "CLAUDE_PROJECT_DIR",
    "GEMINI_PROJECT_DIR",
    "CURSOR_PROJECT_DIR",
    "CODEX_PROJECT_DIR",
    "XDG_STATE_HOME",
    "CI",
];

#[derive(Debug)]
pub struct Scene(TempDir);

impl Scene {
    pub fn new(policy: &Value) -> Self {
        let scratch = tempfile::Builder::new()
            .prefix("enforcer-hook-")
            .permissions(Permissions::from_mode(0o755))
            // Not below /tmp, which file tools may use whatever the project is.
            .tempdir_in("/var/lib")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let scene = Self(scratch);
        for directory in ["project/.git", "home"] {
            fs::create_dir_all(scene.path().join(directory)).unwrap();
        }
        fs::write(scene.policy(), policy.to_string()).unwrap();
        scene
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn project(&self) -> PathBuf {
        self.path().join("project")
    }

    pub fn policy(&self) -> PathBuf {
        self.path().join("policy.json")
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state/enforcer")
    }

    /// Codex's settings of the user.
    pub fn codex_config(&self) -> PathBuf {
        self.path().join("home/.codex/config.toml")
    }

    /// Has Codex trust the project.
    pub fn trusted(&self) {
        let config = self.codex_config();
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        let project = self.project().display().to_string();
        let text = format!("# mine\n[projects.\"{project}\"] # why\ntrust_level = \"trusted\"\n");
        fs::write(config, text).unwrap();
    }

    /// `enforcer` with this scene's directories.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_of(enforcer(), words)
    }

    /// The same, of another program.
    pub fn command_of(&self, mut command: Command, words: &[&str]) -> Command {
        for name in UNSET {
            command.env_remove(name);
        }
        command
            .args(words)
            .env("HOME", self.path().join("home"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .current_dir(self.project());
        command
    }

    /// A hook with the scene's policy, in the mode that approves.
    pub fn hook(&self, words: &[&str]) -> Command {
        let mut command = self.command(&["hook", "--mode", "everywhere", "--policy"]);
        command.arg(self.policy()).args(words);
        command
    }

    /// Asks Claude Code's hook.
    pub fn ask(&self, tool: &str, input: Value) -> (String, String) {
        decided(&said(self.hook(&[]), &self.event(tool, input)))
    }

    /// The decision on a command.
    pub fn bash(&self, command: &str) -> (String, String) {
        self.ask("Bash", json!({"command": command}))
    }

    /// Claude Code's event.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers write it with `json!`"
    )]
    pub fn event(&self, tool: &str, input: Value) -> Value {
        json!({"hook_event_name": "PreToolUse", "session_id": "s", "cwd": self.project(),
            "permission_mode": "default", "tool_name": tool, "tool_input": input})
    }

    pub fn trail(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state().join("audit.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Runs a hook with this on its standard input.
pub fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A hook that has heard enough may close its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// What a hook answers in words; its exit status is 0.
pub fn said(command: Command, event: &Value) -> Value {
    let output = run(command, event.to_string().as_bytes());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

/// Decision and reason in Claude Code's words.
pub fn decided(answer: &Value) -> (String, String) {
    let inner = &answer["hookSpecificOutput"];
    assert_eq!(inner["hookEventName"], "PreToolUse", "{answer}");
    let text = |name: &str| inner[name].as_str().unwrap().to_owned();
    (text("permissionDecision"), text("permissionDecisionReason"))
}

/// A hook's own policy.
pub fn hook_policy() -> Value {
    json!({
        "version": "1.1",
        "bash": {"whitelist": ["git status", "ls*", "echo*", "cat*"], "blacklist": ["sudo*", "rm -rf /*"]},
        "file_paths": {"whitelist": ["*"], "blacklist": ["*/.env", "/etc/*"]},
        "agents": {"trusted": ["Researcher"], "restricted": ["security-auditor"]},
        "web_tools": {"whitelist": ["WebFetch", "mcp__*__search"], "allow_all_domains": true,
            "blocked_domains": ["localhost", "169.254.169.254", "10.*"]},
        "tools": {"always_allowed": ["Task", "Todo*"]},
    })
}

/// A native policy that asks about `git push`.
pub fn native_policy(more: &Value) -> Value {
    let mut policy = json!({
        "version": "2",
        "exec": {"default": "deny", "transparent": ["sh", "bash"], "rules": [
            {"id": "reads", "decision": "allow", "argv": {"program": ["ls", "echo", "cat", "true", "enforcer"]}},
            {"id": "push", "decision": "ask", "argv": {"program": "git", "words": ["push"]},
             "justification": "Changes what others see", "suggestion": "let the user push"},
            {"id": "no-rm", "decision": "deny", "risk": "HIGH", "argv": {"program": "rm"}}]},
        "connect": {"default": "allow"},
        "file_paths": {"whitelist": ["*"]},
        "tools": {"always_allowed": ["Task"]},
    });
    for (key, value) in more.as_object().unwrap() {
        policy[key] = value.clone();
    }
    policy
}

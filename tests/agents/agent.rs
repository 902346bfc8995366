//! The agents: how each is started, told where its model is, and what its tools are called.

use std::path::Path;

use enforcer_tests::model::{NAME, Step};
use serde_json::{Value, json};

/// What a user says to an agent; the model does not listen.
const PROMPT: &str = "go on";
/// With this mini-swe-agent's work ends.
const MINI_ENDS: &str = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT";

/// A coding agent in one of its settings.
#[derive(Debug)]
pub struct Agent {
    /// For messages.
    pub name: &'static str,
    /// The policy that is shipped for it.
    pub policy: &'static str,
    /// Its command line, below `$ENFORCER_AGENTS` where it is a path.
    command: &'static [&'static str],
    /// Its variables, with `URL` for where the model is.
    pub variables: &'static [(&'static str, &'static str)],
    /// Writes a file by its own tool; none where it has only a shell.
    pub write: Option<fn(&Path, &str) -> Step>,
    /// Replaces a text in a file by its own tool.
    pub edit: Option<fn(&Path, &str, &str) -> Step>,
    /// Whether its own sandbox keeps commands from the network and from git's data.
    pub sandboxed: bool,
    /// How it takes what the model says.
    pub talk: Talk,
    /// What it needs in its user's home directory, with the project and where the model is.
    pub settings: fn(&Path, &str) -> Vec<(&'static str, String)>,
}

/// How an agent takes what the model says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Talk {
    /// It calls tools, and ends when it only says something.
    Tools,
    /// It calls tools, and ends when a command says so.
    ToolsAlone,
    /// Words are files, after which it runs the project's tests.
    Words,
}

pub const CLAUDE: Agent = Agent {
    name: "Claude Code",
    policy: "claude-code.json",
    command: &["claude", "--dangerously-skip-permissions", "-p", PROMPT],
    variables: &[
        ("ANTHROPIC_BASE_URL", "URL"),
        ("ANTHROPIC_API_KEY", "sk-ant-none"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ],
    write: Some(|path, text| Step::call("Write", json!({"file_path": path, "content": text}))),
    edit: Some(|path, old, new| {
        let input = json!({"file_path": path, "old_string": old, "new_string": new});
        Step::call("Edit", input)
    }),
    sandboxed: false,
    talk: Talk::Tools,
    settings: |project, _| {
        // The first questions of a terminal, answered.
        let settings = json!({
            "hasCompletedOnboarding": true, "theme": "dark",
            "customApiKeyResponses": {"approved": ["sk-ant-none"], "rejected": []},
            "projects": {project.display().to_string(): {"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true}},
        });
        vec![(".claude.json", settings.to_string())]
    },
};

/// Codex as it comes, each command in its own sandbox.
pub const CODEX: Agent = Agent {
    name: "Codex in its sandbox",
    policy: "codex.json",
    command: &["codex", "exec", PROMPT],
    variables: &[("OPENAI_API_KEY", "sk-none")],
    write: Some(|path, text| patch(path, &format!("*** Add File: PATH\n+{text}"))),
    edit: Some(|path, old, new| patch(path, &format!("*** Update File: PATH\n@@\n-{old}\n+{new}"))),
    sandboxed: true,
    talk: Talk::Tools,
    settings: |project, url| codex(project, url, "workspace-write"),
};

/// Codex without its sandbox.
pub const CODEX_UNSANDBOXED: Agent = Agent {
    name: "Codex without its sandbox",
    policy: "codex-unsandboxed.json",
    sandboxed: false,
    settings: |project, url| codex(project, url, "danger-full-access"),
    ..CODEX
};

pub const GEMINI: Agent = Agent {
    name: "Gemini CLI",
    policy: "coding-agent.json",
    command: &["gemini", "--yolo", "-p", PROMPT],
    variables: &[
        ("GEMINI_API_KEY", "none"),
        ("GOOGLE_GEMINI_BASE_URL", "URL"),
    ],
    write: Some(|path, text| Step::call("write_file", json!({"file_path": path, "content": text}))),
    edit: Some(|path, old, new| {
        let input = json!({"file_path": path, "old_string": old, "new_string": new, "instruction": "a step of the test"});
        Step::call("replace", input)
    }),
    sandboxed: false,
    talk: Talk::Tools,
    settings: |project, _| {
        let settings = json!({
            "security": {"auth": {"selectedType": "gemini-api-key"}}, "general": {"enableAutoUpdate": false},
        });
        let trusted = json!({project.display().to_string(): "TRUST_FOLDER"});
        vec![
            (".gemini/settings.json", settings.to_string()),
            (".gemini/trustedFolders.json", trusted.to_string()),
        ]
    },
};

pub const QWEN: Agent = Agent {
    name: "Qwen Code",
    policy: "coding-agent.json",
    command: &["qwen", "--yolo", "-p", PROMPT],
    variables: &OPENAI,
    write: GEMINI.write,
    edit: Some(|path, old, new| {
        let input = json!({"file_path": path, "old_string": old, "new_string": new});
        Step::call("edit", input)
    }),
    sandboxed: false,
    talk: Talk::Tools,
    settings: |_, _| {
        let settings = json!({"security": {"auth": {"selectedType": "openai"}}});
        vec![(".qwen/settings.json", settings.to_string())]
    },
};

pub const OPENCODE: Agent = Agent {
    name: "OpenCode",
    policy: "coding-agent.json",
    command: &["opencode", "run", PROMPT],
    variables: &[],
    write: Some(|path, text| Step::call("write", json!({"filePath": path, "content": text}))),
    edit: Some(|path, old, new| {
        let input = json!({"filePath": path, "oldString": old, "newString": new});
        Step::call("edit", input)
    }),
    sandboxed: false,
    talk: Talk::Tools,
    settings: |_, url| {
        let settings = json!({
            "provider": {"local": {
                "npm": "@ai-sdk/openai-compatible", "name": "local", "models": {NAME: {"name": NAME, "tool_call": true}},
                "options": {"baseURL": format!("{url}/v1"), "apiKey": "none"},
            }},
            "model": format!("local/{NAME}"), "autoupdate": false, "permission": "allow",
        });
        vec![(".config/opencode/opencode.json", settings.to_string())]
    },
};

pub const MINI: Agent = Agent {
    name: "mini-swe-agent",
    policy: "coding-agent.json",
    command: &[
        "mini-swe-agent/bin/python3",
        "-m",
        "minisweagent.run.mini",
        "--yolo",
        "--exit-immediately",
        "--model",
        "openai/scripted",
        "--task",
        PROMPT,
    ],
    variables: &OPENAI,
    write: None,
    edit: None,
    sandboxed: false,
    talk: Talk::ToolsAlone,
    settings: |_, _| Vec::new(),
};

pub const AIDER: Agent = Agent {
    name: "aider",
    policy: "coding-agent.json",
    command: &[
        "aider/bin/python3",
        "-m",
        "aider",
        "--model",
        "openai/scripted",
        "--edit-format",
        "whole",
        "--yes-always",
        "--no-check-update",
        "--no-show-model-warnings",
        "--no-analytics",
        "--auto-test",
        "--test-cmd",
        "sh ../tests.sh",
        "--message",
        PROMPT,
    ],
    variables: &OPENAI,
    write: None,
    edit: None,
    sandboxed: false,
    talk: Talk::Words,
    settings: |_, _| Vec::new(),
};

const OPENAI: [(&str, &str); 7] = [
    ("OPENAI_API_KEY", "sk-none"),
    ("OPENAI_BASE_URL", "URL/v1"),
    ("OPENAI_API_BASE", "URL/v1"),
    ("OPENAI_MODEL", NAME),
    // mini-swe-agent: no first questions, and no price of this model.
    ("MSWEA_CONFIGURED", "true"),
    ("MSWEA_COST_TRACKING", "ignore_errors"),
    // The Python ones: no list of prices from the network.
    ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
];

impl Agent {
    /// Its command line, with more words at the end.
    pub fn words(&self, more: &[&str]) -> Vec<String> {
        let words = self.command.iter().chain(more);
        let mut words: Vec<String> = words.map(|word| (*word).to_owned()).collect();
        if words[0].contains('/') {
            let tree = crate::scene::tree();
            words[0] = tree.join(&words[0]).display().to_string();
        }
        words
    }

    /// What the model says so that the agent runs these commands one after the other, and ends.
    pub fn script(&self, commands: &[String]) -> Vec<Step> {
        match self.talk {
            Talk::Tools | Talk::ToolsAlone => {
                let commands = commands.iter().map(Step::shell);
                commands.chain([self.last()]).collect()
            }
            // Each version of the file is followed by the tests, which are the commands.
            Talk::Words => (0..=commands.len())
                .map(|version| Step::say(format!("notes.txt\n```\nversion {version}\n```\n")))
                .collect(),
        }
    }

    /// With what its work ends.
    pub fn last(&self) -> Step {
        match self.talk {
            Talk::ToolsAlone => Step::shell(MINI_ENDS),
            _ => Step::say("all done"),
        }
    }
}

/// A call of Codex's own tool for patches.
fn patch(path: &Path, change: &str) -> Step {
    let change = change
        .trim_end()
        .replace("PATH", &path.display().to_string());
    let text = format!("*** Begin Patch\n{change}\n*** End Patch\n");
    Step::call("apply_patch", Value::String(text))
}

fn codex(project: &Path, url: &str, sandbox: &str) -> Vec<(&'static str, String)> {
    let project = project.display();
    let settings = format!(
        "model = \"gpt-5.5\"\n\
         model_provider = \"local\"\n\
         sandbox_mode = \"{sandbox}\"\n\
         approval_policy = \"never\"\n\
         [model_providers.local]\n\
         name = \"local\"\n\
         base_url = \"{url}/v1\"\n\
         env_key = \"OPENAI_API_KEY\"\n\
         wire_api = \"responses\"\n\
         [projects.\"{project}\"]\n\
         trust_level = \"trusted\"\n"
    );
    vec![(".codex/config.toml", settings)]
}

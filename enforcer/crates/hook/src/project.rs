//! The project that an agent works in, and what its file tools may reach of the machine.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{input::ToolCall, place, resolve};
use enforcer_decide::paths::Grounds;
use enforcer_policy::{guard::FILES, model::Guard};
use enforcer_policy_files::shipped;

/// Variables in which agents tell their hooks the project's directory.
const VARIABLES: [&str; 4] = [
    "CLAUDE_PROJECT_DIR",
    "GEMINI_PROJECT_DIR",
    "CURSOR_PROJECT_DIR",
    "CODEX_PROJECT_DIR",
];
/// What marks a project's top directory.
const MARKS: [&str; 2] = [".git", ".enforcer"];
/// Directories outside the project that file tools may work in.
const EXEMPT: [&str; 2] = ["/tmp", "/var/tmp"];
/// The same, below the home directory.
const EXEMPT_AT_HOME: [&str; 1] = [".claude"];
/// Settings of agents, in which their hooks stand: in the project and in the home directory.
const SETTINGS: [&str; 24] = [
    ".claude/settings.json",
    ".claude/settings.local.json",
    ".claude/hooks",
    ".codex/hooks.json",
    ".codex/config.toml",
    ".codex/hooks",
    ".codex/rules",
    ".gemini/settings.json",
    ".gemini/trustedFolders.json",
    ".gemini/hooks",
    ".gemini/policies",
    ".qwen/settings.json",
    ".qwen/trustedFolders.json",
    ".qwen/hooks",
    ".qwen/.env",
    ".cursor/hooks.json",
    ".cursor/hooks",
    ".opencode/plugin",
    ".opencode/plugins",
    ".opencode/opencode.json",
    "opencode.json",
    "opencode.jsonc",
    ".config/opencode",
    ".enforcer",
];
/// The same, in the home directory alone.
const SETTINGS_AT_HOME: [&str; 2] = [".claude.json", ".config/enforcer"];
/// The same, where a variable names another directory than that at home.
const ELSEWHERE: [(&str, &[&str]); 3] = [
    (
        "CODEX_HOME",
        &["hooks.json", "config.toml", "hooks", "rules"],
    ),
    (
        "CLAUDE_CONFIG_DIR",
        &[
            "settings.json",
            "settings.local.json",
            "hooks",
            ".claude.json",
        ],
    ),
    (
        "QWEN_HOME",
        &["settings.json", "trustedFolders.json", "hooks", ".env"],
    ),
];
/// The same, for all users of the machine.
const SETTINGS_OF_ALL: [&str; 7] = [
    "/etc/enforcer",
    "/etc/claude-code",
    "/etc/codex",
    "/etc/gemini-cli",
    "/etc/qwen-code",
    "/etc/cursor",
    "/etc/opencode",
];

/// Where an event happens.
#[derive(Clone, Debug)]
pub struct EventPlace {
    /// The working directory.
    pub cwd: PathBuf,
    /// The project's directories, as they are named.
    pub projects: Vec<PathBuf>,
    /// The home directory.
    pub home: Option<PathBuf>,
}

impl EventPlace {
    /// The scene of an event.
    ///
    /// # Errors
    ///
    /// In words: there is no working directory.
    pub fn of(event: &ToolCall) -> Result<Self, String> {
        let cwd = match &event.cwd {
            Some(cwd) if Path::new(cwd).is_absolute() => PathBuf::from(cwd),
            Some(cwd) => return Err(format!("The working directory `{cwd}` is not absolute")),
            None => env::current_dir()
                .map_err(|error| format!("There is no working directory: {error}"))?,
        };
        let mut projects: Vec<PathBuf> = event.roots.iter().map(PathBuf::from).collect();
        if projects.is_empty() {
            projects.extend(VARIABLES.iter().filter_map(env::var_os).map(PathBuf::from));
        }
        projects.retain(|project| project.is_absolute());
        if projects.is_empty() {
            // The agent names none: the nearest directory that looks like the top of one.
            let marked = |directory: &&Path| MARKS.iter().any(|mark| directory.join(mark).exists());
            let top = cwd.ancestors().find(marked).unwrap_or(&cwd);
            projects.push(top.to_owned());
        }
        Ok(Self {
            cwd,
            projects,
            home: place::home(),
        })
    }

    /// What file tools may reach. `own` is what else makes the hook work: its policy, its trail.
    ///
    /// Settings of agents are guarded unless the policy opens them ([`Guard`]); what is the hook's own always is.
    pub fn grounds(&self, guard: &Guard, own: &[PathBuf]) -> Grounds {
        let text = |path: PathBuf| path.to_str().map(str::to_owned);
        let real = |path: &Path| text(resolve::real(path));
        let homes: Vec<&Path> = self.home.iter().map(PathBuf::as_path).collect();
        let below = |tops: &[&Path], names: &[&str]| -> Vec<String> {
            tops.iter()
                .flat_map(|top| names.iter().map(|name| top.join(name)))
                .filter_map(|path| real(&path))
                .collect()
        };
        let projects: Vec<&Path> = self.projects.iter().map(PathBuf::as_path).collect();
        let mut exempt: Vec<String> = EXEMPT
            .iter()
            .filter_map(|path| real(Path::new(path)))
            .collect();
        exempt.extend(below(&homes, &EXEMPT_AT_HOME));
        let tops = [projects.as_slice(), homes.as_slice(), &[&self.cwd]].concat();
        let mut guarded = Vec::new();
        if !guard.opens(FILES) {
            guarded = below(&tops, &SETTINGS);
            guarded.extend(below(&homes, &SETTINGS_AT_HOME));
            for (variable, names) in ELSEWHERE {
                let directory = env::var_os(variable).map(PathBuf::from);
                guarded.extend(directory.iter().flat_map(|top| below(&[top], names)));
            }
            guarded.extend(SETTINGS_OF_ALL.map(str::to_owned));
        }
        guarded.extend(own.iter().filter_map(|path| real(path)));
        guarded.extend(place::root().ok().and_then(|root| real(&root)));
        guarded.push("/etc/enforcer".to_owned());
        guarded.extend(real(Path::new(shipped::INSTALLED)));
        Grounds {
            project: projects.iter().filter_map(|path| real(path)).collect(),
            exempt,
            own: guarded,
            home: self.home.clone().and_then(text),
        }
    }
}

//! The tools of agents: `agents.json`, the one place that says which tool is of which kind, and which fields of a call
//! hold a command, a path or a URL.
//!
//! The names of all agents count whoever calls: an event may come from an agent that has another's tools, and a tool
//! that is judged is never less than one that is not known. So a name has one kind for all agents, and every field that
//! holds a path for one of them does for all.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

/// The data.
const TEXT: &str = include_str!("agents.json");

/// What a tool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolKind {
    /// Hands a text to a shell.
    Shell,
    /// Applies a patch in the form of Codex.
    Patch,
    /// Reads one file or several.
    Read,
    /// Writes, moves or removes a file.
    Write,
    /// Looks through a directory, the working directory unless it names one.
    Search,
    /// Reaches the web by its own means.
    Web,
    /// Runs code in a language that is not read here.
    Code,
    /// Touches neither files nor the web by itself: subagents, plans, lists, questions.
    Internal,
}

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// What it does.
    pub kind: ToolKind,
    /// A shell's: whether its command may be a list of words.
    #[serde(default)]
    pub words: bool,
    /// A search's: whether its pattern is one of paths.
    #[serde(default)]
    pub globs: bool,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFormat {
    /// Its name as its makers write it.
    pub title: String,
    /// The names of its program.
    pub programs: Vec<String>,
    /// The oldest and the newest version that the hook was tried with.
    #[serde(default)]
    pub tried: Option<[String; 2]>,
    /// Its tools.
    pub tools: BTreeMap<String, Tool>,
}

/// Names of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// A command.
    pub command: Vec<String>,
    /// Where a command runs.
    pub directory: Vec<String>,
    /// A path.
    pub path: Vec<String>,
    /// Several paths.
    pub paths: Vec<String>,
    /// A pattern of paths.
    pub pattern: Vec<String>,
    /// A patch.
    pub patch: Vec<String>,
    /// A URL as a whole.
    pub url: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    agents: BTreeMap<String, AgentFormat>,
    fields: Fields,
}

/// Were it no JSON, no tool would be known, and each denied.
static KNOWN: LazyLock<Known> = LazyLock::new(|| serde_json::from_str(TEXT).unwrap_or_default());

/// A tool of any agent.
pub fn tool(name: &str) -> Option<Tool> {
    KNOWN
        .agents
        .values()
        .find_map(|agent| agent.tools.get(name))
        .copied()
}

/// The agents that have a tool of this name.
pub fn having(tool: &str) -> Vec<&'static str> {
    let agents = KNOWN.agents.values();
    agents
        .filter(|agent| agent.tools.contains_key(tool))
        .map(|agent| agent.title.as_str())
        .collect()
}

/// An agent by the word for it.
pub fn agent(word: &str) -> Option<&'static AgentFormat> {
    KNOWN.agents.get(word)
}

/// The fields of calls.
pub fn fields() -> &'static Fields {
    &KNOWN.fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_read_and_a_name_has_one_kind() {
        let known: Known = serde_json::from_str(TEXT).unwrap();
        let mut kinds = BTreeMap::new();
        for (word, agent) in &known.agents {
            for (name, tool) in &agent.tools {
                let first = kinds.entry(name).or_insert((word, *tool));
                assert_eq!(first.1, *tool, "{name}: {word} and {}", first.0);
                assert!(!tool.words || tool.kind == ToolKind::Shell, "{name}");
                assert!(!tool.globs || tool.kind == ToolKind::Search, "{name}");
            }
        }
        let fields = &known.fields;
        for names in [
            &fields.command,
            &fields.path,
            &fields.paths,
            &fields.pattern,
            &fields.patch,
            &fields.url,
        ] {
            assert!(!names.is_empty());
        }
    }

    #[test]
    fn what_was_judged_once_is_judged_still() {
        for (kind, names) in [
            (
                ToolKind::Shell,
                "Bash bash Shell shell local_shell shell_command exec_command unified_exec container.exec \
                 run_shell_command run_terminal_cmd Terminal",
            ),
            (
                ToolKind::Read,
                "Read NotebookRead read_file read_many_files view_image ReadFile TabRead",
            ),
            (
                ToolKind::Write,
                "Write Edit MultiEdit NotebookEdit write_file replace edit_file Delete delete_file search_replace TabWrite",
            ),
            (
                ToolKind::Search,
                "Glob Grep LS list_directory list_dir glob glob_file_search search_file_content grep_search grep \
                 grep_files file_search codebase_search",
            ),
            (
                ToolKind::Web,
                "WebFetch WebSearch Fetch fetch web_fetch web_search google_web_search mcp__fetch__fetch url_fetch",
            ),
            (ToolKind::Patch, "apply_patch"),
        ] {
            for name in names.split_whitespace() {
                assert_eq!(tool(name).map(|tool| tool.kind), Some(kind), "{name}");
            }
        }
        for name in ["Glob", "glob", "glob_file_search", "file_search"] {
            assert!(tool(name).is_some_and(|tool| tool.globs), "{name}");
        }
    }
}

//! The policies that the program brings along: a machine that has never seen it has one.

use std::path::{Path, PathBuf};

/// How a shipped policy is named where a file could be: `built-in:strict`.
const PREFIX: &str = "built-in:";
/// The policy where none is named, as it is installed.
pub const INSTALLED: &str = "/etc/enforcer/policies/coding-agent.json";
/// The same where it is not.
const DEFAULT: &str = "built-in:coding-agent";

/// Names and texts.
const POLICIES: [(&str, &str); 6] = [
    ("ci", include_str!("../../../../policies/ci.json")),
    (
        "claude-code",
        include_str!("../../../../policies/claude-code.json"),
    ),
    ("codex", include_str!("../../../../policies/codex.json")),
    (
        "codex-unsandboxed",
        include_str!("../../../../policies/codex-unsandboxed.json"),
    ),
    (
        "coding-agent",
        include_str!("../../../../policies/coding-agent.json"),
    ),
    ("strict", include_str!("../../../../policies/strict.json")),
];

/// The policy where none is named: the installed one, else the one that the program brings along.
pub fn default_policy() -> PathBuf {
    // One that is there and cannot be read is a fault to be told, not a reason to take another.
    if Path::new(INSTALLED).symlink_metadata().is_ok() {
        PathBuf::from(INSTALLED)
    } else {
        PathBuf::from(DEFAULT)
    }
}

/// Whether a path names a policy that the program brings along.
pub fn is_built_in(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(PREFIX))
}

/// The text of a policy that the program brings along; `None` if there is none of this name.
pub fn text(path: &Path) -> Option<&'static str> {
    let name = path.to_str()?.strip_prefix(PREFIX)?;
    POLICIES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// The names of all, as `--policy` takes them.
pub fn names() -> Vec<String> {
    POLICIES
        .iter()
        .map(|(name, _)| format!("{PREFIX}{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_in_the_directory_is_there() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../policies");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| Some(format!("{PREFIX}{}", name.strip_suffix(".json")?)))
            .collect();
        files.sort();
        assert_eq!(names(), files);
        assert!(text(Path::new(DEFAULT)).is_some());
        assert!(text(Path::new("strict")).is_none() && text(Path::new("built-in:x")).is_none());
    }
}

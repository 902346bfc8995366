//! Where each agent has its settings.

use std::{env, path::PathBuf};

use nix::unistd::geteuid;

use super::{Format, InstallError, Reach, codex_home};
use crate::place;

/// The settings file that an agent reads.
///
/// # Errors
///
/// There is no home directory or no working directory, or somebody who is not root names the machine's.
pub(super) fn file(format: Format, reach: Reach) -> Result<PathBuf, InstallError> {
    let managed = reach == Reach::Managed;
    let top = match reach {
        Reach::User if format == Format::Codex => codex_home().ok_or(InstallError::NoHome)?,
        Reach::User if format == Format::Qwen => qwen_home().ok_or(InstallError::NoHome)?,
        Reach::User => place::home().ok_or(InstallError::NoHome)?,
        Reach::Project => env::current_dir().map_err(InstallError::NoProgram)?,
        Reach::Managed if !geteuid().is_root() => return Err(InstallError::NotRoot),
        Reach::Managed => PathBuf::from("/etc"),
    };
    Ok(top.join(match (format, managed) {
        (Format::Claude, false) => ".claude/settings.json",
        (Format::Codex, false) if reach == Reach::User => "hooks.json",
        (Format::Codex, false) => ".codex/hooks.json",
        (Format::Gemini, false) => ".gemini/settings.json",
        (Format::Qwen, false) if reach == Reach::User => "settings.json",
        (Format::Qwen, false) => ".qwen/settings.json",
        (Format::Cursor, false) => ".cursor/hooks.json",
        // code.claude.com/docs/en/settings, developers.openai.com/codex/hooks, geminicli.com/docs/cli/enterprise,
        // qwenlm.github.io/qwen-code-docs, cursor.com/docs/hooks
        (Format::Claude, true) => "claude-code/managed-settings.json",
        (Format::Codex, true) => "codex/hooks.json",
        (Format::Gemini, true) => "gemini-cli/settings.json",
        (Format::Qwen, true) => "qwen-code/settings.json",
        (Format::Cursor, true) => "cursor/hooks.json",
    }))
}

/// The directory of Qwen Code's own settings of the user: `QWEN_HOME`, else `.qwen` at home.
pub fn qwen_home() -> Option<PathBuf> {
    let home = place::home();
    let Some(named) = env::var_os("QWEN_HOME").filter(|named| !named.is_empty()) else {
        return home.map(|home| home.join(".qwen"));
    };
    let named = PathBuf::from(named);
    let named = match (named.strip_prefix("~"), home) {
        (Ok(below), Some(home)) => home.join(below),
        _ => named,
    };
    let cwd = env::current_dir().unwrap_or_default();
    Some(cwd.join(named))
}

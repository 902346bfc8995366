//! Puts the hook into an agent's settings, and takes it out again.
//!
//! What else stands there stays, in its order. The file as it was is kept beside it; who takes the hook out of an
//! otherwise untouched file gets it back to the byte.

mod codex;
mod edit;
mod file;
mod places;
mod trust;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use similar::TextDiff;
use thiserror::Error;

use super::{Format, claude, cursor, gemini};

pub use codex::{Trusting, hindrances, home as codex_home};
pub use edit::runs_us;
use file::{backup, failed, make_directory, mode, read, remove, tight, write};
pub use places::qwen_home;
pub use trust::{Trust, TrustStatus, of as trust_of, standing};

/// Seconds that Claude Code, Codex and Cursor shall wait. The hook itself answers within 22.
const TIMEOUT_S: u64 = 30;

/// Whose settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The project's, below its directory.
    Project,
    /// The user's, below the home directory.
    User,
    /// Those of the machine, which users cannot write and which count before theirs.
    Managed,
}

/// What to put in.
#[derive(Clone, Debug)]
pub struct InstallPlan {
    /// The agent.
    pub format: Format,
    /// The settings file.
    pub file: PathBuf,
    /// The command that the agent shall run.
    pub command: String,
    /// Whether all users read the file, and root alone writes it.
    pub managed: bool,
    /// Codex: the user's own settings, which say what hooks are trusted. Settings of the machine need no trust.
    pub trusted_in: Option<PathBuf>,
}

/// A change that has not been made yet.
#[derive(Clone, Debug)]
pub struct FileChange {
    file: PathBuf,
    before: Option<String>,
    /// `None`: there was no file before, and there will be none.
    after: Option<String>,
    installs: bool,
    managed: bool,
    /// Whether the file as it was is kept beside it.
    keeps: bool,
}

/// What keeps Codex's users from turning hooks off (`[features] hooks = false` in their own settings).
pub const REQUIREMENT: &str = "[features]\nhooks = true\n";

/// A file that keeps users from turning hooks off.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// Whether it says so in the end.
    pub says: bool,
    /// What is to be changed.
    pub change: FileChange,
}

/// Why settings cannot be changed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// There is no home directory.
    #[error("there is no home directory; use --project")]
    NoHome,
    /// The program does not know its own path.
    #[error("the path of this program cannot be found: {0}; start it by its absolute path")]
    NoProgram(io::Error),
    /// A path that cannot stand in a settings file.
    #[error("{0} is no UTF-8; move the file to a path that is")]
    NotUtf8(String),
    /// Settings for all users, and somebody who is not root.
    #[error("only root writes settings for all users of the machine; run it with sudo")]
    NotRoot,
    /// What settings for all users would run or read can be changed by others.
    #[error(
        "{path} can be changed by others than root, so it cannot guard anybody; put it where only root can write, such as {place}"
    )]
    Loose {
        /// The file or directory.
        path: String,
        /// Where it could be.
        place: &'static str,
    },
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} {why}; {mend}")]
    Settings {
        /// The file.
        path: String,
        /// What is wrong, with the place.
        why: String,
        /// What to do.
        mend: &'static str,
    },
}

impl InstallPlan {
    /// What to put where, for this agent.
    ///
    /// # Errors
    ///
    /// There is no home directory, or a path is no UTF-8.
    pub fn new(format: Format, reach: Reach, policy: Option<&Path>) -> Result<Self, InstallError> {
        let managed = reach == Reach::Managed;
        let file = places::file(format, reach)?;
        let program = env::current_exe().map_err(InstallError::NoProgram)?;
        if managed {
            tight(&program, "/usr/local/bin")?;
        }
        let mut words = vec![
            text(&program)?,
            "hook".to_owned(),
            "--format".to_owned(),
            format.as_str().to_owned(),
        ];
        if let Some(policy) = policy {
            let policy = fs::canonicalize(policy).map_err(failed(policy))?;
            if managed {
                tight(&policy, "/etc/enforcer/policies")?;
            }
            words.extend(["--policy".to_owned(), text(&policy)?]);
        }
        // No word holds a NUL: they are paths.
        let command = shlex::try_join(words.iter().map(String::as_str))
            .map_err(|_| InstallError::NotUtf8(program.display().to_string()))?;
        Ok(Self {
            format,
            file,
            command,
            managed,
            trusted_in: (format == Format::Codex && !managed)
                .then(|| codex_home().map(|home| home.join("config.toml")))
                .flatten(),
        })
    }

    /// The change that puts the hook in. Where it stands already, nothing changes.
    ///
    /// # Errors
    ///
    /// The settings cannot be read, or are not understood.
    pub fn install(&self) -> Result<FileChange, InstallError> {
        let before = read(&self.file)?;
        let mut settings = parse(&self.file, before.as_deref())?;
        let added = self.entries();
        edit::add(&mut settings, self.format, &added).map_err(|why| self.refused(why))?;
        if self.managed {
            edit::enforce(&mut settings, self.format).map_err(|why| self.refused(why))?;
        }
        self.change(before, &settings, true)
    }

    /// The change that takes the hook out.
    ///
    /// # Errors
    ///
    /// As [`InstallPlan::install`].
    pub fn uninstall(&self) -> Result<FileChange, InstallError> {
        let before = read(&self.file)?;
        let mut settings = parse(&self.file, before.as_deref())?;
        edit::remove(&mut settings, self.format).map_err(|why| self.refused(why))?;
        if self.managed {
            edit::release(&mut settings, self.format);
        }
        let mut change = self.change(before, &settings, false)?;
        // The file as it was, if putting the hook in is all that has happened to it since.
        if let Some(kept) = read(&backup(&self.file))?
            && self
                .without_switch(&kept)
                .is_some_and(|kept| kept == settings)
        {
            change.after = Some(kept);
        } else if settings == edit::empty(self.format) {
            change.after = None;
        }
        Ok(change)
    }

    /// What keeps users' agents from asking a hook of the machine, where its settings cannot say otherwise.
    pub fn limit(&self) -> Option<&'static str> {
        (self.managed && self.format == Format::Qwen).then_some(
            "Qwen Code runs hooks of the machine where the user's or the project's settings have no `hooks`, and not \
             where both have: enforcer hook doctor qwen, as the user in the project, says which",
        )
    }

    /// A second file that keeps users from turning hooks off, where the agent has one: Codex's requirements. One that
    /// is there already is its administrator's; what to put into it is [`REQUIREMENT`].
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn requirement(&self, installs: bool) -> Result<Option<Requirement>, InstallError> {
        if !self.managed || self.format != Format::Codex {
            return Ok(None);
        }
        let file = self.file.with_file_name("requirements.toml");
        let before = read(&file)?;
        let after = match (&before, installs) {
            (None, true) => Some(REQUIREMENT.to_owned()),
            (Some(text), false) if text == REQUIREMENT => None,
            (known, _) => known.clone(),
        };
        let says = after.as_deref().is_some_and(requires_hooks);
        Ok(Some(Requirement {
            says,
            change: FileChange {
                file,
                before,
                after,
                installs,
                managed: true,
                keeps: true,
            },
        }))
    }

    /// Settings as they would be if the switch had never been in them that [`edit::enforce`] sets.
    fn without_switch(&self, text: &str) -> Option<Value> {
        let mut settings = parse(&self.file, Some(text)).ok()?;
        if self.managed {
            edit::enforce(&mut settings, self.format).ok()?;
            edit::release(&mut settings, self.format);
        }
        Some(settings)
    }

    fn change(
        &self,
        before: Option<String>,
        settings: &Value,
        installs: bool,
    ) -> Result<FileChange, InstallError> {
        let unchanged = before
            .as_deref()
            .is_some_and(|text| parse(&self.file, Some(text)).is_ok_and(|old| old == *settings));
        let after = if unchanged || (before.is_none() && !installs) {
            before.clone()
        } else {
            Some(
                edit::written(settings, before.as_deref()).map_err(|error| InstallError::Io {
                    path: self.file.display().to_string(),
                    source: error,
                })?,
            )
        };
        Ok(FileChange {
            file: self.file.clone(),
            before,
            after,
            installs,
            managed: self.managed,
            keeps: true,
        })
    }

    /// The events that the hook answers, each with its entry.
    fn entries(&self) -> Vec<(&'static str, Value)> {
        let command = &self.command;
        match self.format {
            Format::Claude | Format::Codex => vec![(
                claude::EVENT,
                json!({"matcher": "*", "hooks": [
                    {"type": "command", "command": command, "timeout": TIMEOUT_S}]}),
            )],
            Format::Gemini => vec![(
                gemini::EVENT,
                json!({"matcher": ".*", "hooks": [{"type": "command", "name": "enforcer",
                    "command": command, "timeout": TIMEOUT_S * 1000}]}),
            )],
            // Without a name it goes by its command, so no hook of another takes its place by a name.
            Format::Qwen => vec![(
                claude::EVENT,
                json!({"matcher": "*", "hooks": [
                    {"type": "command", "command": command, "timeout": TIMEOUT_S * 1000}]}),
            )],
            Format::Cursor => [
                cursor::SHELL_EVENT,
                cursor::MCP_EVENT,
                cursor::READ_EVENT,
                cursor::TOOL_EVENT,
            ]
            .into_iter()
            .map(|event| {
                let entry = json!({"command": command, "timeout": TIMEOUT_S, "failClosed": true});
                (event, entry)
            })
            .collect(),
        }
    }

    fn refused(&self, why: String) -> InstallError {
        InstallError::Settings {
            path: self.file.display().to_string(),
            why,
            mend: "correct it by hand, then try again",
        }
    }
}

impl FileChange {
    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether there is anything to change.
    pub fn is_needed(&self) -> bool {
        self.before != self.after
    }

    /// The difference, as `diff -u` shows it.
    pub fn diff(&self) -> String {
        let name = self.file.display().to_string();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (before, after) = (text(&self.before), text(&self.after));
        TextDiff::from_lines(before.as_str(), after.as_str())
            .unified_diff()
            .context_radius(3)
            .header(&name, &name)
            .to_string()
    }

    /// Makes the change: all of it or nothing.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn make(&self) -> Result<(), InstallError> {
        if !self.is_needed() {
            return Ok(());
        }
        let kept = backup(&self.file);
        if self.installs {
            if let Some(before) = &self.before
                && self.keeps
                && read(&kept)?.is_none()
            {
                write(&kept, before, mode(&self.file))?;
            }
            if let Some(directory) = self.file.parent() {
                make_directory(directory, self.managed)?;
            }
        }
        match &self.after {
            // Whatever it was before: a file that others can write guards nobody, one that they cannot read is no hook.
            Some(after) if self.managed => write(&self.file, after, 0o644)?,
            Some(after) => write(&self.file, after, mode(&self.file))?,
            None => remove(&self.file)?,
        }
        if !self.installs && self.keeps {
            remove(&kept)?;
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<String, InstallError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| InstallError::NotUtf8(path.display().to_string()))
}

/// Whether requirements of Codex turn hooks on: `hooks = true` in the table `features`.
fn requires_hooks(text: &str) -> bool {
    let mut table = "";
    text.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            table = line;
        }
        let spaceless: String = line.split_whitespace().collect();
        table.starts_with("[features]") && spaceless.starts_with("hooks=true")
            || table.is_empty() && spaceless.starts_with("features.hooks=true")
    })
}

/// The settings, an empty object if there are none.
fn parse(file: &Path, text: Option<&str>) -> Result<Value, InstallError> {
    let text = text.unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    let settings = |why: String, mend| InstallError::Settings {
        path: file.display().to_string(),
        why,
        mend,
    };
    let value: Value = serde_json::from_str(text).map_err(|error| {
        settings(
            format!("is no JSON: {error}"),
            "correct it there; comments cannot be kept: take them out, or add the hook by hand (--dry-run with an \
             empty file shows it)",
        )
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(settings("holds no object".to_owned(), "correct it by hand"))
    }
}

#[cfg(test)]
#[path = "../install_tests.rs"]
mod tests;

//! What Codex wants besides its settings: trust in the hook, and a project that is trusted.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use toml_edit::{DocumentMut, Item};

use super::{FileChange, InstallError, InstallPlan, file::read, parse, trust};
use crate::place;

/// The directory of the user's own settings: `CODEX_HOME` with its links followed, else `.codex` at home, as Codex
/// names it.
pub fn home() -> Option<PathBuf> {
    match env::var_os("CODEX_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Some(fs::canonicalize(&home).unwrap_or_else(|_| PathBuf::from(home))),
        None => place::home().map(|home| home.join(".codex")),
    }
}

/// What is to become of the trust in the hook.
#[derive(Clone, Debug)]
pub struct Trusting {
    /// The change of the user's own settings.
    pub change: FileChange,
    /// What keeps Codex from asking the hook even so, each with its mend.
    pub but: Vec<String>,
}

impl InstallPlan {
    /// The trust that Codex wants of its user before it runs the hook; `None` for other agents, and for settings of
    /// the machine, which need none. `settings` is the change of the settings themselves.
    ///
    /// # Errors
    ///
    /// The user's settings cannot be read, are no TOML, or hold something else in the place of trust.
    pub fn trusting(&self, settings: &FileChange) -> Result<Option<Trusting>, InstallError> {
        let Some(file) = &self.trusted_in else {
            return Ok(None);
        };
        let of = |text: &Option<String>, command: Option<&str>| -> Vec<trust::Trust> {
            let value = parse(&self.file, text.as_deref()).unwrap_or(Value::Null);
            trust::of(&value, &self.file.to_string_lossy(), command)
        };
        let old = of(&settings.before, None);
        let new = if settings.installs {
            of(&settings.after, Some(&self.command))
        } else {
            Vec::new()
        };
        let before = read(file)?;
        let text = before.clone().unwrap_or_default();
        let after = trust::write(&text, &old, &new).map_err(|why| InstallError::Settings {
            path: file.display().to_string(),
            why,
            mend: "correct it by hand, then try again; or start codex in a terminal and trust the hook with /hooks",
        })?;
        let mut but = Vec::new();
        if settings.installs {
            but = hindrances(&after, &self.file);
            if new.iter().any(|trust| trust.hash.is_none()) {
                but.push(
                    "the hook stands among members that are not known here, so its trust cannot be written: start \
                     codex in a terminal and trust it with /hooks"
                        .to_owned(),
                );
            }
        }
        let empty = after.trim().is_empty();
        let change = FileChange {
            file: file.clone(),
            after: if after == text {
                before.clone()
            } else {
                (settings.installs || !empty).then_some(after)
            },
            before,
            installs: settings.installs,
            managed: false,
            keeps: false,
        };
        Ok(Some(Trusting { change, but }))
    }
}

/// What keeps Codex from the hooks of a file, in the user's settings and in where it lies.
pub fn hindrances(config: &str, file: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(document) = config.parse::<DocumentMut>() else {
        return found;
    };
    let top = document.as_item();
    for name in ["hooks", "codex_hooks"] {
        let says = top
            .get("features")
            .and_then(|features| features.get(name))
            .and_then(Item::as_bool);
        if says == Some(false) {
            found.push(format!(
                "hooks are turned off in the user's config.toml: take `{name} = false` out of [features]"
            ));
        }
    }
    let Some(project) = file.parent().and_then(Path::parent) else {
        return found;
    };
    // The user's own hooks belong to no project.
    if home().is_some_and(|home| Some(home.as_path()) == file.parent()) {
        return found;
    }
    let top_of = project
        .ancestors()
        .find(|directory| directory.join(".git").exists());
    if let Some(worktree) = top_of.filter(|directory| directory.join(".git").is_file()) {
        found.push(format!(
            "{} is a linked worktree, and Codex reads the hooks of the main checkout instead: install it there, or with \
             --user",
            worktree.display()
        ));
    }
    let trusted = [Some(project), top_of].into_iter().flatten().any(|path| {
        let level = top
            .get("projects")
            .and_then(|projects| projects.get(&*path.to_string_lossy()))
            .and_then(|project| project.get("trust_level"))
            .and_then(Item::as_str);
        level == Some("trusted")
    });
    if !trusted {
        let path = top_of.unwrap_or(project).display();
        found.push(format!(
            "Codex reads the hooks of trusted projects alone, and this is none yet: start codex in {path} and trust it, \
             or install the hook with --user or --managed"
        ));
    }
    found
}

//! What keeps Qwen Code from asking its hooks, as version 0.15.10 reads its settings.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Finding, settings::variable};
use crate::{
    install::{Reach, qwen_home},
    place,
};

/// The settings of the machine that are weaker than all others.
const DEFAULTS: &str = "system-defaults.json";
/// The variable that has it read no hooks, as `--bare` does.
const BARE: &str = "QWEN_CODE_SIMPLE";
/// The variable that names other settings of the machine.
const SYSTEM: &str = "QWEN_CODE_SYSTEM_SETTINGS_PATH";
/// The variable that names another directory of the user's own settings.
const HOME: &str = "QWEN_HOME";

/// Settings as they were read.
type Files = [(Reach, PathBuf, Value)];

/// The settings of the machine.
pub(super) fn machine() -> [PathBuf; 2] {
    let system = variable(SYSTEM).unwrap_or_else(|| "/etc/qwen-code/settings.json".into());
    let defaults = variable("QWEN_CODE_SYSTEM_DEFAULTS_PATH");
    let defaults = defaults.unwrap_or_else(|| system.with_file_name(DEFAULTS));
    [system, defaults]
}

/// What keeps it from asking the hooks of a reach.
pub(super) fn unasked(reach: Reach, files: &Files) -> Vec<Finding> {
    let cwd = env::current_dir().unwrap_or_default();
    let distrusted = distrusted(&cwd, files);
    let mut found = Vec::new();
    found.extend(switched_off(files, distrusted.is_some()));
    found.extend(by_variables(reach, &cwd, files));
    match reach {
        Reach::Project => found.extend(distrusted.map(|file| {
            Finding::new(
                format!(
                    "the folder is not trusted, so hooks of the project do not run ({})",
                    file.display()
                ),
                "trust it with /trust in qwen, or install with --user",
            )
        })),
        Reach::Managed => found.extend(crowded_out(files, distrusted.is_some())),
        Reach::User => {}
    }
    found
}

/// The files in which settings count, the strongest first.
fn by_strength(files: &Files, distrusted: bool) -> impl Iterator<Item = (&PathBuf, &Value)> {
    let strength = move |(reach, path, _): &&(Reach, PathBuf, Value)| match reach {
        Reach::Managed if path.ends_with(DEFAULTS) => 3,
        Reach::Managed => 0,
        Reach::Project => 1,
        Reach::User => 2,
    };
    let mut sorted: Vec<_> = files
        .iter()
        .filter(|(reach, ..)| !(distrusted && *reach == Reach::Project))
        .collect();
    sorted.sort_by_key(strength);
    sorted
        .into_iter()
        .map(|(_, path, settings)| (path, settings))
}

fn switched_off(files: &Files, distrusted: bool) -> Option<Finding> {
    let (path, off) = by_strength(files, distrusted)
        .map(|(path, settings)| (path, &settings["disableAllHooks"]))
        .find(|(_, off)| !off.is_null())?;
    (*off != Value::Bool(false)).then(|| {
        Finding::new(
            format!(
                "hooks are turned off (`disableAllHooks` in {})",
                path.display()
            ),
            "take `disableAllHooks` out there, or install with --managed",
        )
    })
}

/// Hooks of the machine are among the merged settings alone, which it takes where the user's or the project's have none.
fn crowded_out(files: &Files, distrusted: bool) -> Option<Finding> {
    let having = |of: Reach| {
        files
            .iter()
            .any(|(reach, _, settings)| *reach == of && !settings["hooks"].is_null())
    };
    (having(Reach::User) && (distrusted || having(Reach::Project))).then(|| {
        Finding::new(
            "the user's and the project's settings have `hooks`, or the project is not trusted: then those of the \
             machine do not run",
            "take `hooks` out of the user's settings, or install with --user too",
        )
    })
}

/// The file by which a folder is not trusted, where trust counts at all.
fn distrusted(cwd: &Path, files: &Files) -> Option<PathBuf> {
    let counts = |(.., settings): &(Reach, PathBuf, Value)| {
        settings["security"]["folderTrust"]["enabled"] == Value::Bool(true)
    };
    if !files.iter().any(counts) {
        return None;
    }
    let file = variable("QWEN_CODE_TRUSTED_FOLDERS_PATH")
        .or_else(|| Some(qwen_home()?.join("trustedFolders.json")))?;
    let text = contents(&file)?;
    let rules: Value = serde_json::from_str(&text).ok()?;
    let mut denied = false;
    for (path, level) in rules.as_object()? {
        let path = Path::new(path);
        match level.as_str() {
            Some("TRUST_FOLDER") if cwd.starts_with(path) => return None,
            Some("TRUST_PARENT") if path.parent().is_some_and(|top| cwd.starts_with(top)) => {
                return None;
            }
            Some("DO_NOT_TRUST") => denied |= cwd == path,
            _ => {}
        }
    }
    denied.then_some(file)
}

/// What variables change, those that it takes from a file too.
fn by_variables(reach: Reach, cwd: &Path, files: &Files) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some((value, place)) = told(BARE, cwd, files)
        && ["1", "true", "yes", "on"].contains(&value.to_lowercase().trim())
    {
        found.push(Finding::new(
            format!("hooks are turned off (`{BARE}` in {place})"),
            format!("take it out there, or set {BARE}=0 in the environment, which no file changes"),
        ));
    }
    let elsewhere = match reach {
        Reach::Managed => told(SYSTEM, cwd, files),
        Reach::User => told_at_home(HOME),
        Reach::Project => None,
    };
    // What the environment itself says has been followed already.
    if let Some((_, place)) = elsewhere
        && place != ENVIRONMENT
    {
        let name = if reach == Reach::User { HOME } else { SYSTEM };
        found.push(Finding::new(
            format!("other settings are read in the place of these (`{name}` in {place})"),
            format!("take it out there, or set {name} in the environment, which no file changes"),
        ));
    }
    found
}

/// Where a variable stands that no file has told.
const ENVIRONMENT: &str = "the environment";

/// The value of a variable, and where it comes from: the environment, the nearest file of variables, the settings.
fn told(name: &str, cwd: &Path, files: &Files) -> Option<(String, String)> {
    if let Some(value) = env::var_os(name) {
        return Some((value.to_string_lossy().into_owned(), ENVIRONMENT.to_owned()));
    }
    if let Some(file) = env_files(cwd).into_iter().find(|file| file.exists())
        && let Some(value) = contents(&file).and_then(|text| assigned(&text, name))
    {
        return Some((value, file.display().to_string()));
    }
    by_strength(files, false).find_map(|(path, settings)| {
        let value = settings["env"][name].as_str()?;
        Some((value.to_owned(), path.display().to_string()))
    })
}

/// The same of a variable that only files of the user's own may set.
fn told_at_home(name: &str) -> Option<(String, String)> {
    if env::var_os(name).is_some() {
        return None;
    }
    let home = place::home()?;
    [home.join(".qwen/.env"), home.join(".env")]
        .into_iter()
        .find_map(|file| {
            let value = assigned(&contents(&file)?, name)?;
            Some((value, file.display().to_string()))
        })
}

/// The files of variables that it looks for; the first that is there counts.
fn env_files(cwd: &Path) -> Vec<PathBuf> {
    let home = place::home().unwrap_or_default();
    let at_home = || {
        let own = qwen_home().unwrap_or_default();
        [own.join(".env"), home.join(".qwen/.env"), home.join(".env")]
    };
    let mut found = Vec::new();
    for directory in cwd.ancestors() {
        if directory == home {
            found.extend(at_home());
        } else {
            found.extend([directory.join(".qwen/.env"), directory.join(".env")]);
        }
    }
    if !cwd.starts_with(&home) {
        found.extend(at_home());
    }
    found
}

/// What a file holds, if it is one: a project may have come from strangers.
fn contents(file: &Path) -> Option<String> {
    let metadata = fs::metadata(file).ok()?;
    let bytes = metadata.is_file().then(|| fs::read(file).ok())??;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a file of variables assigns to one, the last time.
fn assigned(text: &str, name: &str) -> Option<String> {
    let value = text.lines().rev().find_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let rest = line.strip_prefix(name)?.trim_start();
        rest.strip_prefix(['=', ':'])
    })?;
    let value = value.trim();
    let quote = value.chars().next().filter(|c| "'\"`".contains(*c));
    let value = match quote {
        Some(quote) => value[1..].split(quote).next(),
        None => value.split('#').next(),
    };
    Some(value.unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(reach: Reach, settings: &Value) -> (Reach, PathBuf, Value) {
        let name = match reach {
            Reach::Project => "/p/.qwen/settings.json",
            Reach::User => "/h/.qwen/settings.json",
            Reach::Managed => "/etc/qwen-code/settings.json",
        };
        (reach, name.into(), settings.clone())
    }

    #[test]
    fn the_strongest_settings_say_whether_hooks_run() {
        let (on, off) = (
            json!({"disableAllHooks": false}),
            json!({"disableAllHooks": true}),
        );
        for (files, distrusted, said) in [
            (vec![], false, None),
            (vec![file(Reach::User, &off)], false, Some("/h/")),
            (vec![file(Reach::Project, &off)], false, Some("/p/")),
            (vec![file(Reach::Project, &off)], true, None),
            (
                vec![file(Reach::User, &off), file(Reach::Project, &on)],
                false,
                None,
            ),
            (
                vec![file(Reach::User, &off), file(Reach::Project, &on)],
                true,
                Some("/h/"),
            ),
            (
                vec![file(Reach::Project, &off), file(Reach::Managed, &on)],
                false,
                None,
            ),
            (
                vec![
                    (
                        Reach::Managed,
                        PathBuf::from("/etc/qwen-code/system-defaults.json"),
                        on.clone(),
                    ),
                    file(Reach::User, &off),
                ],
                false,
                Some("/h/"),
            ),
        ] {
            let found = switched_off(&files, distrusted);
            assert_eq!(found.is_some(), said.is_some(), "{files:?}");
            if let (Some(found), Some(said)) = (found, said) {
                assert!(found.what.contains(said), "{}", found.what);
            }
        }
    }

    #[test]
    fn hooks_of_the_machine_want_room() {
        let some = json!({"hooks": {}});
        let none = json!({"hooks": null});
        for (user, project, distrusted, out) in [
            (&none, &none, false, false),
            (&some, &none, false, false),
            (&none, &some, false, false),
            (&some, &some, false, true),
            (&some, &none, true, true),
            (&none, &some, true, false),
        ] {
            let files = [file(Reach::User, user), file(Reach::Project, project)];
            let found = crowded_out(&files, distrusted);
            assert_eq!(found.is_some(), out, "{user} {project} {distrusted}");
        }
    }

    #[test]
    fn files_of_variables_are_read_as_they_are_meant() {
        for (text, value) in [
            ("QWEN_CODE_SIMPLE=1", Some("1")),
            (
                "A=1\n export QWEN_CODE_SIMPLE = 'true' # x\nB=2",
                Some("true"),
            ),
            ("QWEN_CODE_SIMPLE=1\nQWEN_CODE_SIMPLE=0 # off", Some("0")),
            ("QWEN_CODE_SIMPLE: \"yes\"", Some("yes")),
            ("QWEN_CODE_SIMPLE=", Some("")),
            ("# QWEN_CODE_SIMPLE=1\nQWEN_CODE_SIMPLER=1", None),
        ] {
            assert_eq!(assigned(text, BARE).as_deref(), value, "{text}");
        }
    }
}

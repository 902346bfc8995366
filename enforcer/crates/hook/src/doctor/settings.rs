//! The settings of agents: which of them hold a hook of ours, and what in them keeps it from being asked.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Finding, HookReport, Hooked, qwen, word};
use crate::{
    Format, cursor, guard,
    install::{Reach, codex_home, qwen_home, runs_us},
    place,
};

/// Looks at all settings of an agent.
pub(super) fn read(format: Format, report: &mut HookReport) {
    let mut files = Vec::new();
    for (reach, path) in places(format) {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                report.problems.push(Finding::new(
                    format!("{} cannot be read: {error}", path.display()),
                    "look at it",
                ));
                continue;
            }
        };
        match serde_json::from_str::<Value>(&text) {
            Ok(settings) => files.push((reach, path, settings)),
            // Agents take comments, and drop a file that they cannot read without a word.
            Err(error) => report.problems.push(Finding::new(
                format!("{} is no JSON: {error}", path.display()),
                "correct it there",
            )),
        }
    }
    for (reach, path, settings) in &files {
        let mut found = hooks(format, *reach, path, settings);
        let off = match format {
            Format::Qwen => qwen::unasked(*reach, &files),
            _ => switched_off(format, *reach, path, &files),
        };
        for hooked in &mut found {
            hooked.problems.extend(off.iter().cloned());
        }
        report.hooks.extend(found);
    }
}

/// Where an agent has its settings, as `install` has them and besides.
fn places(format: Format) -> Vec<(Reach, PathBuf)> {
    let mut found = Vec::new();
    let mut add = |reach, path: PathBuf| {
        if !found.contains(&(reach, path.clone())) {
            found.push((reach, path));
        }
    };
    let home = place::home();
    let (directory, names, managed): (&str, &[&str], &[&str]) = match format {
        Format::Claude => (
            ".claude",
            &["settings.json", "settings.local.json"],
            &["/etc/claude-code/managed-settings.json"],
        ),
        Format::Codex => (".codex", &["hooks.json"], &["/etc/codex/hooks.json"]),
        Format::Gemini => (
            ".gemini",
            &["settings.json"],
            &["/etc/gemini-cli/settings.json"],
        ),
        Format::Qwen => (".qwen", &["settings.json"], &[]),
        Format::Cursor => (".cursor", &["hooks.json"], &["/etc/cursor/hooks.json"]),
    };
    let user = match format {
        Format::Codex => codex_home(),
        Format::Qwen => qwen_home(),
        Format::Claude => {
            variable("CLAUDE_CONFIG_DIR").or(home.as_ref().map(|home| home.join(directory)))
        }
        Format::Gemini | Format::Cursor => home.as_ref().map(|home| home.join(directory)),
    };
    if let Some(user) = &user {
        add(Reach::User, user.join(names[0]));
    }
    if let Ok(cwd) = env::current_dir() {
        let mut top = cwd.ancestors().find(|path| path.join(".git").exists());
        let mut here = Some(cwd.as_path());
        if format == Format::Qwen {
            // It looks nowhere above, and in the home directory not at all.
            top = None;
            here = here.filter(|here| Some(*here) != home.as_deref());
        }
        for project in [here, top].into_iter().flatten() {
            let own = project.join(directory);
            // In the home directory the project's settings are the user's.
            if user.as_ref() != Some(&own) {
                for name in names {
                    add(Reach::Project, own.join(name));
                }
            }
        }
    }
    for path in managed {
        add(Reach::Managed, PathBuf::from(path));
    }
    if format == Format::Qwen {
        for path in qwen::machine() {
            add(Reach::Managed, path);
        }
    }
    if format == Format::Gemini
        && let Some(path) = variable("GEMINI_CLI_SYSTEM_SETTINGS_PATH")
    {
        add(Reach::Managed, path);
    }
    found
}

pub(super) fn variable(name: &str) -> Option<PathBuf> {
    let value = env::var_os(name).filter(|value| !value.is_empty())?;
    Some(PathBuf::from(value))
}

/// The hooks of ours in settings.
fn hooks(format: Format, reach: Reach, path: &Path, settings: &Value) -> Vec<Hooked> {
    let events: &[&str] = match format {
        Format::Cursor => &[
            cursor::SHELL_EVENT,
            cursor::MCP_EVENT,
            cursor::READ_EVENT,
            cursor::TOOL_EVENT,
        ],
        _ => &[format.event_name()],
    };
    let mut found: Vec<Hooked> = Vec::new();
    let mut missing = Vec::new();
    for event in events {
        let entries = settings["hooks"][*event].as_array();
        let mut here = false;
        for entry in entries.into_iter().flatten() {
            let inner = entry["hooks"].as_array();
            let ours = match format {
                Format::Cursor => Some(entry).filter(|hook| runs_us(hook)),
                _ => inner.into_iter().flatten().find(|hook| runs_us(hook)),
            };
            let Some(ours) = ours else { continue };
            here = true;
            let problems = faults(format, entry, ours, reach);
            let command = ours["command"].as_str().unwrap_or_default().to_owned();
            match found.iter_mut().find(|hooked| hooked.command == command) {
                Some(hooked) => hooked.problems.extend(problems),
                None => found.push(Hooked {
                    file: path.to_owned(),
                    reach: word(reach),
                    command,
                    problems,
                    format,
                }),
            }
        }
        if !here {
            missing.push(*event);
        }
    }
    if let Some(first) = found.first_mut()
        && !missing.is_empty()
    {
        first.problems.push(Finding::new(
            format!("it is not asked about {}", missing.join(", ")),
            again(format, reach),
        ));
    }
    found
}

fn again(format: Format, reach: Reach) -> String {
    format!(
        "enforcer hook install {} --{} --policy FILE",
        format.as_str(),
        word(reach)
    )
}

/// What in its own entry keeps a hook from being asked about every call.
fn faults(format: Format, entry: &Value, hook: &Value, reach: Reach) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut fault = |what: String| found.push(Finding::new(what, again(format, reach)));
    let all = ["", "*", ".*"];
    match &entry["matcher"] {
        Value::Null => {}
        Value::String(matcher) if all.contains(&matcher.as_str()) => {}
        other => fault(format!(
            "it is asked about some tools only (matcher {other})"
        )),
    }
    if format != Format::Cursor && hook["type"] != "command" {
        fault("its type is not `command`".to_owned());
    }
    if matches!(format, Format::Gemini | Format::Qwen)
        && let Some(waits) = hook["timeout"].as_f64()
        && waits <= guard::PATIENCE.as_secs_f64() * 1000.0
    {
        fault(format!(
            "the agent waits for {waits} milliseconds only, and goes on"
        ));
    }
    if hook["async"] == Value::Bool(true) {
        fault("the agent does not wait for it (`async`)".to_owned());
    }
    if format == Format::Cursor && hook["failClosed"] != Value::Bool(true) {
        fault("the agent goes on where it fails (no `failClosed`)".to_owned());
    }
    found
}

/// What in any settings turns the hooks of this file off.
fn switched_off(
    format: Format,
    reach: Reach,
    path: &Path,
    files: &[(Reach, PathBuf, Value)],
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (of, other, settings) in files {
        let name = other.display();
        match format {
            Format::Claude => {
                // Hooks of the machine run whatever a user says.
                let counts = *of == Reach::Managed || reach != Reach::Managed;
                if counts && settings["disableAllHooks"] == Value::Bool(true) {
                    found.push(Finding::new(
                        format!("hooks are turned off (`disableAllHooks` in {name})"),
                        "take `disableAllHooks` out there, or install with --managed",
                    ));
                }
                if *of == Reach::Managed
                    && reach != Reach::Managed
                    && settings["allowManagedHooksOnly"] == Value::Bool(true)
                {
                    found.push(Finding::new(
                        format!(
                            "only hooks of the machine run (`allowManagedHooksOnly` in {name})"
                        ),
                        "install with --managed",
                    ));
                }
            }
            Format::Gemini => {
                let disabled = settings["hooksConfig"]["disabled"].as_array();
                let named = |entry: &Value| {
                    entry.as_str().is_some_and(|name| {
                        name == "enforcer" || command_of(path, files).contains(&name)
                    })
                };
                if disabled.is_some_and(|list| list.iter().any(named)) {
                    found.push(Finding::new(
                        format!(
                            "the hook is turned off by name (`hooksConfig.disabled` in {name})"
                        ),
                        "take it out of that list",
                    ));
                }
            }
            Format::Codex | Format::Qwen | Format::Cursor => {}
        }
    }
    if format == Format::Gemini {
        // The strongest that says anything: the machine, the project, the user.
        let says = |reach: Reach| {
            files
                .iter()
                .filter(|(of, ..)| *of == reach)
                .find_map(|(_, path, settings)| {
                    Some((path, settings["hooksConfig"]["enabled"].as_bool()?))
                })
        };
        let said = says(Reach::Managed)
            .or_else(|| says(Reach::Project))
            .or_else(|| says(Reach::User));
        if let Some((file, false)) = said {
            found.push(Finding::new(
                format!(
                    "hooks are turned off (`hooksConfig.enabled` in {})",
                    file.display()
                ),
                "set it to true, or install with --managed",
            ));
        }
    }
    found
}

/// The commands of ours in a file: Gemini's list of names may have them, too.
fn command_of<'s>(path: &Path, files: &'s [(Reach, PathBuf, Value)]) -> Vec<&'s str> {
    let settings = files.iter().filter(|(_, file, _)| file == path);
    let groups = settings.flat_map(|(.., settings)| {
        let list = settings["hooks"][Format::Gemini.event_name()].as_array();
        list.into_iter().flatten()
    });
    let hooks = groups.flat_map(|group| group["hooks"].as_array().into_iter().flatten());
    hooks
        .filter(|hook| runs_us(hook))
        .filter_map(|hook| hook["command"].as_str())
        .collect()
}

//! `enforcer hook doctor`: whether an agent really asks its hook, and whether the hook answers.
//!
//! Most agents go on in silence where their hook does not start, is turned off, or is not trusted. So each settings
//! file that holds a hook of ours is read as the agent reads it, and the very command in it is asked.

mod ask;
mod codex;
mod qwen;
mod settings;

use std::{env, path::PathBuf};

use serde::Serialize;

use super::{Format, install::Reach};
use enforcer_decide::agents;

/// Something that is wrong, or worth to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// What to do.
    pub mend: String,
}

impl Finding {
    fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            mend: mend.into(),
        }
    }
}

/// A settings file with a hook of ours.
#[derive(Clone, Debug, Serialize)]
pub struct Hooked {
    /// The file.
    pub file: PathBuf,
    /// Whose settings: `project`, `user` or `managed`.
    pub reach: &'static str,
    /// The command that the agent runs.
    pub command: String,
    /// What keeps the agent from asking it, or it from answering.
    pub problems: Vec<Finding>,
    #[serde(skip)]
    format: Format,
}

/// What is to be said of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookStatus {
    /// It asks, and gets answers.
    Asked,
    /// It asks a hook, but not every one that is there, or with an answer that is of no use.
    Faulty,
    /// Nothing of ours is asked.
    NotAsked,
    /// It is not on this machine, and no settings name us.
    Absent,
}

/// An agent.
#[derive(Clone, Debug, Serialize)]
pub struct HookReport {
    /// The word for it.
    pub agent: &'static str,
    /// Its name as its makers write it.
    pub title: &'static str,
    /// What is to be said of it.
    pub verdict: HookStatus,
    /// Its program, where one was found.
    pub program: Option<PathBuf>,
    /// The program's version, where it said one.
    pub version: Option<String>,
    /// The oldest and newest version that the hook was tried with.
    pub tried: Option<[String; 2]>,
    /// The hooks of ours.
    pub hooks: Vec<Hooked>,
    /// What is wrong besides.
    pub problems: Vec<Finding>,
    /// What is worth to know, and wrong for nobody.
    pub notes: Vec<String>,
}

impl HookReport {
    /// Whether there is nothing to mend.
    pub fn is_well(&self) -> bool {
        matches!(self.verdict, HookStatus::Asked | HookStatus::Absent)
    }
}

/// All agents with a hook contract.
pub const ALL: [Format; 5] = [
    Format::Claude,
    Format::Codex,
    Format::Gemini,
    Format::Qwen,
    Format::Cursor,
];

/// Looks at an agent, as it would be started in this directory by this user.
pub fn examine(format: Format) -> HookReport {
    let known = agents::agent(format.as_str());
    let program = known.and_then(|agent| {
        let mut names = agent.programs.iter();
        names.find_map(|name| ask::find(name))
    });
    let mut report = HookReport {
        agent: format.as_str(),
        title: format.title(),
        verdict: HookStatus::Absent,
        program,
        version: None,
        tried: known.and_then(|agent| agent.tried.clone()),
        hooks: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
    };
    version(&mut report);
    settings::read(format, &mut report);
    if format == Format::Codex {
        codex::trust(&mut report);
    }
    let cwd = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    for hooked in &mut report.hooks {
        ask::command(hooked, &cwd, &mut report.notes);
    }
    if report.program.is_none() && !report.hooks.is_empty() {
        report.notes.push(format!(
            "{} was not found in PATH: what it does with these settings is known from its documentation alone",
            report.title
        ));
    }
    report.verdict = verdict(&report);
    if report.hooks.is_empty() && report.program.is_some() {
        report.problems.push(Finding::new(
            "no settings name the hook",
            format!(
                "enforcer hook install {} --user --policy FILE",
                format.as_str()
            ),
        ));
    }
    report
}

fn verdict(report: &HookReport) -> HookStatus {
    let well = report
        .hooks
        .iter()
        .filter(|hooked| hooked.problems.is_empty())
        .count();
    match (report.hooks.len(), well) {
        (0, _) if report.program.is_none() && report.problems.is_empty() => HookStatus::Absent,
        (_, 0) => HookStatus::NotAsked,
        (all, well) if all == well && report.problems.is_empty() => HookStatus::Asked,
        _ => HookStatus::Faulty,
    }
}

fn version(report: &mut HookReport) {
    let Some(program) = &report.program else {
        return;
    };
    match ask::version(program) {
        Ok(version) => {
            report
                .notes
                .extend(untried(report.title, &version, report.tried.as_ref()));
            report.version = Some(version);
        }
        Err(why) => report
            .notes
            .push(format!("the version is not known: {why}")),
    }
}

/// What is to be said of a version that the hook was not tried with.
fn untried(title: &str, version: &str, tried: Option<&[String; 2]>) -> Option<String> {
    let [oldest, newest] = tried?;
    let inside = (numbers(oldest)..=numbers(newest)).contains(&numbers(version));
    let range = if oldest == newest {
        newest.clone()
    } else {
        format!("{oldest} to {newest}")
    };
    (!inside).then(|| format!("the hook was tried with {title} {range}, not with {version}"))
}

/// The same of the agent that is found here, if one is; nothing where it was tried.
pub fn unproven(format: Format) -> Option<String> {
    let known = agents::agent(format.as_str())?;
    let program = known.programs.iter().find_map(|name| ask::find(name))?;
    match ask::version(&program) {
        Ok(version) => untried(format.title(), &version, known.tried.as_ref()),
        Err(why) => Some(format!(
            "the version of {} is not known: {why}",
            format.title()
        )),
    }
}

/// The numbers of a version, for comparison.
fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    release
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

fn word(reach: Reach) -> &'static str {
    match reach {
        Reach::Project => "project",
        Reach::User => "user",
        Reach::Managed => "managed",
    }
}

#[cfg(test)]
#[path = "../doctor_tests.rs"]
mod tests;

//! Patterns that no exec can ever match, whatever an agent does: a rule that looks like a fence and is none.

use std::borrow::Cow;

use super::{
    compile::Glob,
    error::Problems,
    model::{ArgvPattern, ExecPolicy, Patterns, Rule},
    place::{JsonPath, quoted},
};
use crate::Decision;

/// Longest path, with its end (`PATH_MAX`, linux/limits.h).
const PATH_MAX: usize = 4096;

/// What is wrong, and the mend.
type Fault = (String, Cow<'static, str>);

/// Checks the patterns of one rule of the native form.
pub(super) fn rule(rule: &Rule, trusted: &[String], at: &JsonPath, problems: &mut Problems<'_>) {
    if problems.is_known() {
        return;
    }
    let allows = rule.decision == Decision::Allow;
    match &rule.matcher {
        Patterns::Glob(globs) => {
            for (index, text) in globs.iter().enumerate() {
                if let Some((what, mend)) = glob(text, allows, trusted) {
                    problems.error(&at.key("glob").index(index), what, mend);
                }
            }
        }
        Patterns::Argv(pattern) => argv(pattern, allows, trusted, &at.key("argv"), problems),
        Patterns::Regex(_) => {}
    }
    if allows && let Patterns::Glob(globs) = &rule.matcher {
        for (index, text) in globs.iter().enumerate() {
            if let Some(directory) = trusted_beginning(text, trusted) {
                problems.warn(
                    &at.key("glob").index(index),
                    format!(
                        "the pattern {} allows no program that lies in the trusted directory {directory} itself: these go by \
                         their base names; write {}",
                        quoted(text),
                        quoted(&text[directory.len() + 1..])
                    ),
                );
            }
        }
    }
}

/// The trusted directory that a pattern with a wildcard in its program's name begins with.
fn trusted_beginning<'t>(text: &str, trusted: &'t [String]) -> Option<&'t str> {
    let program = text.split(' ').next().unwrap_or_default();
    let fixed = &program[..program.find(['*', '?', '['])?];
    let (directory, _) = fixed.rsplit_once('/')?;
    trusted
        .iter()
        .map(String::as_str)
        .find(|trusted| *trusted == directory)
}

/// Checks a pattern of the hook form, where a path in another than its shortest form is a text like any other.
pub(super) fn hook_pattern(text: &str, at: &JsonPath, problems: &mut Problems<'_>) {
    let program = text.split(' ').next().unwrap_or_default();
    if let Some((what, mend)) = other_home(program) {
        problems.warn(at, format!("{what}; {mend}"));
    }
}

fn argv(
    pattern: &ArgvPattern,
    allows: bool,
    trusted: &[String],
    at: &JsonPath,
    problems: &mut Problems<'_>,
) {
    for (index, text) in pattern.program.iter().enumerate() {
        if let Some((what, mend)) = program(text, true, allows, trusted) {
            let at = at.key("program");
            // One program may be written without a list.
            let at = if pattern.program.len() > 1 {
                at.index(index)
            } else {
                at
            };
            problems.error(&at, what, mend);
        }
    }
}

fn glob(text: &str, allows: bool, trusted: &[String]) -> Option<Fault> {
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\0'))
    {
        return Some((
            format!(
                "the pattern {} holds a control character, which no command is written with",
                quoted(text)
            ),
            "remove it, or write `?` for any one character".into(),
        ));
    }
    let program_text = text.split(' ').next().unwrap_or_default();
    if program_text.is_empty() {
        return Some((
            format!(
                "the pattern {} begins with a space, and no program's name does",
                quoted(text)
            ),
            "remove the space, or write `*` for any program".into(),
        ));
    }
    let wild = program_text.find(['*', '?', '[']);
    program(
        &program_text[..wild.unwrap_or(program_text.len())],
        wild.is_none(),
        allows,
        trusted,
    )
}

/// What is wrong with the name of a program, or with its beginning up to a wildcard.
fn program(text: &str, whole: bool, allows: bool, trusted: &[String]) -> Option<Fault> {
    let shown = quoted(text);
    if text.chars().any(|c| c.is_control() && c != '\0') {
        return Some((
            format!("the program {shown} holds a control character"),
            "remove it".into(),
        ));
    }
    if text.len() >= PATH_MAX {
        return Some((
            format!(
                "the program's name is longer than any path ({} bytes)",
                text.len()
            ),
            "write its base name".into(),
        ));
    }
    if let Some(fault) = other_home(text) {
        return Some(fault);
    }
    if !text.contains('/') {
        return None;
    }
    let mut parts: Vec<&str> = text.split('/').collect();
    if !whole {
        // The last one goes on behind the wildcard.
        parts.pop();
    }
    let absolute = text.starts_with('/');
    let odd = parts
        .iter()
        .skip(1)
        .any(|part| matches!(*part, "" | "." | ".."));
    if odd {
        return Some((
            format!(
                "the program {shown} is not a path in its shortest form, and goes by that alone"
            ),
            "leave out `.`, `..`, doubled slashes and a slash at the end".into(),
        ));
    }
    if allows
        && whole
        && absolute
        && let Some((directory, name)) = text.rsplit_once('/')
        && trusted.iter().any(|trusted| trusted == directory)
    {
        return Some((
            format!(
                "the rule allows nothing: programs in the trusted directory {directory} go by their base names"
            ),
            format!("write {}", quoted(name)).into(),
        ));
    }
    None
}

/// What is wrong with a program in the home directory of another user.
fn other_home(program: &str) -> Option<Fault> {
    let rest = program.strip_prefix('~')?;
    rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        .then(|| {
            (
                format!(
                    "the program {} is in another user's home directory, which nothing looks up",
                    quoted(program)
                ),
                "write the directory itself (\"/home/ann/bin/tool\"); `~/` is the agent's own home"
                    .into(),
            )
        })
}

/// Says which patterns deny a transparent shell by its path: nothing that a shell starts runs then.
pub(super) fn shells(
    exec: &ExecPolicy,
    at: impl Fn(usize) -> JsonPath,
    problems: &mut Problems<'_>,
) {
    if problems.is_known() {
        return;
    }
    for (index, rule) in exec.rules.iter().enumerate() {
        let Patterns::Glob(globs) = &rule.matcher else {
            continue;
        };
        if rule.decision == Decision::Allow {
            continue;
        }
        for text in globs.iter().filter(|text| text.contains('/')) {
            let glob = Glob::parse(text);
            let path = exec.transparent.iter().find_map(|shell| {
                let paths = exec.trusted_dirs.iter().map(|dir| format!("{dir}/{shell}"));
                paths.into_iter().find(|path| glob.matches(path))
            });
            if let Some(path) = path {
                let does = if rule.decision == Decision::Deny {
                    "denies"
                } else {
                    "asks about"
                };
                problems.warn(
                    &at(index),
                    format!(
                        "the pattern {} {does} the shell {path} itself: an agent that starts its commands with it cannot run \
                         any; remove the pattern if what shells start is enough to judge",
                        quoted(text)
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;

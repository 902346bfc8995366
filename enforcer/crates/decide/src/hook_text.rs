//! What the hook form says of a whole command text, beside what it says of each part: the pre-tool hooks that the form is
//! of judged the text as it stands, and nothing that they denied is allowed.

use std::sync::LazyLock;

use regex::Regex;

use super::{
    Find, Outcome,
    command_text::PartOutcome,
    paths::{Grounds, first},
    suggest, tool,
};
use enforcer_policy::{Cause, Risk};
use enforcer_policy::{Decision, Policy, compile::Glob, model::Form};
use enforcer_shell::{PartKind, shortest};

/// What in a text is taken for an injected command: the expression, and its name in the reason.
const INJECTIONS: [(&str, &str); 20] = [
    (r"\r", "carriage_return"),
    (r"\x00", "null_byte"),
    (r";\s*rm\s", "semicolon_rm"),
    (r";\s*sudo\s", "semicolon_sudo"),
    (r";\s*chmod\s", "semicolon_chmod"),
    (r";\s*chown\s", "semicolon_chown"),
    (r";\s*eval\s", "semicolon_eval"),
    (r";\s*exec\s", "semicolon_exec"),
    (r"&&\s*rm\s", "and_rm"),
    (r"&&\s*sudo\s", "and_sudo"),
    (r"\|\|\s*rm\s", "or_rm"),
    (r"\|\|\s*sudo\s", "or_sudo"),
    (r"\|\s*bash\b", "pipe_to_bash"),
    (r"\|\s*sh\b", "pipe_to_sh"),
    (r"\|\s*zsh\b", "pipe_to_zsh"),
    (r"`[^`]+`", "backticks"),
    (r">\s*/etc/", "output_redirection_etc"),
    (r">\s*/var/", "output_redirection_var"),
    (r">\s*/root/", "output_redirection_root"),
    (r">\s*/System/", "output_redirection_sys"),
];

/// The expressions, ready to search.
static INJECTED: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let all = INJECTIONS.iter();
    all.filter_map(|(text, name)| Some((Regex::new(text).ok()?, *name)))
        .collect()
});

/// Programs that change their operands, which must lie in the project.
const CHANGERS: [&str; 5] = ["rm", "mv", "cp", "chmod", "chown"];
/// Other programs that write to their operands.
const WRITERS: [&str; 9] = [
    "rmdir", "mkdir", "touch", "tee", "ln", "install", "truncate", "unlink", "shred",
];
/// Programs that show what is in their operands.
const READERS: [&str; 18] = [
    "cat", "tac", "nl", "head", "tail", "less", "more", "wc", "sort", "uniq", "cut", "diff", "xxd",
    "od", "strings", "base64", "source", ".",
];
/// The same, behind a pattern or a program of their own.
const SEARCHERS: [&str; 7] = ["grep", "egrep", "fgrep", "rg", "sed", "awk", "gawk"];
/// Where every agent may write.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/var/folders"];

/// What the hook form denies of a text that its parts do not show; `text` is none for a command line in words. The
/// place of the part that it is about comes with it, if it is about one.
pub(super) fn judge(
    policy: &Policy,
    text: Option<&str>,
    parts: &[PartOutcome],
    find: &dyn Find,
) -> Option<(Outcome, Option<usize>)> {
    if policy.form != Form::Hook {
        return None;
    }
    if let Some(text) = text
        && let Some(outcome) = whole(policy, text)
    {
        return Some((outcome, None));
    }
    for (at, part) in parts.iter().enumerate() {
        if let Some(outcome) = files(policy, part, find) {
            return Some((outcome, Some(at)));
        }
    }
    // A text that does nothing needs nobody's leave.
    let text = text.filter(|_| !parts.is_empty())?;
    let allowed = rules(policy, Decision::Allow).any(|pattern| Glob::parse(pattern).matches(text));
    (!allowed).then(|| {
        let how =
            suggest::after_default(Decision::Deny, suggest::Lacking::Pattern("bash.whitelist"));
        let outcome = Outcome {
            suggestions: how,
            ..tool::denied(
                Cause::Default,
                "Command not in whitelist (deny by default)".to_owned(),
            )
        };
        (outcome, None)
    })
}

/// The patterns of one list.
fn rules(policy: &Policy, decision: Decision) -> impl Iterator<Item = &str> {
    let rules = policy.exec.rules.iter();
    rules
        .filter(move |rule| rule.decision == decision)
        .map(|rule| rule.id.as_str())
}

/// The blacklist on the text as it stands and without its quotes, then what looks injected.
fn whole(policy: &Policy, text: &str) -> Option<Outcome> {
    let bare = text.replace(['\'', '"', '\\'], "");
    let bare = bare.split_whitespace().collect::<Vec<_>>().join(" ");
    let listed = rules(policy, Decision::Deny).find(|pattern| {
        let glob = Glob::parse(pattern);
        glob.matches(text) || glob.matches(&bare)
    });
    if let Some(pattern) = listed {
        return Some(denied(
            Cause::Rule,
            Some(pattern),
            format!("Matches blacklist pattern: {pattern}"),
        ));
    }
    let (_, name) = INJECTED.iter().find(|(regex, _)| regex.is_match(text))?;
    Some(denied(
        Cause::Injection,
        None,
        format!("Command injection detected: {name}"),
    ))
}

/// The files that a part names.
fn files(policy: &Policy, part: &PartOutcome, find: &dyn Find) -> Option<Outcome> {
    let program = part.words.first()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    let redirected = matches!(part.kind, PartKind::Write | PartKind::Read);
    let changes = CHANGERS.contains(&name) && !redirected;
    let writes = changes || WRITERS.contains(&name);
    if !writes && !READERS.contains(&name) && !SEARCHERS.contains(&name) {
        return None;
    }
    let options = |word: &&String| !word.starts_with('-') || word.contains('/');
    let skipped = usize::from(matches!(name, "chmod" | "chown") || SEARCHERS.contains(&name));
    for word in part.words.iter().skip(1).filter(options).skip(skipped) {
        // `> FILE` is a pattern of its own.
        if part.kind == PartKind::Write {
            let written = format!("> {word}");
            if let Some(pattern) = rules(policy, Decision::Deny)
                .filter(|pattern| pattern.starts_with('>'))
                .find(|pattern| Glob::parse(pattern).matches(&written))
            {
                let reason = format!("Matches blacklist pattern: {pattern} ({written})");
                return Some(denied(Cause::Rule, Some(pattern), reason));
            }
        }
        let path = match word.split_once('=') {
            Some((option, path)) if option.starts_with('-') => absolute(path, find),
            _ => absolute(word, find),
        };
        let real = find.leads_to(&path);
        let ways: Vec<&str> = std::iter::once(path.as_str())
            .chain(real.as_deref())
            .collect();
        if let Some(pattern) = first(&policy.file_paths.blacklist, &Grounds::default(), &ways) {
            let reason = format!("Matches path blacklist pattern: {pattern} ({path})");
            return Some(denied(Cause::Rule, Some(pattern), reason));
        }
        let root = find.project();
        if changes && ways.iter().any(|way| !inside(way, root.as_deref())) {
            let reason = match root {
                Some(root) => format!("Path {word} is outside project root {root}"),
                None => format!("Path {word} is outside the project"),
            };
            return Some(denied(Cause::Project, None, reason));
        }
    }
    None
}

/// A path from the root, or from the working directory upwards where that is not known.
fn absolute(word: &str, find: &dyn Find) -> String {
    if word.starts_with(['/', '~', '$']) {
        return shortest(word);
    }
    match find.directory() {
        Some(directory) => shortest(&format!("{directory}/{word}")),
        None => match shortest(word) {
            climbs if climbs.starts_with("..") => climbs,
            inside => format!("./{inside}"),
        },
    }
}

/// Whether a path lies in the project, or where every agent may write.
fn inside(path: &str, root: Option<&str>) -> bool {
    let below = |root: &str| super::paths::is_below(path, root);
    if TEMPORARY.iter().any(|root| below(root)) || below("~/.claude") {
        return true;
    }
    match root {
        Some(root) => below(root) || !path.starts_with(['/', '~', '.']),
        None => !path.starts_with(['/', '~']) && path != ".." && !path.starts_with("../"),
    }
}

fn denied(cause: Cause, rule: Option<&str>, reason: String) -> Outcome {
    Outcome {
        rule: rule.map(str::to_owned),
        risk: Risk::High,
        security_risk: true,
        ..tool::denied(cause, reason)
    }
}

#[cfg(test)]
#[path = "hook_text_tests.rs"]
mod tests;

//! From the native form as written to the model; what the types cannot say is checked here.

mod connect;

use std::collections::HashMap;

use super::approvals;
use super::capability;
use super::error::Problems;
use super::governance;
use super::guard;
use super::model::{
    ArgvPattern, DEFAULT_TRUSTED_DIRS, Example, ExecPolicy, Form, GroupChoice, Patterns, Policy,
    Rule, Syscalls,
};
use super::native::{
    ArgvSection, ExecRule, ExecSection, HatchSection, NativePolicy, SyscallsSection,
};
use super::place::{JsonPath, quoted};
use super::reach;
use super::shape::{Object, TextOrList};
use super::tools;
use super::validate::{self, Ids};
use crate::{Decision, Risk};

/// A policy, and the place of each exec rule in the text.
pub(super) struct Lowered {
    pub(super) policy: Policy,
    pub(super) rule_paths: Vec<JsonPath>,
}

/// Turns the native form into the model. Faults go to `problems`; the result counts only without any.
pub(super) fn native(policy: NativePolicy, problems: &mut Problems<'_>) -> Lowered {
    let top = JsonPath::top();
    if policy.version != "2" {
        problems.error(
            &top.key("version"),
            format!(
                "version {} of the native form is not known",
                quoted(&policy.version)
            ),
            "write \"2\"",
        );
    }

    if policy.include.is_some_and(|names| !names.is_empty()) {
        problems.error(
            &top.key("include"),
            "the rule sets that the policy includes are not at hand",
            "name the policy's file, or take what `enforcer policy show --whole` prints",
        );
    }
    let mut ids = Ids::default();
    let mut rule_paths = Vec::new();
    let exec = exec(
        policy.exec.map(|section| section.0),
        &mut ids,
        &mut rule_paths,
        problems,
    );
    let connect = connect::policy(policy.connect.map(|section| section.0), &mut ids, problems);
    let agents = governance::agents(policy.agents.map(|section| section.0).unwrap_or_default());
    let limits = policy.limits.map(|section| section.0).unwrap_or_default();
    let limits = governance::limits(limits, problems);
    let audit = policy.audit.map(|section| section.0).unwrap_or_default();
    let breaker = policy.breaker.map(|section| section.0).unwrap_or_default();
    let breaker = governance::breaker(&breaker, problems);
    let approvals = approvals::lower(policy.approvals.map(|section| section.0), problems);
    let syscalls = syscalls(
        policy.syscalls.map(|section| section.0).unwrap_or_default(),
        problems,
    );
    let policy = Policy {
        form: Form::Native,
        version: policy.version,
        exec,
        connect,
        agents,
        capabilities: governance::capabilities(policy.capabilities.unwrap_or_default(), problems),
        tenants: policy.tenants.unwrap_or_default(),
        limits,
        breaker,
        masking: audit.pii.unwrap_or_default(),
        event_buffer: governance::event_buffer(audit.buffer_kib, problems),
        approvals,
        syscalls,
        guard: guard::lower(
            policy.guard.map(|section| section.0).unwrap_or_default(),
            problems,
        ),
        file_paths: tools::paths(policy.file_paths, problems),
        web_tools: tools::web(policy.web_tools, problems),
        tools: tools::others(policy.tools, problems),
    };
    approvals::warn_unanswerable(&policy, problems);
    Lowered { policy, rule_paths }
}

fn exec(
    section: Option<ExecSection>,
    ids: &mut Ids,
    rule_paths: &mut Vec<JsonPath>,
    problems: &mut Problems<'_>,
) -> ExecPolicy {
    let at = JsonPath::top().key("exec");
    let Some(section) = section else {
        problems.warn(
            &JsonPath::top(),
            "there is no `exec` section: every exec is denied",
        );
        return ExecPolicy {
            default: Decision::Deny,
            trusted_dirs: default_dirs(),
            transparent: Vec::new(),
            fileless: Decision::Deny,
            descriptor: Decision::Deny,
            loader: Decision::Deny,
            rules: Vec::new(),
        };
    };
    let trusted_dirs = match section.trusted_dirs {
        None => default_dirs(),
        Some(dirs) => trusted_dirs(dirs, &at.key("trusted_dirs"), problems),
    };
    let transparent = section.transparent.unwrap_or_default();
    for (index, program) in transparent.iter().enumerate() {
        if program.is_empty() || program.contains(['/', '\0']) {
            problems.error(
                &at.key("transparent").index(index),
                format!("{} is not a base name", quoted(program)),
                "write the program's name alone, such as \"bash\"",
            );
        }
    }
    let mut rules = Vec::with_capacity(section.rules.len());
    for (index, rule) in section.rules.into_iter().enumerate() {
        let at = at.key("rules").index(index);
        let made = exec_rule(rule.0, &at, ids, problems);
        reach::rule(&made, &trusted_dirs, &at, problems);
        rules.push(made);
        rule_paths.push(at);
    }
    let exec = ExecPolicy {
        default: section.default.unwrap_or(Decision::Deny),
        trusted_dirs,
        transparent,
        fileless: section.fileless.unwrap_or(Decision::Deny),
        // Who says nothing of descriptors means both.
        descriptor: section
            .descriptor
            .or(section.fileless)
            .unwrap_or(Decision::Deny),
        loader: section.loader.unwrap_or(Decision::Deny),
        rules,
    };
    reach::shells(&exec, |index| rule_paths[index].clone(), problems);
    exec
}

fn default_dirs() -> Vec<String> {
    DEFAULT_TRUSTED_DIRS.map(String::from).to_vec()
}

fn trusted_dirs(dirs: Vec<String>, at: &JsonPath, problems: &mut Problems<'_>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(dirs.len());
    for (index, dir) in dirs.into_iter().enumerate() {
        let dir = dir.strip_suffix('/').map(String::from).unwrap_or(dir);
        let mut parts = dir.split('/');
        let absolute = parts.next() == Some("");
        let mut count = 0;
        let plain = parts.all(|part| {
            count += 1;
            !matches!(part, "" | "." | "..") && !part.contains('\0')
        });
        if absolute && plain && count > 0 {
            if !kept.contains(&dir) {
                kept.push(dir);
            }
        } else {
            problems.error(
                &at.index(index),
                format!(
                    "{} is not an absolute directory in its shortest form",
                    quoted(&dir)
                ),
                "write it from the root, without `.`, `..` and doubled slashes: \"/opt/tools/bin\"",
            );
        }
    }
    kept
}

fn default_risk(decision: Decision) -> Risk {
    match decision {
        Decision::Allow => Risk::Low,
        Decision::Ask => Risk::Medium,
        Decision::Deny => Risk::High,
    }
}

fn exec_rule(rule: ExecRule, at: &JsonPath, ids: &mut Ids, problems: &mut Problems<'_>) -> Rule {
    ids.claim(&rule.id, at, problems);
    let positive = examples(rule.matches, &at.key("match"), problems);
    let negative = examples(rule.not_match, &at.key("not_match"), problems);
    let matcher = matcher(
        rule.glob,
        rule.regex,
        rule.argv.map(|argv| argv.0),
        at,
        problems,
    );
    if let (Decision::Allow, Patterns::Argv(pattern)) = (rule.decision, &matcher) {
        validate::allows(pattern, &at.key("argv"), problems);
    }
    if let Some(unless) = &rule.unless {
        let at = at.key("unless");
        validate::regexes(unless, &at, problems);
        if rule.decision == Decision::Allow {
            problems.error(
                &at,
                "an allow rule cannot have `unless`",
                "deny what must not pass with a rule of its own",
            );
        }
    }
    capability::check(&rule.requires, &at.key("requires"), problems);
    Rule {
        id: rule.id,
        decision: rule.decision,
        risk: rule.risk.unwrap_or(default_risk(rule.decision)),
        matcher,
        unless: rule.unless.unwrap_or_default(),
        justification: rule.justification,
        suggestion: rule.suggestion,
        requires: rule.requires,
        examples: positive,
        counter_examples: negative,
    }
}

fn matcher(
    glob: Option<Vec<String>>,
    regex: Option<Vec<String>>,
    argv: Option<ArgvSection>,
    at: &JsonPath,
    problems: &mut Problems<'_>,
) -> Patterns {
    match (glob, regex, argv) {
        (Some(patterns), None, None) => {
            validate::globs(&patterns, &at.key("glob"), problems);
            Patterns::Glob(patterns)
        }
        (None, Some(patterns), None) => {
            validate::regexes(&patterns, &at.key("regex"), problems);
            Patterns::Regex(patterns)
        }
        (None, None, Some(section)) => {
            Patterns::Argv(argv_pattern(section, &at.key("argv"), problems))
        }
        (None, None, None) => {
            problems.error(
                at,
                "the rule says nothing of what it matches",
                "give it one of `glob`, `regex` and `argv`",
            );
            Patterns::Glob(Vec::new())
        }
        _ => {
            problems.error(
                at,
                "the rule has more than one of `glob`, `regex` and `argv`",
                "keep one, and make a rule of its own for each other",
            );
            Patterns::Glob(Vec::new())
        }
    }
}

fn argv_pattern(section: ArgvSection, at: &JsonPath, problems: &mut Problems<'_>) -> ArgvPattern {
    let program = section.program.into_list();
    validate::words(&program, &at.key("program"), problems);
    let mut words = Vec::with_capacity(section.words.len());
    for (index, entry) in section.words.into_iter().enumerate() {
        let alternatives = entry.into_list();
        validate::words(&alternatives, &at.key("words").index(index), problems);
        words.push(alternatives);
    }
    for (key, flags) in [
        ("flags_any", &section.flags_any),
        ("flags_all", &section.flags_all),
        ("flags_none", &section.flags_none),
        ("flags_bare", &section.flags_bare),
        ("args_any", &section.args_any),
    ] {
        if let Some(flags) = flags {
            validate::words(flags, &at.key(key), problems);
        }
    }
    ArgvPattern {
        program,
        words,
        flags_any: section.flags_any.unwrap_or_default(),
        flags_all: section.flags_all.unwrap_or_default(),
        flags_none: section.flags_none.unwrap_or_default(),
        flags_bare: section.flags_bare.unwrap_or_default(),
        args_any: section.args_any.unwrap_or_default(),
    }
}

fn examples(given: Vec<TextOrList>, at: &JsonPath, problems: &mut Problems<'_>) -> Vec<Example> {
    if problems.is_known() {
        return Vec::new();
    }
    let mut examples = Vec::with_capacity(given.len());
    for (index, example) in given.into_iter().enumerate() {
        let example = match example {
            TextOrList::Text(line) => Example::Line(line),
            TextOrList::List(words) => Example::Words(words),
        };
        match validate::example_words(&example) {
            Some(words) if !words.is_empty() => examples.push(example),
            Some(_) => problems.error(
                &at.index(index),
                "the example is empty",
                "write a command, or remove it",
            ),
            None => problems.error(
                &at.index(index),
                "the example cannot be split into words: a quote or backslash is left open",
                "close it, or write the words as a list: [\"echo\", \"it's\"]",
            ),
        }
    }
    examples
}

fn syscalls(section: SyscallsSection, problems: &mut Problems<'_>) -> Syscalls {
    let mut seen = HashMap::new();
    let mut list = |key, entries, why| groups(key, entries, why, &mut seen, problems);
    Syscalls {
        allow: list(
            "allow",
            section.allow,
            "say why the agent needs it: this opens a way around the policy",
        ),
        deny: list("deny", section.deny, "say why the agent must not have it"),
    }
}

/// One list of groups of system calls. `seen`: where a name has stood already, in either list.
fn groups(
    key: &'static str,
    entries: Vec<Object<HatchSection>>,
    why: &str,
    seen: &mut HashMap<String, JsonPath>,
    problems: &mut Problems<'_>,
) -> Vec<GroupChoice> {
    let at = JsonPath::top().key("syscalls").key(key);
    let mut choices = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let (at, entry) = (at.index(index), entry.0);
        if entry.name.is_empty() {
            problems.error(
                &at.key("name"),
                "the name is empty",
                "write the name of a group of `policies/built-in/syscall-groups.json`, such as \"ptrace\"",
            );
        } else if let Some(first) = seen.get(&entry.name) {
            problems.error_with_line(
                &at.key("name"),
                first,
                |line| format!("{} stands twice (first at {line})", quoted(&entry.name)),
                "keep one of the two",
            );
        } else {
            seen.insert(entry.name.clone(), at.clone());
        }
        if entry.reason.trim().is_empty() {
            problems.error(&at.key("reason"), "the reason is empty", why);
        }
        choices.push(GroupChoice {
            name: entry.name,
            reason: entry.reason,
        });
    }
    choices
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;

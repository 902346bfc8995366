//! The hook form: a pre-tool hook's `auto_approve_policy.json`, read as it is and mapped to the model.
//!
//! The format is that of the `PreToolUse` auto-approval hooks: fnmatch lists, the blacklist before the
//! whitelist, all else denied. Its `bash.mode` only describes the lists, it does not change how they are
//! judged.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::Problems;
use super::guard;
use super::hosts;
use super::lower::Lowered;
use super::model::{
    Agents, Approvals, BreakerSettings, ConnectPolicy, ConnectRule, DEFAULT_SHELLS,
    DEFAULT_TRUSTED_DIRS, EVENT_BUFFER, ExecPolicy, Form, Limits, OutsideListeners, PathLists,
    Patterns, Policy, Rule, Syscalls, Tools, WebTools,
};
use super::native::GuardSection;
use super::place::{JsonPath, quoted};
use super::reach;
use super::shape::Object;
use crate::{Decision, Risk};
use enforcer_redact::Masking;

/// A pre-tool hook's policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "enforcer policy, hook form")]
pub struct HookPolicy {
    /// Where a schema lies, for editors. Not read.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// The version of the hook's format, such as `1.1`.
    pub version: Option<String>,
    /// What the policy is for. Not read.
    pub description: Option<String>,
    /// Commands.
    pub bash: Object<BashSection>,
    /// Paths of the hook's file tools. Judged by the hook, not by the kernel.
    pub file_paths: Object<PathsSection>,
    /// Agents.
    pub agents: Object<AgentsSection>,
    /// Web tools and domains.
    pub web_tools: Option<Object<WebSection>>,
    /// Other tools of the hook. Judged by the hook, not by the kernel.
    pub tools: Option<Object<ToolsSection>>,
    /// What guards the agent, and can be changed by it all the same. No key of the hooks' own format.
    pub guard: Option<Object<GuardSection>>,
}

/// Commands: the blacklist wins, then the whitelist, all else is denied.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BashSection {
    /// How the lists are meant (`blacklist`, `whitelist`). It does not change how they are judged.
    pub mode: Option<String>,
    /// Patterns of allowed commands.
    pub whitelist: Vec<String>,
    /// Patterns of denied commands.
    pub blacklist: Vec<String>,
}

/// Paths of the hook's file tools.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathsSection {
    /// Patterns of allowed paths.
    pub whitelist: Vec<String>,
    /// Patterns of denied paths.
    pub blacklist: Vec<String>,
}

/// Agents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentsSection {
    /// Agents trusted in `subagent_only` mode; upper and lower case are the same.
    pub trusted: Vec<String>,
    /// Agents named as not trusted.
    #[serde(default)]
    pub restricted: Vec<String>,
}

/// Web tools and domains.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebSection {
    /// Patterns of allowed web tools. Judged by the hook, not by the kernel.
    #[serde(default)]
    pub whitelist: Vec<String>,
    /// Whether every domain that is not blocked may be reached.
    #[serde(default)]
    pub allow_all_domains: bool,
    /// Blocked domains; addresses, networks and prefixes such as `10.*` among them are judged on connects.
    #[serde(default)]
    pub blocked_domains: Vec<String>,
}

/// Other tools of the hook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolsSection {
    /// Tools that are always allowed.
    #[serde(default)]
    pub always_allowed: Vec<String>,
}

/// Text in a pattern that only a shell's command line can hold.
const SHELL_SYNTAX: [&str; 6] = ["|", "&&", ";", ">", "`", "$("];

/// Turns the hook form into the model.
pub(super) fn lower(hook: HookPolicy, problems: &mut Problems<'_>) -> Lowered {
    let top = JsonPath::top();
    let mut rules = Rules::default();
    let bash = top.key("bash");
    rules.add(
        &hook.bash.blacklist,
        Decision::Deny,
        &bash.key("blacklist"),
        problems,
    );
    rules.add(
        &hook.bash.whitelist,
        Decision::Allow,
        &bash.key("whitelist"),
        problems,
    );
    warn_mode(&hook.bash, problems);
    warn_shell_syntax(&hook.bash.blacklist, &bash.key("blacklist"), problems);

    let exec = ExecPolicy {
        default: Decision::Deny,
        trusted_dirs: DEFAULT_TRUSTED_DIRS.map(String::from).to_vec(),
        transparent: DEFAULT_SHELLS.map(String::from).to_vec(),
        fileless: Decision::Deny,
        descriptor: Decision::Deny,
        loader: Decision::Deny,
        rules: rules.made,
    };
    reach::shells(&exec, |index| rules.paths[index].clone(), problems);

    let connect = connect(hook.web_tools.as_deref(), problems);
    Lowered {
        policy: Policy {
            form: Form::Hook,
            version: hook.version.unwrap_or_default(),
            exec,
            connect,
            agents: Agents {
                trusted: hook.agents.0.trusted,
                restricted: hook.agents.0.restricted,
            },
            capabilities: BTreeMap::new(),
            tenants: Vec::new(),
            limits: Limits::default(),
            breaker: BreakerSettings::default(),
            masking: Masking::default(),
            event_buffer: EVENT_BUFFER,
            approvals: Approvals::default(),
            syscalls: Syscalls::default(),
            guard: guard::lower(
                hook.guard.map(|section| section.0).unwrap_or_default(),
                problems,
            ),
            file_paths: PathLists {
                whitelist: hook.file_paths.0.whitelist,
                blacklist: hook.file_paths.0.blacklist,
            },
            web_tools: hook
                .web_tools
                .map(|section| WebTools {
                    whitelist: section.0.whitelist,
                    allow_all_domains: section.0.allow_all_domains,
                    allowed_domains: Vec::new(),
                    blocked_domains: section.0.blocked_domains,
                })
                .unwrap_or_default(),
            tools: Tools {
                always_allowed: hook
                    .tools
                    .map(|section| section.0.always_allowed)
                    .unwrap_or_default(),
            },
        },
        rule_paths: rules.paths,
    }
}

#[derive(Default)]
struct Rules {
    made: Vec<Rule>,
    paths: Vec<JsonPath>,
    /// Decision and place of each pattern so far: a pattern is its rule's id, so it can be there once.
    seen: HashMap<String, (Decision, JsonPath)>,
}

impl Rules {
    fn add(
        &mut self,
        list: &[String],
        decision: Decision,
        at: &JsonPath,
        problems: &mut Problems<'_>,
    ) {
        for (index, pattern) in list.iter().enumerate() {
            let at = at.index(index);
            if pattern.is_empty() {
                problems.warn(&at, "the pattern is empty and matches no command: left out");
                continue;
            }
            if pattern.contains('\0') {
                problems.error(
                    &at,
                    "the pattern holds a NUL, which no argument can",
                    "remove the NUL",
                );
                continue;
            }
            if let Some((earlier, first)) = self.seen.get(pattern) {
                problems.warn_with_line(&at, first, |line| {
                    duplicate(pattern, *earlier, decision, line)
                });
                continue;
            }
            reach::hook_pattern(pattern, &at, problems);
            self.seen.insert(pattern.clone(), (decision, at.clone()));
            self.made.push(Rule {
                id: pattern.clone(),
                decision,
                risk: if decision == Decision::Deny {
                    Risk::High
                } else {
                    Risk::Low
                },
                matcher: Patterns::Glob(vec![pattern.clone()]),
                unless: Vec::new(),
                justification: None,
                suggestion: None,
                requires: Vec::new(),
                examples: Vec::new(),
                counter_examples: Vec::new(),
            });
            self.paths.push(at);
        }
    }
}

fn duplicate(pattern: &str, earlier: Decision, now: Decision, line: &str) -> String {
    let pattern = quoted(pattern);
    if earlier == now {
        format!("the pattern {pattern} stands twice (first at {line}): once is enough")
    } else {
        format!("the pattern {pattern} is on the blacklist too ({line}), which wins: left out")
    }
}

fn warn_mode(bash: &BashSection, problems: &mut Problems<'_>) {
    let Some(mode) = bash.mode.as_deref() else {
        return;
    };
    let open = bash.whitelist.iter().any(|pattern| pattern == "*");
    if mode == "whitelist" || (mode == "blacklist" && open) {
        return;
    }
    problems.warn(
        &JsonPath::top().key("bash").key("mode"),
        format!(
            "the mode {} changes nothing: what is on neither list is denied; whitelist \"*\" to allow it",
            quoted(mode)
        ),
    );
}

fn warn_shell_syntax(blacklist: &[String], at: &JsonPath, problems: &mut Problems<'_>) {
    let mut patterns = blacklist
        .iter()
        .enumerate()
        .filter(|(_, pattern)| SHELL_SYNTAX.iter().any(|syntax| pattern.contains(syntax)));
    if let Some((index, first)) = patterns.next() {
        let (entries, are) = match 1 + patterns.count() {
            1 => ("1 entry".to_owned(), "is"),
            count => (format!("{count} entries"), "are"),
        };
        problems.warn(
            &at.index(index),
            format!(
                "{entries} {are} written for shell text (such as {}); an exec has none: what a pipe or a list of \
                 commands starts is judged program by program",
                quoted(first)
            ),
        );
    }
}

fn connect(web: Option<&WebSection>, problems: &mut Problems<'_>) -> ConnectPolicy {
    let Some(web) = web else {
        return ConnectPolicy {
            default: Decision::Allow,
            unix_default: Decision::Allow,
            outside: OutsideListeners::default(),
            rules: Vec::new(),
        };
    };
    let at = JsonPath::top().key("web_tools");
    let default = if web.allow_all_domains {
        Decision::Allow
    } else {
        problems.warn(
            &at,
            "`allow_all_domains` is not true and the form has no list of allowed domains: every connect is denied",
        );
        Decision::Deny
    };
    let at = at.key("blocked_domains");
    let mut rules: Vec<ConnectRule> = Vec::new();
    let mut names: Vec<(usize, &str)> = Vec::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, entry) in web.blocked_domains.iter().enumerate() {
        if let Some(first) = seen.get(entry.as_str()) {
            problems.warn_with_line(&at.index(index), &at.index(*first), |line| {
                format!(
                    "the entry {} stands twice (first at {line}): once is enough",
                    quoted(entry)
                )
            });
            continue;
        }
        seen.insert(entry, index);
        let Some(hosts) = hosts::parse_blocked(entry) else {
            names.push((index, entry));
            continue;
        };
        rules.push(ConnectRule {
            id: entry.clone(),
            decision: Decision::Deny,
            risk: Risk::High,
            hosts,
            ports: Vec::new(),
            protocols: Vec::new(),
            unix: Vec::new(),
            justification: None,
            suggestion: None,
            requires: Vec::new(),
        });
    }
    if let Some((index, _)) = names.first() {
        let shown: Vec<String> = names.iter().take(5).map(|(_, name)| quoted(name)).collect();
        let more = if names.len() > shown.len() {
            ", …"
        } else {
            ""
        };
        problems.warn(
            &at.index(*index),
            format!(
                "names are not judged on connects yet, so these are not blocked: {}{more}; add their addresses",
                shown.join(", ")
            ),
        );
    }
    ConnectPolicy {
        default,
        unix_default: Decision::Allow,
        outside: OutsideListeners::default(),
        rules,
    }
}

#[cfg(test)]
#[path = "hook_form_tests.rs"]
mod tests;

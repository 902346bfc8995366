//! The native form as it is written: serde types, one for each object of the file.
//!
//! The comments on the fields are the policy reference: the JSON Schema carries them as descriptions. What
//! the types cannot say is checked when they are turned into the model.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Waiting;
use super::shape::{Object, TextOrList};
use crate::{Decision, Risk};
use enforcer_redact::Masking;

/// A policy in the native form: what an agent's processes may execute and connect to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "enforcer policy, native form")]
pub struct NativePolicy {
    /// Where this schema lies, for editors. Not read.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// The form of the file: always `"2"`.
    #[schemars(extend("const" = "2"))]
    pub version: String,
    /// What the policy is for. Not read.
    pub description: Option<String>,
    /// Rule sets by name (letters, digits, `-` and `_`): `rules/NAME.json` beside the policy, else the one that is built
    /// in. Their lists come before the policy's own, in this order; ids are unique among all of them.
    #[schemars(length(max = 64), inner(regex(pattern = "^[A-Za-z0-9_-]{1,64}$")))]
    pub include: Option<Vec<String>>,
    /// What may be executed. Without it every exec is denied.
    pub exec: Option<Object<ExecSection>>,
    /// What may be connected to. Without it every connect is denied.
    pub connect: Option<Object<ConnectSection>>,
    /// Agents that the policy names.
    pub agents: Option<Object<AgentsSection>>,
    /// The capabilities of each agent, by its name (upper and lower case are the same); rules ask for them with
    /// `requires`. The name of a capability has letters (A to Z), digits and `. _ - : / @ +`, a letter or digit first.
    pub capabilities: Option<BTreeMap<String, Vec<String>>>,
    /// Tenants whose agents may be given the policy; every tenant's unless given.
    #[schemars(length(min = 1))]
    pub tenants: Option<Vec<String>>,
    /// How often and how much an agent may act.
    pub limits: Option<Object<LimitsSection>>,
    /// When an agent that keeps being denied is stopped altogether.
    pub breaker: Option<Object<BreakerSection>>,
    /// How an `ask` is put to a person.
    pub approvals: Option<Object<ApprovalsSection>>,
    /// System calls that are refused unless a policy gives them back.
    pub syscalls: Option<Object<SyscallsSection>>,
    /// What guards the agent, and can be changed by it all the same.
    pub guard: Option<Object<GuardSection>>,
    /// What the trail leaves out.
    pub audit: Option<Object<AuditSection>>,
    /// Paths that an agent's file tools may name: the blacklist wins, then the whitelist, all else is denied. Judged
    /// by the hook, not by the kernel.
    pub file_paths: Option<Object<PathsSection>>,
    /// Web tools and domains. Judged by the hook, not by the kernel.
    pub web_tools: Option<Object<WebSection>>,
    /// Other tools. Judged by the hook, not by the kernel.
    pub tools: Option<Object<ToolsSection>>,
}

/// What may be executed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSection {
    /// The decision where no rule matches; `deny` unless given.
    #[schemars(extend("default" = "deny"))]
    pub default: Option<Decision>,
    /// Directories whose programs rules may name by their base name (`git` for `/usr/bin/git`). A program
    /// elsewhere goes by its path as given, so that `./git` is not `git` to an allow rule. Absolute; unless
    /// given `/usr/local/sbin`, `/usr/local/bin`, `/usr/sbin`, `/usr/bin`, `/sbin` and `/bin`.
    pub trusted_dirs: Option<Vec<String>>,
    /// Programs (base names) that may start whatever their arguments, because what they start is judged:
    /// shells. Deny and ask rules that name them still count. None unless given.
    pub transparent: Option<Vec<String>>,
    /// The decision on an executable without a name in the file system (memfd, deleted), and on one started
    /// through a descriptor (`/proc/self/fd/3`) unless `descriptor` is given; `deny` unless given.
    #[schemars(extend("default" = "deny"))]
    pub fileless: Option<Decision>,
    /// The decision on an executable that has a name and is started through a descriptor (`/proc/self/fd/3`, as Codex
    /// starts the bubblewrap that it brings along); that of `fileless` unless given. Rules see its name, too.
    pub descriptor: Option<Decision>,
    /// The decision on the dynamic loader started as a program (`ld.so PROGRAM`); `deny` unless given.
    #[schemars(extend("default" = "deny"))]
    pub loader: Option<Decision>,
    /// The rules. The strictest of all that match wins; among equals the first.
    #[serde(default)]
    pub rules: Vec<Object<ExecRule>>,
}

/// One exec rule. It has one of `glob`, `regex` and `argv`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["glob"]}, {"required": ["regex"]}, {"required": ["argv"]}]))]
pub struct ExecRule {
    /// The rule's name in reasons and in the trail; unique in the policy.
    #[schemars(length(min = 1, max = 200))]
    pub id: String,
    /// What the rule says of a command that it matches.
    pub decision: Decision,
    /// How much damage the command can do; unless given `LOW` for allow, `MEDIUM` for ask, `HIGH` for deny.
    pub risk: Option<Risk>,
    /// Patterns over the command line (program and arguments joined by spaces), anchored at both ends: `*` any
    /// text, `?` any character, `[abc]` and `[!abc]` one of a set. Any of them may match.
    #[schemars(length(min = 1))]
    pub glob: Option<Vec<String>>,
    /// Regular expressions searched in the command line, over bytes; no look-around, no back-references. Any
    /// of them may match.
    #[schemars(length(min = 1))]
    pub regex: Option<Vec<String>>,
    /// A program with subcommand words and flags, by whole words.
    pub argv: Option<Object<ArgvSection>>,
    /// Regular expressions of whole command lines that the rule does not match all the same, because they are known to
    /// be harmless: `mkfs(\.[a-z0-9]+)? --version`. Ask and deny rules only.
    #[schemars(length(min = 1))]
    pub unless: Option<Vec<String>>,
    /// Why the rule is there. Becomes the reason of its decisions.
    pub justification: Option<String>,
    /// What to do instead.
    pub suggestion: Option<String>,
    /// Capabilities that the agent needs for the rule to allow; without them it denies. Ask and deny rules hold for
    /// every agent.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$")))]
    pub requires: Vec<String>,
    /// Commands that the rule must match: each a command line, or a list of words. Checked at load.
    #[serde(default, rename = "match")]
    pub matches: Vec<TextOrList>,
    /// Commands that the rule must not match. Checked at load.
    #[serde(default)]
    pub not_match: Vec<TextOrList>,
}

/// A program with subcommand words and flags. Word boundaries are exact: an argument that contains spaces is
/// one word.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArgvSection {
    /// The program, or a list of programs of which any may match.
    pub program: TextOrList,
    /// Subcommand words, in order, each a word or a list of alternatives. Options may stand before and
    /// between them.
    #[serde(default)]
    pub words: Vec<TextOrList>,
    /// Flags of which at least one must be there, in any place after the words.
    #[schemars(length(min = 1))]
    pub flags_any: Option<Vec<String>>,
    /// Flags that must all be there, in any order.
    #[schemars(length(min = 1))]
    pub flags_all: Option<Vec<String>>,
    /// Flags that make the command harmless, such as `--dry-run`: where one is there for certain, the rule does not
    /// match. Whole words; ask and deny rules only.
    #[schemars(length(min = 1))]
    pub flags_none: Option<Vec<String>>,
    /// Flags that take no value, such as `--force`, each as it is written: a flag of `flags_none` counts behind them, too.
    #[schemars(length(min = 1))]
    pub flags_bare: Option<Vec<String>>,
    /// Patterns over single arguments, of which one must match one argument after the words: `*` any text without a
    /// slash, `**` any text, `?`, `[abc]` and `[!abc]` as in `glob`; `~` in front is every home directory. Ask and
    /// deny rules only.
    #[schemars(length(min = 1))]
    pub args_any: Option<Vec<String>>,
}

/// What may be connected to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectSection {
    /// The decision where no rule matches an address; `deny` unless given.
    #[schemars(extend("default" = "deny"))]
    pub default: Option<Decision>,
    /// The decision where no rule matches the name of a unix socket; `allow` unless given.
    #[schemars(extend("default" = "allow"))]
    pub unix_default: Option<Decision>,
    /// What it comes to when who listens belongs to the agent's own user and is outside the agent: a daemon there would
    /// act for the agent, ungoverned.
    pub outside_listeners: Option<Object<OutsideListenersSection>>,
    /// The rules. The strictest of all that match wins; among equals the first.
    #[serde(default)]
    pub rules: Vec<Object<ConnectRule>>,
}

/// Connects to listeners of the agent's own user outside the agent, which the policy would otherwise allow. Listeners
/// of root and of other users are not meant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutsideListenersSection {
    /// The decision on a unix socket whose name no allow rule matches; `deny` unless given.
    #[schemars(extend("default" = "deny"))]
    pub unix: Option<Decision>,
    /// The decision on a TCP port of this machine, at a loopback address, that no rule names in `ports`; `allow`
    /// unless given.
    #[schemars(extend("default" = "allow"))]
    pub tcp: Option<Decision>,
}

/// One connect rule. It has `unix`, or at least one of `hosts`, `ports` and `protocols`, of which all that it has
/// must match.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"required": ["unix"]},
    {"anyOf": [{"required": ["hosts"]}, {"required": ["ports"]}, {"required": ["protocols"]}]}
]))]
pub struct ConnectRule {
    /// The rule's name in reasons and in the trail; unique in the policy.
    #[schemars(length(min = 1, max = 200))]
    pub id: String,
    /// What the rule says of a connect that it matches.
    pub decision: Decision,
    /// How much damage the connect can do; unless given `LOW` for allow, `MEDIUM` for ask, `HIGH` for deny.
    pub risk: Option<Risk>,
    /// Addresses (`127.0.0.1`, `::1`) and networks (`10.0.0.0/8`), or `*` for every address. Host names are
    /// not accepted yet. Every address unless given.
    #[schemars(length(min = 1))]
    pub hosts: Option<Vec<String>>,
    /// Ports, from 1; all unless given.
    #[schemars(length(min = 1), inner(range(min = 1, max = 65535)))]
    pub ports: Option<Vec<u16>>,
    /// Protocols; all unless given.
    #[schemars(length(min = 1))]
    pub protocols: Option<Vec<ProtocolName>>,
    /// Unix sockets: patterns over the socket's path (`/run/postgresql/*`), or over `@` and an abstract name
    /// (`@/tmp/dbus-*`), anchored at both ends, with the wildcards of `glob`. Any of them may match.
    #[schemars(length(min = 1), inner(regex(pattern = r"^[/@*~$]")))]
    pub unix: Option<Vec<String>>,
    /// Why the rule is there. Becomes the reason of its decisions.
    pub justification: Option<String>,
    /// What to do instead.
    pub suggestion: Option<String>,
    /// Capabilities that the agent needs for the rule to allow; without them it denies. Ask and deny rules hold for
    /// every agent.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$")))]
    pub requires: Vec<String>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolName {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo, as `ping` sends it, of either IP version; it has no ports.
    Icmp,
}

/// Agents that the policy names.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentsSection {
    /// Agents trusted in `subagent_only` mode; upper and lower case are the same.
    #[serde(default)]
    pub trusted: Vec<String>,
    /// Agents named as not trusted.
    #[serde(default)]
    pub restricted: Vec<String>,
}

/// How often and how much an agent may act. A rate is a count, a slash and a sliding window (`100/1h`, `20/30s`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    /// Execs of the agent in a sliding window, such as `100/1h`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*/[1-9][0-9]*[smhd]$"))]
    pub exec: Option<String>,
    /// Connects of the agent in a sliding window, such as `50/1m`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*/[1-9][0-9]*[smhd]$"))]
    pub connect: Option<String>,
    /// Rates of all agents of one user together.
    pub per_user: Option<Object<UserLimitsSection>>,
    /// Arguments of one exec, the program's own name not counted.
    #[schemars(range(min = 1))]
    pub arguments: Option<u32>,
    /// Bytes of all arguments of one exec, the program's own name and each one's end counted.
    #[schemars(range(min = 1))]
    pub argv_bytes: Option<u32>,
    /// Levels of the process tree below the command that was given to `run`.
    #[schemars(range(min = 1))]
    pub depth: Option<u32>,
}

/// Rates of all agents of one user together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserLimitsSection {
    /// Execs in a sliding window, such as `1000/1h`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*/[1-9][0-9]*[smhd]$"))]
    pub exec: Option<String>,
    /// Connects in a sliding window, such as `500/1m`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*/[1-9][0-9]*[smhd]$"))]
    pub connect: Option<String>,
}

/// When an agent that keeps being denied is stopped altogether.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakerSection {
    /// Denials in a row that open the breaker; 10 unless given.
    #[schemars(range(min = 1), extend("default" = 10))]
    pub denials: Option<u32>,
    /// Seconds after which an open breaker lets one action try again; `null`: only an operator closes it.
    #[schemars(range(min = 1))]
    pub half_open_after_s: Option<u64>,
}

/// Paths that an agent's file tools may name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathsSection {
    /// Patterns of allowed paths.
    #[serde(default)]
    pub whitelist: Vec<String>,
    /// Patterns of denied paths.
    #[serde(default)]
    pub blacklist: Vec<String>,
}

/// Web tools and domains.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebSection {
    /// Patterns of allowed web tools.
    #[serde(default)]
    pub whitelist: Vec<String>,
    /// Whether every domain that is not blocked may be reached.
    #[serde(default)]
    pub allow_all_domains: bool,
    /// Domains that may be reached: names, and `*.name` for all below one.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
    /// Domains, addresses and networks that may not be reached.
    #[serde(default)]
    pub blocked_domains: Vec<String>,
}

/// Other tools.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolsSection {
    /// Patterns of tools that are always allowed.
    #[serde(default)]
    pub always_allowed: Vec<String>,
}

/// How an `ask` is put to a person.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalsSection {
    /// How an exec waits for its answer. `auto`, unless given: before the exec where its caller is a shell or another
    /// program that waits for its child anyway, and a denial is `EPERM`; for all others after the exec, stopped before
    /// the first instruction, so that the caller's timers, threads and terminal go on, and a denial is `SIGKILL`.
    /// A connect waits in its call, or fails at once if its socket does not block, and may be tried again after the
    /// approval. `hold`: always in the call. `retry`: nothing waits; what is asked fails at once, and goes through once
    /// when it is tried again after the approval.
    pub mode: Option<Waiting>,
    /// A program of the operator's that hears of each new request: its path, absolute, and its arguments. It gets the
    /// request on standard input, as `enforcer approvals show --json` has it, runs as the launcher's user, outside the
    /// agent, and has ten seconds. Nothing depends on it.
    #[schemars(length(min = 1))]
    pub notify: Option<Vec<String>>,
    /// Seconds to wait for an answer, at most 604800 (a week); 300 unless given. After that the action is denied.
    #[schemars(range(min = 1, max = 604_800), extend("default" = 300))]
    pub timeout_s: Option<u64>,
    /// Who may answer: users by name, groups by name behind a `%`. `root` unless given. The user that the agent
    /// runs as can never answer.
    #[schemars(inner(regex(pattern = r"^%?[^%\s]\S*$")))]
    pub approvers: Option<Vec<String>>,
    /// How many requests an agent may make in a sliding window; `30/1m` unless given. What comes beyond is denied.
    #[schemars(regex(pattern = r"^[1-9][0-9]*/[1-9][0-9]*[smhd]$"), extend("default" = "30/1m"))]
    pub rate: Option<String>,
    /// How many requests of an agent may wait at once; 100 unless given. What comes beyond is denied.
    #[schemars(range(min = 1), extend("default" = 100))]
    pub max_pending: Option<u32>,
}

/// System calls that are refused unless a policy gives them back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyscallsSection {
    /// What is given back.
    #[serde(default)]
    pub allow: Vec<Object<HatchSection>>,
    /// What is refused also where it would be given: `ptrace`, which the agent may use on its own processes wherever
    /// processes outside were seen to be out of its reach.
    #[serde(default)]
    pub deny: Vec<Object<HatchSection>>,
}

/// A group of system calls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HatchSection {
    /// The group's name, as `policies/built-in/syscall-groups.json` has it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Why the agent needs it, or must not have it.
    #[schemars(length(min = 1), regex(pattern = r"\S"))]
    pub reason: String,
}

/// What guards the agent: its hook's settings and state, and the commands that change them. Built-in rules deny what
/// would change it, unless a policy opens their group.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardSection {
    /// The groups that are open.
    #[serde(default)]
    pub allow: Vec<Object<OpenedSection>>,
}

/// A group of built-in rules that do not hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenedSection {
    /// The group: `commands` (`enforcer hook uninstall`, `hook consent`, `breaker reset`, `approvals approve` and their
    /// like) or `files` (settings and hooks of agents, the hook's state and consent, policies).
    #[schemars(length(min = 1), regex(pattern = "^(commands|files)$"))]
    pub name: String,
    /// Why the agent needs it.
    #[schemars(length(min = 1), regex(pattern = r"\S"))]
    pub reason: String,
}

/// The trail: what it leaves out, beside the secrets that redaction knows, and the way to it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditSection {
    /// Masking of personal data (mail addresses, telephone and card numbers).
    pub pii: Option<Masking>,
    /// KiB of the agent's event buffer in the kernel: a power of two from 64 to 16384; 1024 unless given, which holds some five
    /// thousand execs. An agent that fills it is denied everything until its launcher has written what is in it.
    pub buffer_kib: Option<u32>,
}

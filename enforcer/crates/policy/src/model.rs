//! The one model that both policy forms become. It is what the compiler and the engine read.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use enforcer_common::rule::ICMP;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Decision, Risk};
use enforcer_redact::Masking;

/// Directories whose programs are known by their base name, unless a policy names others.
pub const DEFAULT_TRUSTED_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Shells that a hook-form policy lets start, because what they start is judged.
pub const DEFAULT_SHELLS: [&str; 4] = ["sh", "bash", "dash", "zsh"];

/// Bytes of an agent's event buffer unless its policy says otherwise: some five thousand execs of ordinary length.
pub const EVENT_BUFFER: u32 = 1 << 20;

/// Which of the two forms a policy was written in; reasons are worded after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A pre-tool hook's `auto_approve_policy.json`.
    Hook,
    /// `"version": "2"` with `exec` and `connect`.
    Native,
}

/// A policy, read and checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The form it was written in.
    pub form: Form,
    /// The `version` text of the file.
    pub version: String,
    /// What may be executed.
    pub exec: ExecPolicy,
    /// What may be connected to.
    pub connect: ConnectPolicy,
    /// Agents named by the policy.
    pub agents: Agents,
    /// The capabilities of each agent, by its name in lower case.
    pub capabilities: BTreeMap<String, BTreeSet<String>>,
    /// Tenants whose agents may be given the policy; empty: all.
    pub tenants: Vec<String>,
    /// How often and how much an agent may act.
    pub limits: Limits,
    /// When an agent that keeps being denied is stopped altogether.
    pub breaker: BreakerSettings,
    /// How the trail shows personal data.
    pub masking: Masking,
    /// Bytes of the agent's event buffer: a power of two.
    pub event_buffer: u32,
    /// How an `ask` is put to a person.
    pub approvals: Approvals,
    /// System calls that the policy gives back to its agents.
    pub syscalls: Syscalls,
    /// What guards the agent and is open to it all the same.
    pub guard: Guard,
    /// Paths that an agent's file tools may name (judged by the hook, not by the kernel).
    pub file_paths: PathLists,
    /// Web tools and domains (judged by the hook, not by the kernel).
    pub web_tools: WebTools,
    /// Other tools (judged by the hook, not by the kernel).
    pub tools: Tools,
}

/// What may be executed.
#[derive(Clone, Debug)]
pub struct ExecPolicy {
    /// Where no rule matches.
    pub default: Decision,
    /// Directories whose programs are known by their base name. Absolute, no trailing slash.
    pub trusted_dirs: Vec<String>,
    /// Programs (base names) that may start because what they start is judged.
    pub transparent: Vec<String>,
    /// Executables with no name in the file system (memfd, deleted).
    pub fileless: Decision,
    /// Executables with a name, named through a descriptor.
    pub descriptor: Decision,
    /// The dynamic loader started with a program as its argument.
    pub loader: Decision,
    /// The rules, in the order of the file. In the hook form: the blacklist, then the whitelist.
    pub rules: Vec<Rule>,
}

/// One exec rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in the policy. In the hook form: the pattern itself.
    pub id: String,
    /// What it says when it matches.
    pub decision: Decision,
    /// How much damage the action can do.
    pub risk: Risk,
    /// What it matches.
    pub matcher: Patterns,
    /// Expressions of whole command lines that it does not match all the same. Ask and deny rules only.
    pub unless: Vec<String>,
    /// Why the rule is there; becomes the reason of its decisions.
    pub justification: Option<String>,
    /// What to do instead.
    pub suggestion: Option<String>,
    /// Capabilities that the agent needs for the rule to allow.
    pub requires: Vec<String>,
    /// Command lines that the rule must match.
    pub examples: Vec<Example>,
    /// Command lines that the rule must not match.
    pub counter_examples: Vec<Example>,
}

/// A command line in a policy's `match` or `not_match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Example {
    /// One string, split into words as a shell would (quotes, no expansions).
    Line(String),
    /// The words themselves.
    Words(Vec<String>),
}

/// What an exec rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patterns {
    /// fnmatch patterns over the text: anchored at both ends, `*` crosses everything. Any may match.
    Glob(Vec<String>),
    /// Regular expressions searched in the text. Any may match.
    Regex(Vec<String>),
    /// A program with subcommand words and flags.
    Argv(ArgvPattern),
}

/// A program, the subcommand words after it, and flags and arguments anywhere behind those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgvPattern {
    /// Program names (or paths); any may match.
    pub program: Vec<String>,
    /// Subcommand words, in order; options may stand before and between them. Each entry is a list of
    /// alternatives.
    pub words: Vec<Vec<String>>,
    /// At least one of these flags must be there (no condition when empty).
    pub flags_any: Vec<String>,
    /// All of these flags must be there.
    pub flags_all: Vec<String>,
    /// If one of these flags is there for certain, the rule does not match. Ask and deny rules only.
    pub flags_none: Vec<String>,
    /// Flags that take no value: behind one a flag of `flags_none` is there for certain.
    pub flags_bare: Vec<String>,
    /// At least one argument must match one of these patterns (no condition when empty). Ask and deny rules only.
    pub args_any: Vec<String>,
}

/// What may be connected to.
#[derive(Clone, Debug)]
pub struct ConnectPolicy {
    /// Where no rule matches an address.
    pub default: Decision,
    /// Where no rule matches the name of a unix socket.
    pub unix_default: Decision,
    /// Listeners of the agent's own user outside the agent.
    pub outside: OutsideListeners,
    /// The rules, in the order of the file.
    pub rules: Vec<ConnectRule>,
}

/// What an allowed connect comes to when who listens belongs to the agent's user and is outside the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideListeners {
    /// At a unix socket whose name no rule matches.
    pub unix: Decision,
    /// At a TCP port of this machine that no rule names.
    pub tcp: Decision,
}

impl Default for OutsideListeners {
    fn default() -> Self {
        Self {
            unix: Decision::Deny,
            tcp: Decision::Allow,
        }
    }
}

/// One connect rule. It is about addresses or about unix sockets, never both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRule {
    /// Unique in the policy.
    pub id: String,
    /// What it says when it matches.
    pub decision: Decision,
    /// How much damage the action can do.
    pub risk: Risk,
    /// Networks; any may match. None in a rule about unix sockets.
    pub hosts: Vec<Network>,
    /// Ports; empty: all.
    pub ports: Vec<u16>,
    /// Protocols; empty: all.
    pub protocols: Vec<Protocol>,
    /// Patterns over the names of unix sockets (a path, or `@` and an abstract name); any may match. Written by
    /// [`super::unix_name::parse_pattern`]. None in a rule about addresses.
    pub unix: Vec<String>,
    /// Why the rule is there; becomes the reason of its decisions.
    pub justification: Option<String>,
    /// What to do instead.
    pub suggestion: Option<String>,
    /// Capabilities that the agent needs for the rule to allow.
    pub requires: Vec<String>,
}

/// A network, IPv4 mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// First address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Prefix length over the 128 bits (an IPv4 /8 is 104).
    pub prefix: u8,
}

impl Network {
    /// Whether the address, IPv4 as `::ffff:a.b.c.d`, lies in it.
    pub fn contains(&self, address: [u8; 16]) -> bool {
        let mask = u128::MAX
            .checked_shl(128 - u32::from(self.prefix))
            .unwrap_or(0);
        u128::from_be_bytes(address) & mask == u128::from_be_bytes(self.address) & mask
    }
}

/// A transport protocol that a connect rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// ICMP echo, 1; of either IP version.
    Icmp,
}

impl Protocol {
    /// All of them.
    const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// The IP protocol number (IANA).
    pub fn number(self) -> u16 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp => ICMP as u16,
        }
    }

    /// The name, as policies and the trail have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// The protocol of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name() == name)
    }

    /// The protocol of an IP protocol number.
    pub fn numbered(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| u32::from(protocol.number()) == number)
    }
}

/// Agents named by a policy.
#[derive(Clone, Debug, Default)]
pub struct Agents {
    /// Agents trusted in `subagent_only` mode, case-insensitive.
    pub trusted: Vec<String>,
    /// Agents named as not trusted.
    pub restricted: Vec<String>,
}

/// How often something may happen: a count in a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At most so many, 1 or more.
    pub count: u32,
    /// In any stretch of time this long.
    pub window: Duration,
}

/// How often and how much an agent may act. What is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Execs of the agent.
    pub exec: Option<Rate>,
    /// Connects of the agent.
    pub connect: Option<Rate>,
    /// Execs of all agents of one user together.
    pub user_exec: Option<Rate>,
    /// Connects of all agents of one user together.
    pub user_connect: Option<Rate>,
    /// Arguments of one exec, the program's own name not counted.
    pub arguments: Option<u32>,
    /// Bytes of all arguments of one exec, each with its end.
    pub argv_bytes: Option<u32>,
    /// Levels of the process tree below the operator's command.
    pub depth: Option<u32>,
}

/// When an agent that keeps being denied is stopped altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Denials in a row that open the breaker; `None`: it never opens.
    pub denials: Option<u32>,
    /// After this time an open breaker lets one action try; `None`: only an operator closes it.
    pub half_open_after: Option<Duration>,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            denials: Some(10),
            half_open_after: None,
        }
    }
}

/// How an `ask` is put to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// How an exec waits for its answer.
    pub mode: Waiting,
    /// The program that hears of each new request, and its arguments; none if empty.
    pub notify: Vec<String>,
    /// How long an action waits for an answer; then it is denied.
    pub timeout: Duration,
    /// Who may answer: names of users, and of groups behind a `%`. `None`: root. Empty: nobody.
    pub approvers: Option<Vec<String>>,
    /// How many requests an agent may make in a sliding window; what comes beyond is denied.
    pub rate: (u32, Duration),
    /// How many requests of an agent may wait at once; what comes beyond is denied.
    pub max_pending: u32,
}

/// How an exec that is asked about waits for its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Waiting {
    /// Before the exec where the caller is a shell or another program that waits for its child anyway; else
    /// after the exec, stopped before the first instruction, so that nobody else stands still.
    #[default]
    Auto,
    /// Always before the exec. The caller's parent can stand still as long.
    Hold,
    /// Not at all: it fails at once, and goes through when it is tried again after the approval.
    Retry,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            mode: Waiting::default(),
            notify: Vec::new(),
            timeout: Duration::from_mins(5),
            approvers: None,
            rate: (30, Duration::from_mins(1)),
            max_pending: 100,
        }
    }
}

/// System calls that the policy gives back to its agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Syscalls {
    /// System-call groups that stay open, in the order of the file.
    pub allow: Vec<GroupChoice>,
    /// Groups that are shut also where they would be open.
    pub deny: Vec<GroupChoice>,
}

/// A group of built-in refusals, and what a policy says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupChoice {
    /// The group's name. Whether there is such a system-call group is checked where these are known.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What guards the agent ([`super::guard`]) and the policy opens to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Groups of the built-in rules that do not hold, in the order of the file.
    pub allow: Vec<GroupChoice>,
}

impl Guard {
    /// Whether a group is open.
    pub fn opens(&self, group: &str) -> bool {
        self.allow.iter().any(|open| open.name == group)
    }
}

/// Patterns of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathLists {
    /// Allowed.
    pub whitelist: Vec<String>,
    /// Denied; wins.
    pub blacklist: Vec<String>,
}

/// Web tools and the domains that they may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebTools {
    /// Patterns of allowed tools.
    pub whitelist: Vec<String>,
    /// Whether every domain that is not blocked may be reached.
    pub allow_all_domains: bool,
    /// Domains that may be reached though not all may.
    pub allowed_domains: Vec<String>,
    /// Blocked domains, addresses and networks; wins.
    pub blocked_domains: Vec<String>,
}

/// Tools that are neither shells nor about paths or the web.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// Patterns of tools that are always allowed. All others are denied.
    pub always_allowed: Vec<String>,
}

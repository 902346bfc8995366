//! A rule set as it is written, and those that the program brings along: `policies/rules`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::native::{ConnectRule, ExecRule, PathsSection, ToolsSection};
use super::shape::Object;

/// Rules that policies include by name: nothing but lists, which come before those of the policy. What else a policy says
/// (defaults, limits, who answers) stands in the policy alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "enforcer rule set")]
pub struct RuleSet {
    /// Where this schema lies, for editors. Not read.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// The form of the file: always `"2"`, as that of the policies.
    #[schemars(extend("const" = "2"))]
    pub version: String,
    /// What the rules are for. Not read.
    pub description: Option<String>,
    /// Rules about what may be executed.
    pub exec: Option<Object<ExecRules>>,
    /// Rules about what may be connected to.
    pub connect: Option<Object<ConnectRules>>,
    /// Paths that an agent's file tools may name.
    pub file_paths: Option<Object<PathsSection>>,
    /// Web tools and domains.
    pub web_tools: Option<Object<WebLists>>,
    /// Other tools.
    pub tools: Option<Object<ToolsSection>>,
}

/// Rules about what may be executed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRules {
    /// The rules. Their ids are unique among all that a policy has and includes.
    pub rules: Vec<Object<ExecRule>>,
}

/// Rules about what may be connected to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectRules {
    /// The rules. Their ids are unique among all that a policy has and includes.
    pub rules: Vec<Object<ConnectRule>>,
}

/// Web tools and domains.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebLists {
    /// Patterns of allowed web tools.
    #[serde(default)]
    pub whitelist: Vec<String>,
    /// Domains that may be reached: names, and `*.name` for all below one.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
    /// Domains, addresses and networks that may not be reached.
    #[serde(default)]
    pub blocked_domains: Vec<String>,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Names and texts, by name.
        const BUILT_IN: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../../policies/rules/", $name, ".json"))),)*
        ];
    };
}

shipped![
    "abuse",
    "code-asked",
    "codex",
    "commands-in-commands",
    "containers-and-cloud",
    "containment",
    "databases",
    "destructive",
    "destructive-disguised",
    "env-files",
    "exfiltration-hosts",
    "files-asked",
    "git",
    "git-asked",
    "homes",
    "machine",
    "network",
    "network-asked",
    "network-basics",
    "packages",
    "privileges",
    "reverse-shells",
    "secret-paths",
    "secrets",
];

/// The text of the rule set of this name that the program brings along.
pub fn built_in(name: &str) -> Option<&'static str> {
    let mut all = BUILT_IN.iter();
    all.find_map(|(of, text)| (*of == name).then_some(*text))
}

/// The names of the rule sets that the program brings along.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

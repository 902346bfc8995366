//! The rules about what guards an agent, which every policy has: `policies/built-in/guard.json`.
//!
//! An agent that may take its hook away, say yes for its user or close its own breaker is guarded by nothing. So these
//! rules hold unless the policy opens their group by name, with a reason.

use std::sync::LazyLock;

use serde::Deserialize;

use super::{
    error::Problems,
    model::{Example, GroupChoice, Guard, Patterns, Rule},
    native::GuardSection,
    place::{JsonPath, quoted},
    validate::GUARD_ID,
};
use crate::{Decision, Risk};

/// The group of commands that change what guards the agent.
pub const COMMANDS: &str = "commands";
/// The group of files that guard the agent, for commands and for file tools.
pub const FILES: &str = "files";

/// What stands for the expression of a place in the others.
const PLACE: &str = "<place>";

/// The data, as it is kept in the repository.
const TEXT: &str = include_str!("../../../../policies/built-in/guard.json");

/// A built-in rule about what guards the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRule {
    /// The group that it belongs to.
    pub group: String,
    /// The rule: its id is that of the group, behind `guard:`.
    pub rule: Rule,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "comment")]
    _comment: String,
    place: String,
    guards: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    why: String,
    suggestion: String,
    regex: Vec<String>,
    #[serde(rename = "match")]
    matches: Vec<Words>,
    not_match: Vec<Words>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Line(String),
    List(Vec<String>),
}

impl From<Words> for Example {
    fn from(words: Words) -> Self {
        match words {
            Words::Line(line) => Self::Line(line),
            Words::List(words) => Self::Words(words),
        }
    }
}

static RULES: LazyLock<Result<Vec<GuardRule>, String>> = LazyLock::new(|| read(TEXT));

/// The built-in rules, in the order of the file.
///
/// # Errors
///
/// Why the embedded data cannot be used. No policy has tables then: what is missing must not pass for allowed.
pub fn built_in() -> Result<&'static [GuardRule], &'static str> {
    match &*RULES {
        Ok(rules) => Ok(rules),
        Err(why) => Err(why),
    }
}

/// The rules of the groups that a policy leaves shut, each with its index in [`built_in`].
///
/// # Errors
///
/// As [`built_in`].
pub fn shut(guard: &Guard) -> Result<impl Iterator<Item = (usize, &'static Rule)>, &'static str> {
    let rules = built_in()?.iter().enumerate();
    Ok(rules
        .filter(|(_, rule)| !guard.opens(&rule.group))
        .map(|(at, rule)| (at, &rule.rule)))
}

fn read(text: &str) -> Result<Vec<GuardRule>, String> {
    let data: Data = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let of_group = |group: Group| {
        let regex = group.regex.iter();
        let regex = regex
            .map(|regex| regex.replace(PLACE, &data.place))
            .collect();
        GuardRule {
            rule: Rule {
                id: format!("{GUARD_ID}{}", group.name),
                decision: Decision::Deny,
                risk: Risk::Critical,
                matcher: Patterns::Regex(regex),
                unless: Vec::new(),
                justification: Some(group.why),
                suggestion: Some(group.suggestion),
                requires: Vec::new(),
                examples: group.matches.into_iter().map(Example::from).collect(),
                counter_examples: group.not_match.into_iter().map(Example::from).collect(),
            },
            group: group.name,
        }
    };
    Ok(data.guards.into_iter().map(of_group).collect())
}

/// Turns `guard` of either form into the model.
pub(super) fn lower(section: GuardSection, problems: &mut Problems<'_>) -> Guard {
    let at = JsonPath::top().key("guard").key("allow");
    let mut allow: Vec<GroupChoice> = Vec::with_capacity(section.allow.len());
    for (index, entry) in section.allow.into_iter().enumerate() {
        let (at, entry) = (at.index(index), entry.0);
        if ![COMMANDS, FILES].contains(&entry.name.as_str()) {
            problems.error(
                &at.key("name"),
                format!(
                    "there is no group {} of what guards an agent",
                    quoted(&entry.name)
                ),
                format!("write \"{COMMANDS}\" or \"{FILES}\""),
            );
        } else if allow.iter().any(|known| known.name == entry.name) {
            problems.error(
                &at.key("name"),
                format!("{} stands twice", quoted(&entry.name)),
                "keep one of the two",
            );
        }
        if entry.reason.trim().is_empty() {
            problems.error(
                &at.key("reason"),
                "the reason is empty",
                "say why the agent needs it: it can take away what guards it then",
            );
        }
        allow.push(GroupChoice {
            name: entry.name,
            reason: entry.reason,
        });
    }
    Guard { allow }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judged::Judge;
    use crate::{parse, validate::example_words};

    fn judge(guard: &str) -> Judge {
        let policy = format!(r#"{{"version": "2", "exec": {{"default": "allow"}}{guard}}}"#);
        Judge::new(parse(&policy).unwrap().policy)
    }

    fn judged(judge: &Judge, example: &Example) -> (Decision, Option<String>) {
        let words = example_words(example).unwrap();
        judge.exec(words.into_iter().map(String::into_bytes).collect())
    }

    #[test]
    fn each_group_says_what_its_examples_say() {
        let judge = judge("");
        let mut count = 0;
        for GuardRule { rule, .. } in built_in().unwrap() {
            for example in &rule.examples {
                let wanted = (Decision::Deny, Some(rule.id.clone()));
                assert_eq!(judged(&judge, example), wanted, "{example:?}");
                count += 1;
            }
            for example in &rule.counter_examples {
                assert_eq!(
                    judged(&judge, example),
                    (Decision::Allow, None),
                    "{example:?}"
                );
            }
        }
        assert!(count > 30, "{count}");
    }

    #[test]
    fn a_policy_opens_a_group_by_its_name_and_with_a_reason() {
        let uninstall = Example::Line("enforcer hook uninstall claude".to_owned());
        let settings = Example::Line("tee .claude/settings.json".to_owned());
        let open = |name: &str| {
            judge(&format!(
                r#", "guard": {{"allow": [{{"name": "{name}", "reason": "it sets up agents"}}]}}"#
            ))
        };
        let commands = open(COMMANDS);
        assert_eq!(judged(&commands, &uninstall).0, Decision::Allow);
        assert_eq!(judged(&commands, &settings).0, Decision::Deny);
        let files = open(FILES);
        assert_eq!(judged(&files, &uninstall).0, Decision::Deny);
        assert_eq!(judged(&files, &settings).0, Decision::Allow);
        for (bad, why) in [
            (r#"[{"name": "all", "reason": "x"}]"#, "no group \"all\""),
            (
                r#"[{"name": "files", "reason": " "}]"#,
                "the reason is empty",
            ),
            (r#"[{"name": "files"}]"#, "\"reason\" is missing"),
            (
                r#"[{"name": "files", "reason": "x"}, {"name": "files", "reason": "x"}]"#,
                "stands twice",
            ),
        ] {
            let native =
                format!(r#"{{"version": "2", "exec": {{}}, "guard": {{"allow": {bad}}}}}"#);
            let hook = format!(
                r#"{{"bash": {{"whitelist": [], "blacklist": []}}, "agents": {{"trusted": []}},
                "file_paths": {{"whitelist": [], "blacklist": []}}, "guard": {{"allow": {bad}}}}}"#
            );
            for text in [native, hook] {
                let error = parse(&text).unwrap_err().to_string();
                assert!(error.contains(why), "{error}");
            }
        }
    }

    #[test]
    fn the_hook_form_is_guarded_too() {
        let text = |guard: &str| {
            format!(
                r#"{{"bash": {{"whitelist": ["*"], "blacklist": []}}, "agents": {{"trusted": []}},
                "file_paths": {{"whitelist": [], "blacklist": []}}{guard}}}"#
            )
        };
        let of = |guard| Judge::new(parse(&text(guard)).unwrap().policy);
        let uninstall = Example::Line("enforcer hook uninstall claude".to_owned());
        assert_eq!(judged(&of(""), &uninstall).0, Decision::Deny);
        let open = of(r#", "guard": {"allow": [{"name": "commands", "reason": "x"}]}"#);
        assert_eq!(judged(&open, &uninstall).0, Decision::Allow);
    }
}

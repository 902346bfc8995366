//! The checks that the two forms share: ids, patterns, words; and the examples, once there is a matcher.

use std::collections::HashMap;
use std::time::Duration;

use super::Parsed;
use super::error::{PolicyError, Problems};
use super::model::{ArgvPattern, Example, Rule};
use super::place::{JsonPath, quoted};

/// Ids that the trail uses for what no policy rule says.
const RESERVED_IDS: [&str; 5] = ["default", "fileless", "loader", "metadata", "transparent"];
/// What the ids of built-in rules about unix sockets begin with.
pub const SOCKET_ID: &str = "socket:";
/// What the ids of the built-in rules about what guards an agent begin with.
pub const GUARD_ID: &str = "guard:";
/// Longest id of a rule, in characters.
const ID_MAX: usize = 200;
/// Deepest nesting of groups and repetitions in a regular expression.
const REGEX_NEST_MAX: u32 = 64;

/// The ids of a policy's rules, each with the rule that has it.
#[derive(Default)]
pub(super) struct Ids {
    owners: HashMap<String, JsonPath>,
}

impl Ids {
    /// Takes the id for the rule at `rule`, or says why it cannot be had.
    pub(super) fn claim(&mut self, id: &str, rule: &JsonPath, problems: &mut Problems<'_>) {
        let at = rule.key("id");
        if id.is_empty() || id.chars().count() > ID_MAX || id.chars().any(char::is_control) {
            problems.error(
                &at,
                format!("{} cannot be an id", quoted(id)),
                format!("write 1 to {ID_MAX} characters without control characters"),
            );
            return;
        }
        if RESERVED_IDS.contains(&id) || id.starts_with(SOCKET_ID) || id.starts_with(GUARD_ID) {
            problems.error(
                &at,
                format!(
                    "the id {} is kept for decisions that no rule of the policy makes",
                    quoted(id)
                ),
                "give the rule another id",
            );
            return;
        }
        if let Some(first) = self.owners.get(id) {
            problems.error_with_line(
                &at,
                &first.key("id"),
                |line| format!("duplicate id {} (first at {line})", quoted(id)),
                "give each rule an id of its own",
            );
            return;
        }
        self.owners.insert(id.to_owned(), rule.clone());
    }
}

/// An empty list matches nothing, which is never meant.
pub(super) fn not_empty(length: usize, at: &JsonPath, problems: &mut Problems<'_>) {
    if length == 0 {
        problems.error(at, "the list is empty", "add an entry, or remove the key");
    }
}

/// Checks glob patterns: any text is one, but an empty text or one with NUL matches no command.
pub(super) fn globs(patterns: &[String], at: &JsonPath, problems: &mut Problems<'_>) {
    words(patterns, at, problems);
}

/// Checks a list of words (programs, subcommands, flags).
pub(super) fn words(words: &[String], at: &JsonPath, problems: &mut Problems<'_>) {
    not_empty(words.len(), at, problems);
    for (index, word) in words.iter().enumerate() {
        if word.is_empty() {
            problems.error(
                &at.index(index),
                "the text is empty",
                "fill it in, or remove it",
            );
        } else if word.contains('\0') {
            problems.error(
                &at.index(index),
                "the text holds a NUL, which no argument can",
                "remove the NUL",
            );
        }
    }
}

/// Refuses what an allow rule's argv pattern cannot say: that one argument is fine says nothing of the others, and a
/// flag that is missing nothing of those that are there.
pub(super) fn allows(pattern: &ArgvPattern, at: &JsonPath, problems: &mut Problems<'_>) {
    for (key, words) in [
        ("flags_none", &pattern.flags_none),
        ("flags_bare", &pattern.flags_bare),
        ("args_any", &pattern.args_any),
    ] {
        if !words.is_empty() {
            problems.error(
                &at.key(key),
                format!("an allow rule cannot have `{key}`"),
                "allow by program and words, and deny what must not pass with a rule of its own",
            );
        }
    }
}

/// Checks that regular expressions can be parsed. They run over bytes, with ASCII classes.
pub(super) fn regexes(patterns: &[String], at: &JsonPath, problems: &mut Problems<'_>) {
    if problems.is_sound() {
        return;
    }
    not_empty(patterns.len(), at, problems);
    for (index, pattern) in patterns.iter().enumerate() {
        if let Err(reason) = regex(pattern) {
            problems.error(
                &at.index(index),
                format!("bad regular expression {}: {reason}", quoted(pattern)),
                "correct it (in JSON every backslash is written twice)",
            );
        }
    }
}

/// Parses a regular expression as the tables do; the error is one line with the column in the pattern.
pub(super) fn regex(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("it is empty and would match every command".into());
    }
    let parsed = regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .nest_limit(REGEX_NEST_MAX)
        .build()
        .parse(pattern);
    let (reason, column) = match parsed {
        Ok(_) => return Ok(()),
        Err(regex_syntax::Error::Parse(error)) => {
            (error.kind().to_string(), error.span().start.column)
        }
        Err(regex_syntax::Error::Translate(error)) => {
            (error.kind().to_string(), error.span().start.column)
        }
        Err(_) => return Err("it cannot be parsed".into()),
    };
    Err(format!("{reason}, at its character {column}"))
}

/// A rate: a count, a slash, a window such as `1h`.
pub(super) fn parse_rate(text: &str) -> Option<(u32, Duration)> {
    let positive = |number: &str| {
        let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        plain.then(|| number.parse::<u32>().ok()).flatten()
    };
    let (count, window) = text.split_once('/')?;
    let (length, unit) = window.split_at_checked(window.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let window = Duration::from_secs(u64::from(positive(length)?) * seconds);
    Some((positive(count)?, window))
}

/// The words of an example; `None` if a quote or backslash of its line is left open.
pub fn example_words(example: &Example) -> Option<Vec<String>> {
    match example {
        Example::Line(line) => shlex::split(line),
        Example::Words(words) => Some(words.clone()),
    }
}

/// Checks every rule's `match` and `not_match` against a matcher: `matches(rule, words)` says whether the rule
/// alone matches the command. Gives one error for each example that fails.
pub fn examples(parsed: &Parsed, matches: &dyn Fn(&Rule, &[String]) -> bool) -> Vec<PolicyError> {
    let mut errors = Vec::new();
    for (index, rule) in parsed.policy.exec.rules.iter().enumerate() {
        for (key, examples, wanted) in [
            ("match", &rule.examples, true),
            ("not_match", &rule.counter_examples, false),
        ] {
            for (at, example) in examples.iter().enumerate() {
                let Some(words) = example_words(example) else {
                    continue; // refused when the text was read
                };
                if matches(rule, &words) != wanted {
                    errors.push(failed(
                        parsed,
                        &parsed.rule_path(index).key(key).index(at),
                        rule,
                        example,
                        wanted,
                    ));
                }
            }
        }
    }
    errors
}

fn failed(
    parsed: &Parsed,
    at: &JsonPath,
    rule: &Rule,
    example: &Example,
    wanted: bool,
) -> PolicyError {
    let shown = match example {
        Example::Line(line) => quoted(line),
        Example::Words(words) => {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            format!("[{}]", words.join(", "))
        }
    };
    let id = quoted(&rule.id);
    let (what, other) = if wanted {
        (
            format!("rule {id} does not match its example {shown}"),
            "not_match",
        )
    } else {
        (
            format!("rule {id} matches {shown}, which it must not"),
            "match",
        )
    };
    parsed.error_at(
        at,
        what,
        format!("correct the pattern or the example, or move it to `{other}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Patterns;
    use crate::parse;

    #[test]
    fn rates() {
        for good in ["1/1s", "100/1h", "50/30m", "5/7d"] {
            assert!(parse_rate(good).is_some(), "{good}");
        }
        assert_eq!(parse_rate("30/2m"), Some((30, Duration::from_mins(2))));
        assert_eq!(parse_rate("1/7d"), Some((1, Duration::from_hours(168))));
        for bad in [
            "",
            "100",
            "100/",
            "/1h",
            "0/1h",
            "1/0h",
            "1/h",
            "1/1",
            "1/1w",
            "-1/1h",
            "1 /1h",
            "1/1hh",
            "5000000000/1h",
            "1/é",
            "1/1é",
        ] {
            assert!(parse_rate(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn regular_expressions_are_parsed_over_bytes() {
        for good in ["^rm -rf", r"\bgit\b", "é", r"[^\x00]", "(?i)drop", "a{3}"] {
            assert_eq!(regex(good), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("", "would match every command"),
            ("a(", "unclosed group, at its character 2"),
            ("[a", "unclosed character class, at its character 1"),
            (
                "*",
                "repetition operator missing expression, at its character 1",
            ),
            (
                r"(a)\1",
                "backreferences are not supported, at its character 4",
            ),
            (r"\p{L}", "at its character 1"),
            (&"(".repeat(100), "at its character"),
        ] {
            let said = regex(bad).unwrap_err();
            assert!(said.contains(reason), "{bad}: {said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn examples_are_split_as_a_shell_would_and_failures_are_placed() {
        let parsed = parse(
            r#"{"version": "2", "connect": {}, "exec": {"rules": [
{"id": "one", "decision": "deny", "glob": ["x"], "match": ["rm 'a b' \"c\"", ["rm", "a b"]],
 "not_match": ["ls"]},
{"id": "two", "decision": "deny", "glob": ["y"],
 "not_match": [["ls", "it's"]]}]}}"#,
        )
        .unwrap();
        let seen = std::cell::RefCell::new(Vec::new());
        let none = examples(&parsed, &|rule, words| {
            seen.borrow_mut().push((rule.id.clone(), words.to_vec()));
            words[0] == "rm"
        });
        assert_eq!(none, []);
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            seen.into_inner(),
            [
                ("one".to_owned(), words(&["rm", "a b", "c"])),
                ("one".to_owned(), words(&["rm", "a b"])),
                ("one".to_owned(), words(&["ls"])),
                ("two".to_owned(), words(&["ls", "it's"])),
            ]
        );
        let said: Vec<String> = examples(&parsed, &|rule, words| {
            matches!(&rule.matcher, Patterns::Glob(globs) if globs[0] == "y") || words.len() == 2
        })
        .iter()
        .map(ToString::to_string)
        .collect();
        assert_eq!(
            said,
            [
                "line 2, column 60: exec.rules[0].match[0]: rule \"one\" does not match its example \"rm 'a b' \\\"c\\\"\"; \
                 correct the pattern or the example, or move it to `not_match`",
                "line 5, column 16: exec.rules[1].not_match[0]: rule \"two\" matches [\"ls\", \"it's\"], which it must not; \
                 correct the pattern or the example, or move it to `match`",
            ]
        );
    }
}

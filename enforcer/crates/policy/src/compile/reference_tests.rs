//! Holds the tables against references that share no code with them: the `regex` crate, a naive fnmatch and a
//! naive reading of argv rules.

use std::{rc::Rc, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::select, test_runner::Config};

use super::{
    RuleRef,
    automaton::{Alphabet, Automaton},
    exec_tables,
    group::BUDGETS,
    search,
    union::{Target, all, any},
};
use crate::{
    Decision, ExecAction, Risk, RuleCheck,
    model::{ArgvPattern, ExecPolicy, Patterns, Rule},
};
use regex_syntax::hir::Hir;

use enforcer_common::table::{Group, SEGMENT_WORDS, Segment};

fn rule(decision: Decision, matcher: Patterns) -> Rule {
    Rule {
        id: "rule".to_owned(),
        decision,
        risk: Risk::Low,
        matcher,
        unless: Vec::new(),
        justification: None,
        suggestion: None,
        requires: Vec::new(),
        examples: Vec::new(),
        counter_examples: Vec::new(),
    }
}

/// Whether the rule matches these words, through the whole of compiler and matcher.
fn matches(decision: Decision, matcher: Patterns, words: &[Vec<u8>]) -> bool {
    let check = RuleCheck::new(&rule(decision, matcher), &[]).unwrap();
    check.matches(&ExecAction::from_words(words.to_vec()))
}

/// Words joined as glob and regex rules see them.
fn joined(words: &[Vec<u8>]) -> Vec<u8> {
    words.join(&b' ')
}

/// Bytes that patterns care about, bytes that they do not, broken UTF-8, NUL.
fn byte() -> impl Strategy<Value = u8> {
    select(b"aaabbbc  \0-_A1.\n/\xff\xc3\xa9".to_vec())
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(byte(), 0..24)
}

/// A command line: a program without slashes (it stands for one in a trusted directory) and arguments.
fn line() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let program = select(vec!["a", "ab", "b", "a b", "b-a", "aab", "c", "é"]);
    let word = vec(select(b"aaabbc -_A1.\n/\xff\xc3\xa9".to_vec()), 0..6);
    (program, vec(word, 0..5)).prop_map(|(program, rest)| {
        let mut line = vec![program.as_bytes().to_vec()];
        line.extend(rest);
        line
    })
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "a", "b", "ab", " ", "-", "é", ".", r"\.", "[ab]", "[^a]", r"\w", r"\s", r"\b", r"\B", "^",
        "$", "(?m:^)", "(?m:$)", "(?i:A)", "(?s:.)", "(?u:é)", "(?u:.)", "(?R:$)", "",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..5).prop_map(|parts| parts.concat()),
            vec(inner.clone(), 2..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
            (inner, select(vec!["*", "+", "?", "*?", "{2}", "{0,2}"]))
                .prop_map(|(part, times)| format!("(?:{part}){times}")),
        ]
    })
}

/// Expressions that begin with a program's name, more often than chance would have it.
fn headed() -> impl Strategy<Value = String> {
    let head = select(vec![
        "",
        "^",
        "^a ",
        "^ab ",
        "^a b",
        "^(a|ab) ",
        "^a$",
        "^a( |$)",
        "^a( .*)?",
        "^(?:a|b)(?: |$)",
        "^b",
        "^a$|^b ",
        "(^a |^b )",
    ]);
    (head, expression()).prop_map(|(head, tail)| format!("{head}{tail}"))
}

fn reference(pattern: &str) -> regex::bytes::Regex {
    regex::bytes::RegexBuilder::new(pattern)
        .unicode(false)
        .build()
        .unwrap()
}

fn together(pieces: &[&Hir], targets: &[Target], alphabet: Alphabet) -> Automaton {
    let parts: Vec<_> = pieces
        .iter()
        .map(|piece| Rc::new(Automaton::of(piece, alphabet, BUDGETS[1]).unwrap()))
        .collect();
    let limit = 1 << 20;
    let targets: Vec<_> = targets
        .iter()
        .map(|target| {
            let pieces: Vec<_> = target
                .pieces
                .iter()
                .map(|at| Rc::clone(&parts[*at]))
                .collect();
            let mut whole = Automaton::clone(&all(&pieces, limit).unwrap());
            whole.renumber(|_| target.accept);
            Rc::new(whole)
        })
        .collect();
    Automaton::clone(&any(&targets, limit).unwrap())
}

fn segment(automaton: &Automaton) -> Box<Segment> {
    let mut words = automaton.encode();
    words.resize(SEGMENT_WORDS, 0xaaaa);
    words.into_boxed_slice().try_into().unwrap()
}

fn walk(segment: &Segment, text: &[u8]) -> u32 {
    let (group, mut cursor) = Group::read(segment, 0);
    for byte in text {
        group.step(segment, &mut cursor, *byte);
    }
    group.finish(segment, &mut cursor);
    cursor.accept
}

/// What a set of the fnmatch pattern `set` says of a character; invalid bytes are in no set.
fn in_set(set: &[char], c: Option<char>) -> bool {
    let (negated, members) = match set {
        ['!', members @ ..] => (true, members),
        members => (false, members),
    };
    let found = c.is_some_and(|c| match members {
        [low, '-', high] => (*low..=*high).contains(&c),
        members => members.contains(&c),
    });
    found != negated
}

/// fnmatch by trying everything. `guard`: still in the program of an allow rule.
pub(super) fn fnmatch(pattern: &[char], text: &[u8], guard: bool) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    // The ways to take one character: a whole one, and for wildcards also one byte of a broken one.
    let whole = (1..=4.min(text.len())).find_map(|length| {
        let c = std::str::from_utf8(&text[..length]).ok()?.chars().next()?;
        Some((c, length))
    });
    let stays = |c: Option<char>| guard && c != Some(' ');
    match first {
        '*' => {
            fnmatch(rest, text, guard)
                || (text.first().is_some_and(|byte| !(guard && *byte == b'/'))
                    && fnmatch(pattern, &text[1..], guard && text[0] != b' '))
        }
        '?' | '[' => {
            let (set, rest) = match (first, rest.iter().position(|c| *c == ']')) {
                ('[', Some(end)) => (Some(&rest[..end]), &rest[end + 1..]),
                _ => (None, rest),
            };
            let member = |c: Option<char>| {
                set.is_none_or(|set| in_set(set, c)) && !(guard && c == Some('/'))
            };
            let as_char = whole.is_some_and(|(c, length)| {
                member(Some(c)) && fnmatch(rest, &text[length..], stays(Some(c)))
            });
            let as_byte = text.first().is_some_and(|byte| !byte.is_ascii())
                && member(None)
                && fnmatch(rest, &text[1..], guard);
            as_char || as_byte
        }
        c => whole.is_some_and(|(found, length)| {
            found == *c && fnmatch(rest, &text[length..], stays(Some(found)))
        }),
    }
}

fn glob() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a", "b", " ", "*", "*", "?", "[ab]", "[!a]", "[a-c]", "[!a-b]", "[ a]", "é", "-", "/",
        ".", "[é]", "\n",
    ]);
    (select(vec!["", "", "a ", "ab", "b ", "*"]), vec(part, 0..7))
        .prop_map(|(head, parts)| format!("{head}{}", parts.concat()))
}

/// One flag against one word.
fn is_flag(flag: &str, word: &str, strict: bool) -> bool {
    let bytes = flag.as_bytes();
    if bytes.len() == 2 && bytes[0] == b'-' && bytes[1] != b'-' {
        let Some(bundle) = word.strip_prefix('-') else {
            return false;
        };
        let letter = flag.chars().nth(1).unwrap();
        return bundle.char_indices().any(|(at, c)| {
            let before = bundle[..at].chars().all(|c| c.is_ascii_alphabetic());
            let mut after = bundle[at + c.len_utf8()..].chars();
            let attached = !strict && letter.is_ascii_alphabetic();
            c == letter && before && (attached || after.all(|c| c.is_ascii_alphabetic()))
        });
    }
    if word == flag
        || (flag.starts_with('-') && flag.len() > 1 && word.starts_with(&format!("{flag}=")))
    {
        return true;
    }
    // An abbreviation of a long option: at least three letters, and more than some of the name's parts.
    let name = word.split('=').next().unwrap_or_default();
    let short = name.strip_prefix("--").unwrap_or_default();
    !strict
        && flag.starts_with("--")
        && short.chars().count() >= 3
        && flag[2..]
            .strip_prefix(short)
            .is_some_and(|rest| !rest.starts_with('-'))
}

/// Slashes once, without `.` components and what the root's `..` are.
fn plain(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for (at, name) in path.split('/').enumerate() {
        let root = absolute && names.is_empty();
        let kept = !name.is_empty() && (name != "." || at == 0) && !(root && name == "..");
        if kept && !(root && name == ".") {
            names.push(name);
        }
    }
    format!("{}{}", if absolute { "/" } else { "" }, names.join("/"))
}

/// Whether an argument matches a pattern without sets, by trying everything over the parts of its path.
fn is_argument(pattern: &str, word: &str) -> bool {
    fn parts(pattern: &[char], word: &[char]) -> bool {
        match pattern {
            [] => word.is_empty(),
            ['*', '*', rest @ ..] => (0..=word.len()).any(|at| parts(rest, &word[at..])),
            ['*', rest @ ..] => {
                let name = word.iter().position(|c| *c == '/').unwrap_or(word.len());
                (0..=name).any(|at| parts(rest, &word[at..]))
            }
            ['?', rest @ ..] => {
                matches!(word, [c, tail @ ..] if *c != '/' && parts(rest, tail))
            }
            [c, rest @ ..] => matches!(word, [d, tail @ ..] if c == d && parts(rest, tail)),
        }
    }
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    let path = pattern.contains('/') || pattern.starts_with('~');
    if !path {
        return parts(&chars(pattern), &chars(word));
    }
    let word = plain(word);
    let homes = ["~", "~ann", "$HOME", "/home/ann", "/root"];
    let spelled: Vec<String> = match pattern.strip_prefix('~') {
        Some(rest) => homes.iter().map(|home| format!("{home}{rest}")).collect(),
        None => vec![pattern.to_owned()],
    };
    let anywhere = |pattern: &str| match pattern.strip_prefix("**/") {
        Some(rest) => parts(&chars(rest), &chars(&word)) || parts(&chars(pattern), &chars(&word)),
        None => parts(&chars(pattern), &chars(&word)),
    };
    spelled.iter().any(|pattern| anywhere(pattern))
}

/// Whether a flag that makes the command harmless is there for certain.
fn is_lifted(pattern: &ArgvPattern, words: &[&str]) -> bool {
    let none = |word: &str| pattern.flags_none.iter().any(|flag| flag == word);
    let mut before = "";
    let mut certain = false;
    for word in words {
        if *word == "--" {
            break;
        }
        let has_value = before.starts_with("--") && before.contains('=');
        let open = before.len() > 1 && before.starts_with('-') && !has_value;
        certain |= none(word) && !open;
        before = word;
    }
    let back = |word: &&str| {
        let (name, value) = word.split_once('=').unzip();
        let name = name.unwrap_or(word).strip_prefix("--");
        word.starts_with("--no")
            || (value.is_some()
                && !none(word)
                && name.is_some_and(|name| {
                    let of = |flag: &String| {
                        let long = flag.strip_prefix("--");
                        let long = long.map(|long| long.split('=').next().unwrap_or(long));
                        !name.is_empty() && long.is_some_and(|long| long.starts_with(name))
                    };
                    pattern.flags_none.iter().any(of)
                }))
    };
    certain && !words.iter().any(back)
}

fn conditions_hold(pattern: &ArgvPattern, words: &[&str], strict: bool) -> Vec<bool> {
    let all = words;
    let end = words.iter().position(|word| *word == "--");
    // A rule can name `--` itself as a flag.
    let words = &words[..end.map_or(words.len(), |end| end + 1)];
    let has = |flag: &String| words.iter().any(|word| is_flag(flag, word, strict));
    let mut held: Vec<bool> = pattern.flags_all.iter().map(has).collect();
    if !pattern.flags_any.is_empty() {
        held.push(pattern.flags_any.iter().any(has));
    }
    if !pattern.args_any.is_empty() {
        let matched = |word: &&str| pattern.args_any.iter().any(|any| is_argument(any, word));
        held.push(all.iter().any(matched));
    }
    held
}

/// What is left behind the subcommand words, for each reading of the options before them.
fn readings<'a>(
    expected: &[Vec<String>],
    words: &'a [&'a str],
    strict: bool,
) -> Vec<&'a [&'a str]> {
    let Some((first, later)) = expected.split_first() else {
        return vec![words];
    };
    let mut found = Vec::new();
    if let Some((word, rest)) = words.split_first() {
        if first.iter().any(|alternative| alternative == word) {
            found.extend(readings(later, rest, strict));
        }
        if !strict && word.starts_with('-') {
            found.extend(readings(expected, rest, strict));
            if let Some((_, rest)) = rest.split_first() {
                found.extend(readings(expected, rest, strict));
            }
        }
    }
    found
}

/// Each condition may hold in a reading of its own; where the words stand in place there is but one.
fn argv_reference(pattern: &ArgvPattern, words: &[&str], strict: bool) -> bool {
    if !strict && is_lifted(pattern, words) {
        return false;
    }
    let rests = readings(&pattern.words, words, strict);
    let held: Vec<_> = rests
        .iter()
        .map(|rest| conditions_hold(pattern, rest, strict))
        .collect();
    let Some(first) = held.first() else {
        return false;
    };
    (0..first.len()).all(|condition| held.iter().any(|held| held[condition]))
}

fn argv_pattern() -> impl Strategy<Value = ArgvPattern> {
    let word = select(vec!["push", "rm", "a b"]).prop_map(str::to_owned);
    let flag = select(vec![
        "-f",
        "-r",
        "-9",
        "--force",
        "--force-it",
        "-delete",
        "--",
        "-",
        "x",
        "--é",
    ])
    .prop_map(str::to_owned);
    let none = select(vec!["-n", "--dry", "--dry=on", "--help"]).prop_map(str::to_owned);
    let argument = select(vec![
        "/", "/a", "/a/*", "/a/**", "*", "?", "~", "~/*", "~/.a", "**/b", "x*", "a/b", "-f",
    ])
    .prop_map(str::to_owned);
    (
        vec(vec(word, 1..3), 0..3),
        vec(flag.clone(), 0..3),
        vec(flag, 0..3),
        prop_oneof![2 => Just(Vec::new()), 1 => vec(none, 1..3)],
        prop_oneof![2 => Just(Vec::new()), 1 => vec(argument, 1..3)],
        select(vec!["git", "git x"]),
    )
        .prop_map(
            |(words, flags_any, flags_all, flags_none, args_any, program)| ArgvPattern {
                program: vec![program.to_owned()],
                words,
                flags_any,
                flags_all,
                flags_none,
                flags_bare: Vec::new(),
                args_any,
            },
        )
}

fn argv_words() -> impl Strategy<Value = Vec<&'static str>> {
    vec(
        select(vec![
            "push",
            "rm",
            "a b",
            "a",
            "b",
            "-f",
            "-rf",
            "-xrf",
            "-fr9",
            "-f9",
            "-9",
            "-f=x",
            "--force",
            "--force=1",
            "--forced",
            "-delete",
            "-delete=1",
            "--",
            "-",
            "",
            "x",
            "-x",
            "--é",
            "é",
            "-a",
            "\n",
            "push\n",
            "--fo",
            "--for",
            "--forc=x",
            "--force-",
            "--force-i",
            "-n",
            "--dry",
            "--dry=on",
            "--dry=off",
            "--d=x",
            "--no-dry",
            "--help",
            "/",
            "//./",
            "/../a",
            "/a/.",
            "/a/b",
            "/a//b/c",
            "./b",
            "~ann",
            "$HOME/.a/",
            "/home/ann/x",
            "/home/./ann",
            "/root/.a",
            "a//b",
        ]),
        0..7,
    )
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_group_is_the_highest_of_its_expressions(
        patterns in vec(expression(), 1..4),
        texts in vec(text(), 1..12),
    ) {
        let searches: Vec<_> = patterns
            .iter()
            .map(|pattern| search::split(&search::parse(pattern).unwrap()))
            .collect();
        let mut pieces = Vec::new();
        let mut targets = Vec::new();
        for (at, searches) in searches.iter().enumerate() {
            for search in searches.iter().filter(|search| search.head.is_none()) {
                targets.push(Target { accept: at as u16 + 1, pieces: vec![pieces.len()] });
                pieces.push(&search.hir);
            }
        }
        prop_assume!(searches.iter().flatten().all(|search| search.head.is_none()));
        let expected: Vec<_> = patterns.iter().map(|pattern| reference(pattern)).collect();
        for (alphabet, blank) in [(Alphabet::Text, b' '), (Alphabet::Exact, 0)] {
            let automaton = together(&pieces, &targets, alphabet);
            let segment = segment(&automaton);
            for text in &texts {
                let seen: Vec<u8> = text
                    .iter()
                    .map(|byte| if *byte == 0 { blank } else { *byte })
                    .collect();
                let highest = expected.iter().rposition(|regex| regex.is_match(&seen));
                let highest = highest.map_or(0, |at| at as u32 + 1);
                prop_assert_eq!(walk(&segment, text), highest, "{:?} on {:?}", &patterns, text);
            }
        }
    }

    #[test]
    fn pieces_match_together(patterns in vec(expression(), 2..4), texts in vec(text(), 1..12)) {
        let hirs: Vec<_> = patterns
            .iter()
            .map(|pattern| search::parse(&format!(r"(?s-u:.)*?(?:{pattern})(?s-u:.)*\z")).unwrap())
            .collect();
        let pieces: Vec<_> = hirs.iter().collect();
        let all = Target { accept: 7, pieces: (0..pieces.len()).collect() };
        let automaton = together(&pieces, &[all], Alphabet::Exact);
        let segment = segment(&automaton);
        let expected: Vec<_> = patterns.iter().map(|pattern| reference(pattern)).collect();
        for text in &texts {
            let all = expected.iter().all(|regex| regex.is_match(text));
            prop_assert_eq!(walk(&segment, text) == 7, all, "{:?} on {:?}", &patterns, text);
        }
    }

    #[test]
    fn a_regex_rule_is_the_regex_crate(pattern in headed(), lines in vec(line(), 1..12)) {
        let expected = reference(&pattern);
        let matcher = Patterns::Regex(vec![pattern.clone()]);
        let check = RuleCheck::new(&rule(Decision::Deny, matcher), &[]).unwrap();
        for line in lines {
            let action = ExecAction::from_words(line.clone());
            prop_assert_eq!(
                check.matches(&action),
                expected.is_match(&joined(&line)),
                "{} on {:?}", &pattern, line
            );
        }
    }

    #[test]
    fn a_glob_rule_is_fnmatch(pattern in glob(), lines in vec(line(), 1..12)) {
        let chars: Vec<char> = pattern.chars().collect();
        let program = pattern.split(' ').next().unwrap_or_default();
        let guard = !program.contains('/') && !program.starts_with(['*', '?', '[']);
        for decision in [Decision::Deny, Decision::Allow] {
            let matcher = Patterns::Glob(vec![pattern.clone()]);
            let check = RuleCheck::new(&rule(decision, matcher), &[]).unwrap();
            let guard = guard && decision == Decision::Allow;
            for line in &lines {
                let action = ExecAction::from_words(line.clone());
                prop_assert_eq!(
                    check.matches(&action),
                    fnmatch(&chars, &joined(line), guard),
                    "{} {:?} on {:?}", decision, &pattern, line
                );
            }
        }
    }

    #[test]
    fn an_argv_rule_is_its_plain_reading(pattern in argv_pattern(), lines in vec(argv_words(), 1..12)) {
        for decision in [Decision::Deny, Decision::Allow] {
            let strict = decision == Decision::Allow;
            if strict && !(pattern.flags_none.is_empty() && pattern.args_any.is_empty()) {
                continue; // refused when the policy is read
            }
            let matcher = Patterns::Argv(pattern.clone());
            // A rule with everything at once can be too large; the policy is refused then.
            let check = RuleCheck::new(&rule(decision, matcher), &[]);
            prop_assume!(check.is_ok());
            let check = check.unwrap();
            for words in &lines {
                let mut line = vec![pattern.program[0].as_bytes().to_vec()];
                line.extend(words.iter().map(|word| word.as_bytes().to_vec()));
                let found = check.matches(&ExecAction::from_words(line));
                let expected = argv_reference(&pattern, words, strict);
                // A wildcard also takes what a path could be without: `/a/*` matches `/a/` and `/a/.`.
                let longer = found
                    && !pattern.args_any.is_empty()
                    && words.iter().any(|word| plain(word) != *word);
                prop_assert!(
                    found == expected || longer,
                    "{} {:?} on {:?}: {}", decision, &pattern, words, found
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(48) })]

    #[test]
    fn argv_rules_of_one_program_never_say_less_than_their_readings(
        patterns in vec(argv_pattern(), 2..6),
        lines in vec(argv_words(), 1..24),
    ) {
        let rules: Vec<_> = patterns
            .iter()
            .map(|pattern| {
                let pattern = ArgvPattern { program: vec!["git".to_owned()], ..pattern.clone() };
                rule(Decision::Deny, Patterns::Argv(pattern))
            })
            .collect();
        let refs: Vec<_> = (0..rules.len())
            .map(|at| (RuleRef::Rule(at), Decision::Deny))
            .collect();
        let exec = ExecPolicy {
            default: Decision::Deny,
            trusted_dirs: Vec::new(),
            transparent: Vec::new(),
            fileless: Decision::Deny,
            descriptor: Decision::Deny,
            loader: Decision::Deny,
            rules,
        };
        let tables = exec_tables(&exec, &refs, &[], 1);
        prop_assume!(tables.is_ok());
        let matcher = crate::matcher::Matcher::new(Arc::new(tables.unwrap()));
        for words in &lines {
            let mut line = vec![b"git".to_vec()];
            line.extend(words.iter().map(|word| word.as_bytes().to_vec()));
            let rank = matcher.exec_rank(&ExecAction::from_words(line));
            // The first of equals has the highest rank; two ranks are reserved.
            let expected = patterns
                .iter()
                .position(|pattern| argv_reference(pattern, words, false))
                .map_or(0, |at| 2 + (patterns.len() - 1 - at) as u32);
            prop_assert!(rank >= expected, "{:?} on {:?}: {} < {}", &patterns, words, rank, expected);
            let longer = words.iter().any(|word| plain(word) != *word);
            let behind_option = longer || words.windows(2).any(|pair| {
                pair[0].starts_with('-') && ["push", "rm", "a b"].contains(&pair[1])
            });
            if !behind_option {
                prop_assert_eq!(rank, expected, "{:?} on {:?}", &patterns, words);
            }
        }
    }
}

#[test]
fn separators_are_not_words() {
    let line: Vec<Vec<u8>> = vec![b"git".to_vec(), b"push -f".to_vec()];
    let pattern = ArgvPattern {
        program: vec!["git".to_owned()],
        words: vec![vec!["push".to_owned()]],
        ..ArgvPattern::default()
    };
    assert!(!matches(Decision::Deny, Patterns::Argv(pattern), &line));
    let glob = Patterns::Glob(vec!["git push -f".to_owned()]);
    assert!(matches(Decision::Deny, glob, &line));
}

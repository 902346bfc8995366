//! What bash itself makes of texts, held against what is listed.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// A command list over the probes `p0`…`p9`: every one is a function that says its name.
fn list(depth: u32) -> BoxedStrategy<String> {
    simple()
        .prop_recursive(depth, 24, 3, move |inner| {
            prop_oneof![
                4 => joined(inner.clone()),
                3 => compound(inner.clone()),
                3 => inside(inner.clone()),
                1 => spread(inner),
            ]
        })
        .boxed()
}

/// A simple command, with redirections anywhere.
fn simple() -> BoxedStrategy<String> {
    let probe = (0..10u8).prop_map(|number| format!("p{number}"));
    let word = proptest::sample::select(vec![
        "a",
        "'b; c'",
        "\"d $x e\"",
        "\\;",
        "{f,g}",
        "$'h\\n'",
        "2>/dev/null",
        "</dev/null",
        "\\ #i",
        "''#j",
        "\"k\"\\l",
        "`:` `:`",
        "<<<m",
        "\\\n",
        "$\\\n{x}",
        "${x:-\"n}\"}",
        "$((1 + (2)))",
        "if",
        "!",
    ]);
    let before = proptest::sample::select(vec![
        "",
        "",
        "",
        "",
        "x=1 ",
        "2>/dev/null ",
        "</dev/null y=\"a\"\\b ",
        "\\\n",
        "time ",
        "time -p ",
        "! ",
        "! time ",
        "env ",
        "env 2>/dev/null ",
        "\\",
        "coproc ",
        "x=(1 2) ",
    ]);
    let words = proptest::collection::vec(word, 0..3);
    (before, probe, words)
        .prop_map(|(before, probe, words)| {
            // `env` starts no function.
            let probe = if before.starts_with("env") {
                format!("{before}bash -c {probe}")
            } else {
                format!("{before}{probe}")
            };
            std::iter::once(probe.as_str())
                .chain(words)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .boxed()
}

/// Commands behind one another.
fn joined(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let operator = proptest::sample::select(vec![
        "; ",
        " && ",
        " || ",
        " | ",
        "\n",
        " |& ",
        " & ",
        " # it's `a\n",
        "\n\\",
        " &&\n",
        "\\\n;",
    ]);
    (inner.clone(), operator, inner)
        .prop_map(|(a, operator, b)| format!("{a}{operator}{b}"))
        .boxed()
}

/// A compound command, with what may stand before and behind it.
fn compound(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let before = proptest::sample::select(vec![
        "",
        "",
        "! ",
        "time ",
        "time -p ",
        "! time ",
        "! ! ",
        "coproc ",
        "coproc N ",
        "time ! ",
        "!\\\n ",
    ]);
    let behind = proptest::sample::select(vec![
        "",
        "",
        " 2>/dev/null",
        " >/dev/null </dev/null",
        " <<<1",
        " <<E\n $(p6)\nE\n",
        " &>/dev/null | p7",
        " && p8",
        "\n",
    ]);
    let form = 0..15usize;
    (before, form, inner.clone(), inner, behind)
        .prop_map(|(before, form, a, b, behind)| {
            let command = match form {
                0 => format!("if {a}\nthen {b}\nfi"),
                1 => format!("if {a}\nthen p9; elif {b}\nthen :; else p8; fi"),
                2 => format!("while {a}\ndo {b}\nbreak; done"),
                3 => format!("until {a}\ndo {b}\nbreak; done"),
                4 => format!("for x in 1 2; do {a}\n{b}\ndone"),
                5 => format!("for ((i = 0; i < 1; i++)); do {a}\n{b}\ndone"),
                6 => format!("case a in b) {a}\n;; (*) {b}\n;; esac"),
                7 => format!("case $({a}\n) in (c|\"\") {b}\n;;& d) p9; esac"),
                8 => format!("select x in 1; do {a}\n{b}\nbreak; done <<<1"),
                9 => format!("{{ {a}\n{b}\n}}"),
                10 => format!("({a}\n{b}\n)"),
                11 => format!("(( 1 + $({a}\n) ))"),
                12 => format!("[[ -n $({a}\n) || ( -z \"$({b}\n)\" ) ]]"),
                13 => format!("f() {{ {a}\n}}; {b}\nf"),
                _ => format!("function f {{ {a}\n}}\n{b}\nf"),
            };
            // Behind `f` its words would stand.
            let behind = if form > 12 { "" } else { behind };
            let before = if form > 12 { "" } else { before };
            format!("{before}{command}{behind}")
        })
        .boxed()
}

/// Commands that stand in a word, in data or in a text of their own.
fn inside(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (0..13usize, inner.clone(), inner)
        .prop_map(|(form, a, b)| match form {
            0 => format!("p0 \"$({a}\n)\" `p1` $({b}\n)"),
            1 => format!("p0 {} `p1`", backquoted(&a)),
            2 => format!("p0 \"{}\" $({b}\n)", backquoted(&a.replace('"', "''"))),
            3 => format!("p2 <({a}\n)"),
            4 => format!("{a} <<E\n$({b}\n)\nE\n"),
            5 => format!("cat <<E <<-F\n {}\nE\n\t\" $({b}\n)\n\tF\n", backquoted(&a)),
            6 => format!("eval {}", shlex::try_quote(&a).unwrap()),
            7 => format!("bash -c {}", shlex::try_quote(&a).unwrap()),
            8 => format!("bash <<'S'\n{a}\nS\n"),
            9 => format!("p3 ${{x:-$({a}\n)}} \"${{x:-$({b}\n)}}\""),
            10 => format!("p4 $((1 + $({a}\n) )) \"$(( $({b}\n) ))\""),
            11 => format!("x=$({a}\n) p5; y=(1 \"$({b}\n)\")"),
            _ => format!("P={}; Q=:; eval \"$P $Q\"", shlex::try_quote(&a).unwrap()),
        })
        .boxed()
}

/// Commands as they stand in backquotes.
fn backquoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('$', "\\$");
    format!("`{}\n`", escaped.replace('`', "\\`"))
}

/// The same, but that a line goes on at each place where it may.
fn spread(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (inner, 1..5usize)
        .prop_map(|(text, every)| {
            if text.contains(['\'', '#', '\\']) || text.contains("<<") {
                return text;
            }
            let mut spread = String::new();
            for (at, c) in text.chars().enumerate() {
                spread.push(c);
                if at % every == 0 {
                    spread.push_str("\\\n");
                }
            }
            spread
        })
        .boxed()
}

/// How many cases, unless the environment says it.
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(usual),
        ..ProptestConfig::default()
    }
}

/// The text with a probe of its own in each place, so that none stands for another.
fn numbered(text: &str) -> String {
    let mut numbered = String::new();
    let mut chars = text.chars().peekable();
    let mut number = 10..100;
    while let Some(c) = chars.next() {
        numbered.push(c);
        if c == 'p'
            && chars.peek().is_some_and(char::is_ascii_digit)
            && let Some(number) = number.next()
        {
            chars.next();
            numbered.push_str(&number.to_string());
        }
    }
    numbered
}

/// The probes that bash starts for a text and that are not listed.
fn unlisted(text: &str) -> Vec<String> {
    let define = |n: u8| format!("p{n}() {{ echo p{n} >&9; }}; export -f p{n}; ");
    let used = |n: &u8| *n < 10 || text.contains(&format!("p{n}"));
    let probes: String = (0..100).filter(used).map(define).collect();
    let script = format!("{probes} exec 9>&1 >/dev/null\n{text}");
    // A text may redirect to whatever it likes.
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let parts = parse(text).parts;
    let started = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut started: Vec<String> = started.lines().map(str::to_owned).collect();
    started.retain(|name| parts.iter().all(|part| part.words[0].text != *name));
    started
}

/// What a negation stands before, in all that commands may stand in.
#[test]
fn a_negation_hides_nothing() {
    let negations = [
        "! ",
        "!\t",
        "p7 && ! ",
        "p7; ! ",
        "p7 | ! ",
        "p7\n! ",
        "if ! p7; then :; fi; ! ",
    ];
    let commands = [
        "p1",
        "{ p1; }",
        "if p1; then p2; elif p3; then p4; else p5; fi",
        "case a in b) p1;; *) p2;; esac",
        "case a in (b) p1;; (a) p2;& c) p3 ;; esac",
        "case a in\na)\np1\n;;\nesac",
        "for x in 1; do p1; done",
        "while p1; do p2; break; done",
        "until false; do p2; break; done",
        "[[ -n $(p1) ]]",
        "if ! case a in a) p1;; esac; then p2; else p3; fi",
        "while ! if p1; then false; fi; do p2; break; done",
    ];
    let around = [
        ("", ""),
        ("p9 \"$(", ")\""),
        ("p9 $(", ")"),
        ("p9 `", "`"),
        ("cat <(", ")"),
        ("(", ")"),
        ("{ ", "\n}"),
        ("if true; then ", "\nfi"),
        ("for y in 1; do ", "\ndone"),
        ("g() { ", "\n}; g"),
    ];
    let mut hidden = Vec::new();
    for negation in negations {
        for command in commands {
            for (open, close) in around {
                let text = format!("{open}{negation}{command}{close}");
                let unlisted = unlisted(&text);
                if !unlisted.is_empty() {
                    hidden.push((text, unlisted));
                }
            }
        }
    }
    assert!(hidden.is_empty(), "{} hidden: {hidden:#?}", hidden.len());
    // What negates nothing stays what it is.
    for text in ["echo ! if x", "find . ! -name { -o -x", "echo 'a; ! if b'"] {
        let words = parse(text).parts[0].texts().concat();
        assert!(words.contains('!'), "{text}: {words}");
    }
}

proptest! {
    #![proptest_config(cases(150))]

    /// What bash really starts is listed.
    #[test]
    fn bash_starts_nothing_that_is_not_listed(text in list(4)) {
        let text = numbered(&text);
        let unlisted = unlisted(&text);
        prop_assert!(unlisted.is_empty(), "{unlisted:?} is started by {text:?}");
    }
}

//! Text that is made to hurt: random bytes, nesting bombs, and what bash itself makes of random command lists.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// Pieces of shell syntax, in any order.
const PIECES: [&str; 48] = [
    "(",
    ")",
    "$(",
    "`",
    "{",
    "}",
    "<<E\n",
    "E\n",
    "<<<",
    "$((",
    "))",
    "\"",
    "'",
    "$'",
    "\\",
    "|",
    "||",
    "&&",
    ";",
    ";;",
    "&",
    "\n",
    " ",
    "if ",
    "then ",
    "fi ",
    "case x in ",
    "esac ",
    "for x in ",
    "do ",
    "done ",
    "while ",
    "[[ ",
    "]] ",
    "f() ",
    "x=",
    "$x",
    "${x",
    "${x:-",
    "<(",
    ">(",
    "> ",
    "< ",
    "#",
    "!",
    "{a,b}",
    "echo ",
    "sh -c ",
];

/// A table of 256 entries that is asked about them is read far behind its end.
#[test]
fn no_character_is_too_high() {
    let highest = [
        '\u{42165}',
        '\u{10ffff}',
        '\u{10fffd}',
        '\u{e0001}',
        '\u{2ffff}',
        '\u{fffd}',
        '\u{3000}',
        '\u{a0}',
        'é',
    ];
    for c in highest {
        for around in [
            "{#",
            "#",
            "<<#",
            "$#",
            "${#",
            "${x#",
            "x#y",
            "-#",
            "a=#",
            "<<a\n#\na",
            "[[ # ]]",
            "((#",
            "`#",
            "\"#",
        ] {
            let text = around.replace('#', &c.to_string());
            let _ = parse(&text);
            let removes = parse(&format!("{text}\n\nrm -rf /")).parts;
            let of = |script: Vec<Part>| script.iter().flat_map(Part::texts).collect::<String>();
            // An open quote or document takes what follows as its own.
            let open = around.starts_with(['"', '`', '{'])
                || around.starts_with("<<#")
                || around.contains("${")
                || around == "((#";
            assert!(open || of(removes).contains("rm-rf/"), "{text}");
        }
    }
    // What stands in the text is what is judged, not what the grammar was given.
    assert_eq!(parse("é --ü 'ß'").parts[0].texts(), ["é", "--ü", "ß"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_on_any_text(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn nothing_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn nothing_panics_on_any_syntax(pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..60)) {
        let _ = parse(&pieces.concat());
    }

    #[test]
    fn quoted_words_come_back(words in proptest::collection::vec("[^\\x00\r]{0,12}", 1..6)) {
        // Quoted, no word is anything but itself.
        let program = format!("/x/{}", words[0].replace(['*', '?', '['], ""));
        let all: Vec<&str> = std::iter::once(program.as_str()).chain(words[1..].iter().map(String::as_str)).collect();
        let text = shlex::try_join(all.iter().copied()).unwrap();
        let script = parse(&text);
        prop_assert_eq!(&script.parts[0].texts(), &all, "{}", text);
    }
}

#[test]
fn bombs_are_bounded() {
    for unit in PIECES.iter().copied().chain([
        "a;",
        "a|",
        "x=$x$x;",
        "f(){ f;f; };f;",
        "eval ",
        "$x ",
        "${a[$(",
        "case x in (",
        "$[",
    ]) {
        for count in [300, 20_000] {
            let text = unit.repeat(count);
            let script = parse(&text);
            assert!(script.parts.len() <= PARTS_MAX, "{unit}");
        }
    }
}

/// A command list over the probes `p0`…`p9`: every one is a function that says its name.
fn list(depth: u32) -> BoxedStrategy<String> {
    let probe = (0..10u8).prop_map(|number| format!("p{number}"));
    let word = prop_oneof![
        Just("a".to_owned()),
        Just("'b; c'".to_owned()),
        Just("\"d $x e\"".to_owned()),
        Just("\\;".to_owned()),
        Just("{f,g}".to_owned()),
        Just("$'h\\n'".to_owned()),
        Just("2>/dev/null".to_owned()),
        Just("</dev/null".to_owned()),
    ];
    let simple =
        (probe.clone(), proptest::collection::vec(word, 0..3)).prop_map(|(probe, words)| {
            std::iter::once(probe)
                .chain(words)
                .collect::<Vec<_>>()
                .join(" ")
        });
    simple
        .prop_recursive(depth, 24, 3, move |inner| {
            let two = (inner.clone(), inner.clone());
            prop_oneof![
                two.clone().prop_map(|(a, b)| format!("{a}; {b}")),
                two.clone().prop_map(|(a, b)| format!("{a} && {b}")),
                two.clone().prop_map(|(a, b)| format!("{a} || {b}")),
                two.clone().prop_map(|(a, b)| format!("{a} | {b}")),
                two.clone().prop_map(|(a, b)| format!("{a}\n{b}")),
                two.clone()
                    .prop_map(|(a, b)| format!("if {a}; then {b}; fi")),
                two.clone()
                    .prop_map(|(a, b)| format!("for x in 1 2; do {a}; {b}; done")),
                two.clone()
                    .prop_map(|(a, b)| format!("case a in b) {a};; *) {b};; esac")),
                two.clone()
                    .prop_map(|(a, b)| format!("f() {{ {a}; }}; {b}; f")),
                two.clone()
                    .prop_map(|(a, b)| format!("p0 \"$({a})\" `p1` $({b})")),
                two.prop_map(|(a, b)| format!("{a} <<E\n$({b})\nE\n")),
                inner.clone().prop_map(|a| format!("({a})")),
                inner.clone().prop_map(|a| format!("{{ {a}; }}")),
                inner.clone().prop_map(|a| format!("! {a}")),
                inner.clone().prop_map(|a| format!("p2 <({a})")),
                inner
                    .clone()
                    .prop_map(|a| format!("eval {}", shlex::try_quote(&a).unwrap())),
                inner
                    .clone()
                    .prop_map(|a| format!("bash -c {}", shlex::try_quote(&a).unwrap())),
                inner.prop_map(|a| format!("bash <<'S'\n{a}\nS\n")),
            ]
        })
        .boxed()
}

/// The probes that bash starts for a text and that are not listed.
fn unlisted(text: &str) -> Vec<String> {
    let define = |n: u8| format!("p{n}() {{ echo p{n} >&9; }}; export -f p{n}; ");
    let probes = (0..10).map(define).collect::<Vec<_>>().concat();
    let script = format!("{probes} exec 9>&1 >/dev/null\n{text}");
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
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
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// What bash really starts is listed.
    #[test]
    fn bash_starts_nothing_that_is_not_listed(text in list(4)) {
        let unlisted = unlisted(&text);
        prop_assert!(unlisted.is_empty(), "{unlisted:?} is started by {text:?}");
    }
}

//! Text that is made to hurt: random bytes and nesting bombs.

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

//! Texts whose work would grow beyond all bounds, measured by what they leave, not by a clock.

use super::{state::State, stdin::Input, *};

/// Reads a text: what is found, and how many atoms the variables hold and may still become.
fn held(text: &str) -> (Script, usize, usize) {
    let mut state = State::new(Some(Vec::new()));
    state.text(text, &Input::Inherited);
    let (atoms, left) = state.variables.held();
    (state.into_script(), atoms, left)
}

/// Bytes of the words of all parts.
fn bytes(script: &Script) -> usize {
    let words = script.parts.iter().flat_map(|part| &part.words);
    words.map(|word| word.text.len()).sum()
}

/// A piece of text for each number.
fn each(numbers: std::ops::Range<usize>, piece: impl Fn(usize) -> String) -> String {
    numbers.map(piece).collect::<Vec<_>>().concat()
}

#[test]
fn values_that_multiply_become_unknown() {
    let doubled = "if x; then a=$a$a; else a=2$a; fi; ".repeat(40);
    let long = format!("a={}; ", "x".repeat(10_000));
    let names = each(0..60, |n| format!("v{n}=$a$a; "));
    let chained = each(1..60, |n| {
        format!("if x; then b{n}=$b{0}$b{0}; else b{n}=1$b{0}; fi; ", n - 1)
    });
    let choices = each(0..60, |n| format!("if x; then c{n}=1; else c{n}=2; fi; "));
    let all = each(0..60, |n| format!("$c{n}"));
    for (text, unknown) in [
        (format!("a=1; {doubled}$a"), true),
        (format!("a=1; while x; do {doubled}done; $a"), true),
        (format!("a=rm; for x in 1 2 3; do {doubled}done; $a"), true),
        (
            format!(
                "a=(1 2); {}\"${{a[@]}}\"",
                "a=(\"${a[@]}\" \"${a[@]}\"); ".repeat(40)
            ),
            true,
        ),
        (format!("a=1; {}$a", "a+=$a; ".repeat(40)), true),
        (format!("b0=1; {chained}$b59"), true),
        (format!("{choices}d={all}; $d"), true),
        (format!("{choices}{all}"), true),
        (format!("{long}{names}$v0"), true),
        (
            format!("a=1; f() {{ {doubled}g; }}; g() {{ {doubled}f; }}; f; $a"),
            true,
        ),
        (
            "f() { g $1$1 $1$1; g $1; }; g() { h $1$1; h $1; }; h() { f $1$1; }; f 1".into(),
            false,
        ),
        (format!("{long}{}", "echo $a; ".repeat(5_000)), false),
        (format!("{long}{}", "b=$b$a; ".repeat(5_000)), false),
        (format!("{long}{}", "(b=1; $(c=$a)); ".repeat(5_000)), false),
        (each(0..9_000, |n| format!("v{n}=1;")), false),
        (
            format!("{long}set -- $a $a; {}", "echo $@; ".repeat(5_000)),
            false,
        ),
        ("sudo -u x ".repeat(12) + &"y".repeat(100_000), false),
        ("eval eval eval ".repeat(3) + &"a;".repeat(30_000), false),
        ("eval x;".repeat(18_000), false),
        (format!("cat {}", "<<E ".repeat(100)), false),
    ] {
        let (script, atoms, _) = held(&text);
        let start = &text[..text.len().min(60)];
        assert!(atoms <= 2 << 20, "{start}: {atoms} atoms");
        assert!(bytes(&script) <= PARTS_BYTES_MAX, "{start}");
        let is_unknown = |part: &Part| part.kind == PartKind::Unknown;
        assert!(
            !unknown || script.refused.is_some() || script.parts.iter().any(is_unknown),
            "{start}"
        );
    }
}

/// What is nested too deep is refused, and what is not is listed.
#[test]
fn nested_substitutions_are_bounded() {
    for (open, close) in [
        ("$(", ")"),
        ("echo $(", ")"),
        ("echo \"$(", ")\""),
        ("cat <(", ")"),
        ("echo ${x:-$(", ")}"),
        ("echo $((1 + $(", ")))"),
        ("( ", ")"),
        ("{ ", "; }"),
        ("if ", "; then a; fi"),
        ("eval ", ""),
    ] {
        for depth in [1, 10, 200] {
            let text = open.repeat(depth) + "rm" + &close.repeat(depth);
            let (script, _, left) = held(&text);
            assert!(left > 0, "{open}");
            let listed = script.parts.iter().any(|part| part.words[0].text == "rm");
            assert!(
                listed || script.refused.is_some(),
                "{text}: {:?}",
                script.parts
            );
            assert!(script.parts.len() < 2_000, "{open}: {}", script.parts.len());
        }
    }
}

/// An ordinary text comes nowhere near the bounds.
#[test]
fn ordinary_values_stay_known() {
    let uses = "for f in a b c; do cp \"$src/$f\" \"$dst/$f\"; done\n".repeat(200);
    let text = format!("src=/x; if y; then dst=/a; else dst=/b; fi\n{uses}rm -rf \"$dst\"");
    let (script, _, left) = held(&text);
    assert!(left > 1 << 20, "{left}");
    let last: Vec<Vec<String>> = script.parts.iter().rev().take(2).map(Part::texts).collect();
    assert_eq!(last, [["rm", "-rf", "/b"], ["rm", "-rf", "/a"]]);
}

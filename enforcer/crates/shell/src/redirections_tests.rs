use crate::parse;

#[test]
fn a_connection_that_a_program_uses_is_no_wait_for_a_port() {
    let used = |text: &str| {
        let parts = parse(text).parts;
        parts
            .iter()
            .any(|part| part.texts() == ["exec", "/dev/tcp/localhost/1"])
    };
    for text in [
        "bash -i >& /dev/tcp/localhost/1 0>&1",
        ">& /dev/tcp/localhost/1 bash -i",
        "{ sh; } < /dev/tcp/localhost/1",
        "exec 3<>/dev/tcp/localhost/1; bash <&3",
        "python3 -i > /dev/tcp/localhost/1",
        "$SHELL > /dev/tcp/localhost/1",
    ] {
        assert!(used(text), "{text}: {:?}", parse(text).parts);
    }
    for text in [
        "until (echo > /dev/tcp/localhost/1) 2>/dev/null; do sleep 1; done",
        "timeout 5 bash -c 'until echo > /dev/tcp/localhost/1; do sleep 1; done'",
        ": > /dev/tcp/localhost/1 && npm test",
    ] {
        assert!(!used(text), "{text}: {:?}", parse(text).parts);
    }
}

/// Whether the text starts `rm -rf /`.
fn removes(text: &str) -> bool {
    let parts = parse(text).parts;
    parts
        .iter()
        .any(|part| part.texts().join(" ") == "rm -rf /")
}

#[test]
fn a_redirection_parts_no_command() {
    for text in [
        "true && sudo > f rm -rf /",
        "true && sudo 2>&1 > f rm -rf /",
        "true || env >> f -i rm -rf /",
        "true | xargs < f rm -rf /",
        "ls | nohup > f rm -rf /",
        "! sudo > f rm -rf /",
        "a; b && sudo > f rm -rf / && c",
        "true && sudo <<< x rm -rf /",
        "true && sudo <<E rm -rf /\nx\nE",
        "true && > f rm -rf /",
        "true && > f sudo rm -rf /",
        "true && x=1 > f rm -rf /",
        "true && rm > f -rf /",
        "true | rm > f -rf /",
        "x=1 > f rm -rf /",
        "if true; then a && sudo > f rm -rf /; fi",
        "echo \"$(true && sudo > f rm -rf /)\"",
    ] {
        assert!(removes(text), "{text}: {:?}", parse(text).parts);
    }
    assert!(!removes("true && echo > f rm -rf /"));
}

#[test]
fn a_document_hides_nothing() {
    for body in [
        " $(rm -rf /)",
        "\t$(rm -rf /)",
        "\n\n $(rm -rf /)",
        "  `rm -rf /`",
        " ${x:-$(rm -rf /)}",
        " $((1 + $(rm -rf /)))",
        " \" $(rm -rf /) \"",
        " \"$(rm -rf \"/\")\"",
        "'$(rm -rf /)'",
        "# $(rm -rf /)",
        "\\\" \\\\$(rm -rf /)",
        "$x\n $(rm -rf /)\n${y}\n",
        " $(ls)$(rm -rf /)",
        "it's\n $(rm -rf /)",
    ] {
        for (open, close) in [
            ("cat <<EOF\n", "\nEOF"),
            ("cat <<EOF | cat\n", "\nEOF\nls"),
            ("cat <<E1 <<EOF\n$x\nE1\n", "\nEOF"),
            ("echo \"$(cat <<EOF\n", "\nEOF\n)\""),
            ("cat <<-EOF && ls\n", "\n\tEOF\n"),
        ] {
            let text = format!("{open}{body}{close}");
            assert!(removes(&text), "{text}: {:?}", parse(&text).parts);
        }
    }
    for text in [
        "cat <<EOF\n \\$(rm -rf /)\nEOF",
        "cat <<'EOF'\n $(rm -rf /)\nEOF",
        "cat <<\\EOF\n $(rm -rf /)\nEOF",
        "cat <<EOF\n rm -rf /\nEOF",
    ] {
        assert!(!removes(text), "{text}: {:?}", parse(text).parts);
    }
    for text in [
        "cat <<EOF\n$(rm -rf /\nEOF\nls",
        "echo \"$(cat <<EOF\n$(cat <<F; rm -rf /\nEOF\n)\"",
        "for x in 1 2; do cat <<E\n $(coproc a if a\n)\nE\n\nrm -rf /\ndone",
    ] {
        assert!(removes(text), "{text}: {:?}", parse(text).parts);
    }
    // What is data and what is code stay the same.
    let code = "sh <<EOF\necho \"$x\" '\\$y'; echo \\\\a\nEOF";
    let lines: Vec<String> = parse(code)
        .parts
        .iter()
        .map(|part| part.texts().join(" "))
        .collect();
    assert_eq!(lines, ["sh", "echo $x $y", "echo a"]);
}

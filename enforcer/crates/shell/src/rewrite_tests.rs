use super::*;
use crate::parse;

fn removes(text: &str) -> bool {
    let parts = parse(text).parts;
    parts
        .iter()
        .any(|part| part.texts().join(" ") == "rm -rf /")
}

/// The text in the grammar's form, which must be complete.
fn whole(text: &str) -> String {
    let rewritten = rewritten(text).unwrap();
    assert!(rewritten.closed && rewritten.unread.is_empty(), "{text}");
    rewritten.text
}

#[test]
fn a_line_that_goes_on_parts_nothing() {
    for text in [
        "echo \"$\\\n(rm -rf /)\"",
        "echo $\\\n(rm -rf /)",
        "echo \"$(\\\nrm -rf /)\"",
        "cat <\\\n(rm -rf /)",
        "ls > >\\\n(rm -rf /)",
        "ls &\\\n& rm -rf /",
        "ls |\\\n| rm -rf /",
        "ls |\\\n& rm -rf /",
        "ls `\\\nrm -rf /\\\n`",
        "echo $\\\n(\\\n(1 + $\\\n(rm -rf /)))",
        "echo $\\\n{x:\\\n-$\\\n(rm -rf /)}",
        "P=rm; $\\\nP -rf /",
        "P=rm; $\\\n{P\\\n} -rf /",
        "i\\\nf true; th\\\nen rm -rf /; f\\\ni",
        "case a in a)\\\n rm -rf /;\\\n; esac",
        "r\\\n\\\nm -rf /",
        "cat <\\\n<EOF\n$\\\n(rm -rf /)\nEO\\\nF",
        "cat <<EOF\n'\\\nEOF\n$(rm -rf /)\nEOF\n",
        "ls >\\\n> f\nrm -rf /",
        "f\\\n(\\\n) { rm -rf /; }",
        "$\\\n'\\x72m' -rf /",
        "$\\\n\"rm\" -rf /",
    ] {
        assert!(removes(text), "{text:?}: {:?}", parse(text).parts);
    }
    // Where nothing goes on.
    for text in [
        "echo '\\\nrm -rf /\\\n'",
        "cat <<'E'\n$\\\n(rm -rf /)\nE\n",
        "echo \"\\$\\\n(rm -rf /)\"",
        "echo \\\nrm -rf /",
        "echo \\\\\\\nrm -rf /",
    ] {
        assert!(!removes(text), "{text:?}: {:?}", parse(text).parts);
    }
    for text in ["ls # x \\\nrm -rf /", "ls \\\\\nrm -rf /"] {
        assert!(removes(text), "{text:?}: {:?}", parse(text).parts);
    }
}

#[test]
fn a_quoted_letter_is_part_of_its_word() {
    for text in [
        "ls\n\\rm -rf /",
        "ls\n\\r\\m \\-rf \\/",
        "ls;\\rm -rf /",
        "x=\"a\"\\b rm -rf /",
        "x='a'\\ b rm -rf /",
        "x=$y\\$ rm -rf /",
        "x=\"a\"\\\"b rm -rf /",
        "echo \\ #x; rm -rf /",
        "echo a\\\t#x; rm -rf /",
        "echo ''#x; rm -rf /",
        "echo $(ls)#x; rm -rf /",
        "echo ${x}#x; rm -rf /",
        "echo \\ # x\nrm -rf /",
        "\\\\rm; rm -rf /",
        "echo \\'; rm -rf / #'",
        "{ \\ls\n\\rm -rf /\n}",
    ] {
        assert!(removes(text), "{text:?}: {:?}", parse(text).parts);
    }
    let words = |text: &str| parse(text).parts[0].texts();
    assert_eq!(words("echo \\ #x; rm"), ["echo", " #x"]);
    assert_eq!(
        words("/x \\é\\\\ \\{a,b} \\~ a\\*"),
        ["/x", "é\\", "{a,b}", "~", "a*"]
    );
    assert_eq!(words("ls #x; rm -rf /"), ["ls"]);
}

#[test]
fn backquotes_end_at_the_next_one() {
    for text in [
        "echo `ls` `rm -rf /`",
        "echo `ls``rm -rf /`",
        "echo \"`ls`\" \"`rm -rf /`\"",
        "echo `ls`; rm -rf /; echo `ls`",
        "x=`ls` y=`rm -rf /`",
        "echo `ls # it's`; rm -rf /",
        "echo `echo \\`rm -rf /\\``",
        "echo \"`echo \\\"$(rm -rf /)\\\"`\"",
        "echo `(ls); (rm -rf /)`",
        "echo `cat <<E\n$(rm -rf /)\nE\n`",
        "echo `case x in x) rm -rf /;; esac`",
        "cat <<E\n`ls` `rm -rf /`\nE\n",
        "echo ${x:-`ls`} ${x:-`rm -rf /`}",
        "echo $((`ls` + `rm -rf /`))",
        "echo \"`ls 'x`\" $(rm -rf /)",
        "echo `rm -rf /\nls \"`",
    ] {
        assert!(removes(text), "{text:?}: {:?}", parse(text).parts);
    }
    assert!(!removes("echo '`ls` `rm -rf /`'"));
    assert!(!removes("echo \\`rm -rf /\\`"));
}

#[test]
fn what_needs_no_change_has_none() {
    for text in [
        "ls -la | grep -v '^#' && echo \"$x ${y#z} ${#x} $# $((1 << 2))\" # it's\n",
        "case $x in (a|b) ls ;; *) [[ $y =~ ^\\.(a|b)$ ]] ;& c) ;; esac",
        "for ((i = 0; i < 3; i++)); do x[$i]=(a b); done",
        "f() { local a=$1; }; function g { time ls; }; coproc cat",
        "echo ${x//\\//_} ${x:-\"a}b\"} \"${x%'}'}\" $'it\\'s' {a,b} <(ls) >(cat)",
        "x=1 y+=(2 # comment (\n3) ls 2>&1 >&- &>all {fd}<f <<<word",
    ] {
        assert_eq!(whole(text), text);
    }
}

#[test]
fn a_document_becomes_a_string() {
    for (text, string) in [
        ("cat <<E\na\nE\nls", "cat <<<\"a\"\nls"),
        (
            "cat <<-'E' 3<< F > out\n\t`a` \\\n\tb\n\tE\n$x \"'\nF\nls\n",
            "cat <<<'`a` \\\nb' 3<<<\"$x \\\"'\" > out\nls\n",
        ),
        ("cat <<\\E; ls\nit's\nE", "cat <<<'it'\"'\"'s'; ls\n"),
        (
            "a \"$(cat <<E\n\\a \\\" \\$x ${x:-\"b\"} $(c \"d\")\nE\n)\" <<F\n\"\nF\n",
            "a \"$(cat <<<\"\\\\a \\\\\\\" \\$x ${x:-\"b\"} $(c \"d\")\"\n)\" <<<\"\\\"\"\n",
        ),
        ("cat <<E", "cat <<<''"),
        ("(cat <<E; ls\nx\nE\n)", "(cat <<<\"x\"; ls\n)"),
        ("(cat <<E)\nx\nE\n", "(cat <<<\"x\")\n"),
        ("cat <<E $(ls\n)\nx\nE\n", "cat <<<\"x\" $(ls\n)\n"),
        ("cat <<E\nx", "cat <<<\"x\"\n"),
    ] {
        assert_eq!(whole(text), string);
    }
}

/// The pass takes no more steps than its bound, and texts that nest stay within it.
#[test]
fn steps_grow_with_the_length() {
    for unit in [
        "((",
        "$((",
        "`",
        "\\`",
        "\\\n",
        "$(",
        "${",
        "<<E\n",
        "\"$(",
        "case x in ",
        "(a)",
        "((a) ",
        "))",
        "$((a) ",
        "<<E $(",
        "\\",
    ] {
        let _ = rewritten(&unit.repeat(20_000));
        let text = unit.repeat(10);
        assert!(rewritten(&text).is_ok(), "{unit}");
    }
}

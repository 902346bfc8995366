use super::*;

const PATCH: &str = "*** Begin Patch\n*** Add File: a.txt\n+x\n*** Update File: b\n*** Move to: /etc/c\n@@\n-x\n*** Delete File: d\n*** End Patch";
const FILES: [&str; 4] = ["a.txt", "b", "/etc/c", "d"];

fn of(text: &str) -> Result<Option<Patches>, ToolFault> {
    in_text(text)
}

#[track_caller]
fn reads(text: &str, paths: &[&str], sole: bool) {
    let found = of(text)
        .unwrap()
        .unwrap_or_else(|| panic!("no patch: {text}"));
    assert_eq!(
        (found.paths, found.sole),
        (paths.iter().map(ToString::to_string).collect(), sole),
        "{text}"
    );
}

#[test]
fn what_codex_applies_itself_is_read() {
    reads(&format!("apply_patch <<'EOF'\n{PATCH}\nEOF"), &FILES, true);
    reads(&format!("applypatch <<EOF\n{PATCH}\nEOF\n"), &FILES, true);
    reads(&format!("apply_patch <<\"E\"\n{PATCH}\nE\n"), &FILES, true);
    let below = ["sub/a.txt", "sub/b", "/etc/c", "sub/d"];
    for cd in ["cd sub", "cd 'sub'", "cd \"sub\""] {
        reads(
            &format!("{cd} && apply_patch <<'EOF'\n{PATCH}\nEOF\n"),
            &below,
            true,
        );
    }
    for words in [
        vec!["apply_patch".to_owned(), PATCH.to_owned()],
        ["bash", "-lc", &format!("apply_patch <<'EOF'\n{PATCH}\nEOF")]
            .map(String::from)
            .to_vec(),
        [
            "/bin/sh",
            "-c",
            &format!("apply_patch <<'EOF'\n{PATCH}\nEOF"),
        ]
        .map(String::from)
        .to_vec(),
        [
            "pwsh",
            "-NoProfile",
            "-Command",
            &format!("apply_patch <<'EOF'\n{PATCH}\nEOF"),
        ]
        .map(String::from)
        .to_vec(),
        [
            "cmd.exe",
            "/C",
            &format!("apply_patch <<'EOF'\n{PATCH}\nEOF"),
        ]
        .map(String::from)
        .to_vec(),
    ] {
        let found = in_words(&words).unwrap().unwrap();
        assert!(found.sole && found.paths == FILES, "{words:?}: {found:?}");
    }
}

#[test]
fn a_patch_among_other_commands_is_read_too() {
    for text in [
        format!("ls; apply_patch <<'EOF'\n{PATCH}\nEOF"),
        format!("ls && apply_patch <<'EOF'\n{PATCH}\nEOF\necho done"),
        format!("apply_patch '{PATCH}'"),
        format!("/tmp/x/apply_patch <<'EOF'\n{PATCH}\nEOF"),
        format!("apply_patch <<< '{PATCH}'"),
        format!("if true; then apply_patch <<'EOF'\n{PATCH}\nEOF\nfi"),
        format!("bash -lc \"apply_patch <<'EOF'\n{PATCH}\nEOF\n\""),
    ] {
        reads(&text, &FILES, false);
    }
}

#[test]
fn a_call_whose_patch_cannot_be_read_is_a_fault() {
    for text in [
        "apply_patch".to_owned(),
        "apply_patch < patch.txt".to_owned(),
        "cat patch.txt | apply_patch".to_owned(),
        "apply_patch \"$(cat patch.txt)\"".to_owned(),
        "apply_patch \"$PATCH\"".to_owned(),
        "apply_patch <<'EOF'\nnothing\nEOF".to_owned(),
        format!("\"apply_patch\" <<'EOF'\n{PATCH}\nEOF\napply_\"patch\" < x"),
        format!("cd $HOME && apply_patch <<'EOF'\n{PATCH}\nEOF"),
        format!("cd -P x && apply_patch <<'EOF'\n{PATCH}\nEOF"),
        format!("cd /etc; apply_patch <<'EOF'\n{PATCH}\nEOF"),
        format!("apply_patch <<EOF\n{PATCH}\n$(printf more)\nEOF"),
        format!("apply_patch <<'A' <<'B'\n{PATCH}\nA\n{PATCH}\nB"),
        format!("apply_patch '{PATCH}' '{PATCH}'"),
        format!("apply_patch <<'EOF'\n{PATCH}\nEOF\nx=apply_patch; $x < y"),
        "sudo apply_patch < x".to_owned(),
        "eval 'apply_patch < x'".to_owned(),
    ] {
        assert!(of(&text).is_err(), "{text}: {:?}", of(&text));
    }
    for words in [
        &["apply_patch"][..],
        &["apply_patch", "a", "b"],
        &["env", "apply_patch", "x"],
    ] {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        assert!(in_words(&words).is_err(), "{words:?}");
    }
}

#[test]
fn a_patch_that_is_data_is_none() {
    for text in [
        format!("echo '{PATCH}'"),
        format!("cat > notes.md <<'EOF'\napply_patch <<'X'\n{PATCH}\nX\nEOF"),
        format!("cat <<'EOF'\n{PATCH}\nEOF"),
        "grep -rn apply_patch src".to_owned(),
        "which apply_patch".to_owned(),
        "git commit -m 'apply_patch <<EOF'".to_owned(),
        "ls".to_owned(),
    ] {
        assert_eq!(of(&text), Ok(None), "{text}");
    }
    assert_eq!(in_words(&["echo".to_owned(), PATCH.to_owned()]), Ok(None));
}

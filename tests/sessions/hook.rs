//! A hook's own policy decides on what is really executed.

use std::{collections::BTreeMap, fs, path::Path};

use enforcer_tests::{Session, root};
use serde_json::{Value, json};

use crate::observe::Work;

/// Like the file of a real hook, and small.
fn small() -> Value {
    json!({
        "version": "1.1",
        "bash": {
            "whitelist": ["git status", "git log*", "ls*", "cat*", "echo*", "grep*", "wc*", "touch*", "mkdir*", "env *", "seq *", "xargs *", "rm *", "find*"],
            "blacklist": ["rm -rf /*", "rm -rf .git*", "dd*", "chmod -R*", "sudo*", "&&*rm*"],
        },
        "file_paths": {"whitelist": ["*"], "blacklist": []},
        "agents": {"trusted": ["researcher"], "restricted": []},
    })
}

/// What the hook sees is one word, `sh script`: what it starts is judged one by one.
const SCRIPT: &str = "
    PATH=/usr/bin; ls / >listed; cat listed | wc -l >count; mkdir -p a/b; touch a/x a/y
    seq 20 | xargs -n 1 echo number
    dd if=/dev/zero of=zeroes bs=1 count=1 2>/dev/null
    env dd if=/dev/zero of=zeroes2 bs=1 count=1 2>/dev/null
    /bin/echo dd of=/dev/null
    chmod -R u+w a
    sleep 0.01
    rm -rf .git-of-nobody
    find a -name x -exec chmod -R u+w {} ';'
    sh -c 'cat count >/dev/null; sleep 0.01'
    sh -c 'dd if=/dev/zero of=zeroes3 bs=1 count=1 2>/dev/null'
    rm a/y; ls a; exit 0";

#[test]
fn the_hooks_rules_decide_on_what_runs() {
    if !root() {
        return;
    }
    let ended = Work {
        session: Session::new(&small()),
        prepare: &|_| {},
        script: SCRIPT,
        variables: vec![],
    }
    .twice();
    let said = ended.text();
    assert!(
        said.contains("number 20") && said.ends_with("b\nx\n"),
        "{said}"
    );
    let mut denied: BTreeMap<String, usize> = BTreeMap::new();
    for line in ended.trail.denials() {
        let program = line.command().split(' ').next().unwrap().to_owned();
        *denied
            .entry(format!("{program}: {}", line.reason()))
            .or_default() += 1;
        assert_eq!(
            line.0["security_risk"],
            line.reason().starts_with("Matches blacklist"),
            "{line:?}"
        );
    }
    let expected = [
        ("chmod: Matches blacklist pattern: chmod -R*", 2),
        ("dd: Matches blacklist pattern: dd*", 3),
        ("rm: Matches blacklist pattern: rm -rf .git*", 1),
        ("sleep: Command not in whitelist (deny by default)", 2),
    ]
    .map(|(what, times)| (what.to_owned(), times));
    assert_eq!(denied, BTreeMap::from(expected));
    for allowed in ["ls /", "cat listed", "echo dd of=/dev/null"] {
        let line = ended
            .trail
            .execs()
            .find(|line| line.command() == allowed)
            .unwrap_or_else(|| panic!("{allowed} is not in the trail"));
        assert!(!line.denied() && line.reason().starts_with("Matches whitelist pattern: "));
    }
    let shell = ended
        .trail
        .execs()
        .find(|line| line.command().starts_with("sh -c cat"))
        .unwrap();
    assert_eq!(
        shell.reason(),
        "Transparent shell: what it starts is judged"
    );
}

/// The file of the real hook, where it is.
#[test]
fn the_real_hooks_file_decides_too() {
    if !root() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/hook_policy.json");
    let Ok(text) = fs::read_to_string(&path) else {
        // Not part of the repository; the small one above stands for it.
        return;
    };
    let policy: Value = serde_json::from_str(&text).unwrap();
    let ended = Work {
        session: Session::new(&policy),
        prepare: &|_| {},
        script: "PATH=/usr/bin; echo a >f; cat f; ls; mkdir d; touch d/g; grep -c a f; wc -l f; head -n1 f; tail -n1 f; find d; cp f h; mv h i; rm i
            dd if=/dev/zero of=z bs=1 count=1 2>/dev/null; chmod -R u+w d; sleep 0.01; true; uname >/dev/null
            find d -name g -exec dd of=/dev/null ';'; sh -c ':'; exit 0",
        variables: vec![],
    }
    .twice();
    let denied: Vec<_> = ended
        .trail
        .denials()
        .map(|line| line.command().split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        denied,
        // The last one by `*/bin/sh*`: the shell's own path is on the blacklist.
        ["dd", "chmod", "sleep", "uname", "dd", "sh"],
        "{}",
        ended.trail.shown()
    );
}

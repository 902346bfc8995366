//! The kernel and `enforcer explain` decide alike: random command lines are really executed, and each line of
//! the trail must carry the decision and the rule that `explain` gives.

use std::{fmt::Write as _, io::Write as _, process::Stdio};

use enforcer_tests::{Session, enforcer, probe, root};
use serde_json::{Value, json};

/// Programs that the command lines name; copies of the victim stand under these names.
const PROGRAMS: [&str; 6] = ["git", "rm", "kubectl", "lsx", "ls", "tool"];

/// Words that the rules look for, and near misses.
const WORDS: [&str; 28] = [
    "push",
    "pushy",
    "--force",
    "--force=x",
    "--forced",
    "-f",
    "-rf",
    "-fr",
    "-r",
    "-C",
    "dir",
    "--",
    "/",
    "/etc",
    "~",
    "a b",
    "push --force",
    "",
    "delete",
    "ns",
    "-n",
    "secret",
    "x.secret.y",
    "\t",
    "é",
    "*",
    "--hard",
    "reset",
];

/// Rules of every kind, head and decision, over several programs, with overlaps.
fn policy(trusted: &str, default: &str) -> Value {
    json!({"version": "2", "exec": {"default": default, "trusted_dirs": [trusted, "/usr/bin", "/bin"], "rules": [
        {"id": "force", "decision": "deny", "argv": {"program": "git", "words": ["push"], "flags_any": ["--force", "-f"]}},
        {"id": "hard", "decision": "ask", "argv": {"program": "git", "words": ["reset"], "flags_all": ["--hard"]}},
        {"id": "git", "decision": "allow", "glob": ["git push*", "git reset *"]},
        {"id": "recursive", "decision": "deny", "argv": {"program": "rm", "flags_all": ["-r", "-f"]}},
        {"id": "root", "decision": "deny", "regex": ["^rm (?:-[a-z]+ )*/( |$)"]},
        {"id": "remove", "decision": "allow", "glob": ["rm *"]},
        {"id": "delete", "decision": "ask", "argv": {"program": ["kubectl", "tool"], "words": [["delete", "push"], "ns"]}},
        {"id": "kubectl", "decision": "allow", "argv": {"program": "kubectl", "words": ["delete"]}},
        {"id": "list", "decision": "allow", "glob": ["ls*"]},
        {"id": "secret", "decision": "deny", "regex": ["\\bsecret\\b"]},
        {"id": "star", "decision": "ask", "glob": ["*a?b *~"]},
        {"id": "python", "decision": "allow", "glob": ["python3*"]},
    ]}, "connect": {"default": "allow"},
    // Nobody answers: the first that asks waits a second, the others are refused at once.
    "approvals": {"timeout_s": 1, "rate": "1/1h"}})
}

/// The same sequence on every machine: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn command_lines(count: usize) -> Vec<Vec<&'static str>> {
    let mut random = Random(7);
    (0..count)
        .map(|_| {
            let mut words = vec![PROGRAMS[random.below(PROGRAMS.len())]];
            for _ in 0..random.below(6) {
                words.push(WORDS[random.below(WORDS.len())]);
            }
            words
        })
        .collect()
}

/// What `explain` says of each line: decision and rule.
fn explained(session: &Session, lines: &[Vec<&str>]) -> Vec<(String, String)> {
    let mut child = enforcer()
        .args(["explain", "--stdin", "--policy"])
        .arg(session.policy())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = String::new();
    for line in lines {
        writeln!(input, "{}", json!({ "argv": line })).unwrap();
    }
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let answer: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
            (text("decision"), text("rule"))
        })
        .collect()
}

fn agree(default: &str) {
    let session = Session::new(&json!({"version": "2", "exec": {"default": "allow"}}));
    let mut directory = None;
    for program in PROGRAMS {
        directory = session
            .place(probe!("victim"), &format!("bin/{program}"))
            .parent()
            .map(std::path::Path::to_owned);
    }
    let directory = directory.unwrap();
    session.set_policy(&policy(directory.to_str().unwrap(), default));
    let lines = command_lines(600);
    let expected = explained(&session, &lines);
    assert_eq!(expected.len(), lines.len());

    let driver = "import json, os, sys\n\
        for line in json.loads(os.environ['LINES']):\n\
        \x20   pid = os.fork()\n\
        \x20   if pid == 0:\n\
        \x20       try: os.execv(os.environ['PROGRAMS'] + '/' + line[0], line)\n\
        \x20       except OSError: os._exit(126)\n\
        \x20   os.waitpid(pid, 0)\n";
    let session = session
        .variable("LINES", json!(lines).to_string())
        .variable("PROGRAMS", &directory);
    let ended = session.run(["/usr/bin/python3", "-c", driver]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);

    // The first exec is the operator's own.
    let execs: Vec<_> = ended.trail.execs().skip(1).collect();
    assert_eq!(execs.len(), lines.len(), "{}", ended.trail.shown());
    let mut decisions = std::collections::BTreeMap::<&str, usize>::new();
    for ((line, (decision, rule)), exec) in lines.iter().zip(&expected).zip(&execs) {
        assert_eq!(
            (exec.text("decision"), exec.rule()),
            (decision.as_str(), rule.as_str()),
            "{line:?}: the kernel differs from explain"
        );
        *decisions.entry(exec.text("decision")).or_default() += 1;
    }
    // The lines reach every decision, or the comparison says little.
    assert_eq!(decisions.len(), 3, "{decisions:?}");
}

#[test]
fn kernel_and_explain_agree_where_the_default_is_allow() {
    if root() {
        agree("allow");
    }
}

#[test]
fn kernel_and_explain_agree_where_the_default_is_deny() {
    if root() {
        agree("deny");
    }
}

/// What the hook says of commands in a directory: the decisions.
fn hooked(session: &Session, cwd: &std::path::Path, lines: &[Vec<&str>]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            let command = line.iter().map(|word| format!("'{word}'"));
            let command = command.collect::<Vec<_>>().join(" ");
            let event = json!({"hook_event_name": "PreToolUse", "session_id": "s", "cwd": cwd, "tool_name": "Bash",
                "tool_input": {"command": command}});
            let mut child = enforcer()
                .args(["hook", "--mode", "everywhere", "--format", "claude", "--policy"])
                .arg(session.policy())
                .arg("--audit")
                .arg(session.directory().join("hook.jsonl"))
                .env("HOME", session.directory())
                .env("XDG_STATE_HOME", session.directory().join("state"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(event.to_string().as_bytes()).unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            let decision = &answer["hookSpecificOutput"]["permissionDecision"];
            decision.as_str().unwrap_or_default().to_owned()
        })
        .collect()
}

/// Relative paths, links, scripts, paths in rules, limits: the text and the exec are one thing.
#[test]
fn kernel_explain_and_hook_agree_on_paths_links_scripts_and_limits() {
    if !root() {
        return;
    }
    let session = Session::new(&json!({"version": "2", "exec": {"default": "allow"}})).as_root();
    session.place(probe!("victim"), "bin/inner");
    let at = |name: &str| session.directory().join("bin").join(name);
    for (link, to) in [("alias", "inner"), ("far", "alias"), ("shown", "script")] {
        std::os::unix::fs::symlink(to, at(link)).unwrap();
    }
    std::fs::write(at("script"), "#!/bin/sh -e\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(at("script"), mode).unwrap();
    let directory = session.directory().join("bin");
    session.set_policy(&json!({"version": "2", "connect": {"default": "allow"},
        "limits": {"arguments": 6, "argv_bytes": 400}, "exec": {"default": "allow", "transparent": ["sh", "dash"], "rules": [
        {"id": "inner", "decision": "deny", "argv": {"program": directory.join("inner"), "words": ["push"]}},
        {"id": "script", "decision": "deny", "argv": {"program": "script", "words": ["publish"]}},
        {"id": "id", "decision": "deny", "glob": ["/usr/bin/id*"]},
        {"id": "env", "decision": "deny", "glob": ["*/bin/env -x*"]},
    ]}}));
    let long = "x".repeat(200);
    let lines: Vec<Vec<&str>> = vec![
        vec!["./inner", "push"],
        vec!["./inner", "pull"],
        vec!["./alias", "push"],
        vec!["./far", "push"],
        vec!["../bin/far", "push"],
        vec!["./script", "publish"],
        vec!["./shown", "publish"],
        vec!["./shown", "other"],
        vec!["/usr/bin/id"],
        vec!["/bin/id", "-u"],
        vec!["/usr/bin/env", "-x"],
        vec!["./inner", "1", "2", "3", "4", "5", "6"],
        vec!["./inner", "1", "2", "3", "4", "5", "6", "7"],
        vec!["./shown", "1", "2", "3", "4"],
        vec!["./shown", "1", "2", "3", "4", "5"],
        vec!["./inner", &long, "y"],
        vec!["./inner", &long, &long],
    ];
    let mut child = enforcer()
        .args(["explain", "--stdin", "--user", "root", "--policy"])
        .arg(session.policy())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in &lines {
        writeln!(stdin, "{}", json!({"argv": line, "cwd": directory})).unwrap();
    }
    drop(stdin);
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let expected: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let hooked = hooked(&session, &directory, &lines);
    let driver = "import json, os, sys\n\
        os.chdir(os.environ['PROGRAMS'])\n\
        for line in json.loads(os.environ['LINES']):\n\
        \x20   pid = os.fork()\n\
        \x20   if pid == 0:\n\
        \x20       try: os.execv(line[0], line)\n\
        \x20       except OSError: os._exit(126)\n\
        \x20   os.waitpid(pid, 0)\n";
    let session = session
        .variable("LINES", json!(lines).to_string())
        .variable("PROGRAMS", &directory);
    let ended = session.run(["/usr/bin/python3", "-c", driver]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let execs: Vec<_> = ended.trail.execs().skip(1).collect();
    assert_eq!(execs.len(), lines.len(), "{}", ended.trail.shown());
    let mut denied = 0;
    for (((line, said), exec), hooked) in lines.iter().zip(&expected).zip(&execs).zip(&hooked) {
        let decision = exec.text("decision");
        assert_eq!(
            said["decision"], decision,
            "{line:?}: explain: {said} {exec:?}"
        );
        assert_eq!(hooked, decision, "{line:?}: the hook");
        if !exec.rule().is_empty() {
            assert_eq!(said["rule"], exec.rule(), "{line:?}");
        }
        denied += usize::from(exec.denied());
    }
    assert_eq!(denied, 12, "{}", ended.trail.shown());
}

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

//! Policies that cannot be used: one message with the mend, exit status 2, nothing left behind.

use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::Path,
};

use enforcer_tests::{Session, agent_user, enforcer, open, root};

use crate::launch::{bare, free, refusal};

/// A start under this policy file must be refused with these words.
fn refused(session: &Session, policy: &Path, says: &[&str]) {
    let mut launch = bare(session, policy);
    launch.command.args(["--user", &agent_user().0.to_string()]);
    let name = policy.display().to_string();
    launch.refused(&["echo", "it ran"], 2, &[&[name.as_str()], says].concat());
}

#[test]
fn texts_that_are_no_policy() {
    if !root() {
        return;
    }
    let session = free();
    let rules = |rules: &str| {
        format!(
            r#"{{"version": "2", "exec": {{"rules": [{rules}]}}, "connect": {{"default": "deny"}}}}"#
        )
    };
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("empty", Vec::new(), &["the policy is empty", "write a policy into it"]),
        ("blank", b" \n\t\n".to_vec(), &["the policy is empty"]),
        (
            "truncated",
            open().to_string().into_bytes()[..40].to_vec(),
            &["ends too early", "complete it"],
        ),
        (
            "not-utf-8",
            b"{\"version\": \"2\",\n \"description\": \"\xff\"}".to_vec(),
            &[":2:18:", "not UTF-8", "save the file as UTF-8"],
        ),
        (
            "unknown-key",
            b"{\"version\": \"2\",\n \"exce\": {}}".to_vec(),
            &[":2:2:", "unknown key \"exce\"", "did you mean \"exec\"?"],
        ),
        (
            "duplicate-id",
            rules(r#"{"id": "a", "decision": "deny", "glob": ["x"]}, {"id": "a", "decision": "deny", "glob": ["y"]}"#)
                .into_bytes(),
            &["exec.rules[1].id", "duplicate id \"a\"", "an id of its own"],
        ),
        (
            "bad-regex",
            rules(r#"{"id": "a", "decision": "deny", "regex": ["x("]}"#).into_bytes(),
            &["exec.rules[0].regex[0]", "bad regular expression \"x(\"", "correct it"],
        ),
        (
            "too-large-a-pattern",
            rules(r#"{"id": "a", "decision": "deny", "regex": ["(a|b)*a(a|b){40}c"]}"#).into_bytes(),
            &[":1:", "exec.rules[0]", "pattern `(a|b)*a(a|b){40}c`", "make it shorter"],
        ),
        (
            "failing-example",
            rules(r#"{"id": "a", "decision": "deny", "glob": ["x"], "match": ["y"]}"#).into_bytes(),
            &[":1:", "exec.rules[0].match[0]", "does not match its example \"y\"", "correct the pattern"],
        ),
    ];
    for (name, bytes, says) in cases {
        let path = session.directory().join(format!("{name}.json"));
        fs::write(&path, bytes).unwrap();
        refused(&session, &path, says);
        // `policy check` says the same of it.
        let check = enforcer()
            .args(["policy", "check"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(check.status.code(), Some(2), "{name}");
        let told = String::from_utf8_lossy(&check.stderr).into_owned();
        for part in says {
            assert!(told.contains(part), "{name}: no {part:?} in: {told}");
        }
    }
}

#[test]
fn several_faults_are_all_told() {
    if !root() {
        return;
    }
    let session = free();
    let path = session.directory().join("faults.json");
    fs::write(
        &path,
        r#"{"version": "2", "exec": {"rules": [
            {"id": "a", "decision": "deny", "glob": ["x"], "match": ["y"]},
            {"id": "b", "decision": "deny", "glob": ["x"], "not_match": ["x"]}]}, "connect": {}}"#,
    )
    .unwrap();
    let output = bare(&session, &path).run(&["true"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("exec.rules"))
        .collect();
    assert_eq!(lines.len(), 2, "{told}");
    for (line, place) in lines.iter().zip([":2:", ":3:"]) {
        assert!(line.contains(&format!("faults.json{place}")), "{told}");
    }
}

#[test]
fn files_that_are_no_policy() {
    if !root() {
        return;
    }
    let session = free();
    let at = |name: &str| session.directory().join(name);
    let good = |name: &str| {
        fs::write(at(name), open().to_string()).unwrap();
        at(name)
    };
    refused(
        &session,
        &at("missing.json"),
        &["does not exist", "--policy"],
    );
    refused(
        &session,
        session.directory(),
        &["is a directory", "name a regular file"],
    );
    symlink(session.policy(), at("link.json")).unwrap();
    refused(
        &session,
        &at("link.json"),
        &["is a symlink", "name the file that it leads to"],
    );
    File::create(at("big.json"))
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    refused(
        &session,
        &at("big.json"),
        &["too large (104857600 bytes", "fewer, wider rules"],
    );

    let (uid, gid) = agent_user();
    chown(good("own.json"), Some(uid), Some(gid)).unwrap();
    refused(
        &session,
        &at("own.json"),
        &["belongs to the agent's user", "chown root:root", "own.json"],
    );
    fs::set_permissions(good("shared.json"), Permissions::from_mode(0o666)).unwrap();
    refused(
        &session,
        &at("shared.json"),
        &["can be written by everyone", "chmod 644"],
    );
    // In the agent's own directory it could be replaced, whoever owns the file.
    let replaceable = session.work().join("p.json");
    fs::write(&replaceable, open().to_string()).unwrap();
    refused(
        &session,
        &replaceable,
        &["the agent could replace it", "install -D -m 644"],
    );
}

#[test]
fn without_root_nothing_starts() {
    if !root() {
        return;
    }
    let session = free();
    let (uid, gid) = agent_user();
    let output = enforcer()
        .args(["run", "--policy"])
        .arg(session.policy())
        .args(["--", "echo", "it ran"])
        .current_dir(session.work())
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    refusal(&output, 2, &["needs root", "run it with sudo"]);
    assert_eq!(output.stdout, b"");
    let doctor = enforcer()
        .args(["doctor", "--json"])
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(
        (doctor.status.code(), &report["enforcement"]),
        (Some(1), &"none".into())
    );
}

#[test]
fn what_is_wrong_stays_wrong_when_the_tables_are_kept() {
    if !root() {
        return;
    }
    let session = free();
    let policy = session.directory().join("wrong-example.json");
    fs::write(
        &policy,
        r#"{"version": "2", "exec": {"default": "allow", "rules": [{"id": "no", "decision": "deny",
            "argv": {"program": "id"}, "match": ["ls -l"]}]}, "connect": {"default": "allow"}}"#,
    )
    .unwrap();
    for _ in 0..2 {
        refused(&session, &policy, &["does not match its example"]);
        // It does not prove examples, and keeps the tables of what it explains.
        let explained = enforcer()
            .args(["explain", "--policy"])
            .arg(&policy)
            .args(["--", "ls"])
            .output()
            .unwrap();
        assert!(explained.status.success(), "{explained:?}");
    }
}

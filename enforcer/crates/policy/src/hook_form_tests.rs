//! A hook's own file becomes the model as it is, and what cannot be judged in it is said.

use std::path::{Path, PathBuf};

use super::*;
use crate::{Parsed, parse};

const SMALL: &str = r#"{
  "version": "2.0",
  "description": "a small one",
  "bash": {
    "mode": "blacklist",
    "whitelist": ["git status", "ls*", "rm -rf /*", "ls*", ""],
    "blacklist": ["rm -rf /*", "sudo*", "curl*|*sh", "sudo*"]
  },
  "file_paths": {"whitelist": ["*"], "blacklist": ["/etc/*"]},
  "agents": {"trusted": ["researcher"], "restricted": ["auditor"]},
  "web_tools": {
    "whitelist": ["WebFetch"],
    "allow_all_domains": true,
    "blocked_domains": ["localhost", "10.*", "metadata.example", "[::1]", "*.internal", "10.*"]
  },
  "tools": {"always_allowed": ["Task"]}
}"#;

fn ids(parsed: &Parsed) -> Vec<(&str, Decision)> {
    let rules = parsed.policy.exec.rules.iter();
    rules
        .map(|rule| (rule.id.as_str(), rule.decision))
        .collect()
}

#[test]
fn a_hook_policy_becomes_the_model() {
    let parsed = parse(SMALL).unwrap();
    let policy = &parsed.policy;
    assert_eq!((policy.form, policy.version.as_str()), (Form::Hook, "2.0"));
    assert_eq!(
        ids(&parsed),
        [
            ("rm -rf /*", Decision::Deny),
            ("sudo*", Decision::Deny),
            ("curl*|*sh", Decision::Deny),
            ("git status", Decision::Allow),
            ("ls*", Decision::Allow),
        ]
    );
    let exec = &policy.exec;
    assert_eq!(exec.rules[1].matcher, Patterns::Glob(vec!["sudo*".into()]));
    assert_eq!(
        (exec.rules[1].risk, exec.rules[4].risk),
        (Risk::High, Risk::Low)
    );
    assert_eq!(
        (exec.default, exec.fileless, exec.loader),
        (Decision::Deny, Decision::Deny, Decision::Deny)
    );
    assert_eq!(exec.transparent, ["sh", "bash", "dash", "zsh"]);
    assert_eq!(exec.trusted_dirs.len(), 6);
    assert_eq!(policy.file_paths.whitelist, ["*"]);
    assert_eq!(policy.file_paths.blacklist, ["/etc/*"]);
    assert_eq!(policy.agents.trusted, ["researcher"]);
    assert_eq!(policy.agents.restricted, ["auditor"]);
    assert_eq!(policy.connect.default, Decision::Allow);
    let connects: Vec<(&str, usize)> = policy
        .connect
        .rules
        .iter()
        .map(|rule| (rule.id.as_str(), rule.hosts.len()))
        .collect();
    assert_eq!(connects, [("localhost", 2), ("10.*", 1), ("[::1]", 1)]);
    assert!(
        policy
            .connect
            .rules
            .iter()
            .all(|rule| rule.decision == Decision::Deny)
    );
    // The rule's place is that of its pattern, though entries before it were left out.
    assert_eq!(parsed.rule_path(4).to_string(), "bash.whitelist[1]");
    assert_eq!(parsed.error_at_rule(4, "x", "y").place.line, 6);
}

#[test]
fn what_is_not_judged_or_left_out_is_said() {
    let parsed = parse(SMALL).unwrap();
    let said: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
    let wanted = [
        "line 7, column 54: bash.blacklist[3]: the pattern \"sudo*\" stands twice (first at line 7)",
        "line 6, column 40: bash.whitelist[2]: the pattern \"rm -rf /*\" is on the blacklist too (line 7), which wins",
        "line 6, column 53: bash.whitelist[3]: the pattern \"ls*\" stands twice (first at line 6)",
        "line 6, column 60: bash.whitelist[4]: the pattern is empty",
        "line 5, column 5: bash.mode: the mode \"blacklist\" changes nothing: what is on neither list is denied",
        "line 7, column 41: bash.blacklist[2]: 1 entry is written for shell text",
        "line 14, column 89: web_tools.blocked_domains[5]: the entry \"10.*\" stands twice (first at line 14)",
        "line 14, column 46: web_tools.blocked_domains[2]: names are not judged on connects yet, so these are not \
         blocked: \"metadata.example\", \"*.internal\"; add their addresses",
    ];
    assert_eq!(said.len(), wanted.len(), "{said:#?}");
    for (said, wanted) in said.iter().zip(wanted) {
        assert!(said.starts_with(wanted), "{said}\n{wanted}");
    }
}

#[test]
fn connects_follow_web_tools() {
    let text = |web: &str| {
        format!(
            r#"{{"bash": {{"whitelist": [], "blacklist": []}}, "file_paths": {{"whitelist": [], "blacklist": []}},
                "agents": {{"trusted": []}}{web}}}"#
        )
    };
    let open = parse(&text("")).unwrap();
    assert_eq!(open.policy.connect.default, Decision::Allow);
    assert!(open.policy.connect.rules.is_empty());
    assert_eq!(open.policy.version, "");
    for web in [
        r#", "web_tools": {}"#,
        r#", "web_tools": {"allow_all_domains": false}"#,
    ] {
        let closed = parse(&text(web)).unwrap();
        assert_eq!(closed.policy.connect.default, Decision::Deny);
        assert!(
            closed
                .warnings
                .iter()
                .any(|warning| warning.text.contains("every connect is denied"))
        );
    }
}

#[test]
fn a_mode_that_says_what_the_lists_do_is_no_news() {
    let text = |mode: &str, whitelist: &str| {
        format!(
            r#"{{"bash": {{"mode": "{mode}", "whitelist": ["{whitelist}"], "blacklist": []}},
                "file_paths": {{"whitelist": [], "blacklist": []}}, "agents": {{"trusted": []}}}}"#
        )
    };
    let about_mode = |text: &str| {
        parse(text)
            .unwrap()
            .warnings
            .iter()
            .any(|warning| warning.text.contains("the mode"))
    };
    assert!(!about_mode(&text("blacklist", "*")));
    assert!(!about_mode(&text("whitelist", "ls")));
    assert!(about_mode(&text("blacklist", "ls")));
    assert!(about_mode(&text("open", "*")));
}

/// `../shared`, where a workspace has it.
fn shared() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|dir| dir.join("shared"))
        .find(|dir| dir.join("fixtures").is_dir())
}

#[test]
fn a_real_hook_policy_is_read_as_it_is() {
    let Some(path) = shared().map(|shared| shared.join("fixtures/hook_policy.json")) else {
        eprintln!("SKIPPED: there is no shared/fixtures/hook_policy.json above this crate");
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap();
    let written: serde_json::Value = serde_json::from_str(&text).unwrap();
    let parsed = parse(&text).unwrap();
    let list = |name: &str| -> Vec<String> {
        serde_json::from_value(written["bash"][name].clone()).unwrap()
    };
    let mut patterns: Vec<(String, Decision)> = Vec::new();
    for (name, decision) in [
        ("blacklist", Decision::Deny),
        ("whitelist", Decision::Allow),
    ] {
        patterns.extend(list(name).into_iter().map(|pattern| (pattern, decision)));
    }
    let read: Vec<(String, Decision)> = ids(&parsed)
        .into_iter()
        .map(|(id, decision)| (id.to_owned(), decision))
        .collect();
    assert_eq!(read, patterns);
    assert_eq!(parsed.policy.version, "1.1");
    assert_eq!(parsed.policy.connect.default, Decision::Allow);
    let denied: Vec<&str> = parsed
        .policy
        .connect
        .rules
        .iter()
        .map(|rule| rule.id.as_str())
        .collect();
    assert_eq!(
        denied,
        [
            "localhost",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "[::1]",
            "10.*",
            "172.16.*",
            "192.168.*"
        ]
    );
    let names = parsed
        .warnings
        .iter()
        .find(|warning| warning.text.starts_with("names are not judged"));
    assert!(names.unwrap().text.contains("\"metadata.google.internal\""));
}

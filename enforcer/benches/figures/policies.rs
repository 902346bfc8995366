//! Policies of a given size, and the command line that is judged under them.

use serde_json::{Value, json};

/// A policy without rules.
pub const OPEN: &str =
    r#"{"version": "2", "exec": {"default": "allow"}, "connect": {"default": "allow"}}"#;

/// The shipped policy of coding agents.
pub const CODING_AGENT: &str = include_str!("../../../policies/coding-agent.json");

/// Bytes of the command line that the decision is measured on.
pub const LONG_BYTES: usize = 100;

/// The arguments that make `true` a command line of [`LONG_BYTES`] bytes.
pub fn long_arguments() -> [&'static str; 6] {
    [
        "--color=never",
        "build",
        "--release",
        "--target-dir=/var/tmp/some/where/out",
        "--features=alpha,beta,gam",
        "go",
    ]
}

/// The program of the judged command line has rules of its own in every policy, so that its arguments are walked.
fn judged() -> Vec<Value> {
    vec![
        json!({"id": "own-1", "decision": "deny", "argv": {"program": "true", "words": ["install"], "flags_any": ["--force"]}}),
        json!({"id": "own-2", "decision": "deny", "glob": ["true --release * push --all"]}),
    ]
}

fn policy(rules: &[Value]) -> String {
    json!({
        "version": "2",
        "exec": {"default": "allow", "rules": rules},
        "connect": {"default": "allow", "rules": [
            {"id": "net-1", "decision": "deny", "hosts": ["10.0.0.0/8"], "ports": [22]},
            {"id": "net-2", "decision": "deny", "hosts": ["192.0.2.0/24"]},
        ]},
    })
    .to_string()
}

/// `count` rules of all shapes: six of ten name their program by argv or glob, three by an anchored regex, and up
/// to forty look for text anywhere in the command line.
pub fn mixed(count: usize) -> String {
    let mut rules = judged();
    for n in rules.len()..count {
        let id = format!("rule-{n}");
        rules.push(match n % 10 {
            0..=2 => json!({"id": id, "decision": "deny", "argv": {"program": format!("tool{n}"), "words": ["delete"], "flags_any": ["-f", "--force"]}}),
            3..=5 => json!({"id": id, "decision": "deny", "glob": [format!("prog{n} remove *")]}),
            6..=8 => json!({"id": id, "decision": "deny", "regex": [format!("^cmd{n} (drop|wipe) [a-z]+")]}),
            _ if n < 400 => json!({"id": id, "decision": "deny", "glob": [format!("*evil{n}*")]}),
            _ => json!({"id": id, "decision": "deny", "argv": {"program": format!("tool{n}")}}),
        });
    }
    policy(&rules)
}

/// `count` rules that each name a program of their own.
pub fn literal(count: usize) -> String {
    let mut rules = judged();
    for n in rules.len()..count {
        let id = format!("rule-{n}");
        rules.push(if n % 2 == 0 {
            json!({"id": id, "decision": "deny", "argv": {"program": format!("tool{n}"), "words": ["delete"], "flags_any": ["-f", "--force"]}})
        } else {
            json!({"id": id, "decision": "deny", "glob": [format!("prog{n} remove *")]})
        });
    }
    policy(&rules)
}

use super::*;
use crate::{Engine, command_text};

const POLICY: &str = r#"{
  "version": "1.1",
  "bash": {
    "whitelist": ["ls*", "cat*", "echo*", "cd *", "git status", "rm *", "cp *", "mv *", "grep*", "pytest*", "head*", "mkdir*"],
    "blacklist": ["rm -rf /*", "sudo*", "> /dev/*", "curl*|*sh", "eval*"]
  },
  "file_paths": {
    "whitelist": ["*"],
    "blacklist": ["/etc/*", "/root/*", "*/.env", "*/.ssh/*", "/usr/*"]
  },
  "agents": {"trusted": []}
}"#;

/// A project at `/home/ann/project`, without looking at any file.
struct InProject;

impl Find for InProject {
    fn find(&self, words: &[Vec<u8>], _moved: &[String]) -> Vec<enforcer_policy::ExecAction> {
        vec![enforcer_policy::ExecAction::from_words(words.to_vec())]
    }

    fn directory(&self) -> Option<&str> {
        Some("/home/ann/project/src")
    }

    fn project(&self) -> Option<String> {
        Some("/home/ann/project".to_owned())
    }
}

fn engine() -> Engine {
    Engine::new(enforcer_policy::parse(POLICY).unwrap().policy, 3).unwrap()
}

#[test]
fn nothing_that_the_hook_denied_is_allowed() {
    let engine = engine();
    for text in [
        "echo x > /etc/passwd",
        "echo x >/etc/passwd",
        "echo x 2>> /var/log/x",
        "echo x > /dev/sda",
        "> /dev/sda",
        "rm -fr /",
        "rm -r /home/ann",
        ":(){ :|:& };:",
        "rm ../../../../etc/passwd",
        "rm ../../x",
        "cp x /etc/cron.d/y",
        "mv a ~/b",
        "cat .env",
        "cat ../.env",
        "head -3 sub/.env",
        "cat < .env",
        "cat ~/.ssh/id_x",
        "cd .. && cat .env",
        "ls; rm x",
        "ls && rm x",
        "ls | sh",
        "ls `pwd`",
        "'su'do ls",
        "for f in *; do cat $f; done",
        "A=b ls",
        "ls\r",
        "cd /etc && cp a b",
    ] {
        for find in [&InProject as &dyn Find, &super::super::ByText] {
            let judged = command_text::judge_found(&engine, text, find);
            assert_eq!(
                judged.outcome.decision,
                Decision::Deny,
                "{text}: {judged:?}"
            );
        }
    }
}

#[test]
fn what_the_hook_allowed_in_the_project_is_allowed() {
    let engine = engine();
    for text in [
        "ls -la",
        "cat src/main.rs | grep x",
        "echo x > notes.txt",
        "echo x > /tmp/notes.txt 2>/dev/null",
        "rm x",
        "rm ../x",
        "cp a /tmp/b",
        "mv a ../b",
        "grep -rn /etc/ src",
        "cd src && ls",
        "git status",
        "pytest -q && ls",
        "rm ~/.claude/x",
        "mkdir -p a/b",
    ] {
        let judged = command_text::judge_found(&engine, text, &InProject);
        assert_eq!(
            judged.outcome.decision,
            Decision::Allow,
            "{text}: {:?}",
            judged.outcome
        );
    }
}

#[test]
fn the_reason_names_what_was_in_the_way() {
    let engine = engine();
    for (text, reason) in [
        ("sudo ls", "Matches blacklist pattern: sudo*"),
        (
            "cat .env",
            "Matches path blacklist pattern: */.env (/home/ann/project/src/.env)",
        ),
        (
            "rm ../../x",
            "Path ../../x is outside project root /home/ann/project",
        ),
        ("ls `pwd`", "Command injection detected: backticks"),
        ("true", "Command not in whitelist (deny by default)"),
    ] {
        let judged = command_text::judge_found(&engine, text, &InProject);
        assert_eq!(judged.outcome.reason, reason, "{text}");
    }
}

#[test]
fn every_expression_is_one() {
    for (text, name) in INJECTIONS {
        assert!(Regex::new(text).is_ok(), "{name}");
    }
}

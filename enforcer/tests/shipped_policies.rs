//! The policies that the project ships: they can be read without a warning, the tables hold them, every
//! example holds, and they decide as their README says.
#![allow(
    clippy::unwrap_used,
    reason = "an integration test: clippy only knows tests by their attribute"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use enforcer_decide::{Engine, command_text::judge};
use enforcer_policy::{ConnectAction, Decision, ExecAction, RuleCheck, UnixAction};
use enforcer_policy::{Parsed, parse_all, validate::example_words};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> Parsed {
    let text = std::fs::read_to_string(path).unwrap();
    parse_all(&text).unwrap_or_else(|errors| panic!("{}: {errors:?}", path.display()))
}

fn shipped(name: &str) -> Parsed {
    read(&repository().join("policies").join(name))
}

fn action(words: &[String]) -> ExecAction {
    ExecAction::from_words(words.iter().map(|word| word.clone().into_bytes()).collect())
}

fn line(text: &str) -> ExecAction {
    action(&shlex::split(text).unwrap())
}

/// Every rule has what a reader needs, and matches its own examples and none of the others.
fn examples_hold(name: &str) {
    let parsed = shipped(name);
    let engine = Engine::new(parsed.policy.clone(), 2).unwrap();
    let mut told = 0;
    assert_eq!(parsed.warnings, [], "{name}");
    let exec = &parsed.policy.exec;
    assert!(exec.rules.len() > 40, "{name} has lost its rules");
    for rule in &exec.rules {
        let id = &rule.id;
        assert!(rule.justification.is_some(), "{name}: {id} says no reason");
        assert!(
            rule.decision == Decision::Allow || rule.suggestion.is_some(),
            "{name}: {id} says no way out"
        );
        assert!(
            !rule.examples.is_empty() && !rule.counter_examples.is_empty(),
            "{name}: {id} lacks examples on one side"
        );
        let check = RuleCheck::new(rule, &exec.trusted_dirs).unwrap();
        for (examples, wanted) in [(&rule.examples, true), (&rule.counter_examples, false)] {
            for example in examples {
                let words = example_words(example).unwrap();
                assert_eq!(
                    check.matches(&action(&words)),
                    wanted,
                    "{name}: {id}: {words:?}"
                );
                let alone = engine.alone(rule, &action(&words));
                assert!(
                    alone.is_none_or(|alone| alone == wanted),
                    "{name}: {id}: {words:?}"
                );
                told += usize::from(alone.is_some());
            }
        }
    }
    assert!(
        told > 100,
        "{name}: the whole tables tell of {told} examples only"
    );
}

/// `coding-agent.json` as it is enforced; compiled once, because that takes seconds without optimisation.
fn coding_agent() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(shipped("coding-agent.json").policy, 1).unwrap())
}

fn decides(engine: &Engine, wanted: Decision, commands: &[&str]) {
    for command in commands {
        let outcome = engine.exec(&line(command));
        assert_eq!(outcome.decision, wanted, "{command}: {outcome:?}");
    }
}

fn connects(engine: &Engine, wanted: Decision, addresses: &[&str]) {
    for address in addresses {
        let outcome = engine.connect(&ConnectAction::new(address.parse().unwrap(), 443, 6));
        assert_eq!(outcome.decision, wanted, "{address}: {outcome:?}");
    }
}

fn sockets(engine: &Engine, wanted: Decision, names: &[&str]) {
    for name in names {
        let outcome = engine.unix(&UnixAction::new(*name));
        assert_eq!(outcome.decision, wanted, "{name}: {outcome:?}");
    }
}

#[test]
fn the_examples_of_coding_agent_hold() {
    examples_hold("coding-agent.json");
}

#[test]
fn the_examples_of_strict_hold() {
    examples_hold("strict.json");
}

#[test]
fn the_examples_of_claude_code_hold() {
    examples_hold("claude-code.json");
}

#[test]
fn the_examples_of_codex_hold() {
    examples_hold("codex.json");
}

#[test]
fn the_examples_of_ci_hold() {
    examples_hold("ci.json");
}

/// One policy for Codex with its own sandbox and one for Codex without: nothing else tells them apart.
#[test]
fn codex_has_a_policy_with_and_one_without_its_sandbox() {
    let [with, without] = ["codex.json", "codex-unsandboxed.json"].map(|name| shipped(name).policy);
    assert_eq!(with.exec.descriptor, Decision::Allow);
    assert_eq!(without.exec.descriptor, Decision::Deny);
    let opened: Vec<&str> = (with.syscalls.allow.iter())
        .map(|hatch| hatch.name.as_str())
        .collect();
    assert_eq!(opened, ["namespaces", "mount"]);
    assert!(without.syscalls.allow.is_empty());
    let [with, without] = ["codex.json", "codex-unsandboxed.json"].map(|name| {
        let path = repository().join("policies").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let mut policy: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys = policy.as_object_mut().unwrap();
        keys.remove("description");
        keys.remove("syscalls");
        keys["exec"].as_object_mut().unwrap().remove("descriptor");
        policy
    });
    assert!(with == without, "the two have drifted apart");
    let engine = Engine::new(shipped("codex.json").policy, 1).unwrap();
    let bwrap = |words: &str| {
        let argv = format!("/proc/self/fd/3 {words}");
        let action = ExecAction {
            path: b"/proc/self/fd/3".to_vec(),
            argv: argv
                .split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect(),
            resolved: Some(b"/opt/codex/bwrap".to_vec()),
            ..ExecAction::default()
        };
        engine.exec(&action).decision
    };
    assert_eq!(
        bwrap("--ro-bind / / --unshare-user -- bash -c ls"),
        Decision::Allow
    );
    assert_eq!(bwrap("-rf /"), Decision::Deny);
}

/// What is harmless as several words is not as one.
#[test]
fn no_word_of_a_dangerous_command_poses_as_a_dry_run() {
    for name in ["coding-agent.json", "claude-code.json", "codex.json"] {
        let engine = Engine::new(shipped(name).policy, 1).unwrap();
        for words in [
            &["kubectl", "delete", "ns", "prod", "-n x --dry-run=client"][..],
            &["kubectl", "delete", "pod", "a", "b --dry-run=client"],
            &["helm", "uninstall", "a", "b --dry-run"],
            &["npm", "unpublish", "pkg", "x --dry-run"],
            &["rsync", "-a", "--delete", "a --dry-run", "b"],
            &["aws", "s3", "rm", "s3://b", "x --dryrun"],
        ] {
            let words = words.iter().map(|word| word.as_bytes().to_vec());
            let action = ExecAction::from_words(words.collect());
            let outcome = engine.exec(&action);
            assert_ne!(outcome.decision, Decision::Allow, "{name}: {outcome:?}");
        }
    }
}

/// What policies have in common stands in a rule set that they include, once.
#[test]
fn no_two_shipped_files_hold_the_same_rule() {
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    let mut twice = Vec::new();
    for directory in [
        repository().join("policies"),
        repository().join("policies/rules"),
    ] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let file: serde_json::Value = serde_json::from_str(&text).unwrap();
            for section in ["exec", "connect"] {
                for rule in file[section]["rules"].as_array().into_iter().flatten() {
                    let name = format!("{}: {}", path.display(), rule["id"]);
                    if let Some(other) = holders.insert(rule.to_string(), name.clone()) {
                        twice.push(format!("{other} and {name}"));
                    }
                }
            }
        }
    }
    assert!(holders.len() > 150, "{} rules are left", holders.len());
    assert!(twice.is_empty(), "put into a rule set: {twice:#?}");
}

/// What two policies have in common must not drift apart.
#[test]
fn the_agents_policies_have_every_rule_of_the_general_one() {
    let general = shipped("coding-agent.json").policy;
    for name in ["claude-code.json", "codex.json"] {
        let own = shipped(name).policy;
        for rule in &general.exec.rules {
            let same = own.exec.rules.iter().find(|other| other.id == rule.id);
            let same = same.unwrap_or_else(|| panic!("{name} lacks {}", rule.id));
            assert_eq!(
                (same.decision, same.risk, &same.matcher, &same.suggestion),
                (rule.decision, rule.risk, &rule.matcher, &rule.suggestion),
                "{name}: {}",
                rule.id
            );
        }
    }
    // Of these ci.json has some: denied, since nobody can be asked.
    for rule in &shipped("ci.json").policy.exec.rules {
        assert_eq!(rule.decision, Decision::Deny, "{}", rule.id);
        let same = general.exec.rules.iter().find(|other| other.id == rule.id);
        assert!(
            same.is_none_or(|same| same.matcher == rule.matcher),
            "{}",
            rule.id
        );
    }
}

/// The share of dangerous lines that are stopped, and of harmless lines that are denied and asked about.
#[derive(Debug, Default)]
struct Score {
    dangerous: usize,
    stopped: usize,
    harmless: usize,
    denied: usize,
    asked: usize,
    misses: Vec<String>,
}

impl Score {
    fn add(&mut self, engine: &Engine, command: &str, dangerous: bool) {
        let decision = judge(engine, command).outcome.decision;
        let wrong = (decision == Decision::Allow) == dangerous;
        if dangerous {
            self.dangerous += 1;
            self.stopped += usize::from(!wrong);
        } else {
            self.harmless += 1;
            self.denied += usize::from(decision == Decision::Deny);
            self.asked += usize::from(decision == Decision::Ask);
        }
        if wrong && self.misses.len() < 40 {
            self.misses.push(format!("{decision}: {command}"));
        }
    }

    fn is_good(&self) -> bool {
        self.stopped * 100 >= self.dangerous * 95
            && self.denied * 1_000 <= self.harmless * 5
            && self.asked * 100 <= self.harmless * 3
    }
}

/// Labelled commands, where they lie beside the repository.
#[test]
fn coding_agent_is_good_on_labelled_commands() {
    let corpora = repository().join("../shared/corpora");
    let mut score = Score::default();
    for name in ["labelled.jsonl", "benign.jsonl"] {
        let Ok(text) = std::fs::read_to_string(corpora.join(name)) else {
            eprintln!("skipped: {} is not there", corpora.display());
            return;
        };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let command = line["command"].as_str().unwrap();
            match line["expected"].as_str().unwrap() {
                "deny" => score.add(coding_agent(), command, true),
                "allow" => score.add(coding_agent(), command, false),
                _ => {}
            }
        }
    }
    assert!(score.is_good(), "{score:#?}");
}

/// The project's own lines: every dangerous one is stopped, no harmless one is disturbed.
#[test]
fn coding_agent_decides_the_own_lines() {
    let mut wrong = Vec::new();
    for (text, dangerous) in [
        (include_str!("lines/dangerous.txt"), true),
        (include_str!("lines/harmless.txt"), false),
    ] {
        let lines = text.lines().filter(|line| !line.starts_with("## "));
        for line in lines.filter(|line| !line.trim().is_empty()) {
            let decision = judge(coding_agent(), line).outcome.decision;
            if (decision == Decision::Allow) == dangerous {
                wrong.push(format!("{decision}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_agents_policies_reach_the_web_and_this_machine_alone() {
    let to = |engine: &Engine, address: &str, port: u16| {
        let action = ConnectAction::new(address.parse().unwrap(), port, 6);
        engine.connect(&action).decision
    };
    for (name, private) in [
        ("claude-code.json", Decision::Ask),
        ("codex.json", Decision::Deny),
        ("ci.json", Decision::Allow),
    ] {
        let engine = Engine::new(shipped(name).policy, 1).unwrap();
        for (address, port) in [
            ("127.0.0.1", 5432),
            ("::1", 3000),
            ("192.0.2.1", 443),
            ("192.0.2.1", 22),
            ("192.0.2.1", 53),
        ] {
            let decision = to(&engine, address, port);
            assert_eq!(decision, Decision::Allow, "{name}: {address} {port}");
        }
        for (address, port) in [
            ("192.0.2.1", 25),
            ("192.0.2.1", 4444),
            ("127.0.0.1", 2375),
            ("169.254.169.254", 80),
            ("10.0.0.1", 8080),
        ] {
            let decision = to(&engine, address, port);
            assert_eq!(decision, Decision::Deny, "{name}: {address} {port}");
        }
        assert_eq!(to(&engine, "172.16.0.9", 443), private, "{name}");
    }
}

#[test]
fn the_agents_policies_guard_their_own_settings() {
    for (name, commands) in [
        (
            "claude-code.json",
            [
                "echo x > .claude/settings.json",
                "rm -rf ~/.claude",
                "sed -i s/deny/allow/ .claude/settings.local.json",
            ],
        ),
        (
            "codex.json",
            [
                "echo x >> ~/.codex/config.toml",
                "rm -rf ~/.codex",
                "cp x .codex/hooks.json",
            ],
        ),
    ] {
        let engine = Engine::new(shipped(name).policy, 1).unwrap();
        for command in commands {
            let decision = judge(&engine, command).outcome.decision;
            assert_eq!(decision, Decision::Deny, "{name}: {command}");
        }
    }
}

/// What git, pip and the like start by themselves must pass, though it looks like what is denied.
#[test]
fn coding_agent_leaves_ordinary_development_alone() {
    let engine = coding_agent();
    decides(
        engine,
        Decision::Allow,
        &[
            "git commit -m 'rm -rf / && sudo reboot'",
            "git push --force-with-lease origin fix",
            "git rebase -i main",
            // git stash, git worktree add, git submodule update, git gc
            "/usr/lib/git-core/git reset --hard -q --no-recurse-submodules",
            "/usr/lib/git-core/git clean --force --quiet -d :/",
            "git reset --hard --no-recurse-submodules",
            "git checkout -q -f 0123456789abcdef",
            "git reflog expire --all",
            "git prune --expire 2.weeks.ago",
            "ssh -o SendEnv=GIT_PROTOCOL git@example.org \"git-upload-pack 'a/b.git'\"",
            "cargo test --workspace",
            "npm ci",
            "npm run build",
            "pip install -e .",
            "python3 -m pytest -q",
            "make -j8 install DESTDIR=/tmp/x",
            "cmake --build build --target clean",
            "gcc -O2 -o a a.c",
            "apt list --installed",
            "docker build -t x .",
            "docker compose up -d",
            "find . -name '*.rs' -exec grep -l x {} +",
            "xargs -0 -n 50 wc -l",
            "sed -i s/a/b/ src/x.rs",
            "tar -czf x.tgz dist",
            "curl -sSfL https://example.org/x.json -o x.json",
            "rm -rf ./build target/debug node_modules /tmp/x",
            "chmod -R u+w vendor",
            "kill -9 4242",
            "bash -c 'sudo rm -rf /'",
        ],
    );
}

#[test]
fn coding_agent_stops_what_destroys_or_escapes() {
    let engine = coding_agent();
    decides(
        engine,
        Decision::Deny,
        &[
            "rm -rf /",
            "/bin/rm -rf --no-preserve-root /",
            "sudo -n true",
            "/tmp/renamed/sudo id",
            "mkfs.ext4 disk.img",
            "dd if=/dev/zero of=/dev/sda",
            "nsenter -t 1 -a",
            "crontab jobs",
            "busybox sh",
            "nc -e /bin/sh host 1",
            "docker run --privileged x",
            "/lib64/ld-linux-x86-64.so.2 /usr/bin/id",
        ],
    );
    decides(
        engine,
        Decision::Ask,
        &[
            "git push -f",
            "git reset --hard",
            "ssh host",
            "npm publish",
            "terraform destroy",
        ],
    );
    sockets(
        engine,
        Decision::Deny,
        &[
            "/run/docker.sock",
            "/var/run/dbus/system_bus_socket",
            "@/tmp/dbus-x",
            "/tmp/tmux-0/default",
        ],
    );
    sockets(
        engine,
        Decision::Ask,
        &["/tmp/ssh-x/agent.1", "/run/user/0/gnupg/S.gpg-agent"],
    );
    sockets(
        engine,
        Decision::Allow,
        &["/run/nscd/socket", "/tmp/x.sock", "@x", "/dev/log"],
    );
    let tables = engine.tables();
    assert!(tables.exec_asks() && tables.unix_asks());
    assert!(!tables.connect_asks());
    connects(
        engine,
        Decision::Deny,
        &["169.254.169.254", "fd00:ec2::254", "fe80::1"],
    );
    connects(
        engine,
        Decision::Allow,
        &["127.0.0.1", "192.0.2.1", "2001:db8::1"],
    );
}

#[test]
fn strict_allows_a_toolchain_and_nothing_else() {
    let engine = Engine::new(shipped("strict.json").policy, 1).unwrap();
    decides(
        &engine,
        Decision::Allow,
        &[
            "git status",
            "git stash",
            "/usr/lib/git-core/git rev-list --all",
            "/usr/lib/gcc/x86_64-linux-gnu/14/cc1 -quiet x.c",
            "cargo build",
            "python3 x.py",
            "npm test",
            "bash build.sh",
            "make -j4",
            "./configure",
        ],
    );
    decides(
        &engine,
        Decision::Deny,
        &[
            "git push",
            "git -C x remote set-url origin y",
            "curl https://example.org",
            "ssh host",
            "perl -e 1",
            "docker ps",
            "/tmp/git status",
            "./git/../../tmp/evil",
            "/usr/lib/gcc/../../../tmp/evil",
            "sudo ls",
        ],
    );
    connects(
        &engine,
        Decision::Allow,
        &["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"],
    );
    connects(
        &engine,
        Decision::Deny,
        &["192.0.2.1", "10.0.0.1", "2001:db8::1", "169.254.169.254"],
    );
    sockets(
        &engine,
        Decision::Allow,
        &[
            "/var/run/nscd/socket",
            "/dev/log",
            "/run/systemd/journal/dev-log",
            "/run/systemd/resolve/io.systemd.Resolve",
            "/run/systemd/userdb/io.systemd.DynamicUser",
            "/tmp/build/x.sock",
        ],
    );
    sockets(
        &engine,
        Decision::Deny,
        &[
            "/run/docker.sock",
            "/run/postgresql/.s.PGSQL.5432",
            "/tmp/../run/docker.sock",
            "/tmp/.X11-unix/X0",
            "/tmp/tmux-0/default",
            "@/tmp/dbus-x",
            "/home/kim/.gnupg/S.gpg-agent",
            "/tmp/ssh-x/agent.1",
            "/home/kim/project/x.sock",
            "@x",
        ],
    );
    let tables = engine.tables();
    assert!(tables.exec_asks() && !tables.connect_asks() && !tables.unix_asks());
}

/// A real hook policy, where it lies beside the repository: every pattern is in the tables.
#[test]
fn a_hook_policy_compiles() {
    let path = repository().join("../shared/fixtures/hook_policy.json");
    if !path.is_file() {
        return;
    }
    let engine = Engine::new(read(&path).policy, 1).unwrap();
    decides(
        &engine,
        Decision::Allow,
        &["git status", "ls -la", "bash -c x"],
    );
    decides(
        &engine,
        Decision::Deny,
        &["sudo ls", "rm -rf /etc", "perl -e 1"],
    );
}

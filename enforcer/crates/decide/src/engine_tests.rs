use std::collections::BTreeMap;

use enforcer_common::event::{CAUSE_DEFAULT, CAUSE_FILELESS, CAUSE_RULE, CAUSE_TRANSPARENT};

use super::*;
use enforcer_policy::{
    Decision, Risk, ScriptHead,
    model::{
        Agents, Approvals, ArgvPattern, BreakerSettings, ConnectPolicy, ConnectRule,
        DEFAULT_TRUSTED_DIRS, ExecPolicy, Form, Limits, Network, PathLists, Patterns as Pattern,
        Protocol, Syscalls, Tools, WebTools,
    },
};
use enforcer_redact::Masking;

const SEED: u64 = 0x1234_5678_9abc_def0;

fn policy(form: Form, default: Decision, rules: Vec<Rule>) -> Policy {
    Policy {
        form,
        version: "2".to_owned(),
        exec: ExecPolicy {
            default,
            trusted_dirs: DEFAULT_TRUSTED_DIRS.map(str::to_owned).to_vec(),
            transparent: vec!["sh".to_owned(), "bash".to_owned()],
            fileless: Decision::Deny,
            descriptor: Decision::Deny,
            loader: Decision::Deny,
            rules,
        },
        connect: ConnectPolicy {
            outside: enforcer_policy::model::OutsideListeners::default(),
            default: Decision::Allow,
            unix_default: Decision::Allow,
            rules: Vec::new(),
        },
        agents: Agents::default(),
        approvals: Approvals::default(),
        syscalls: Syscalls::default(),
        guard: enforcer_policy::model::Guard::default(),
        capabilities: BTreeMap::new(),
        tenants: Vec::new(),
        limits: Limits::default(),
        breaker: BreakerSettings::default(),
        masking: Masking::default(),
        event_buffer: enforcer_policy::model::EVENT_BUFFER,
        file_paths: PathLists::default(),
        web_tools: WebTools::default(),
        tools: Tools::default(),
    }
}

fn rule(id: &str, decision: Decision, matcher: Pattern) -> Rule {
    Rule {
        id: id.to_owned(),
        decision,
        risk: Risk::High,
        matcher,
        unless: Vec::new(),
        justification: None,
        suggestion: None,
        requires: Vec::new(),
        examples: Vec::new(),
        counter_examples: Vec::new(),
    }
}

fn glob(decision: Decision, text: &str) -> Rule {
    rule(text, decision, Pattern::Glob(vec![text.to_owned()]))
}

fn regex(decision: Decision, text: &str) -> Rule {
    rule(text, decision, Pattern::Regex(vec![text.to_owned()]))
}

fn argv(decision: Decision, program: &str, words: &[&str], any: &[&str], all: &[&str]) -> Rule {
    let owned = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    let pattern = ArgvPattern {
        program: vec![program.to_owned()],
        words: words.iter().map(|word| vec![(*word).to_owned()]).collect(),
        flags_any: owned(any),
        flags_all: owned(all),
        ..ArgvPattern::default()
    };
    rule(&format!("{program}-rule"), decision, Pattern::Argv(pattern))
}

fn engine(default: Decision, rules: Vec<Rule>) -> Engine {
    Engine::new(policy(Form::Native, default, rules), SEED).unwrap()
}

fn words(line: &[&str]) -> ExecAction {
    ExecAction::from_words(line.iter().map(|word| word.as_bytes().to_vec()).collect())
}

fn path(path: &str, argv: &[&str]) -> ExecAction {
    ExecAction {
        path: path.as_bytes().to_vec(),
        argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        ..ExecAction::default()
    }
}

fn decides(engine: &Engine, line: &[&str]) -> Decision {
    engine.exec(&words(line)).decision
}

use Decision::{Allow, Ask, Deny};

#[test]
fn the_strictest_rule_wins_and_among_equals_the_first() {
    let engine = engine(
        Deny,
        vec![
            glob(Allow, "git *"),
            glob(Ask, "git push*"),
            glob(Deny, "git push --force*"),
            glob(Deny, "git push *"),
            regex(Deny, "^git push -"),
        ],
    );
    let rule = |line: &[&str]| engine.exec(&words(line)).rule;
    assert_eq!(rule(&["git", "log"]).as_deref(), Some("git *"));
    assert_eq!(rule(&["git", "push"]).as_deref(), Some("git push*"));
    assert_eq!(
        rule(&["git", "push", "--force"]).as_deref(),
        Some("git push --force*")
    );
    assert_eq!(rule(&["git", "push", "-f"]).as_deref(), Some("git push *"));
    assert_eq!(rule(&["ls"]), None);
    assert_eq!(decides(&engine, &["git", "push"]), Ask);
    let explained = engine.explain_exec(&words(&["git", "push", "-f"])).unwrap();
    let matches: Vec<_> = explained
        .matched
        .iter()
        .map(|rule| rule.id.as_str())
        .collect();
    assert_eq!(matches, ["git *", "git push*", "git push *", "^git push -"]);
}

#[test]
fn reasons_are_worded_by_form() {
    let mut named = glob(Deny, "rm -rf*");
    named.justification = Some("Deletes without asking".to_owned());
    let rules = vec![named, glob(Allow, "ls*"), glob(Ask, "mv *")];
    let hook = Engine::new(policy(Form::Hook, Deny, rules.clone()), SEED).unwrap();
    let reason = |engine: &Engine, line: &[&str]| engine.exec(&words(line)).reason;
    assert_eq!(
        reason(&hook, &["rm", "-rf", "/"]),
        "Matches blacklist pattern: rm -rf*"
    );
    assert_eq!(reason(&hook, &["ls"]), "Matches whitelist pattern: ls*");
    assert_eq!(
        reason(&hook, &["make"]),
        "Command not in whitelist (deny by default)"
    );
    assert_eq!(
        reason(&hook, &["sh", "-c", "rm -rf /"]),
        "Transparent shell: what it starts is judged"
    );
    let native = engine(Deny, rules);
    assert_eq!(
        reason(&native, &["rm", "-rf", "/"]),
        "Deletes without asking [rm -rf*]"
    );
    assert_eq!(reason(&native, &["ls"]), "Matches rule: ls*");
    assert_eq!(
        reason(&native, &["make"]),
        "No rule matches (default: deny)"
    );
    assert_eq!(reason(&native, &["mv", "a", "b"]), "Matches rule: mv *");
    assert!(native.exec(&words(&["rm", "-rf", "x"])).security_risk);
    assert!(!native.exec(&words(&["make"])).security_risk);
}

#[test]
fn allow_globs_do_not_cross_directories_in_the_program() {
    let engine = engine(Deny, vec![glob(Allow, "ls*"), glob(Allow, "p?t[!a]n *")]);
    assert_eq!(decides(&engine, &["ls"]), Allow);
    assert_eq!(decides(&engine, &["lsblk", "-f", "/dev/sda"]), Allow);
    assert_eq!(engine.exec(&path("lsdir/evil", &["x"])).decision, Deny);
    assert_eq!(
        engine.exec(&path("/usr/bin/ls", &["x", "/"])).decision,
        Allow
    );
    assert_eq!(engine.exec(&path("/tmp/ls", &["ls"])).decision, Deny);
    assert_eq!(engine.exec(&path("/usr/bin//ls", &["ls"])).decision, Deny);
    // A name with a space would pose as a program with arguments.
    assert_eq!(engine.exec(&path("ls x", &["ls"])).decision, Deny);
    assert_eq!(decides(&engine, &["patbn", "/"]), Allow);
    assert_eq!(engine.exec(&path("p/tbn", &["p/tbn", "x"])).decision, Deny);
    assert_eq!(engine.exec(&path("pat/n", &["pat/n", "x"])).decision, Deny);
}

#[test]
fn deny_rules_see_every_name() {
    let engine = engine(
        Allow,
        vec![argv(Deny, "rm", &[], &[], &[]), glob(Deny, "dd*")],
    );
    assert_eq!(engine.exec(&path("/tmp/rm", &["x"])).decision, Deny);
    assert_eq!(engine.exec(&path("/tmp/x", &["a/rm"])).decision, Deny);
    assert_eq!(engine.exec(&path("/tmp/ddx", &["x"])).decision, Deny);
    let linked = ExecAction {
        resolved: Some(b"rm".to_vec()),
        ..path("/tmp/x", &["x"])
    };
    assert_eq!(engine.exec(&linked).decision, Deny);
    assert_eq!(engine.exec(&path("/tmp/x", &["x"])).decision, Allow);
    assert_eq!(engine.exec(&path("/tmp/x", &[])).decision, Allow);
}

#[test]
fn allow_rules_see_only_the_first_name() {
    let engine = engine(
        Deny,
        vec![argv(Allow, "ls", &[], &[], &[]), glob(Allow, "cat*")],
    );
    assert_eq!(decides(&engine, &["ls"]), Allow);
    let forged = ExecAction {
        resolved: Some(b"ls".to_vec()),
        ..path("/tmp/x", &["ls"])
    };
    assert_eq!(engine.exec(&forged).decision, Deny);
    assert_eq!(engine.exec(&path("/tmp/cat", &["cat"])).decision, Deny);
    assert_eq!(engine.exec(&path("./ls", &["ls"])).decision, Deny);
    assert_eq!(engine.exec(&path("ls", &["ls"])).decision, Deny);
}

#[test]
fn transparent_shells_start_and_their_script_text_is_data() {
    let engine = engine(Deny, vec![regex(Deny, "sudo"), glob(Allow, "./run.sh*")]);
    let judged = engine.matcher().exec(&words(&["bash", "-c", "sudo x"]));
    assert_eq!((judged.decision, judged.cause), (Allow, CAUSE_TRANSPARENT));
    assert_eq!(decides(&engine, &["sudo", "x"]), Deny);
    // Not the shell of a trusted directory.
    assert_eq!(engine.exec(&path("/tmp/sh", &["sh"])).decision, Deny);
    let script = |path_of: &str, argv: &[&str]| ExecAction {
        script: Some(ScriptHead {
            interpreter: b"/bin/bash".to_vec(),
            argument: None,
        }),
        resolved: Some(b"bash".to_vec()),
        ..path(path_of, argv)
    };
    assert_eq!(
        engine
            .exec(&script("./run.sh", &["./run.sh", "x"]))
            .decision,
        Allow
    );
    // The interpreter's form never allows.
    assert_eq!(engine.exec(&script("./other.sh", &["x"])).decision, Deny);
}

#[test]
fn a_script_is_judged_as_its_interpreter_too() {
    let rules = vec![
        glob(Deny, "python3 -E ./tool.py prod"),
        argv(Deny, "env", &["node"], &[], &[]),
    ];
    let engine = engine(Allow, rules);
    let script = |interpreter: &str, argument: &str, argv: &[&str]| ExecAction {
        script: Some(ScriptHead {
            interpreter: interpreter.as_bytes().to_vec(),
            argument: Some(argument.as_bytes().to_vec()),
        }),
        ..path("./tool.py", argv)
    };
    let python = |argv: &[&str]| {
        engine
            .exec(&script("/usr/bin/python3", "-E", argv))
            .decision
    };
    assert_eq!(python(&["./tool.py", "prod"]), Deny);
    assert_eq!(python(&["./tool.py", "dev"]), Allow);
    let node = engine
        .exec(&script("/usr/bin/env", "node", &["x"]))
        .decision;
    assert_eq!(node, Deny);
}

#[test]
fn descriptors_and_loaders_have_settings_of_their_own() {
    let engine = engine(Allow, vec![glob(Allow, "*")]);
    for named in [
        "/proc/self/fd/3",
        "/proc/12/task/13/fd/3",
        "//proc/./self///fd/./3",
        "/dev/fd/5",
        "/dev/fd/5/name",
        "/usr/../proc/self/fd/3",
    ] {
        let judged = engine.matcher().exec(&path(named, &["x"]));
        assert_eq!(
            (judged.decision, judged.cause),
            (Deny, CAUSE_FILELESS),
            "{named}"
        );
    }
    for plain in [
        "/proc/self/exe",
        "/dev/fdx/1",
        "/home/fd/3",
        "/procs/self/fd/3",
    ] {
        assert_eq!(engine.exec(&path(plain, &["x"])).decision, Allow, "{plain}");
    }
    let memfd = ExecAction {
        fileless: true,
        ..path("/tmp/x", &["x"])
    };
    assert_eq!(engine.exec(&memfd).rule.as_deref(), Some("fileless"));
    for loader in [
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/ld-2.31.so",
        "/lib/ld-musl-x86_64.so.1",
        "/tmp/a b/ld.so",
        "./ld.so",
    ] {
        let outcome = engine.exec(&path(loader, &["x", "/bin/rm"]));
        assert_eq!(outcome.rule.as_deref(), Some("loader"), "{loader}");
        assert_eq!(outcome.decision, Deny);
    }
    assert_eq!(decides(&engine, &["ldd", "/bin/ls"]), Allow);
    assert_eq!(decides(&engine, &["cat", "/lib/ld.so"]), Allow);
}

#[test]
fn fileless_stands_in_for_the_default_and_is_the_least_that_is_said() {
    let mut policy = policy(Form::Native, Deny, vec![glob(Deny, "*secret*")]);
    policy.exec.fileless = Allow;
    policy.exec.descriptor = Allow;
    let engine = Engine::new(policy, SEED).unwrap();
    assert_eq!(engine.exec(&path("/dev/fd/3", &["x"])).decision, Allow);
    let denied = engine.matcher().exec(&path("/dev/fd/3", &["x", "secret"]));
    assert_eq!((denied.decision, denied.cause), (Deny, CAUSE_RULE));
}

#[test]
fn a_descriptor_of_a_file_with_a_name_has_a_setting_of_its_own() {
    let mut policy = policy(Form::Native, Allow, Vec::new());
    policy.exec.descriptor = Allow;
    let engine = Engine::new(policy, SEED).unwrap();
    let named = path("/proc/self/fd/3", &["x"]);
    let nameless = ExecAction {
        fileless: true,
        ..named.clone()
    };
    assert_eq!(engine.exec(&named).decision, Allow);
    assert_eq!(engine.exec(&nameless).decision, Deny);
}

#[test]
fn argv_words_and_flags() {
    let rules = vec![
        argv(Deny, "git", &["push"], &["--force", "-f"], &[]),
        argv(Deny, "rm", &[], &[], &["-r", "-f"]),
        argv(Deny, "find", &[], &["-delete"], &[]),
        argv(Deny, "kubectl", &["delete", "ns"], &[], &[]),
    ];
    let engine = engine(Allow, rules);
    let denied = |line: &[&str]| decides(&engine, line) == Deny;
    assert!(denied(&["git", "push", "--force"]));
    assert!(denied(&["git", "push", "--force=yes"]));
    assert!(denied(&["git", "-C", "dir", "push", "origin", "-uf"]));
    assert!(denied(&["git", "--no-pager", "push", "-f"]));
    assert!(!denied(&["git", "push", "--forced"]));
    assert!(!denied(&["git", "push", "--force-with-lease"]));
    assert!(!denied(&["git", "push", "--", "-f"]));
    assert!(!denied(&["git", "push", "a --force"]));
    assert!(!denied(&["git", "pushy", "-f"]));
    assert!(!denied(&["git", "log", "push", "-f"]));
    assert!(denied(&["rm", "-rf", "x"]));
    assert!(denied(&["rm", "x", "-f", "y", "-vr"]));
    assert!(!denied(&["rm", "-r", "x"]));
    assert!(!denied(&["rm", "-r", "--", "-f"]));
    assert!(!denied(&["rm", "-f -r"]));
    assert!(denied(&["find", ".", "-name", "x", "-delete"]));
    assert!(!denied(&["find", ".", "-deleted"]));
    assert!(denied(&["kubectl", "-n", "x", "delete", "--now", "ns"]));
    assert!(!denied(&["kubectl", "delete", "nsx"]));
    assert!(!denied(&["kubectl", "delete ns"]));
}

#[test]
fn argv_allow_rules_take_words_only_in_place() {
    let rules = vec![
        argv(Allow, "git", &["log"], &[], &[]),
        argv(Allow, "npm", &["run", "test"], &["--silent"], &[]),
    ];
    let engine = engine(Deny, rules);
    let allowed = |line: &[&str]| decides(&engine, line) == Allow;
    assert!(allowed(&["git", "log"]));
    assert!(allowed(&["git", "log", "-p"]));
    assert!(!allowed(&["git", "-c", "x=y", "log"]));
    assert!(!allowed(&["git", "-c", "log"]));
    assert!(allowed(&["npm", "run", "test", "--silent"]));
    assert!(!allowed(&["npm", "run", "test"]));
    assert!(!allowed(&["npm", "run", "--silent", "test"]));
}

#[test]
fn a_forbidden_word_behind_200_kib_is_found() {
    let engine = engine(
        Allow,
        vec![
            glob(Deny, "*needle"),
            argv(Deny, "tar", &[], &["--to-command"], &[]),
        ],
    );
    let long = "x".repeat(200 << 10);
    assert_eq!(decides(&engine, &["echo", &long, "needle"]), Deny);
    assert_eq!(decides(&engine, &["echo", &long, "needles"]), Allow);
    let mut line = vec!["tar"];
    line.resize(100_000, "a");
    line.push("--to-command");
    assert_eq!(decides(&engine, &line), Deny);
}

#[test]
fn capabilities_are_missing_so_rules_that_require_them_allow_nothing() {
    let mut guarded = glob(Allow, "deploy *");
    guarded.requires = vec!["deploy".to_owned()];
    let check = RuleCheck::new(&guarded, &[]).unwrap();
    assert!(check.matches(&words(&["deploy", "x"])));
    let engine = engine(Deny, vec![guarded]);
    assert_eq!(decides(&engine, &["deploy", "x"]), Deny);
}

fn network(text: &str, prefix: u8) -> Network {
    let address: std::net::IpAddr = text.parse().unwrap();
    Network {
        prefix: if address.is_ipv4() {
            prefix + 96
        } else {
            prefix
        },
        address: ConnectAction::new(address, 0, 0).address,
    }
}

fn connect_rule(id: &str, decision: Decision, hosts: &[(&str, u8)], ports: &[u16]) -> ConnectRule {
    ConnectRule {
        id: id.to_owned(),
        decision,
        risk: Risk::Medium,
        hosts: hosts
            .iter()
            .map(|(text, prefix)| network(text, *prefix))
            .collect(),
        ports: ports.to_vec(),
        protocols: Vec::new(),
        unix: Vec::new(),
        justification: None,
        suggestion: None,
        requires: Vec::new(),
    }
}

#[test]
fn connects_take_the_strictest_of_all_covering_rules() {
    let mut policy = policy(Form::Native, Deny, Vec::new());
    policy.connect.default = Deny;
    let mut udp = connect_rule("udp", Deny, &[("10.1.1.0", 24)], &[53]);
    udp.protocols = vec![Protocol::Udp];
    policy.connect.rules = vec![
        connect_rule("loop", Allow, &[("127.0.0.1", 32), ("::1", 128)], &[9001]),
        connect_rule("ten", Allow, &[("10.0.0.0", 8)], &[]),
        connect_rule("ten-one", Deny, &[("10.1.0.0", 16)], &[]),
        connect_rule("inner", Allow, &[("10.1.1.0", 24)], &[]),
        connect_rule("ask", Ask, &[("10.2.0.0", 16)], &[443]),
        udp,
        connect_rule("named", Allow, &[("169.254.10.0", 24)], &[]),
        connect_rule("wide", Allow, &[("169.0.0.0", 8)], &[]),
        connect_rule("not-exempt", Deny, &[("169.254.20.1", 32)], &[80]),
    ];
    let engine = Engine::new(policy, SEED).unwrap();
    let judge = |address: &str, port: u16, protocol: u16| {
        let outcome = engine.connect(&ConnectAction::new(
            address.parse().unwrap(),
            port,
            protocol,
        ));
        (outcome.decision, outcome.rule.unwrap_or_default())
    };
    let is = |address: &str, port: u16, decision: Decision, rule: &str| {
        assert_eq!(
            judge(address, port, 6),
            (decision, rule.to_owned()),
            "{address} {port}"
        );
    };
    is("127.0.0.1", 9001, Allow, "loop");
    is("0.0.0.0", 9001, Allow, "loop");
    is("::", 9001, Allow, "loop");
    is("::ffff:127.0.0.1", 9001, Allow, "loop");
    is("127.0.0.1", 9002, Deny, "");
    is("10.9.9.9", 1, Allow, "ten");
    is("64:ff9b::10.9.9.9", 1, Allow, "ten");
    is("2002:a09:909::1", 1, Allow, "ten");
    is("10.1.2.3", 1, Deny, "ten-one");
    is("10.1.1.3", 1, Deny, "ten-one");
    is("64:ff9b::a01:203", 1, Deny, "ten-one");
    is("10.2.1.1", 443, Ask, "ask");
    is("10.2.1.1", 80, Allow, "ten");
    assert_eq!(judge("10.1.1.3", 53, 17), (Deny, "ten-one".to_owned()));
    is("169.254.169.254", 80, Deny, "metadata");
    is("64:ff9b::a9fe:a9fe", 80, Deny, "metadata");
    is("169.254.10.9", 80, Allow, "named");
    is("169.1.1.1", 80, Allow, "wide");
    is("169.254.20.1", 80, Deny, "not-exempt");
    is("169.254.20.1", 81, Deny, "metadata");
    is("fe80::1", 80, Deny, "metadata");
    is("fd00:ec2::254", 80, Deny, "metadata");
    is("fd00:ec2::253", 80, Deny, "");
}

#[test]
fn ten_thousand_literal_rules_stay_small() {
    let rules: Vec<_> = (0..10_000)
        .map(|n| match n % 3 {
            0 => glob(Allow, &format!("tool{n} build *")),
            1 => regex(Deny, &format!("^tool{n} (run|exec) .*--root")),
            _ => argv(Ask, &format!("tool{n}"), &["push"], &["--force"], &[]),
        })
        .collect();
    let engine = engine(Deny, rules);
    let tables = engine.tables();
    // Beside them stand those of the built-in rules.
    let built_in = self::engine(Deny, Vec::new());
    let built_in = built_in.tables();
    assert_eq!(tables.heads.len(), 10_000 + built_in.heads.len());
    // Equal groups lie once: what grows is the ranks.
    let grown = tables.segments.len() - built_in.segments.len();
    assert!(grown <= 1, "{grown}");
    let grown = tables.header.shared_count - built_in.header.shared_count;
    assert!(grown <= 1, "{grown}");
    assert_eq!(decides(&engine, &["tool9999", "build", "x"]), Allow);
    let outcome = engine.exec(&words(&["tool9997", "exec", "a", "--root"]));
    assert_eq!(
        outcome.rule.as_deref(),
        Some("^tool9997 (run|exec) .*--root")
    );
    let outcome = engine.exec(&words(&["tool5000", "push", "--force"]));
    assert_eq!(outcome.decision, Ask);
    assert_eq!(
        engine.matcher().exec(&words(&["tool5000", "push"])).cause,
        CAUSE_DEFAULT
    );
}

#[test]
fn paths_are_forms_for_denials_and_not_for_allowances() {
    let engine = engine(
        Deny,
        vec![
            glob(Deny, "/usr/bin/id*"),
            argv(Deny, "/opt/tool", &[], &[], &[]),
            glob(Deny, "*/bin/bash*"),
            glob(Deny, "*danger*"),
            glob(Allow, "id*"),
            glob(Allow, "/usr/bin/x*"),
            glob(Allow, "x*"),
        ],
    );
    let led = |path_of: &str, resolved: &str, argv: &[&str]| ExecAction {
        resolved: Some(resolved.into()),
        ..path(path_of, argv)
    };
    for denied in [
        path("/usr/bin/id", &["id"]),
        led("/usr/bin/x", "/usr/bin/id", &["x"]),
        led("/usr/bin/x", "/opt/tool", &["x"]),
        path("/usr/bin/x", &["/opt/tool"]),
        path("/usr/bin/bash", &["bash"]),
        // By its path an allow rule sees nothing that is trusted.
        led("/usr/bin/y", "/usr/bin/x", &["y"]),
    ] {
        assert_eq!(engine.exec(&denied).decision, Deny, "{denied:?}");
    }
    assert_eq!(engine.exec(&path("/usr/bin/x", &["x"])).decision, Allow);
    // A program that the agent can change goes by its path.
    let own = ExecAction {
        changeable: true,
        ..path("/usr/local/bin/x", &["x"])
    };
    assert_eq!(engine.exec(&own).decision, Deny);
    // A script behind a link.
    let script = ExecAction {
        own: Some(b"/opt/tool".to_vec()),
        script: Some(ScriptHead {
            interpreter: b"/bin/sh".to_vec(),
            argument: None,
        }),
        ..path("/usr/bin/x", &["x"])
    };
    assert_eq!(engine.exec(&script).decision, Deny);
}

#[test]
fn a_path_that_goes_back_up_is_allowed_by_no_rule() {
    let policy = r#"{"version": "2", "exec": {"default": "deny", "rules": [
        {"id": "tools", "decision": "allow", "glob": ["/opt/tools/*", "./run*", "../build/*"]},
        {"id": "id", "decision": "deny", "glob": ["*/never"]}]}}"#;
    let engine = Engine::new(enforcer_policy::parse(policy).unwrap().policy, 0).unwrap();
    let decision = |name: &str| engine.exec(&path(name, &["x"])).decision;
    for name in [
        "/opt/tools/x",
        "/opt/tools/a.b/..c/x",
        "./run",
        "../build/x",
        "/opt/tools/...",
        "/opt/tools/.x/y",
    ] {
        assert_eq!(decision(name), Decision::Allow, "{name}");
    }
    for name in [
        "/opt/tools/../../usr/bin/id",
        "/opt/tools/..",
        "/opt/tools/./x",
        "/opt/tools//x",
        "/../opt/tools/x",
        "//opt/tools/x",
        "./run/../../../usr/bin/id",
        "./../x",
        "../build/../../usr/bin/id",
    ] {
        assert_eq!(decision(name), Decision::Deny, "{name}");
    }
}

//! Unix rules against a naive reading of them, and what lifts a built-in rule.

use std::sync::Arc;

use enforcer_common::event::{CAUSE_DEFAULT, CAUSE_RULE};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::Config};

use super::{
    Builtin, RuleRef, Tables, assemble, exec, group::Groups, reference_tests::fnmatch, unix,
};
use crate::{
    Decision, Judgement, Risk, UnixAction,
    matcher::Matcher,
    model::{ConnectPolicy, ConnectRule, ExecPolicy},
    sockets,
};
use Decision::{Allow, Ask, Deny};

fn rule(decision: Decision, patterns: &[&str]) -> ConnectRule {
    ConnectRule {
        id: patterns.join(" "),
        decision,
        risk: Risk::Low,
        hosts: Vec::new(),
        ports: Vec::new(),
        protocols: Vec::new(),
        unix: patterns.iter().map(|text| (*text).to_owned()).collect(),
        justification: None,
        suggestion: None,
        requires: Vec::new(),
    }
}

fn tables(unix_default: Decision, rules: Vec<ConnectRule>) -> Tables {
    let exec = ExecPolicy {
        default: Deny,
        trusted_dirs: Vec::new(),
        transparent: Vec::new(),
        fileless: Deny,
        descriptor: Deny,
        loader: Deny,
        rules: Vec::new(),
    };
    let policy = ConnectPolicy {
        outside: crate::model::OutsideListeners::default(),
        default: Deny,
        unix_default,
        rules,
    };
    let mut groups = Groups::default();
    let exec = exec::tables(&mut groups, &exec, &[], &[], 1).unwrap();
    let unix = unix::table(&mut groups, &policy, &std::collections::BTreeSet::new()).unwrap();
    let mut tables = assemble(exec, groups);
    tables.header.unix = unix.head;
    tables.header.unix_default = unix_default.number();
    tables.header.unix_ask_from = unix.ranks.ask_from;
    tables.header.unix_deny_from = unix.ranks.deny_from;
    tables.unix_ranks = unix.ranks.refs;
    tables.unix_rule_asks = unix.asks;
    tables
}

fn matcher(unix_default: Decision, rules: Vec<ConnectRule>) -> Matcher {
    Matcher::new(Arc::new(tables(unix_default, rules)))
}

fn judge(matcher: &Matcher, name: &[u8]) -> Judgement {
    matcher.unix(&UnixAction::new(name))
}

/// The rule that decided.
fn decider(matcher: &Matcher, name: &[u8]) -> RuleRef {
    matcher.tables().unix_ranks[judge(matcher, name).rank as usize]
}

fn is(matcher: &Matcher, name: &str, wanted: Decision) {
    let judgement = judge(matcher, name.as_bytes());
    assert_eq!(judgement.decision, wanted, "{name}: {judgement:?}");
}

/// Whether a pattern matches a name, by trying everything.
fn naive(pattern: &str, name: &[u8]) -> bool {
    let chars: Vec<char> = pattern.chars().collect();
    fnmatch(&chars, name, false)
}

/// Whether a name is abstract, or a path that needs no resolving.
fn plain(name: &[u8]) -> bool {
    let path = name.strip_prefix(b"/").unwrap_or(name);
    name.first() == Some(&b'@')
        || path
            .split(|byte| *byte == b'/')
            .all(|part| !matches!(part, b"" | b"." | b".."))
}

#[test]
fn shipped_rules_hold_where_nothing_is_said() {
    let engine = matcher(Allow, Vec::new());
    for denied in [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/home/kim/.docker/run/docker.sock",
        "/run/user/1000/docker.sock",
        "/run/containerd/containerd.sock",
        "@/containerd-shim/k8s.io/0123/shim.sock",
        "/run/podman/podman.sock",
        "/run/user/1000/podman/podman.sock",
        "/var/run/crio/crio.sock",
        "/run/buildkit/buildkitd.sock",
        "/var/lib/incus/unix.socket",
        "/var/snap/lxd/common/lxd/unix.socket",
        "/run/libvirt/libvirt-sock",
        "/var/run/dbus/system_bus_socket",
        "/run/user/0/bus",
        "@/tmp/dbus-Xy12",
        "/run/systemd/private",
        "/run/user/1000/systemd/private",
        "/run/systemd/io.systemd.NamespaceResource",
        "/run/systemd/machine/io.systemd.Machine",
        "/run/snapd.socket",
        "/tmp/tmux-0/default",
        "/run/screen/S-kim/123.pts-0",
        "/tmp/.X11-unix/X0",
        "@/tmp/.X11-unix/X0",
        "/run/user/1000/wayland-0",
        "/run/user/1000/emacs/server",
        "/run/user/1000/vscode-ipc-1.sock",
        "@mykitty-12",
    ] {
        is(&engine, denied, Deny);
        assert!(
            matches!(
                decider(&engine, denied.as_bytes()),
                RuleRef::Builtin(Builtin::Socket(_))
            ),
            "{denied}"
        );
    }
    for asked in [
        "/tmp/ssh-abc/agent.12",
        "/run/user/1000/keyring/ssh",
        "/home/kim/.ssh/master-x",
        "/run/user/1000/gnupg/S.gpg-agent",
        "/root/.gnupg/S.gpg-agent",
        "/nix/var/nix/daemon-socket/socket",
    ] {
        is(&engine, asked, Ask);
    }
    for allowed in [
        "/run/nscd/socket",
        "/dev/log",
        "/run/systemd/journal/socket",
        "/run/systemd/journal/dev-log",
        "/run/systemd/journal/stdout",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/run/systemd/userdb/io.systemd.DynamicUser",
        "/run/systemd/notify",
        "/run/postgresql/.s.PGSQL.5432",
        "/run/mysqld/mysqld.sock",
        "/tmp/test.sock",
        "@test",
        "",
    ] {
        is(&engine, allowed, Allow);
        assert_eq!(judge(&engine, allowed.as_bytes()).cause, CAUSE_DEFAULT);
    }
}

#[test]
fn a_rule_lifts_what_it_names_and_no_more() {
    let engine = matcher(
        Deny,
        vec![
            rule(Allow, &["/run/docker.sock"]),
            rule(Ask, &["/run/user/1000/bus"]),
            rule(Allow, &["/tmp/ssh-*/agent.*", "/home/kim/.gnupg/S.*"]),
            rule(Allow, &["/tmp/.X11-unix/X9?"]),
            // Wider than any built-in rule: nothing is lifted.
            rule(Allow, &["/run/*", "*", "/tmp/tmux*"]),
            // Says no itself.
            rule(Deny, &["/tmp/.X11-unix/X98"]),
        ],
    );
    for (name, wanted) in [
        ("/run/docker.sock", Allow),
        ("/var/run/docker.sock", Allow),
        ("/home/kim/docker.sock", Deny),
        ("/run/user/1000/bus", Ask),
        ("/run/user/1001/bus", Deny),
        ("/tmp/ssh-a/agent.1", Allow),
        ("/tmp/ssh-a/b/agent.1", Allow),
        ("/tmp/ssh-a/other", Ask),
        ("/tmp/ssh-a/../agent.1", Ask),
        ("/home/kim/.gnupg/S.gpg-agent", Allow),
        ("/home/ann/.gnupg/S.gpg-agent", Ask),
        ("/tmp/.X11-unix/X99", Allow),
        ("/tmp/.X11-unix/X98", Deny),
        ("/tmp/.X11-unix/X0", Deny),
        ("@/tmp/.X11-unix/X99", Deny),
        ("/tmp/tmux-0/default", Deny),
        ("/tmp/tmux.sock", Allow),
        ("/run/containerd/containerd.sock", Deny),
        ("/run/podman/podman.sock", Deny),
        ("/run/x", Allow),
        ("/tmp/../run/x", Deny),
        ("/opt//x", Deny),
        ("/opt/x/.", Deny),
        ("/opt/x/..", Deny),
        ("/opt/..x/...", Allow),
        ("@x//../y", Allow),
        ("", Deny),
    ] {
        is(&engine, name, wanted);
    }
}

#[test]
fn a_rule_that_allows_only_with_a_capability_lifts_nothing() {
    let mut needs = rule(Allow, &["/run/docker.sock"]);
    needs.requires = vec!["docker".to_owned()];
    let engine = matcher(Allow, vec![needs]);
    is(&engine, "/run/docker.sock", Deny);
}

#[test]
fn its_own_socket_is_allowed_unless_the_policy_says_more() {
    let own = "/run/enforcer/coder-1-ab/approvals.sock";
    let denies = matcher(Deny, Vec::new());
    is(&denies, own, Allow);
    is(&denies, "/var/run/enforcer/x/approvals.sock", Allow);
    // Not resolved: such a name may lead anywhere.
    is(&denies, "/run/enforcer/../../tmp/x/approvals.sock", Deny);
    is(&denies, "/tmp/run/enforcer/x/approvals.sock", Deny);
    is(&denies, "/run/enforcer/x/approvals.sock2", Deny);
    for decision in [Deny, Ask] {
        for pattern in [own, "/run/*", "/run/enforcer/*/approvals.sock"] {
            is(
                &matcher(Allow, vec![rule(decision, &[pattern])]),
                own,
                decision,
            );
        }
    }
}

#[test]
fn a_policy_asks_nothing_once_it_denies_what_is_asked() {
    assert!(tables(Deny, Vec::new()).unix_asks());
    let asked: Vec<&str> = sockets::built_in()
        .unwrap()
        .iter()
        .filter(|rule| rule.decision == Ask)
        .flat_map(|rule| rule.unix.iter().map(String::as_str))
        .collect();
    for decision in [Deny, Allow] {
        let rules = vec![rule(decision, &asked)];
        // An allow rule is not about paths that are not resolved; those are still asked about.
        assert_eq!(tables(Deny, rules).unix_asks(), decision == Allow);
    }
    let mut rules = vec![rule(Deny, &asked), rule(Ask, &["/x"])];
    assert!(tables(Deny, rules.clone()).unix_asks());
    rules.pop();
    let matcher = matcher(Allow, rules);
    is(&matcher, "/tmp/ssh-x/agent.1", Deny);
    assert_eq!(decider(&matcher, b"/tmp/ssh-x/agent.1"), RuleRef::Rule(0));
}

#[test]
fn addresses_are_not_names() {
    let mut hosts = rule(Deny, &[]);
    hosts.ports = vec![1];
    let tables = tables(Ask, vec![hosts, rule(Allow, &["/a"])]);
    assert!(tables.unix_ranks.contains(&RuleRef::Rule(1)));
    assert!(!tables.unix_ranks.contains(&RuleRef::Rule(0)));
    assert!(tables.unix_asks());
    assert!(!tables.exec_asks() && !tables.connect_asks());
}

#[test]
fn a_thousand_rules_fit() {
    let rules = (0..1_000)
        .map(|n| {
            let decision = [Allow, Ask, Deny][n % 3];
            rule(
                decision,
                &[&format!("/srv/{n}/*.sock"), &format!("@srv-{n}")],
            )
        })
        .collect();
    let engine = matcher(Deny, rules);
    for (name, wanted) in [
        ("/srv/999/a.sock", Allow),
        ("@srv-1", Ask),
        ("@srv-2", Deny),
        ("@srv-1000", Deny),
        ("/run/docker.sock", Deny),
    ] {
        is(&engine, name, wanted);
    }
    let many = matcher(
        Allow,
        vec![rule(Deny, &["*a*b*", "*c*d*", "*e?f*", "*[gh]*i*"])],
    );
    is(&many, "/xxa/yb", Deny);
    is(&many, "@e1f", Deny);
    is(&many, "/abd", Deny);
    is(&many, "/bdc", Allow);
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let piece = select(vec![
        &b"/"[..],
        b"a",
        b"b",
        b".",
        b"..",
        b" ",
        b"\0",
        b"\n",
        b"\xff",
        "é".as_bytes(),
        b"/a/",
        b"/../",
        b"run",
    ]);
    (
        select(vec![&b"/"[..], b"@", b"/var/run/", b"/run/", b"", b"/a/"]),
        vec(piece, 0..8),
    )
        .prop_map(|(start, rest)| [start, &rest.concat()].concat())
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "a", "b", "*", "*", "?", "[ab]", "[!a]", ".", "..", "/", " ", "é", "\n", "run", "[!/]",
    ]);
    (select(vec!["/", "@", "*", "/run/", "/a"]), vec(piece, 0..7))
        .prop_map(|(start, rest)| format!("{start}{}", rest.concat()))
}

fn decision() -> impl Strategy<Value = Decision> {
    select(vec![Allow, Ask, Deny])
}

/// Names and patterns near the built-in rules.
const NEAR: [&str; 14] = [
    "/run/docker.sock",
    "/run/user/1000/bus",
    "/run/user/1000/docker.sock",
    "/tmp/ssh-x/agent.1",
    "/tmp/ssh-x/../agent.1",
    "/run/systemd/private",
    "/run/systemd/notify",
    "@/tmp/dbus-abc",
    "@/tmp/.X11-unix/X0",
    "/tmp/.X11-unix/X1",
    "/run/containerd/s/abc",
    "/run/user/1000/gnupg/S.gpg-agent",
    "/opt/app/app.sock",
    "/opt/docker.sock",
];
const PATTERNS_NEAR: [&str; 16] = [
    "/run/docker.sock",
    "*/docker.sock",
    "*docker.sock",
    "/run/*",
    "/run/user/*/bus",
    "/run/user/1000/*",
    "/run/user/1000/b[tu]s",
    "/tmp/ssh-*",
    "/tmp/ssh-?/agent.*",
    "@/tmp/*",
    "@/tmp/dbus-*",
    "/tmp/.X11-unix/X?",
    "/run/containerd/s/*",
    "/run/systemd/*",
    "*",
    "/opt/*",
];

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(32) })]

    #[test]
    fn rules_are_their_plain_reading(
        rules in vec((decision(), vec(pattern(), 1..3)), 1..6),
        default in decision(),
        names in vec(name(), 1..24),
    ) {
        let made = rules
            .iter()
            .map(|(decision, patterns)| {
                rule(*decision, &patterns.iter().map(String::as_str).collect::<Vec<_>>())
            })
            .collect();
        let matcher = matcher(default, made);
        for name in &names {
            let seen = match name.strip_prefix(b"/var/run/") {
                Some(rest) => [b"/run/", rest].concat(),
                None => name.clone(),
            };
            let expected = rules
                .iter()
                .enumerate()
                .filter(|(_, (decision, patterns))| {
                    patterns.iter().any(|pattern| naive(pattern, &seen))
                        && (*decision != Allow || plain(&seen))
                })
                .max_by_key(|(at, (decision, _))| (*decision, std::cmp::Reverse(*at)));
            let judgement = judge(&matcher, name);
            match expected {
                None => prop_assert_eq!(
                    (judgement.decision, judgement.cause, judgement.rank),
                    (default, CAUSE_DEFAULT, 0),
                    "{:?} on {:?}", &rules, name
                ),
                Some((at, (decision, _))) => {
                    prop_assert_eq!(
                        (judgement.decision, judgement.cause),
                        (*decision, CAUSE_RULE),
                        "{:?} on {:?}", &rules, name
                    );
                    prop_assert_eq!(decider(&matcher, name), RuleRef::Rule(at));
                }
            }
        }
    }

    #[test]
    fn built_in_rules_yield_only_to_who_names_the_socket(
        rules in vec((decision(), select(PATTERNS_NEAR.to_vec())), 0..5),
    ) {
        let made = rules.iter().map(|(decision, text)| rule(*decision, &[text])).collect();
        let matcher = matcher(Allow, made);
        for name in NEAR {
            let name = name.as_bytes();
            let judgement = judge(&matcher, name);
            let built_in = sockets::built_in()
                .unwrap()
                .iter()
                .filter(|rule| rule.unix.iter().any(|text| naive(text, name)))
                .map(|rule| rule.decision)
                .max();
            let named: Vec<Decision> = rules
                .iter()
                .filter(|(decision, text)| naive(text, name) && (*decision != Allow || plain(name)))
                .map(|(decision, _)| *decision)
                .collect();
            let strictest = named.iter().copied().max().unwrap_or(Allow);
            // Never less than the policy's own rules say.
            prop_assert!(judgement.decision >= strictest, "{:?} on {:?}", &rules, name);
            // Never less than the built-in rule, unless one of the policy's rules is about the socket.
            if let Some(built_in) = built_in
                && !named.iter().any(|decision| *decision < Deny)
            {
                prop_assert!(judgement.decision >= built_in, "{:?} on {:?}", &rules, name);
            }
            // An exact name is always enough.
            if let Some((exact, _)) = rules.iter().find(|(_, text)| text.as_bytes() == name) {
                prop_assert_eq!(judgement.decision, strictest.max(*exact), "{:?} on {:?}", &rules, name);
            }
        }
    }
}

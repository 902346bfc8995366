//! Why something was denied: told to the agent by its own run, and to the operator from the trail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::path::Path;

use enforcer_tests::{Session, agent_user, enforcer, probe, quick, root, skip};
use serde_json::{Value, json};

/// Nothing is allowed to connect anywhere, but for enforcer's own socket.
fn policy() -> Value {
    json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [{
            "id": "no-victim", "decision": "deny", "argv": {"program": "forbidden"},
            "justification": "Harms the innocent", "suggestion": "let it live",
        }]},
        "connect": {"default": "deny", "unix_default": "deny"},
    })
}

fn session() -> Session {
    let session = Session::new(&policy());
    let command = enforcer();
    let binary = session.place(Path::new(command.get_program()), "bin/enforcer");
    let victim = session.place(probe!("victim"), "bin/forbidden");
    session
        .variable("ENFORCER", binary)
        .variable("VICTIM", victim)
}

#[test]
fn an_agent_learns_why_it_was_denied() {
    if !root() {
        return;
    }
    let session = session();
    let ended = session.sh(
        "$ENFORCER explain --last; echo $?; $VICTIM one; $VICTIM two; \
         $ENFORCER explain --last; $ENFORCER explain --last -n 9 --json; \
         $ENFORCER explain --last --agent x || echo $?",
    );
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    let [nothing, last, first, again, refused] = lines[..] else {
        panic!("{text}\n{}", ended.stderr);
    };
    assert_eq!(nothing, "2");
    assert!(ended.stderr.contains("nothing has been denied yet"));
    assert!(
        last.contains("forbidden two: Harms the innocent")
            && last.ends_with("Instead: let it live"),
        "{last}"
    );
    let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap()["what"].clone();
    let what = parsed(first);
    assert!(what.as_str().unwrap().contains("forbidden one"), "{what}");
    assert_eq!(parsed(again), last);
    assert_eq!(refused, "2");
}

/// Runs a command again and again, each time with an output of its own that ends with it, and counts how often `wanted` was
/// in it.
fn times_told(session: &Session, command: &str, wanted: &str, times: u32) {
    let ended = session.sh(&format!(
        "n=0; i=0; while [ $i -lt {times} ]; do i=$((i+1)); \
         case \"$({command} 2>&1)\" in *'{wanted}'*) n=$((n+1));; esac; done; echo $n"
    ));
    assert_eq!(ended.text().trim(), times.to_string(), "{}", ended.stderr);
}

/// Whoever is refused may end at once, and a killed one has ended: the reason is there before.
#[test]
fn the_reason_of_a_denied_exec_comes_before_the_end_of_its_program() {
    if !root() {
        return;
    }
    let wanted = "forbidden one: Harms the innocent";
    let mut policy = policy();
    policy["breaker"] = json!({"denials": 10_000});
    let (refused, killed) = (session(), session().on_deny_kill());
    for session in [refused, killed] {
        session.set_policy(&policy);
        times_told(&session, "$VICTIM one", wanted, quick(1000, 20));
    }
}

#[test]
fn who_meets_an_open_breaker_learns_it_before_the_end() {
    if !root() {
        return;
    }
    let mut policy = policy();
    policy["breaker"] = json!({"denials": 3});
    let session = session();
    session.set_policy(&policy);
    // The breaker opens by the first three; whatever is started behind it says so.
    let ended = session.sh(
        "for i in 1 2 3; do $VICTIM $i; done 2>/dev/null; \
         n=0; for i in 1 2 3 4 5; do case \"$(/bin/true 2>&1)\" in *breaker*) n=$((n+1));; esac; done; echo $n",
    );
    assert_eq!(ended.text().trim(), "5", "{}", ended.stderr);
}

#[test]
fn the_reason_of_a_denied_connect_comes_before_the_end_of_its_program() {
    if !root() {
        return;
    }
    let session = Session::new(&json!({
        "version": "2",
        "exec": {"default": "allow"},
        "connect": {"default": "allow", "rules": [{
            "id": "no-host", "decision": "deny", "hosts": ["127.0.0.2"], "justification": "Nobody lives there",
        }]},
    }));
    let dial = session.place(probe!("dial"), "bin/dial");
    let session = session.variable("DIAL", dial);
    let wanted = "connect 127.0.0.2:9: Nobody lives there";
    times_told(&session, "$DIAL tcp 127.0.0.2 9", wanted, quick(1000, 20));
}

/// Takes what a process of the agent's is told on a socket, and shows who has written it.
const WHO_WRITES: &str = r#"
import os, socket, struct, subprocess
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
a.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
# Of this process too: where the kernel refuses, the other is gone when the line comes.
os.dup2(b.fileno(), 2)
try:
    subprocess.run([os.environ["VICTIM"], "one"])
except PermissionError:
    pass
a.settimeout(10)
text, ancillary, _, _ = a.recvmsg(4096, socket.CMSG_SPACE(12))
pid, uid, gid = struct.unpack("3i", ancillary[0][2])
status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
print(text.decode().strip())
print(uid, gid)
for name in ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"]:
    print(name, *status[name].split())
"#;

#[test]
fn who_tells_it_is_the_agents_user_and_nothing_more() {
    if !root() {
        return;
    }
    if enforcer_tests::program("python3").is_none() {
        return skip("no python3");
    }
    let session = session();
    let ended = session.run(["python3", "-c", WHO_WRITES]);
    let text = ended.text();
    let mut lines = text.lines();
    assert!(
        lines.next().unwrap_or_default().contains("forbidden one"),
        "{text}{}",
        ended.stderr
    );
    let (uid, gid) = agent_user();
    assert_eq!(lines.next(), Some(format!("{uid} {gid}").as_str()));
    let none = "0000000000000000";
    let wanted = [
        format!("Uid {uid} {uid} {uid} {uid}"),
        format!("Gid {gid} {gid} {gid} {gid}"),
        format!("CapInh {none}"),
        format!("CapPrm {none}"),
        format!("CapEff {none}"),
        format!("CapBnd {none}"),
        format!("CapAmb {none}"),
        "NoNewPrivs 1".to_owned(),
    ];
    let found: Vec<&str> = lines.filter(|line| !line.starts_with("Groups")).collect();
    assert_eq!(found, wanted);
}

#[test]
fn the_operator_learns_it_from_the_trail() {
    if !root() {
        return;
    }
    let session = session();
    let ended = session.sh("$VICTIM one; $VICTIM two; exit 0");
    assert_eq!(ended.trail.denials().count(), 2);
    let trail = session.directory().join("trail-0.jsonl");
    let explain = |words: &[&str]| {
        let mut command = enforcer();
        command.args(["explain", "--last", "--audit"]).arg(&trail);
        command.args(words).output().unwrap()
    };
    let policy = session.policy();
    let told = explain(&["--policy", policy.to_str().unwrap()]);
    let text = String::from_utf8(told.stdout).unwrap();
    for wanted in [
        "forbidden two",
        "  reason: Harms the innocent",
        "  rule: no-victim",
        "  how: errno, judged at stage",
        "  instead: let it live",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let none = explain(&["--agent", "nobody-of-this-name"]);
    assert_eq!(none.status.code(), Some(2));
    let all = explain(&["-n", "9", "--json"]);
    assert_eq!(String::from_utf8(all.stdout).unwrap().lines().count(), 2);
}

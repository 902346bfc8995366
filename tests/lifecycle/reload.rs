//! Another policy for an agent that runs, and what holds of any change: in force from the next action on, whole or not at
//! all, and nobody's but root's.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use enforcer_tests::{Running, Session, approvals, enforcer, root};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use serde_json::{Value, json};

use crate::{
    fresh::both,
    obedient::{DENIED, Obedient, but, made, refused},
};

#[test]
fn another_policy_decides_from_the_next_action_on() {
    let Some(agent) = Obedient::start(&but("env", "192.0.2.0/24")) else {
        return;
    };
    let connects = |to: &str| {
        let (said, _) = agent.does(&format!("bash -c 'echo > /dev/udp/{to}/9'"));
        !said.contains("not permitted")
    };
    assert_eq!(agent.does("/usr/bin/env").1, DENIED);
    assert_eq!(agent.does("/usr/bin/id -u").1, 0);
    assert!(!connects("192.0.2.1") && connects("127.0.0.2"));

    let other = agent.file("other.json", &but("id", "127.0.0.2/32"));
    let said = made(&agent.reload(&["--policy", other.to_str().unwrap()]));
    assert!(said.contains("other.json"), "{said}");
    assert_eq!(agent.does("/usr/bin/env").1, 0);
    let (denied, status) = agent.does("/usr/bin/id -u");
    assert_eq!(status, DENIED);
    assert!(denied.contains("no-id"), "{denied}");
    assert!(!connects("127.0.0.2"));

    // The file that it has now, read anew.
    fs::write(&other, but("env", "192.0.2.0/24").to_string()).unwrap();
    assert_eq!(agent.does("/usr/bin/env").1, 0, "not before it is said");
    made(&agent.reload(&[]));
    assert_eq!(agent.does("/usr/bin/env").1, DENIED);
    assert_eq!(agent.does("/usr/bin/id -u").1, 0);
    assert!(connects("127.0.0.2"));

    let ended = agent.end();
    let lines = &ended.trail.lines;
    let changes = lines
        .iter()
        .filter(|line| line.reason().contains("other.json decides"));
    assert_eq!(changes.count(), 2, "{}", ended.trail.shown());
    // Each denial by the rule of the policy that decided then.
    let rules: Vec<&str> = ended
        .trail
        .denials()
        .map(enforcer_tests::Line::rule)
        .collect();
    assert_eq!(
        rules,
        [
            "no-env",
            "no-192.0.2.0/24",
            "no-id",
            "no-127.0.0.2/32",
            "no-env"
        ]
    );
}

#[test]
fn what_is_wrong_with_a_policy_changes_nothing() {
    let Some(agent) = Obedient::start(&but("env", "192.0.2.0/24")) else {
        return;
    };
    let bad = agent.file(
        "bad.json",
        &json!({"version": "2", "exec": {"default": "perhaps"}}),
    );
    let unproven = agent.file(
        "unproven.json",
        &json!({"version": "2", "exec": {"default": "deny", "rules": [
            {"id": "x", "decision": "allow", "argv": {"program": "env"}, "match": ["id"]}]}}),
    );
    let shut = agent.file("shut.json", &{
        let mut policy = but("id", "192.0.2.0/24");
        policy["syscalls"] = json!({"deny": [{"name": "ptrace", "reason": "none of it"}]});
        policy
    });
    let theirs = agent.session.work().join("theirs.json");
    fs::write(&theirs, but("id", "192.0.2.0/24").to_string()).unwrap();
    let missing = Path::new("/nowhere/policy.json").to_owned();
    let linked = agent.session.directory().join("linked.json");
    std::os::unix::fs::symlink(&bad, &linked).unwrap();
    for (file, says) in [
        (&bad, "perhaps"),
        (&unproven, "match"),
        (&missing, "does not exist"),
        (&linked, "symlink"),
        (&theirs, "so the agent could replace it"),
    ] {
        let why = refused(&agent.reload(&["--policy", file.to_str().unwrap()]));
        assert!(
            why.contains(says) && why.contains(file.to_str().unwrap()),
            "{why}"
        );
        assert_eq!(agent.does("/usr/bin/env").1, DENIED);
        assert_eq!(agent.does("/usr/bin/id").1, 0);
    }
    // Where the filter leaves open what the policy shuts.
    let output = agent.reload(&["--policy", shut.to_str().unwrap()]);
    if output.status.success() {
        assert_eq!(agent.does("/usr/bin/id").1, DENIED);
    } else {
        let why = refused(&output);
        assert!(
            why.contains("ptrace") && why.contains("stop the agent"),
            "{why}"
        );
        assert_eq!(agent.does("/usr/bin/id").1, 0);
    }
    let output = enforcer()
        .args(["reload", "nobody-of-this-name"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    agent.end();
}

#[test]
fn nobody_else_changes_an_agent() {
    let mut policy = but("env", "192.0.2.0/24");
    // What guards the agent is open: the socket has to tell who is who.
    policy["guard"] = json!({"allow": [{"name": "commands", "reason": "the socket is tried"}]});
    for as_root in [false, true] {
        let Some(agent) = Obedient::of(|| {
            let session = Session::new(&policy).installed();
            if as_root { session.as_root() } else { session }
        }) else {
            return;
        };
        let enforcer = agent.session.enforcer();
        let name = agent.running.agent();
        for words in [
            format!("agent set {name} --observe yes"),
            format!("agent set {name} --grant deploy"),
            format!("reload {name}"),
        ] {
            let (said, status) = agent.does(&format!("{} {words}", enforcer.display()));
            assert_ne!(status, 0, "{words}: {said}");
        }
        // As the program would, past its own checks.
        let script = r#"python3 - <<'EOF'
import glob, socket
for path in glob.glob("/run/enforcer/*/approvals.sock") or ["/run/enforcer/NAME/approvals.sock"]:
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        s.sendall(b'{"op":"change","change":{"observe":true}}\n')
        print(s.recv(65536).decode())
    except OSError as error:
        print(error)
EOF"#;
        let (said, _) = agent.does(script);
        assert!(!said.contains("\"changed\""), "{said}");
        assert_eq!(agent.does("/usr/bin/env").1, DENIED);
        let ended = agent.end();
        let mut lines = ended.trail.lines.iter();
        assert!(!lines.any(|line| line.reason().contains("Changed by")));
    }
}

#[test]
fn what_waits_for_an_answer_is_judged_by_the_policy_of_the_answer() {
    let asking = json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "asks", "decision": "ask", "argv": {"program": "id"}},
        ]},
        "connect": {"default": "allow"},
        "breaker": {"denials": 1_000_000},
    });
    // The shell waits before its exec, Python's child behind it.
    for how in [
        "/usr/bin/id > ran; true",
        "python3 -c 'import subprocess; subprocess.run([\"/usr/bin/id\"], stdout=open(\"ran\", \"w\"))'; true",
    ] {
        let Some(agent) = Obedient::start(&asking) else {
            return;
        };
        let work = agent.session.work();
        fs::write(work.join("new"), how).unwrap();
        fs::rename(work.join("new"), work.join("q1")).unwrap();
        let request = agent.running.request();
        let denying = agent.file("denying.json", &but("id", "192.0.2.0/24"));
        made(&agent.reload(&["--policy", denying.to_str().unwrap()]));
        // Who had not come as far as to wait is denied by the new policy, and the request is cancelled.
        approvals(&["approve", request.id()]);
        agent
            .running
            .until("it is answered", |_| work.join("r1").exists());
        let ran = fs::read_to_string(work.join("ran")).unwrap_or_default();
        assert_eq!(ran, "", "{how}");
        let ended = agent.end();
        let refused = ended.trail.denials().any(|line| {
            line.reason().contains("the policy was replaced") || line.rule() == "no-id"
        });
        assert!(refused, "{}", ended.trail.shown());
    }
}

#[test]
fn a_new_policy_forgets_approvals_that_were_to_last() {
    let asking = |name: &str| {
        json!({
            "version": "2",
            "description": name,
            "exec": {"default": "allow", "rules": [
                {"id": "asks", "decision": "ask", "argv": {"program": "id"}},
            ]},
            "connect": {"default": "allow"},
            "approvals": {"timeout_s": 1},
            "breaker": {"denials": 1_000_000},
        })
    };
    let Some(agent) = Obedient::start(&asking("one")) else {
        return;
    };
    let work = agent.session.work();
    fs::write(work.join("new"), "/usr/bin/id").unwrap();
    fs::rename(work.join("new"), work.join("q1")).unwrap();
    agent.running.request().approve(&["--scope", "rule"]);
    agent.asked.set(2);
    assert_eq!(agent.does("/usr/bin/id").1, 0);
    made(&agent.set(&["--grant", "deploy"]));
    assert_eq!(agent.does("/usr/bin/id").1, 0);
    let other = agent.file("other.json", &asking("two"));
    made(&agent.reload(&["--policy", other.to_str().unwrap()]));
    assert_eq!(agent.does("/usr/bin/id").1, DENIED, "nobody has answered");
    agent.end();
}

/// An agent that has left a hundred lines in its trail, and then stands still until it is told to go on: `env` then, and
/// `said` has its status.
fn idle() -> Option<(Session, Running)> {
    if !root() {
        return None;
    }
    let session = Session::new(&but("env", "192.0.2.0/24"));
    let work = session.work();
    mkfifo(&work.join("on"), Mode::from_bits_truncate(0o666)).unwrap();
    let running = session.start([
        "/bin/sh",
        "-c",
        "n=0; while [ $n -lt 100 ]; do /bin/true; n=$((n + 1)); done; echo > ready; read -r x < on; \
         /usr/bin/env; echo $? > part; mv part said",
    ]);
    running.await_file(&work.join("ready"));
    // Its last lines are written, and the launcher's thread that changes things is there.
    let set = enforcer()
        .args(["agent", "set", running.agent(), "--grant", "nothing"])
        .output();
    made(&set.unwrap());
    Some((session, running))
}

/// Sets a limit of the launcher's, the soft one: it can be raised again.
fn limit(running: &Running, limit: &str) {
    let pid = running.pid().to_string();
    let status = Command::new("prlimit")
        .args(["--pid", &pid, limit])
        .status();
    assert!(status.unwrap().success(), "{limit}: {}", running.stderr());
}

/// Tries to have an idle agent only observed, with these words besides, and finds that nothing of it was done.
fn nothing_of_it(session: &Session, running: Running, limited: (&str, &str), words: &[&str]) {
    let (tight, free) = limited;
    let before = running.trail().lines.len();
    limit(&running, tight);
    let output = enforcer()
        .args(["agent", "set", running.agent(), "--observe", "yes"])
        .args(words)
        .output()
        .unwrap();
    let why = refused(&output);
    assert!(!why.contains("it is changed"), "{why}");
    limit(&running, free);
    let status = enforcer().args(["status", "--json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let agents = status["agents"].as_array().unwrap();
    let own = agents.iter().find(|one| one["name"] == running.agent());
    assert_eq!(own.unwrap()["governed"], "enforce");
    let work = session.work();
    fs::write(work.join("on"), "go\n").unwrap();
    running.await_file(&work.join("said"));
    let said = fs::read_to_string(work.join("said")).unwrap();
    assert_eq!(said, format!("{DENIED}\n"), "{why}");
    let ended = running.wait();
    let lines = &ended.trail.lines[before..];
    assert!(
        !lines
            .iter()
            .any(|line| line.reason().contains("Changed by")),
        "{}",
        ended.trail.shown()
    );
}

#[test]
fn what_cannot_be_recorded_is_not_changed() {
    let Some((session, running)) = idle() else {
        return;
    };
    let size = fs::metadata(running.trail_path()).unwrap().len();
    let limits = (&*format!("--fsize={size}:"), "--fsize=unlimited:");
    nothing_of_it(&session, running, limits, &[]);
}

#[test]
fn what_there_is_no_memory_for_is_not_changed() {
    let Some((session, running)) = idle() else {
        return;
    };
    // Too little for the time stamps of these rates, which are mapped after all else is done.
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib: u64 = size
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    let limits = (&*format!("--as={}:", (kib + 1200) << 10), "--as=unlimited:");
    let rates = ["--rate", "exec=100000/1h", "--rate", "connect=100000/1h"];
    nothing_of_it(&session, running, limits, &rates);
}

#[test]
fn who_hears_no_answer_is_not_told_that_nothing_changed() {
    let Some((_session, running)) = idle() else {
        return;
    };
    running.signal(Signal::SIGSTOP);
    let mut reload = enforcer();
    reload.args(["reload", running.agent()]);
    let reload = thread::spawn(move || reload.output().unwrap());
    thread::sleep(Duration::from_millis(500));
    running.signal(Signal::SIGKILL);
    let output = reload.join().unwrap();
    let (out, err) = both(&output);
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert!(
        err.contains("not known whether it is changed") && err.contains("enforcer status"),
        "{err}"
    );
    let stopped = enforcer().args(["stop", running.agent()]).output().unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    running.until("nothing is left", |running| running.left_over().is_empty());
}

#[test]
fn a_launcher_that_is_killed_while_it_changes_leaves_an_agent_that_can_be_taken_down() {
    let one = but("env", "192.0.2.0/24");
    for after_ms in [0, 5, 10, 20, 30, 40, 60] {
        let Some(agent) = Obedient::start(&one) else {
            return;
        };
        let other = agent.file("other.json", &but("id", "192.0.2.0/24"));
        let name = agent.running.agent().to_owned();
        let mut reload = enforcer();
        reload.args(["reload", &name, "--policy"]).arg(&other);
        let reload = thread::spawn(move || reload.output().unwrap());
        thread::sleep(Duration::from_millis(after_ms));
        agent.running.signal(Signal::SIGKILL);
        reload.join().unwrap();
        let stopped = enforcer().args(["stop", &name]).output().unwrap();
        assert!(stopped.status.success(), "after {after_ms} ms: {stopped:?}");
        agent
            .running
            .until("nothing is left", |running| running.left_over().is_empty());
        // Its events are told, all of them.
        for line in agent.running.trail().execs() {
            assert!(["", "no-env", "no-id"].contains(&line.rule()), "{line:?}");
        }
    }
}

/// Root's directories are its own, and not all ways to them are known: what it cannot do by their names
/// (`confined.rs`) it may do by another.
#[test]
fn an_agent_that_is_root_gets_no_other_policy() {
    let policy = but("env", "192.0.2.0/24");
    let Some(agent) = Obedient::of(|| Session::new(&policy).as_root()) else {
        return;
    };
    let why = refused(&agent.reload(&[]));
    assert!(why.contains("uid 0"), "{why}");
    assert_eq!(agent.does("/usr/bin/env").1, DENIED);
    made(&agent.set(&["--grant", "deploy"]));
    assert_eq!(agent.does("/usr/bin/env").1, DENIED);
    agent.end();
}

#[test]
fn each_exec_goes_by_one_of_two_policies_whole() {
    let one = json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "one-yes", "decision": "allow", "argv": {"program": "id"}},
            {"id": "one-no", "decision": "deny", "argv": {"program": "env"}},
        ]},
        "connect": {"default": "allow"},
        "breaker": {"denials": 1_000_000},
    });
    // The same names at other ranks, and contradicting.
    let two = json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "two-more", "decision": "deny", "argv": {"program": "never"}},
            {"id": "two-no", "decision": "deny", "argv": {"program": "id"}},
            {"id": "two-yes", "decision": "allow", "argv": {"program": "env"}},
        ]},
        "connect": {"default": "allow"},
        "breaker": {"denials": 1_000_000},
    });
    let Some(agent) = Obedient::start(&one) else {
        return;
    };
    let (first, second) = (agent.file("one.json", &one), agent.file("two.json", &two));
    let work = agent.session.work();
    agent.does("(while [ ! -e end ]; do /usr/bin/id; /usr/bin/env; done) >/dev/null 2>&1 &");
    let flips = std::env::var("ENFORCER_FLIPS").ok();
    let flips = flips.map_or_else(
        || enforcer_tests::quick(100, 10),
        |count| count.parse().unwrap(),
    );
    for flip in 0..flips {
        let file = if flip % 2 == 0 { &second } else { &first };
        made(&agent.reload(&["--policy", file.to_str().unwrap()]));
    }
    assert!(work.exists());
    let ended = agent.end();
    let mut seen = [0; 4];
    for line in ended.trail.execs() {
        let command = line.command();
        let program = command.split('/').next_back().unwrap_or(command);
        if !["id", "env"].contains(&program) {
            continue;
        }
        let at = match (program, line.rule(), line.denied()) {
            ("id", "one-yes", false) => 0,
            ("env", "one-no", true) => 1,
            ("id", "two-no", true) => 2,
            ("env", "two-yes", false) => 3,
            _ => panic!("{command} by both or none: {line:?}"),
        };
        seen[at] += 1;
    }
    eprintln!(
        "{flips} flips; allowed and denied by the one, denied and allowed by the other: {seen:?}"
    );
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

//! What is said to be in force, and what is: the start line and `doctor` against what an agent comes to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram, UnixListener},
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::Command,
    sync::OnceLock,
};

use enforcer_tests::{Session, agent_user, enforcer, open, probe, root};
use serde_json::{Value, json};

/// What `doctor` says.
struct Doctor(Value);

impl Doctor {
    /// Asked once: in a guest that takes seconds.
    fn ask() -> &'static Self {
        static DOCTOR: OnceLock<Doctor> = OnceLock::new();
        DOCTOR.get_or_init(|| {
            let output = enforcer().args(["doctor", "--json"]).output().unwrap();
            Self(serde_json::from_slice(&output.stdout).unwrap())
        })
    }

    fn level(&self) -> &str {
        self.0["enforcement"].as_str().unwrap()
    }

    /// Whether a check is good, and what it says.
    fn check(&self, name: &str) -> (bool, &str) {
        let checks = self.0["checks"].as_array().unwrap();
        let check = checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("no {name}: {:#}", self.0));
        (check["ok"] == true, check["detail"].as_str().unwrap())
    }
}

/// The LSMs that the kernel runs; `None` where it does not say.
fn active_lsms() -> Option<String> {
    fs::read_to_string("/sys/kernel/security/lsm").ok()
}

const ACTS: &str = "\
$VICTIM one; echo exec $?
echo stream $($DIAL stream @$NAME)
echo path $($DIAL stream $SOCKET)
echo datagram $($DIAL sendto @$NAME-d)
kill -USR1 $OUTSIDER; echo signal $?
head -c 1 /proc/$OUTSIDER/environ >/dev/null; echo trace $?";

#[test]
fn what_is_said_to_be_in_force_is() {
    if !root() {
        return;
    }
    let doctor = Doctor::ask();
    let refuses_exec = doctor.check("lsm/bprm_check_security").0;
    assert_eq!(doctor.level() == "full", refuses_exec, "{:#}", doctor.0);
    if active_lsms().is_some_and(|lsms| !lsms.split(',').any(|name| name.trim() == "bpf")) {
        assert_eq!(doctor.level(), "partial", "{:#}", doctor.0);
        for hook in [
            "socket_connect",
            "unix_stream_connect",
            "unix_may_send",
            "task_kill",
        ] {
            assert!(!doctor.check(&format!("lsm/{hook}")).0, "{:#}", doctor.0);
        }
    }
    let (unix_in_kernel, _) = doctor.check("unix sockets");
    let outside = doctor.check("processes outside").1;

    let session = Session::new(&open());
    let socket = session.directory().join("s");
    let name = format!("shut-{}", std::process::id());
    let abstract_name = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
    let stream = UnixListener::bind_addr(&abstract_name(&name)).unwrap();
    let datagram = UnixDatagram::bind_addr(&abstract_name(&format!("{name}-d"))).unwrap();
    let at_path = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    for ear in [&stream, &at_path] {
        ear.set_nonblocking(true).unwrap();
    }
    datagram.set_nonblocking(true).unwrap();
    let (uid, gid) = agent_user();
    let mut outsider = Command::new("/usr/bin/sleep")
        .arg("600")
        .uid(uid)
        .gid(gid)
        .spawn()
        .unwrap();
    session.set_policy(&json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "no-victim", "decision": "deny", "argv": {"program": "forbidden"}},
        ]},
        "connect": {"default": "allow", "rules": [
            {"id": "any", "decision": "allow", "unix": ["*"]},
            {"id": "shut", "decision": "deny", "unix": [format!("@{name}*"), socket.to_str().unwrap()]},
        ]},
    }));
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let dial = session.place(probe!("dial_unix"), "bin/dial_unix");
    let session = session
        .variable("VICTIM", victim)
        .variable("DIAL", dial)
        .variable("NAME", &name)
        .variable("SOCKET", &socket)
        .variable("OUTSIDER", outsider.id().to_string());
    let ended = session.sh(ACTS);
    let text = ended.text();
    let what = format!("{text}\n{}\n{:#}", ended.stderr, doctor.0);
    let result = |act: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(act)?.trim().parse::<i32>().ok())
            .unwrap_or_else(|| panic!("{act}: {what}"))
    };

    let first = format!("enforcer: enforcing ({})", doctor.level());
    assert!(ended.stderr.contains(&first), "{what}");
    // EPERM, not SIGKILL, at either level: by the LSM program or by the supervisor.
    assert_eq!(result("exec"), 126, "{what}");
    for act in ["stream", "path"] {
        assert_eq!(result(act), libc::EPERM, "{act}: {what}");
    }
    assert!(
        stream.accept().is_err() && at_path.accept().is_err(),
        "{what}"
    );
    let weaker = |about: &str| {
        ended
            .stderr
            .lines()
            .any(|line| line.starts_with("enforcer: weaker: ") && line.contains(about))
    };
    // What is not judged is said.
    let sent = datagram.recv(&mut [0; 16]).is_ok();
    assert_eq!(sent, !unix_in_kernel, "{what}");
    assert_eq!(
        weaker("unix sockets are judged by the seccomp supervisor alone"),
        sent,
        "{what}"
    );
    assert_eq!(result("datagram") == 0, sent, "{what}");
    let not_refused = |act: &str| outside.contains(&format!("{act} not refused"));
    assert_eq!(result("signal") == 0, not_refused("signals are"), "{what}");
    assert_eq!(result("trace") == 0, not_refused("tracing is"), "{what}");
    assert_eq!(
        weaker("processes outside the agent"),
        not_refused("signals are") || not_refused("tracing is"),
        "{what}"
    );
    let _ = outsider.kill();
    let signal = outsider.wait().unwrap().signal();
    let hit = signal == Some(libc::SIGUSR1);
    assert_eq!(hit, not_refused("signals are"), "{signal:?} {what}");
}

#[test]
fn a_level_that_is_not_there_is_not_given() {
    if !root() {
        return;
    }
    let doctor = Doctor::ask();
    let session = Session::new(&open()).option("--require").option("full");
    let ended = session.sh("echo started");
    let full = doctor.level() == "full";
    assert_eq!(ended.text().contains("started"), full, "{}", ended.stderr);
    assert_eq!(
        ended.stderr.contains("--require asks for full"),
        !full,
        "{}",
        ended.stderr
    );
}

/// The texts of an enforcement's weaknesses.
fn weaker(enforcement: &Value) -> Vec<&str> {
    let weaknesses = enforcement["weaknesses"].as_array().unwrap();
    let texts = weaknesses.iter().map(|one| one["text"].as_str().unwrap());
    texts.collect()
}

#[test]
fn start_lines_status_and_doctor_say_the_same() {
    if !root() {
        return;
    }
    let doctor = Doctor::ask();
    let mut policy = open();
    policy["exec"]["default"] = "ask".into();
    let session = Session::new(&policy);
    let running = session.start(["/usr/bin/sleep", "600"]);
    running.until("it runs", |running| running.stderr().contains("trail "));
    let status = || {
        let output = enforcer().args(["status", "--json"]).output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let agents = all["agents"].as_array().unwrap();
        let own = agents.iter().find(|one| one["name"] == running.agent());
        own.unwrap()["enforcement"].clone()
    };
    let own = status();
    let text = enforcer().arg("status").output().unwrap().stdout;
    let text = String::from_utf8_lossy(&text);
    let told = running.stderr();
    let what = format!("{own:#}\n{text}\n{told}\n{:#}", doctor.0);

    let runs = &doctor.0["runs"];
    assert_eq!(runs["plain"]["level"], doctor.level(), "{what}");
    for key in [
        "level",
        "execs",
        "connects",
        "unix_sockets",
        "outside_sockets",
        "processes_outside",
        "process_limit",
        "first_judgement",
    ] {
        assert!(
            !own[key].is_null() || key == "process_limit",
            "{key}: {what}"
        );
        assert_eq!(own[key], runs["asking"][key], "{key}: {what}");
    }
    assert_eq!(own["observed"], false, "{what}");
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("enforcer: enforcing "))
        .unwrap();
    let (level, words) = line.split_once(": ").unwrap();
    assert_eq!(level, format!("({})", doctor.level()));
    let in_status = format!("  enforcement: {}: {words}\n", doctor.level());
    assert!(text.contains(&in_status), "{what}");
    let said: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("enforcer: weaker: "))
        .collect();
    assert_eq!(weaker(&own), said, "{what}");
    for weakness in weaker(&runs["asking"]) {
        assert!(said.contains(&weakness), "{weakness}: {what}");
        assert!(text.contains(&format!("  weaker: {weakness}\n")), "{what}");
    }

    // What is changed of a running agent is told of it, too.
    let set = |words: &[&str]| {
        let mut command = enforcer();
        command.args(["agent", "set", running.agent()]).args(words);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    set(&["--observe", "yes"]);
    assert_eq!(status()["observed"], true);
    set(&["--observe", "no"]);
    assert_eq!(status(), own);
    policy["syscalls"] = json!({"allow": [{"name": "kexec", "reason": "tests"}]});
    policy["guard"] = json!({"allow": [{"name": "commands", "reason": "tests"}]});
    session.set_policy(&policy);
    let output = enforcer()
        .args(["reload", running.agent()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let now = status();
    let opened = |what: &str| weaker(&now).iter().any(|text| text.contains(what));
    assert!(
        opened("lets the agent change what guards it (`commands`)"),
        "{now:#}"
    );
    // The filter is what it was.
    assert!(!opened("kexec"), "{now:#}");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait();
}

#[test]
fn what_a_kept_agent_lacks_is_on_record() {
    if !root() {
        return;
    }
    let mut policy = open();
    policy["exec"]["rules"] = json!([
        {"id": "asked", "decision": "ask", "argv": {"program": "nothing-of-this-name"}},
    ]);
    let session = Session::new(&policy).option("--keep");
    let running = session.start(["/usr/bin/sleep", "600"]);
    running.until("it runs", |running| running.stderr().contains("trail "));
    let output = enforcer().args(["status", "--json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let agents = all["agents"].as_array().unwrap();
    let own = agents.iter().find(|one| one["name"] == running.agent());
    let kept = &own.unwrap()["enforcement"];
    let full = Doctor::ask().level() == "full";
    let execs = if full { "refused_by_lsm" } else { "killed" };
    assert_eq!(kept["execs"], execs, "{kept:#}");
    let kinds: Vec<&Value> = kept["weaknesses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert!(kinds.contains(&&"not_held".into()), "{kept:#}");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait();
}

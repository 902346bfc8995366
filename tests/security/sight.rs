//! What the supervisor looks at for the agent, which must be no more than the agent could look at itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    fs::{self, File, Permissions},
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{Session, agent_user, open, probe, root, skip};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// A process outside the agent; killed when dropped.
struct Outside(Child);

impl Outside {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// One that sleeps, as root or as the agent's user, in a directory.
    fn sleeper(directory: &Path, as_agent: bool) -> Self {
        let (uid, gid) = if as_agent { agent_user() } else { (0, 0) };
        // It is in there before it is that user.
        let words = format!("--reuid {uid} --regid {gid} --clear-groups sleep 60");
        let mut command = Command::new("setpriv");
        Self::start(command.args(words.split(' ')).current_dir(directory))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything allowed, sockets too.
fn free() -> Value {
    let mut policy = open();
    policy["connect"]["rules"] = json!([{"id": "any", "decision": "allow", "unix": ["*"]}]);
    policy
}

fn directory(session: &Session, name: &str, mode: u32) -> PathBuf {
    let path = session.directory().join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn listener(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// What each name gives an agent that connects to it.
fn dial(session: &Session, names: &[String]) -> Vec<i32> {
    let dial = session.place(probe!("dial_unix"), "bin/dial_unix");
    let mut words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
    words.push("dial=$1; shift; for name; do $dial stream $name; done".to_owned());
    words.extend(["sh".to_owned(), dial.to_str().unwrap().to_owned()]);
    words.extend_from_slice(names);
    let ended = session.run(words);
    let said = ended.text();
    let errnos: Vec<i32> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(errnos.len(), names.len(), "{said} {}", ended.stderr);
    errnos
}

#[test]
fn a_process_outside_is_no_way_in() {
    if !root() {
        return;
    }
    let session = Session::new(&free());
    // What lies below a directory that the agent cannot enter is open to whoever is past that.
    directory(&session, "shut", 0o700);
    let shut = directory(&session, "shut/inner", 0o755);
    let ear = listener(&shut.join("s"));
    let held = File::open(&shut).unwrap();
    let mine = std::process::id();
    for as_agent in [false, true] {
        let sleeper = Outside::sleeper(&shut, as_agent);
        // It sits there by now.
        thread::sleep(Duration::from_millis(200));
        let pid = sleeper.pid();
        let names = [
            format!("/proc/{pid}/cwd/s"),
            format!("/proc/{pid}/task/{pid}/cwd/s"),
            format!("/proc/{pid}/root{}/s", shut.display()),
            format!("/proc/{mine}/fd/{}/s", held.as_raw_fd()),
            format!("/proc/self/../{pid}/cwd/s"),
        ];
        for (name, errno) in names.iter().zip(dial(&session, &names)) {
            assert!(
                [libc::EACCES, libc::EPERM].contains(&errno),
                "{name}: {errno}"
            );
        }
    }
    assert!(ear.accept().is_err(), "somebody came in");
}

#[test]
fn another_mount_namespace_is_no_way_around_a_rule() {
    if !root() {
        return;
    }
    let session = Session::new(&free());
    let shut = directory(&session, "shut", 0o755);
    let open = directory(&session, "open", 0o755);
    let ear = listener(&shut.join("s"));
    let mut policy = free();
    policy["connect"]["rules"] = json!([
        {"id": "any", "decision": "allow", "unix": ["*"]},
        {"id": "shut", "decision": "deny", "unix": [format!("{}/*", shut.display())]},
    ]);
    session.set_policy(&policy);
    let (uid, gid) = agent_user();
    let script = format!(
        "mount --bind {} {} && exec setpriv --reuid {uid} --regid {gid} --clear-groups sleep 60",
        shut.display(),
        open.display()
    );
    let elsewhere = Outside::start(
        Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c"])
            .arg(script),
    );
    thread::sleep(Duration::from_millis(500));
    let there = format!("/proc/{}/root{}/s", elsewhere.pid(), open.display());
    assert!(fs::symlink_metadata(&there).is_ok(), "{there}");
    let errno = dial(&session, &[there])[0];
    assert!([libc::EACCES, libc::EPERM].contains(&errno), "{errno}");
    assert!(ear.accept().is_err(), "somebody came in");
}

#[test]
fn what_exists_out_of_sight_is_not_told() {
    if !root() {
        return;
    }
    let policy = json!({"version": "2", "exec": {"default": "deny", "rules": [
        {"id": "sh", "decision": "allow", "argv": {"program": "sh"}}]}});
    let session = Session::new(&policy);
    let shut = directory(&session, "shut", 0o700);
    session.place(probe!("victim"), "shut/there");
    let beside = directory(&session, "beside", 0o755);
    fs::write(beside.join("plain"), "no program").unwrap();
    fs::set_permissions(beside.join("plain"), Permissions::from_mode(0o600)).unwrap();
    let names = [
        shut.join("there"),
        shut.join("none"),
        PathBuf::from("/proc/kmsg"),
        PathBuf::from("/proc/1/cwd/bin/sh"),
        PathBuf::from("/proc/1/root/none"),
        beside.join("plain"),
    ];
    let script: String = names
        .iter()
        .map(|name| format!("( exec {} ); ", name.display()))
        .collect();
    let ended = session.sh(&script);
    let said: Vec<&str> = (ended.stderr.lines())
        .filter(|line| line.contains("sh: ") || line.contains("blocked"))
        .collect();
    assert_eq!(said.len(), names.len(), "{}", ended.stderr);
    for line in said {
        // As the kernel says it: neither a denial nor a word on whether it is there.
        assert!(line.contains("Permission denied"), "{}", ended.stderr);
    }
    assert_eq!(ended.trail.denials().count(), 0, "{}", ended.stderr);
}

#[test]
fn a_place_in_path_that_the_agent_cannot_enter_is_passed_by() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let shut = directory(&session, "shut", 0o700);
    session.place(probe!("victim"), "shut/tool");
    let tool = session.place(probe!("victim"), "beside/tool");
    session.set_policy(
        &json!({"version": "2", "exec": {"default": "deny", "rules": [
            {"id": "these", "decision": "allow", "argv": {"program": ["sh", "env"]}},
            {"id": "tool", "decision": "allow", "glob": [format!("{}*", tool.display())]},
        ]}}),
    );
    let ended = session.sh(&format!(
        "env PATH={}:{} tool x",
        shut.display(),
        tool.parent().unwrap().display()
    ));
    assert_eq!(ended.trail.denials().count(), 0, "{}", ended.stderr);
    assert!(
        ended
            .trail
            .execs()
            .any(|line| line.command().contains("beside/tool")),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_program_that_may_be_executed_and_not_read_is_judged_and_runs() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let tool = session.place(probe!("victim"), "bin/tool");
    fs::set_permissions(&tool, Permissions::from_mode(0o711)).unwrap();
    let script = format!(
        "{} x; echo $?; cd {}; ./tool y; echo $?",
        tool.display(),
        tool.parent().unwrap().display()
    );
    let free = session.sh(&script);
    assert_eq!(free.trail.denials().count(), 0, "{}", free.stderr);
    session.set_policy(
        &json!({"version": "2", "exec": {"default": "allow", "rules": [
        {"id": "no-tool", "decision": "deny", "argv": {"program": "tool"}}]}}),
    );
    let denied = session.sh(&script);
    let lines: Vec<_> = denied.trail.denials().collect();
    assert_eq!(lines.len(), 2, "{}", denied.stderr);
    for line in lines {
        line.assert_denied_exec(session.denial());
    }
}

/// A FUSE file system whose server never answers; taken away when dropped.
struct Hanging(PathBuf, Option<File>);

impl Hanging {
    fn at(path: &Path) -> Option<Self> {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .ok()?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        mount(
            Some("enforcer-test"),
            path,
            Some("fuse"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .ok()?;
        Some(Self(path.to_owned(), Some(device)))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // Who waits is told that nobody will answer.
        self.1.take();
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_server_that_does_not_answer_stops_nobody_else() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let place = directory(&session, "fuse", 0o755);
    let Some(hanging) = Hanging::at(&place) else {
        skip("no FUSE");
        return;
    };
    let script = format!(
        "{0}/x & {0}/y & sleep 0.3; for i in 1 2 3; do /bin/true || exit 9; done; echo went on",
        place.display()
    );
    let started = Instant::now();
    let running = session.start(["/bin/sh", "-c", &script]);
    running.until("execs go on", |running| {
        running.stdout().contains("went on")
    });
    assert!(started.elapsed() < Duration::from_secs(30));
    drop(hanging);
    running.wait();
}

//! Machines and directories that will not do: one message with the mend, exit status 2, nothing left behind.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::{Command, Output},
};

use enforcer_tests::{
    Level, Session, Trail, enforcer, left_over, level, program, quick, root, skip,
};
use serde_json::{Value, json};

use crate::launch::{free, fresh_name, launch, no_empty_parent, refusal, text};

/// Runs this script in a mount namespace of its own; `$E` is the binary.
fn elsewhere(script: &str, variables: &[(&str, &str)]) -> Output {
    let binary = enforcer().get_program().to_owned();
    Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .env("E", binary)
        .env_remove("SUDO_UID")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// Starts there after `before`; the command prints `it ran`.
fn start(session: &Session, before: &str, agent: &str, trail: &Path) -> Output {
    let script = format!(
        "set -e; {before}; exec \"$E\" run -q --policy {} --agent {agent} --audit {} -- echo it ran",
        session.policy().display(),
        trail.display()
    );
    elsewhere(&script, &[])
}

const WITHOUT_CGROUP2: &str = "while grep -q ' cgroup2 ' /proc/self/mounts; do umount -l \"$(grep -m1 ' cgroup2 ' /proc/self/mounts | cut -d' ' -f2)\"; done";
/// And without a host that could be joined: the kernel programs are to be loaded.
const WITHOUT_BTF: &str = "mount -t tmpfs none /sys/kernel/btf; mount -t bpf none /sys/fs/bpf";

#[test]
fn a_kernel_that_lacks_something() {
    if !root() {
        return;
    }
    let session = free();
    for (without, says, check) in [
        (
            WITHOUT_CGROUP2,
            ["no cgroup v2 file system is mounted", "mount -t cgroup2"],
            "cgroup v2",
        ),
        (
            WITHOUT_BTF,
            ["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"],
            "kernel types (BTF)",
        ),
    ] {
        let agent = fresh_name();
        let trail = session.directory().join(format!("{agent}.jsonl"));
        let output = start(&session, without, &agent, &trail);
        refusal(&output, 2, &says);
        assert_eq!(output.stdout, b"", "the command ran");
        assert!(!trail.exists(), "the trail was left behind");
        assert_eq!(left_over(&agent).len(), 0, "{:?}", left_over(&agent));

        let doctor = elsewhere(
            &format!("set -e; {without}; exec \"$E\" doctor --json"),
            &[],
        );
        assert_eq!(doctor.status.code(), Some(1));
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        assert_eq!(report["enforcement"], "none");
        assert!(report["runs"].is_null());
        let found = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == check)
            .unwrap();
        assert_eq!(
            (&found["ok"], &found["required"]),
            (&false.into(), &true.into())
        );
        let detail = found["detail"].as_str().unwrap();
        assert!(says.iter().all(|part| detail.contains(part)), "{detail}");
    }
    no_empty_parent();
}

#[test]
fn doctor_says_what_is_in_force() {
    if !root() {
        return;
    }
    let json = enforcer().args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    let word = match level() {
        Level::Full => "full",
        Level::Partial => "partial",
    };
    assert_eq!(
        (json.status.code(), &report["enforcement"]),
        (Some(0), &word.into())
    );
    assert!(report["kernel"].is_string());
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() > 8);
    for check in checks {
        let detail = check["detail"].as_str().unwrap();
        assert!(!detail.is_empty(), "{check}");
        assert!(check["ok"] == true || check["required"] == false, "{check}");
    }
    let lsm = checks
        .iter()
        .find(|check| check["name"] == "lsm/bprm_check_security")
        .unwrap();
    assert_eq!(lsm["ok"], level() == Level::Full);
    let named = |name: &str| {
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no check `{name}`: {report:#}"))
    };
    assert_eq!(named("seccomp user notification")["ok"], true);
    assert_eq!(named("seccomp WAIT_KILLABLE_RECV")["ok"], true);
    assert_eq!(
        named("processes outside")["ok"],
        report["landlock"] != "none"
    );
    assert!(named("unix sockets")["detail"].is_string());
    named("seccomp SYNC_WAKE_UP");
    let shown = text(&enforcer().arg("doctor").output().unwrap().stdout);
    assert!(shown.contains(&format!("enforcement: {word}: ")), "{shown}");
    let plain = &report["runs"]["plain"];
    assert_eq!(plain["level"], word);
    for weakness in plain["weaknesses"].as_array().unwrap() {
        let line = format!("\nweaker: {}\n", weakness["text"].as_str().unwrap());
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    // What `run` says it has chosen is what doctor has said.
    let first = &report["first_judgement"];
    assert!(shown.contains(&format!(
        "first judgement: {}",
        first["plain"].as_str().unwrap()
    )));
    let ended =
        Session::new(&json!({"version": "2", "exec": {"default": "ask"}})).run(["/bin/true"]);
    let chosen = format!("first judgement: {}\n", first["asking"].as_str().unwrap());
    assert!(ended.stderr.contains(&chosen), "{chosen}: {}", ended.stderr);
}

#[test]
fn a_level_that_the_kernel_does_not_give_is_not_started() {
    if !root() {
        return;
    }
    let session = free();
    let mut full = launch(&session);
    full.command.args(["--require", "full"]);
    if level() == Level::Full {
        assert_eq!(full.run(&["true"]).status.code(), Some(0));
        // Killing on purpose is not the full level.
        let mut kill = launch(&session);
        kill.command
            .args(["--require", "full", "--on-deny", "kill"]);
        kill.refused(
            &["echo", "it ran"],
            2,
            &["--require asks for full", "enforcer doctor"],
        );
    } else {
        full.refused(
            &["echo", "it ran"],
            2,
            &[
                "partial enforcement",
                "--require asks for full",
                "enforcer doctor",
            ],
        );
    }
    let mut partial = launch(&session);
    partial.command.args(["--require", "partial"]);
    assert_eq!(partial.run(&["true"]).status.code(), Some(0));
    no_empty_parent();
}

#[test]
fn trails_that_cannot_be_kept() {
    if !root() {
        return;
    }
    let session = free();
    let at = |name: &str| session.directory().join(name);
    let refused = |trail: &Path, says: &[&str]| {
        let mut launch = launch(&session);
        launch.command = {
            let mut command = enforcer();
            command
                .args(["run", "--agent", &launch.agent, "--policy"])
                .arg(session.policy())
                .arg("--audit")
                .arg(trail)
                .current_dir(session.work());
            command
        };
        launch.trail = trail.to_owned();
        launch.refused(&["echo", "it ran"], 2, says);
    };
    refused(
        &at("none/t.jsonl"),
        &["does not exist", "install -d -m 0750"],
    );
    refused(
        &session.policy().join("t.jsonl"),
        &["is not a directory", "--audit"],
    );
    fs::create_dir(at("directory")).unwrap();
    refused(&at("directory"), &["is not a regular file", "--audit"]);
    refused(Path::new("/"), &["names no file", "give a path"]);
    refused(
        &session.work().join("t.jsonl"),
        &["belongs to uid", "chown 0"],
    );
    fs::create_dir(at("shared")).unwrap();
    fs::set_permissions(at("shared"), Permissions::from_mode(0o777)).unwrap();
    refused(
        &at("shared/t.jsonl"),
        &["can be written by others", "chmod go-w"],
    );
    symlink(session.policy(), at("link.jsonl")).unwrap();
    refused(&at("link.jsonl"), &["is a symbolic link", "remove it"]);
    fs::write(at("foreign.jsonl"), "").unwrap();
    chown(at("foreign.jsonl"), Some(12345), None).unwrap();
    refused(&at("foreign.jsonl"), &["is not ours alone", "chown 0"]);
    fs::write(at("open.jsonl"), "").unwrap();
    fs::set_permissions(at("open.jsonl"), Permissions::from_mode(0o666)).unwrap();
    refused(&at("open.jsonl"), &["is not ours alone", "chmod go-w"]);
}

#[test]
fn a_full_disk_under_the_trail_ends_the_tree() {
    if !root() {
        return;
    }
    if program("unshare").is_none() {
        return skip("no unshare");
    }
    let session = free();
    let full = session.directory().join("full");
    fs::create_dir(&full).unwrap();
    // Full from the start: nothing of a file may stay. Then with some room: whole lines up to the end.
    for (size, fill, whole) in [
        ("4k", "head -c 4096 /dev/zero >\"$F/fill\"", false),
        ("32k", ":", true),
    ] {
        let agent = fresh_name();
        let copy = session.directory().join(format!("copy-{agent}"));
        let script = format!(
            "mount -t tmpfs -o size={size},mode=755 none \"$F\"; {fill}
             \"$E\" run -q --policy {policy} --agent {agent} --audit \"$F/t.jsonl\" -- \
                 sh -c 'n=0; while [ $n -lt {times} ]; do /bin/true $n; n=$((n+1)); done; echo it went on for ever'
             status=$?; cp \"$F/t.jsonl\" {copy} 2>/dev/null; exit $status",
            policy = session.policy().display(),
            times = quick(20_000, 5000),
            copy = copy.display(),
        );
        let output = elsewhere(&script, &[("F", full.to_str().unwrap())]);
        refusal(
            &output,
            2,
            &["no space left", "make room on its file system"],
        );
        assert!(
            !text(&output.stdout).contains("went on"),
            "unrecorded execs went on"
        );
        assert_eq!(left_over(&agent).len(), 0, "{:?}", left_over(&agent));
        if whole {
            let trail = Trail::read(&copy);
            assert!(trail.lines.len() > 30, "{}", trail.lines.len());
            trail.assert_whole();
        } else {
            assert!(!copy.exists(), "a file without a line was left behind");
        }
    }
    no_empty_parent();
}

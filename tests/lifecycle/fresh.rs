//! A machine on which nothing of ours has ever run: no state, no trails, nothing that runs, no policy, an empty home.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use enforcer_tests::{Session, agent_user, cgroup_root, enforcer, program, root, skip};

use crate::launch::{free, fresh_name, text};

/// Such a machine: a mount namespace in which all that is empty. Its agents' cgroups lie in a place of their own, else
/// its launchers would take the cgroups of all others, whose states they do not see, for what a dead launcher left.
pub struct Fresh {
    session: Session,
    /// Where its agents' cgroups are.
    own: PathBuf,
    /// Holds the directory that `own` is mounted on: the last agent outside takes it away.
    held: PathBuf,
    holder: Child,
}

impl Fresh {
    /// `None`, recorded as skipped, where it cannot be made.
    pub fn new() -> Option<Self> {
        if !root() {
            return None;
        }
        if program("unshare").is_none() {
            skip("no unshare");
            return None;
        }
        let name = fresh_name();
        let own = cgroup_root().join(format!("{name}-fresh"));
        fs::create_dir(&own).unwrap();
        let held = cgroup_root().join(format!("enforcer/{name}-held"));
        let holder = Command::new("sleep").arg("600").spawn().unwrap();
        // A launcher that ends takes away what is empty, again and again.
        while fs::create_dir_all(&held).is_err()
            || fs::write(held.join("cgroup.procs"), holder.id().to_string()).is_err()
        {
            thread::sleep(Duration::from_millis(1));
        }
        Some(Self {
            session: free(),
            own,
            held,
            holder,
        })
    }

    /// Runs a script there. `run WORDS` is `enforcer run` under a policy that allows everything, `$E` the binary.
    pub fn sh(&self, script: &str) -> Output {
        let script = format!(
            "set -e
            mount --bind {own} {agents}
            mount -t bpf none /sys/fs/bpf
            for d in /run /var /root; do mount -t tmpfs -o mode=755 none $d; done
            ! [ -d /etc/enforcer ] || mount -t tmpfs none /etc/enforcer
            export HOME=/root
            run() {{ \"$E\" run --policy {policy} --user \"${{U:-{user}}}\" \"$@\"; }}
            cd {work}
            {script}",
            own = self.own.display(),
            agents = cgroup_root().join("enforcer").display(),
            policy = self.session.policy().display(),
            user = agent_user().0,
            work = self.session.work().display(),
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
        let binary = enforcer().get_program().to_owned();
        for name in ["SUDO_UID", "SUDO_USER", "XDG_STATE_HOME"] {
            command.env_remove(name);
        }
        command
            .env("E", binary)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        for cgroup in [
            self.own.join("enforcer"),
            self.own.clone(),
            self.held.clone(),
        ] {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// Both outputs, to look at what was said where.
pub fn both(output: &Output) -> (String, String) {
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn whoever_comes_first_makes_the_directories_and_says_so() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh("run -- echo it ran
        stat -c '%n %a %u %g' /var/lib /var/lib/enforcer /var/log/enforcer
        run -- echo it ran again
        \"$E\" audit tail");
    let (out, err) = both(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "it ran",
            "/var/lib 755 0 0",
            "/var/lib/enforcer 700 0 0",
            "/var/log/enforcer 751 0 0",
            "it ran again",
        ],
        "{out}{err}"
    );
    assert!(lines[5].contains("echo it ran"), "{out}");
    let made: Vec<&str> = err.lines().filter(|line| line.contains("made ")).collect();
    let [made] = made[..] else { panic!("{err}") };
    for part in [
        "/var/lib/enforcer (mode 0700)",
        "/var/log/enforcer (mode 0751)",
        "/run/enforcer (mode 0711)",
    ] {
        assert!(made.contains(part), "{made}");
    }
}

#[test]
fn every_command_has_an_answer_before_anything_ran() {
    let Some(fresh) = Fresh::new() else { return };
    let event = fresh.session.directory().join("event.json");
    fs::write(
        &event,
        r#"{"hook_event_name": "PreToolUse", "session_id": "s", "cwd": "/", "tool_name": "Bash",
            "tool_input": {"command": "ls"}}"#,
    )
    .unwrap();
    let policy = fresh.session.policy();
    let (policy, event) = (policy.display(), event.display());
    for (words, status, out, err) in [
        (
            "doctor",
            0,
            "/var/lib/enforcer (`enforcer run` makes it)",
            "",
        ),
        (
            "approvals list",
            0,
            "Nothing waits for an answer.",
            "enforcer: made /var/lib/enforcer (mode 0700)",
        ),
        (
            "approvals list --all",
            0,
            "No requests.",
            "enforcer: made /var/lib/enforcer (mode 0700)",
        ),
        ("breaker status", 0, "No agent is running.", ""),
        ("audit tail", 2, "", "nothing is recorded there yet"),
        (
            "audit query --tenant acme",
            2,
            "",
            "nothing is recorded there yet",
        ),
        ("explain --last", 2, "", "nothing is recorded there yet"),
        ("run -- true", 0, "", "policy built-in:coding-agent"),
        (
            "run -- sh -c 'mkfs.ext4 /nowhere'",
            126,
            "",
            "mkfs.ext4: Operation not permitted",
        ),
        (
            "run --policy built-in:strictest -- true",
            2,
            "",
            "built-in:strict",
        ),
        (
            "explain -- git status",
            0,
            "",
            "by the policy built-in:coding-agent",
        ),
        ("policy check", 0, "built-in:coding-agent", ""),
        (
            &format!("hook --mode everywhere <{event}"),
            0,
            "\"permissionDecision\":\"allow\"",
            "",
        ),
        (
            &format!("hook --mode everywhere --policy {policy} <{event}"),
            0,
            "\"permissionDecision\":\"allow\"",
            "",
        ),
        ("hook breaker status", 0, "", ""),
    ] {
        let output = fresh.sh(&format!("\"$E\" {words}"));
        let (said, complained) = both(&output);
        let all = format!("{words}: {said}{complained}");
        assert_eq!(output.status.code(), Some(status), "{all}");
        assert!(said.contains(out) && complained.contains(err), "{all}");
        assert!(!complained.contains("panicked"), "{all}");
    }
}

#[test]
fn a_directory_that_is_too_open_is_tightened_and_one_of_others_is_refused() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh("mkdir -p -m 755 /var/lib/enforcer /var/log/enforcer
        run -- true
        stat -c '%n %a' /var/lib/enforcer /var/log/enforcer
        chmod 755 /var/lib/enforcer
        \"$E\" approvals list --all");
    let (out, err) = both(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert_eq!(
        out,
        "/var/lib/enforcer 700\n/var/log/enforcer 751\nNo requests.\n"
    );
    let tightened = "/var/lib/enforcer from mode 0755 to 0700";
    assert_eq!(err.matches(tightened).count(), 2, "{err}");
    assert!(
        err.contains("/var/log/enforcer from mode 0755 to 0751"),
        "{err}"
    );

    for (directory, mode) in [
        ("/var/lib/enforcer", "0700"),
        ("/var/log/enforcer", "0751"),
        ("/run/enforcer", "0711"),
    ] {
        for command in ["run -- echo it ran", "\"$E\" approvals list"] {
            if directory == "/var/log/enforcer" && command != "run -- echo it ran" {
                continue;
            }
            let output = fresh.sh(&format!(
                "mkdir -p {directory}; chown 65534 {directory}; {command}"
            ));
            let (out, err) = both(&output);
            assert_eq!(output.status.code(), Some(2), "{out}{err}");
            assert_eq!(out, "");
            let mend = format!("chown root {directory} && chmod {mode} {directory}");
            assert!(err.contains(&mend), "{err}");
        }
    }
    let output = fresh.sh("mkdir -p /var/lib/enforcer; chmod 777 /var/lib/enforcer
        touch /var/lib/enforcer/approvals.db-wal; chown 65534 /var/lib/enforcer/approvals.db-wal
        run -- echo it ran");
    let (out, err) = both(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(2), ""), "{err}");
    assert!(
        err.contains("approvals.db-wal in it belongs to uid 65534"),
        "{err}"
    );
}

#[test]
fn launchers_that_start_at_once_on_a_fresh_machine_all_start() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh("for i in 1 2 3; do run -q -- echo it ran & done
        \"$E\" run --policy /no/such/policy -- true 2>/dev/null || :
        wait
        \"$E\" audit tail | grep -c 'echo it ran'");
    let (out, err) = both(&output);
    assert_eq!(out, "it ran\nit ran\nit ran\n3\n", "{err}");
}

#[test]
fn an_agent_with_uid_0_that_is_kept_starts_on_a_fresh_machine() {
    let Some(fresh) = Fresh::new() else { return };
    let output = fresh.sh("U=root; run --keep -- sh -c 'ls -A /var/lib/enforcer; echo it ran'");
    let (out, err) = both(&output);
    assert_eq!(out, "it ran\n", "{err}");
}

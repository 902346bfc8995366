//! The command: how it ends, who it is, and what it is given.

use std::{
    fs::{self, File, Permissions},
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use enforcer_tests::{agent_user, copy_program, root};

use crate::launch::{free, launch, no_empty_parent, own, text};

#[test]
fn the_exit_status_is_the_commands() {
    if !root() {
        return;
    }
    let session = free();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
    ] {
        let output = launch(&session).run(&["sh", "-c", script]);
        assert_eq!(output.status.code(), Some(status), "{script}");
    }
    no_empty_parent();
}

#[test]
fn a_command_that_cannot_start_ends_as_in_a_shell() {
    if !root() {
        return;
    }
    let session = free();
    let file = |name: &str, mode: u32, content: &str| {
        let path = session.work().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        format!("./{name}")
    };
    let plain = file("plain", 0o644, "#!/bin/sh\n");
    let headless = file("headless", 0o755, "echo no interpreter named\n");
    let lost = file("lost", 0o755, "#!/no/such/interpreter\n");
    for (command, status, says) in [
        ("no-such-program-anywhere", 127, "in any directory of PATH"),
        ("./missing", 127, "was not found"),
        ("", 127, "was not found"),
        (&plain, 126, "chmod +x"),
        ("/", 126, "it is a directory"),
        (&headless, 126, "a script needs a first line"),
        (&lost, 126, "install it"),
    ] {
        let mut quiet = launch(&session);
        quiet.command.arg("--quiet");
        quiet.refused(&[command], status, &[says]);
    }
    no_empty_parent();
}

/// What `sudo` takes out of the environment is still in its own.
#[test]
fn a_variable_comes_through_sudo_when_it_is_wanted() {
    if !root() {
        return;
    }
    let session = free();
    let (uid, gid) = agent_user();
    // A program of that name that starts another as it does: with an environment of its own making, as its child.
    let sudo = session.directory().join("sudo");
    copy_program(Path::new("/bin/sh"), &sudo);
    let script = format!(
        "env -i PATH=/usr/bin:/bin SUDO_UID={uid} SUDO_GID={gid} '{}' run -q --agent {} --policy '{}' --audit '{}' \
         --env KEY_OF_MINE --env GIVEN=here --env NOT_THERE -- sh -c 'echo \"$KEY_OF_MINE $GIVEN ${{OTHER:-gone}}\"'; exit $?",
        session.enforcer().display(),
        session.next_agent(),
        session.policy().display(),
        session.directory().join("through-sudo.jsonl").display(),
    );
    let output = Command::new(&sudo)
        .args(["-c", &script])
        .env("KEY_OF_MINE", "a secret")
        .env("OTHER", "not asked for")
        .current_dir(session.work())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(text(&output.stdout), "a secret here gone\n", "{said}");
    assert!(said.contains("--env NOT_THERE"), "{said}");
}

#[test]
fn it_is_the_invoking_user_in_its_own_surroundings() {
    if !root() {
        return;
    }
    let session = free();
    let (uid, gid) = agent_user();
    let script = r#"echo "$(id -u) $(id -g) $(pwd) $KEPT ${SUDO_UID:-gone} $HOME""#;
    let mut sudo = launch(&session);
    // As sudo leaves it, without --user.
    sudo.command = {
        let mut command = crate::launch::bare(&session, &session.policy()).command;
        command
            .env("SUDO_UID", uid.to_string())
            .env("SUDO_GID", gid.to_string())
            .env("KEPT", "a b;c")
            .env("HOME", "/somewhere/else");
        command
    };
    let output = sudo.run(&["sh", "-c", script]);
    let work = session.work();
    assert_eq!(
        text(&output.stdout).trim(),
        format!("{uid} {gid} {} a b;c {uid} /somewhere/else", work.display()),
        "{}",
        text(&output.stderr)
    );

    let mut user = launch(&session);
    user.command.env("ENFORCER_LOG", "off").env("HOME", "/root");
    let script = r#"echo "$(id -u) $(id -G) ${ENFORCER_LOG:-none} $HOME""#;
    let said = text(&user.run(&["sh", "-c", script]).stdout);
    assert!(said.starts_with(&format!("{uid} ")), "{said}");
    assert!(
        said.contains(" none "),
        "our own variables stay ours: {said}"
    );
    assert!(
        !said.contains("/root"),
        "root's home is nobody else's: {said}"
    );
}

#[test]
fn an_unknown_user_is_refused() {
    if !root() {
        return;
    }
    let session = free();
    let mut launch = crate::launch::bare(&session, &session.policy());
    launch.command.args(["--user", "no-such-user"]);
    launch.refused(
        &["true"],
        2,
        &["no-such-user", "there is no such user", "--user"],
    );
}

#[test]
fn no_descriptor_leaks() {
    if !root() {
        return;
    }
    let session = free();
    let secret = File::open("/etc/passwd").unwrap();
    let leak = |command: &mut Command| {
        let from = secret.as_raw_fd();
        // SAFETY: dup2 is async-signal-safe, and the descriptor is open until the child has been made.
        unsafe {
            command.pre_exec(move || {
                for to in [9, 200] {
                    if libc::dup2(from, to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
    };
    let list = "for fd in /proc/self/fd/*; do readlink $fd; done";
    let mut direct = Command::new("sh");
    leak(direct.args(["-c", list]).stdin(Stdio::null()));
    let shown = text(&direct.output().unwrap().stdout);
    assert!(shown.contains("/etc/passwd"), "it is inherited: {shown}");

    let mut governed = launch(&session);
    leak(&mut governed.command);
    let shown = text(&governed.run(&["sh", "-c", list]).stdout);
    assert!(!shown.contains("/etc/passwd"), "{shown}");
    for kind in ["bpf", "anon_inode", "cgroup", ".jsonl", "/dev/tty"] {
        assert!(!shown.contains(kind), "the launcher's own: {shown}");
    }
}

#[test]
fn there_is_no_privilege_to_be_had() {
    if !root() {
        return;
    }
    let session = free();
    for user in [agent_user().0, 0] {
        let mut launch = crate::launch::bare(&session, &session.policy());
        launch.command.args(["--user", &user.to_string()]);
        let output = launch.run(&["cat", "/proc/self/status"]);
        let status = text(&output.stdout);
        let value = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(value(set), "0000000000000000", "{set} of uid {user}");
        }
        assert_eq!(value("NoNewPrivs"), "1");
        assert_eq!(value("Seccomp:"), "2");
        assert_eq!(value("SigBlk"), "0000000000000000");
        assert_eq!(value("Uid:"), user.to_string());
    }
}

#[test]
fn pipes_carry_every_byte() {
    if !root() {
        return;
    }
    let session = free();
    let output = launch(&session).feed(&["cat"], b"x\n");
    assert_eq!(output.stdout, b"x\n");
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let output = launch(&session).feed(&["sh", "-c", "cat; echo done >&2"], &input);
    assert!(output.stdout == input, "{} bytes came", output.stdout.len());
    assert!(text(&output.stderr).contains("done"));
    // A reader that goes away ends the command as it would without us.
    let output = launch(&session).run(&["sh", "-c", "yes | head -n 2; exit 4"]);
    assert_eq!(
        (output.stdout.as_slice(), output.status.code()),
        (b"y\ny\n".as_slice(), Some(4))
    );
}

#[test]
fn quiet_says_nothing() {
    if !root() {
        return;
    }
    let session = free();
    let mut quiet = launch(&session);
    quiet.command.arg("-q");
    assert_eq!(own(&quiet.run(&["true"]).stderr), "");
    let told = text(&launch(&session).run(&["true"]).stderr);
    assert!(told.contains("enforcing ("), "{told}");
    assert!(
        told.contains("1 exec, 0 connects, 0 denied; trail: "),
        "{told}"
    );
}

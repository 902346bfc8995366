use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use super::*;
use crate::rig::Rig;
use crate::{ExitStatus, Received};

fn status_fields(text: &str) -> HashMap<&str, Vec<&str>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.split_whitespace().collect()))
        .collect()
}

#[test]
fn the_agent_is_its_user_and_has_no_privilege() {
    for user in ["nobody", "root"] {
        let Some(rig) = Rig::new(&format!("status-{user}"), user) else {
            return;
        };
        // Of the shell, and of a program that it starts.
        for script in [
            "while read line; do echo \"$line\"; done < /proc/$$/status",
            "cat /proc/self/status",
        ] {
            let text = rig.sh(script);
            let fields = status_fields(&text);
            let (uid, gid) = (rig.identity.uid.to_string(), rig.identity.gid.to_string());
            assert_eq!(fields["Uid"], [uid.as_str(); 4], "{user}");
            assert_eq!(fields["Gid"], [gid.as_str(); 4], "{user}");
            let groups: Vec<String> = rig.identity.groups.iter().map(u32::to_string).collect();
            assert_eq!(fields["Groups"], groups, "{user}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(fields[set], ["0000000000000000"], "{user} {set}");
            }
            assert_eq!(fields["NoNewPrivs"], ["1"]);
            assert_eq!(fields["Seccomp"], ["2"]);
            for set in ["SigBlk", "SigPnd", "ShdPnd"] {
                assert_eq!(fields[set], ["0000000000000000"], "{set}");
            }
            // SIGPIPE, 13, which this process ignores.
            let ignored = u64::from_str_radix(fields["SigIgn"][0], 16).unwrap();
            assert_eq!(ignored & (1 << 12), 0);
        }
    }
}

#[test]
fn no_descriptor_leaks() {
    let Some(rig) = Rig::new("fds", "nobody") else {
        return;
    };
    // Without close-on-exec, at a low and at a high number.
    let low = fs::File::open("/dev/null").unwrap();
    // SAFETY: numbers only; both copies are closed below.
    let (a, b) = unsafe {
        (
            libc::dup(low.as_raw_fd()),
            libc::fcntl(low.as_raw_fd(), libc::F_DUPFD, 700),
        )
    };
    assert!(a > 2 && b >= 700);
    let (_, out) = rig.perl("for (0..1023) { print \"$_ \" if -l \"/proc/self/fd/$_\" }");
    // SAFETY: both are ours, from above.
    unsafe {
        libc::close(a);
        libc::close(b);
    }
    assert_eq!(out, "0 1 2 ");
}

#[test]
fn arguments_environment_and_directory_arrive_as_they_were() {
    let Some(mut rig) = Rig::new("env", "nobody") else {
        return;
    };
    rig.env = vec![
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("EMPTY".into(), OsString::new()),
        ("LINES".into(), "a\nb=c".into()),
    ];
    let script = "cat /proc/$$/environ > env; cat /proc/$$/cmdline > args; pwd > cwd";
    assert_eq!(
        rig.run(&["/bin/sh", "-c", script, "zero", "", "ü \t"]),
        ExitStatus::Code(0)
    );
    assert_eq!(
        rig.read("env"),
        "PATH=/usr/bin:/bin\0EMPTY=\0LINES=a\nb=c\0"
    );
    assert_eq!(
        rig.read("args"),
        format!("/bin/sh\0-c\0{script}\0zero\0\0ü \t\0")
    );
    assert_eq!(
        rig.read("cwd").trim_end(),
        rig.place.path().to_str().unwrap()
    );
    let mut plan = rig.plan(&["true"]);
    plan.argv.push("a\0b".into());
    assert!(matches!(spawn(&plan), Err(LaunchError::Nul { .. })));
}

#[test]
fn the_exit_status_is_the_programs() {
    let Some(rig) = Rig::new("exit", "nobody") else {
        return;
    };
    for (script, status, code) in [
        ("exit 0", ExitStatus::Code(0), 0),
        ("exit 7", ExitStatus::Code(7), 7),
        ("exit 255", ExitStatus::Code(255), 255),
        ("kill -9 $$", ExitStatus::Signal(9), 137),
        ("kill -TERM $$", ExitStatus::Signal(15), 143),
    ] {
        let found = rig.run(&["/bin/sh", "-c", script]);
        assert_eq!((found, found.code()), (status, code), "{script}");
    }
}

#[test]
fn a_program_that_cannot_start_says_why_and_leaves_nothing() {
    let Some(rig) = Rig::new("noexec", "nobody") else {
        return;
    };
    for (name, text) in [
        ("lost", "#!/no/such/interpreter\n"),
        ("noise", "no program at all\n"),
    ] {
        let path = rig.place.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let pending = spawn(&rig.plan(&[path.to_str().unwrap()])).unwrap();
        let error = pending.go(Terminal::none()).unwrap_err();
        assert_eq!(error.exit_code(), 126, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut plan = rig.plan(&["true"]);
    plan.directory = "/root/gone".into();
    let error = spawn(&plan).unwrap().go(Terminal::none()).unwrap_err();
    assert!(matches!(error, LaunchError::Directory { .. }), "{error}");
    assert!(rig.cgroup.is_empty().unwrap());
}

#[test]
fn nothing_runs_before_it_is_let_go() {
    let Some(rig) = Rig::new("pending", "nobody") else {
        return;
    };
    let pending = spawn(&rig.plan(&["/bin/sh", "-c", "echo ran > ran"])).unwrap();
    let pid = pending.pid();
    // In the cgroup already, and waiting.
    assert_eq!(rig.cgroup.procs().unwrap(), [pid]);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.read("ran"), "");
    drop(pending);
    assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    assert!(rig.cgroup.is_empty().unwrap());
    assert_eq!(rig.read("ran"), "");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn signals_reach_the_agents_whole_group() {
    let Some(rig) = Rig::new("signal", "nobody") else {
        return;
    };
    // The outer trap stands before the inner shell can be ready.
    let script = "trap 'wait; exit 9' TERM; sh -c 'trap \"echo term > inner; exit\" TERM; echo 1 > ready; \
                  while :; do sleep 0.02; done' & wait";
    let mut child = rig.start(&["/bin/sh", "-c", script]);
    rig.wait_for("ready");
    assert_eq!(child.on_change().unwrap(), None);
    child.on_signal(Received {
        signal: Signal::SIGTERM,
        by_kernel: false,
    });
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(9));
    assert_eq!(rig.wait_for("inner"), "term\n");
    assert_eq!(child.on_change().unwrap(), Some(ExitStatus::Code(9)));
    // To a process that is gone: nothing.
    child.on_signal(Received {
        signal: Signal::SIGTERM,
        by_kernel: false,
    });
}

#[test]
fn many_threads_can_launch_at_a_time() {
    let Some(rig) = Rig::new("threads", "nobody") else {
        return;
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for code in 0..12 {
                    // Keeps the allocator busy in the parent while others fork.
                    let noise: Vec<String> = (0..500).map(|n| n.to_string()).collect();
                    let status = rig.run(&["/bin/sh", "-c", &format!("exit {code}")]);
                    assert_eq!(status, ExitStatus::Code(code), "{}", noise.len());
                }
            });
        }
    });
    assert!(rig.cgroup.is_empty().unwrap());
}

#[test]
fn another_user_gets_none_of_the_launchers_keys() {
    let Some(mut rig) = Rig::new("keys", "nobody") else {
        return;
    };
    // So that the keyring can be looked at at all.
    rig.loosened = vec!["keyrings".to_owned()];
    // KEYCTL_GET_KEYRING_ID (0) of KEY_SPEC_SESSION_KEYRING (-3), made if there is none.
    // SAFETY: numbers only.
    let ours = unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 1) };
    if ours < 0 {
        eprintln!("SKIPPED: this kernel has no keys");
        return;
    }
    let number = libc::SYS_keyctl;
    let (_, out) = rig.perl(&format!("print syscall({number}, 0, -3, 0)"));
    let theirs: i64 = out.parse().unwrap();
    assert!(theirs > 0 && theirs != ours, "{theirs} {ours}");
}

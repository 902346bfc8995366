//! The seccomp filters as the agent meets them.

use super::rig::Rig;
use super::{ExitStatus, LaunchError, OpenFiles, SpawnPlan, Terminal, spawn};
use enforcer_seccomp::resolve::{Resolver, Roots};
use enforcer_seccomp::{Listener, Notified, NotifiedCall, SyscallGroups, target};

#[test]
fn refused_families_and_ioctls_get_their_errno() {
    let Some(rig) = Rig::new("seccomp", "nobody") else {
        return;
    };
    // Family by family: `socket` as type 3 (raw) where nobody may have one, so that the errno tells who refused.
    let (_, out) = rig.perl(
        "for my $f (1, 2, 10, 16, 0, 4, 9, 11, 15, 17, 18, 40, 45, 46, 1000, -1) { \
           my $t = $f == 16 ? 3 : 2; print \"$f=\", (socket(my $s, $f, $t, 0) ? 0 : $!+0), ' ' }",
    );
    assert_eq!(
        out,
        "1=0 2=0 10=0 16=0 0=97 4=97 9=97 11=97 15=97 17=97 18=97 40=97 45=97 46=97 1000=97 -1=97 "
    );
    let (_, out) = rig.perl(
        "for my $f (1, 17) { print \"$f=\", \
           (socketpair(my $a, my $b, $f, 2, 0) ? 0 : $!+0), ' ' } \
         open N, '<', '/dev/null'; my $x = 'x'; for my $r (0x5412, 0x541c, 0x5413) { \
           print ioctl(N, $r, $x) ? 0 : $!+0, ' ' }",
    );
    // TIOCSTI and TIOCLINUX are refused; TIOCGWINSZ reaches the device, which is no terminal.
    assert_eq!(out, "1=0 17=97 1 1 25 ");
}

#[test]
fn netlink_speaks_to_the_kernel_only() {
    let Some(rig) = Rig::new("netlink", "nobody") else {
        return;
    };
    // ROUTE, USERSOCK, SOCK_DIAG, XFRM, AUDIT, CONNECTOR, NETFILTER, KOBJECT_UEVENT, GENERIC, CRYPTO.
    let (_, out) = rig.perl(
        "for my $p (0, 2, 4, 6, 9, 11, 12, 15, 16, 21) { \
           print \"$p=\", (socket(my $s, 16, 3, $p) ? 0 : $!+0), ' ' }",
    );
    assert_eq!(out, "0=0 2=93 4=0 6=93 9=93 11=93 12=93 15=0 16=0 21=93 ");
}

#[test]
fn a_loosened_group_is_open_and_the_others_stay_shut() {
    let Some(mut rig) = Rig::new("loosened", "nobody") else {
        return;
    };
    rig.loosened = vec!["socket-families".to_owned()];
    // A packet socket, and NETLINK_USERSOCK.
    let (_, out) =
        rig.perl("socket(my $a, 17, 3, 0); print $!+0, ' '; socket(my $b, 16, 3, 2); print $!+0");
    assert_eq!(
        out, "1 93",
        "packet sockets need a capability, says the kernel"
    );
}

#[test]
fn a_call_by_a_foreign_number_kills() {
    let Some(rig) = Rig::new("x32", "nobody") else {
        return;
    };
    // getpid by its x32 number, and garbage above the 32 bits of a family.
    let (status, out) = rig.perl("print 'here'; syscall(0x40000000 + 39); print 'there'");
    assert_eq!(
        (status, out.as_str()),
        (ExitStatus::Signal(libc::SIGSYS), "here")
    );
    let (_, out) = rig.perl("print syscall(41, (1 << 32) | 17, 3, 0), ' ', $!+0");
    assert_eq!(out, "-1 97");
}

/// A plan whose execs are asked about.
fn asking<'a>(rig: &'a Rig, words: &[&str]) -> SpawnPlan<'a> {
    let mut plan = rig.plan(words);
    let calls = Notified {
        exec: true,
        ..Notified::default()
    };
    let groups = SyscallGroups::shipped().unwrap();
    plan.filters = Vec::new();
    plan.notify = Some(groups.filter_with_listener(&[], calls).unwrap());
    plan
}

#[test]
fn every_exec_is_asked_about_from_the_first() {
    let Some(rig) = Rig::new("listener", "nobody") else {
        return;
    };
    let script = "exec > out 2>&1; /bin/true; echo $?; /bin/cat /dev/null; echo $?";
    let mut pending = spawn(&asking(&rig, &["/bin/sh", "-c", script])).unwrap();
    let listener = Listener::new(pending.listener().unwrap().unwrap()).unwrap();
    assert!(pending.listener().unwrap().is_none());
    let pid = pending.pid().as_raw().unsigned_abs();
    let supervisor = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut resolver =
            Resolver::new(Roots::Any, enforcer_seccomp::Eyes::own().unwrap()).unwrap();
        while let Some(stopped) = listener.recv().unwrap() {
            let NotifiedCall::Exec(call) = stopped.call else {
                panic!("{stopped:?}")
            };
            if seen.is_empty() {
                assert_eq!(stopped.tid, pid);
                // The listener is in nobody's hands but ours.
                let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
                let listeners = open
                    .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
                    .filter(|target| target.to_string_lossy().contains("seccomp"))
                    .count();
                assert_eq!(listeners, 0);
            }
            let text = target::exec_text(stopped.tid, &call).unwrap();
            let found = resolver.exec(stopped.tid, &call, text).unwrap();
            assert!(listener.is_valid(stopped.id));
            if found.action.path.ends_with(b"cat") {
                assert!(listener.refuse(stopped.id, libc::EPERM).unwrap());
            } else {
                assert!(listener.allow(stopped.id).unwrap());
            }
            seen.push(found.action.argv);
        }
        seen
    });
    let mut child = pending.go(Terminal::none()).unwrap();
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(0));
    let seen = supervisor.join().unwrap();
    let words: Vec<Vec<&[u8]>> = vec![
        vec![b"/bin/sh", b"-c", script.as_bytes()],
        vec![b"/bin/true"],
        vec![b"/bin/cat", b"/dev/null"],
    ];
    assert_eq!(seen, words);
    let out = rig.read("out");
    assert!(out.starts_with("0\n") && out.ends_with("126\n"), "{out}");
}

#[test]
fn a_listener_that_nobody_takes_lets_nothing_start() {
    let Some(rig) = Rig::new("no-listener", "nobody") else {
        return;
    };
    let error = spawn(&asking(&rig, &["/bin/true"]))
        .unwrap()
        .go(Terminal::none())
        .unwrap_err();
    assert!(error.to_string().contains("seccomp"), "{error}");
    // What fails before the filter is said by whoever asks for the listener.
    let mut plan = asking(&rig, &["/bin/true"]);
    plan.directory = "/root/gone".into();
    let mut pending = spawn(&plan).unwrap();
    let error = pending.listener().unwrap_err();
    assert!(matches!(error, LaunchError::Directory { .. }), "{error}");
    drop(pending);
    assert!(rig.cgroup.is_empty().unwrap());
}

#[test]
fn a_raised_limit_of_open_files_stays_with_the_launcher() {
    let Some(rig) = Rig::new("nofile", "nobody") else {
        return;
    };
    let mut plan = rig.plan(&["/bin/sh", "-c", "ulimit -Sn > out; ulimit -Hn >> out"]);
    plan.open_files = Some(OpenFiles {
        soft: 100,
        hard: 200,
    });
    let mut child = spawn(&plan).unwrap().go(Terminal::none()).unwrap();
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(0));
    assert_eq!(rig.read("out"), "100\n200\n");
    let present = OpenFiles::present().unwrap();
    assert!(
        present.soft > 200 && present.hard >= present.soft,
        "{present:?}"
    );
}

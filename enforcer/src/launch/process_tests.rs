use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::launch::{CgroupRoot, find_program};
use crate::seccomp::{RULES, compile};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// An agent's cgroup and a directory in which every user can write, gone when the test ends.
pub(super) struct Rig {
    cgroup: AgentCgroup,
    place: tempfile::TempDir,
    identity: Identity,
    confinement: Option<Confinement>,
    env: Vec<(OsString, OsString)>,
}

impl Rig {
    /// Says so when the test cannot run.
    pub(super) fn new(name: &str, user: &str) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: {name}: needs root");
            return None;
        }
        let root = CgroupRoot::find().unwrap();
        let id = format!("test-{name}-{}", std::process::id());
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let identity = Identity::resolve(Some(user), |_| None).unwrap();
        Some(Self {
            cgroup: AgentCgroup::create(&root, &id).unwrap(),
            place,
            env: identity.environment(std::env::vars_os()),
            identity,
            confinement: None,
        })
    }

    pub(super) fn plan(&self, words: &[&str]) -> SpawnPlan<'_> {
        let directory = self.place.path().to_owned();
        let path = std::env::var_os("PATH");
        let program = find_program(
            words[0].as_ref(),
            path.as_deref(),
            &directory,
            &self.identity,
        )
        .unwrap();
        SpawnPlan {
            program,
            argv: words.iter().map(Into::into).collect(),
            env: self.env.clone(),
            directory,
            identity: &self.identity,
            cgroup: &self.cgroup,
            filters: vec![compile(RULES).unwrap()],
            confinement: self.confinement.as_ref(),
        }
    }

    fn start(&self, words: &[&str]) -> Child {
        spawn(&self.plan(words))
            .unwrap()
            .go(Terminal::none())
            .unwrap()
    }

    fn run(&self, words: &[&str]) -> ExitStatus {
        self.start(words).wait().unwrap()
    }

    /// Runs a shell script and returns what it wrote.
    fn sh(&self, script: &str) -> String {
        let status = self.run(&["/bin/sh", "-c", &format!("exec > out 2>&1; {script}")]);
        let out = self.read("out");
        assert_eq!(status, ExitStatus::Code(0), "{out}");
        out
    }

    /// Runs a Perl program and returns what it wrote; Perl makes system calls that a shell cannot.
    fn perl(&self, program: &str) -> (ExitStatus, String) {
        let program = format!("open STDOUT, '>', 'out' or die; $| = 1; {program}");
        (
            self.run(&["/usr/bin/perl", "-e", &program]),
            self.read("out"),
        )
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.path().join(name)).unwrap_or_default()
    }

    fn wait_for(&self, name: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.read(name);
            if text.ends_with('\n') {
                return text;
            }
            assert!(Instant::now() < deadline, "{name} was never written");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cgroup.kill_all(PATIENCE).unwrap();
        self.cgroup.remove().unwrap();
    }
}

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

#[test]
fn all_descendants_are_in_the_cgroup() {
    let Some(rig) = Rig::new("member", "nobody") else {
        return;
    };
    let line = format!("0::/enforcer/{}\n", rig.cgroup.name());
    let out = rig.sh("cat /proc/$$/cgroup; (setsid cat /proc/self/cgroup)");
    assert_eq!(out.matches(&line).count(), 2, "{out}");
    assert_eq!(rig.cgroup.level(), 2);
    // The inode number is what the kernel calls the cgroup's id: the file handle holds that.
    assert_eq!(rig.cgroup.id(), file_handle(rig.cgroup.path()));
    let all = CgroupRoot::find().unwrap().list_existing().unwrap();
    assert!(
        all.iter()
            .any(|other| other.id() == rig.cgroup.id() && other.level() == 2)
    );
}

fn file_handle(path: &Path) -> u64 {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    let mut handle = Handle {
        bytes: 8,
        kind: 0,
        id: [0; 8],
    };
    let mut mount = 0;
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the handle has room for the eight bytes that it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    u64::from_ne_bytes(handle.id)
}

#[test]
fn a_tree_that_forks_all_the_time_is_killed_whole() {
    let Some(rig) = Rig::new("bomb", "nobody") else {
        return;
    };
    // Twelve lines of processes, each of which forks, leaves its session and ends, for ever.
    let bomb = "use POSIX; for (1..12) { next if fork; while (1) { my $p = fork; next unless defined $p; \
                exit if $p; setsid(); } } open F, '>', 'ready'; print F \"1\\n\"; close F; sleep 1000";
    let mut child = rig.start(&["/usr/bin/perl", "-e", bomb]);
    rig.wait_for("ready");
    // A child cgroup with a process of its own.
    let sub = rig.cgroup.path().join("sub");
    fs::create_dir_all(sub.join("deeper")).unwrap();
    let mut sleeper = rig.start(&["sleep", "1000"]);
    fs::write(sub.join("deeper/cgroup.procs"), sleeper.pid().to_string()).unwrap();
    assert!(rig.cgroup.procs().unwrap().contains(&sleeper.pid()));
    assert!(!rig.cgroup.is_empty().unwrap());
    assert!(rig.cgroup.remove().is_err());

    rig.cgroup.kill_all(PATIENCE).unwrap();
    assert!(rig.cgroup.is_empty().unwrap());
    assert_eq!(child.wait().unwrap(), ExitStatus::Signal(9));
    assert_eq!(sleeper.wait().unwrap(), ExitStatus::Signal(9));
    assert_eq!(rig.cgroup.procs().unwrap(), []);
    rig.cgroup.remove().unwrap();
    assert!(!rig.cgroup.path().exists());
    // All of it again, on what is gone: no error.
    rig.cgroup.kill_all(PATIENCE).unwrap();
    rig.cgroup.remove().unwrap();
}

#[test]
fn a_cgroup_is_made_once_and_belongs_to_root() {
    let Some(rig) = Rig::new("once", "nobody") else {
        return;
    };
    let root = CgroupRoot::find().unwrap();
    let error = AgentCgroup::create(&root, rig.cgroup.name()).unwrap_err();
    assert!(error.to_string().contains("may still run"), "{error}");
    assert!(matches!(
        AgentCgroup::create(&root, "../x"),
        Err(LaunchError::BadCgroupId(_))
    ));
    let out = rig.sh(&format!(
        "cd {}; echo $$ > ../../cgroup.procs || echo refused; mkdir sub || echo refused; \
         echo $$ > cgroup.procs || echo refused",
        rig.cgroup.path().display()
    ));
    assert_eq!(out.matches("refused").count(), 3, "{out}");
    // Either answer is one: what counts is that the limit is what it says.
    if let crate::launch::PidsLimit::Set(max) = rig.cgroup.limit_pids(77) {
        let file = fs::read_to_string(rig.cgroup.path().join("pids.max")).unwrap();
        assert_eq!((max, file.trim()), (77, "77"));
    }
}

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

#[cfg(target_arch = "x86_64")]
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

#[test]
fn an_agent_with_uid_0_sees_no_cgroups_and_changes_no_settings() {
    let Some(mut rig) = Rig::new("confine", "root") else {
        return;
    };
    let hidden = tempfile::tempdir().unwrap();
    fs::write(hidden.path().join("trail"), "x").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "secret").unwrap();
    let fixed = tempfile::tempdir().unwrap();
    let hide = [hidden.path().to_owned(), file.path().to_owned()];
    let read_only = [fixed.path().to_owned()];
    rig.confinement = Some(Confinement::plan(&hide, &read_only, rig.place.path()).unwrap());
    let (hidden, fixed, file) = (
        hidden.path().display(),
        fixed.path().display(),
        file.path().display(),
    );
    let out = rig.sh(&format!(
        "echo cgroups: $(ls -A /sys/fs/cgroup) $(ls -A /sys/fs/bpf); echo hidden: $(ls -A {hidden}); \
         echo file: $(cat {file}); \
         (echo x > {hidden}/new) || echo A refused; (echo x > {fixed}/new) || echo B refused; \
         (cat /proc/sys/kernel/hostname > /proc/sys/kernel/hostname) || echo C refused; \
         umount {hidden} || echo D refused; mount -o remount,rw {fixed} || echo E refused; \
         nsenter -t 1 -m true || echo F refused; ls /proc/1/root/sys/fs/cgroup/ || echo G refused"
    ));
    assert!(
        out.contains("cgroups:\n") && out.contains("hidden:\n") && out.contains("file:\n"),
        "{out}"
    );
    for letter in 'A'..='G' {
        assert!(
            out.contains(&format!("{letter} refused")),
            "{letter}: {out}"
        );
    }
    #[cfg(target_arch = "x86_64")]
    {
        // unshare(NEWUSER | NEWNS) gives every capability over the new namespace; umount2 and a remount there
        // still meet locked mounts: EINVAL, EPERM.
        let (_, out) = rig.perl(&format!(
            "my ($h, $f, $n) = ('{hidden}', '{fixed}', 'none'); \
             print syscall(272, 0x10020000), ' '; print syscall(166, $h, 0), ' ', $!+0, ' '; \
             print syscall(165, $n, $f, $n, 0x1020, 0), ' ', $!+0"
        ));
        assert_eq!(out, "0 -1 22 -1 1");
    }
    // Only in the agent's own view.
    assert_eq!(fs::read_to_string(format!("{hidden}/trail")).unwrap(), "x");
    fs::write(format!("{fixed}/new"), "x").unwrap();
    assert!(rig.cgroup.path().join("cgroup.procs").exists());
}

#[test]
fn signals_reach_the_agents_whole_group() {
    let Some(rig) = Rig::new("signal", "nobody") else {
        return;
    };
    let script = "sh -c 'trap \"echo term > inner; exit\" TERM; echo 1 > ready; while :; do sleep 0.02; done' & \
                  trap 'wait; exit 9' TERM; wait";
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

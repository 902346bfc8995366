//! System calls by which a process gets past what the kernel programs judge, and processes outside the agent that
//! would act for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use enforcer_tests::{
    Attempts, Session, agent_user, forbidding, loosening, open, probe, program, quick, root,
    shutting, skip,
};

fn session() -> Session {
    let session = Session::new(&open());
    let syscalls = session.place(probe!("syscalls"), "bin/syscalls");
    session.variable("SYSCALLS", syscalls)
}

fn syscalls(session: &Session) -> PathBuf {
    session.directory().join("bin/syscalls")
}

/// Names and errnos, one a line.
fn outcomes(text: &str) -> BTreeMap<String, i32> {
    text.lines()
        .map(|line| {
            let (name, errno) = line.split_once(' ').unwrap();
            (name.to_owned(), errno.parse().unwrap())
        })
        .collect()
}

/// What each hatch must answer in an agent: EPERM but for these.
fn expected(name: &str) -> i32 {
    match name {
        "clone3" | "clone3-user" | "memfd-secret" => libc::ENOSYS,
        "vsock" | "alg" => libc::EAFNOSUPPORT,
        "netlink-usersock" | "netlink-audit" => libc::EPROTONOSUPPORT,
        _ => libc::EPERM,
    }
}

/// Runs the offender outside of any agent.
fn outside(session: &Session, (uid, gid): (u32, u32), words: &[&str]) -> Command {
    let mut command = Command::new(syscalls(session));
    command.args(words).uid(uid).gid(gid).current_dir("/");
    command
}

#[test]
fn each_group_is_shut() {
    if !root() {
        return;
    }
    let session = session();
    let free: Vec<_> = [agent_user(), (0, 0)]
        .into_iter()
        .map(|user| {
            let output = outside(&session, user, &["each"]).output().unwrap();
            outcomes(&String::from_utf8(output.stdout).unwrap())
        })
        .collect();
    for session in [&session, &self::session().as_root()] {
        session.set_policy(&shutting(open()));
        let ended = session.run([syscalls(session).as_os_str(), "each".as_ref()]);
        let shut = outcomes(&ended.text());
        assert_eq!(shut.len(), free[0].len(), "{}", ended.stderr);
        for (name, errno) in &shut {
            assert_eq!(*errno, expected(name), "{name}");
        }
    }
    // Outside, this kernel answers most of them otherwise: it is the filter that answered.
    let (told_apart, alike): (Vec<_>, Vec<_>) = free[0]
        .keys()
        .partition(|name| free.iter().any(|free| free[*name] != expected(name)));
    assert!(told_apart.len() >= 20, "alike outside: {alike:?}; {free:?}");
    let through = free[0].values().filter(|errno| **errno == 0).count();
    assert!(through >= 8, "{:?}", free[0]);
}

/// Debuggers and sanitizers work, on what is the agent's own.
#[test]
fn an_agents_own_processes_can_be_traced() {
    if !root() {
        return;
    }
    for session in [session(), session().as_root()] {
        // Its first process makes the launcher its tracer, too: that one lets it go on.
        let ended = session.run([syscalls(&session).as_os_str(), "each".as_ref()]);
        let outcomes = outcomes(&ended.text());
        for name in [
            "ptrace-seize",
            "ptrace-traceme",
            "process-vm-readv",
            "process-vm-writev",
            "pidfd-getfd",
            "kcmp",
        ] {
            assert_eq!(outcomes[name], 0, "{name}: {}", ended.stderr);
        }
        assert_eq!(outcomes["bpf-map"], libc::EPERM);
        let signalled = session.run([
            syscalls(&session).as_os_str(),
            "traced-by-launcher".as_ref(),
        ]);
        assert_eq!(
            signalled.code(),
            128 + libc::SIGUSR1,
            "{}",
            signalled.stderr
        );
    }
}

/// Who traces the process that execs changes nothing of what is judged: the exec is refused, or killed before its tracer
/// can let it run.
#[test]
fn a_tracer_gets_no_denied_program_to_run() {
    if !root() {
        return;
    }
    if program("strace").is_none() {
        return skip("no strace");
    }
    let session = session();
    session.set_policy(&forbidding());
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let fine = session.place(probe!("victim"), "bin/fine");
    let mark = session.work().join("mark");
    let session = session.variable("MARK", &mark).variable("TAG", "t");
    let run = |program: &std::path::Path| {
        let words = ["strace", "-f", "-qq", "-o", "/dev/null"].map(std::ffi::OsStr::new);
        session.run(words.into_iter().chain([program.as_os_str()]))
    };
    assert_eq!(run(&fine).code(), 0);
    assert!(fs::read(&mark).is_ok_and(|marks| !marks.is_empty()));
    fs::remove_file(&mark).unwrap();
    let ended = run(&victim);
    assert!(!mark.exists(), "{}", ended.stderr);
    assert!(
        ended.trail.execs().any(enforcer_tests::Line::denied),
        "{}",
        ended.trail.shown()
    );
}

#[test]
fn shared_memory_and_queues_of_processes_outside_are_not_there() {
    if !root() {
        return;
    }
    let session = session();
    let key = (std::process::id() | 0x4000_0000).to_string();
    let mut holder = outside(&session, agent_user(), &["hold", &key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut made = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap())
        .read_line(&mut made)
        .unwrap();
    let tried = |text: String| outcomes(&text);
    let free = outside(&session, agent_user(), &["objects", &key])
        .output()
        .unwrap();
    let free = tried(String::from_utf8(free.stdout).unwrap());
    assert!(free.values().all(|errno| *errno == 0), "{made}{free:?}");
    let opened = self::session();
    opened.set_policy(&loosening(open(), &["ipc"]));
    for (session, there) in [
        (&session, false),
        (&self::session().as_root(), false),
        (&opened, true),
    ] {
        let ended = session.run([
            syscalls(session).as_os_str(),
            "objects".as_ref(),
            key.as_ref(),
        ]);
        for (name, errno) in tried(ended.text()) {
            // What it makes itself, it has.
            let wanted = if there || name == "own" {
                0
            } else {
                libc::ENOENT
            };
            assert_eq!(errno, wanted, "{name}: {}", ended.stderr);
        }
    }
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
}

#[test]
fn what_has_been_made_the_launchers_child_is_waited_for() {
    if !root() {
        return;
    }
    // Without this group there is no `clone3`, and `clone` is refused with this flag.
    let session = session();
    session.set_policy(&loosening(open(), &["namespaces"]));
    let ended = session.run([
        syscalls(&session).as_os_str(),
        "foundlings".as_ref(),
        "50".as_ref(),
    ]);
    assert_eq!(ended.text(), "0 left\n", "{}", ended.stderr);
}

#[test]
fn ordinary_programs_do_their_work() {
    if !root() {
        return;
    }
    let session = session();
    let ended = session.run([
        "/usr/bin/python3",
        "-c",
        "import concurrent.futures as f, multiprocessing as m, subprocess as s, threading, os, socket\n\
         t = [threading.Thread(target=lambda: None) for _ in range(8)]; [x.start() for x in t]; [x.join() for x in t]\n\
         assert s.run(['/bin/sh', '-c', 'echo $((6 * 7))'], capture_output=True).stdout == b'42\\n'\n\
         p = os.posix_spawn('/bin/true', ['true'], {}); assert os.waitpid(p, 0)[1] == 0\n\
         assert f.ThreadPoolExecutor(4).submit(pow, 2, 10).result() == 1024\n\
         if __name__ == '__main__':\n\
         \x20   c = m.get_context('fork'); q = c.Queue(); w = c.Process(target=q.put, args=(7,)); w.start(); assert q.get() == 7; w.join()\n\
         a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n\
         print(len(socket.if_nameindex()) > 0)\n",
    ]);
    assert_eq!(ended.text().trim(), "True", "{}", ended.stderr);
    for (name, script) in [
        (
            "git",
            "export HOME=$PWD; git init -q r && cd r && git config user.email a@b && git config user.name a && \
             echo x >f && git add f && git commit -qm m && git gc -q && git log --oneline | grep -q m",
        ),
        (
            "make",
            "printf 'all: a b\\na b:\\n\\t@echo $@ >$@\\n' >m && make -s -j2 -f m && cat a b >/dev/null",
        ),
        (
            "node",
            "node -e 'const c = require(\"child_process\"); const w = require(\"worker_threads\"); \
             if (c.execSync(\"echo 1\").toString() !== \"1\\n\") process.exit(1); \
             require(\"fs\").promises.readFile(\"/etc/passwd\").then(() => new w.Worker(\"process.exit(0)\", {eval: true}) \
             .on(\"exit\", (e) => process.exit(e)))'",
        ),
        (
            "gcc",
            "echo 'int main(void) { return 0; }' >a.c && gcc -pipe -O1 a.c -o a.out && ./a.out",
        ),
        (
            "mv",
            "mkdir a b && echo 1 >a/f && mv a/f b/g && ln b/g a/h && mv b c && mv c a/ && test -s a/c/g",
        ),
    ] {
        if program(name).is_none() {
            eprintln!("not here: {name}");
            continue;
        }
        let ended = session.sh(&format!("mkdir {name} && cd {name} && {script}"));
        assert_eq!(ended.code(), 0, "{name}: {}", ended.stderr);
    }
}

/// An innocent process outside the agent, with the user id of the agent.
struct Prey {
    process: Child,
    words: Vec<String>,
}

impl Prey {
    fn new(session: &Session, user: (u32, u32)) -> Self {
        let mut process = outside(session, user, &["prey"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            process,
            words: line.split_whitespace().map(str::to_owned).collect(),
        }
    }

    fn unharmed(&mut self) -> bool {
        let pid = &self.words[0];
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap().chars().next();
        self.process.try_wait().unwrap().is_none() && state != Some('T')
    }
}

impl Drop for Prey {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether this kernel can keep signals inside a Landlock domain: from ABI 6 on (Linux 6.12).
fn signals_are_kept() -> bool {
    // Asked for its version, landlock_create_ruleset(2) takes a null pointer and a size of zero.
    // SAFETY: as said.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            1,
        )
    };
    abi >= 6
}

#[test]
fn processes_outside_cannot_be_made_to_act() {
    if !root() {
        return;
    }
    let session = session();
    let user = agent_user();
    let mut prey = Prey::new(&session, user);
    let [pid, address] = &prey.words[..] else {
        panic!("{:?}", prey.words)
    };
    let free = outside(&session, user, &["prowl", pid, address])
        .output()
        .unwrap();
    let free = outcomes(&String::from_utf8(free.stdout).unwrap());
    assert_eq!(free["kill"], 0);
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
        .is_ok_and(|scope| scope.trim() != "0");
    assert!(yama || free["mem"] == 0 && free["getfd"] == 0, "{free:?}");
    prey.process.wait().unwrap();

    let kept = signals_are_kept();
    let mut prey = Prey::new(&session, user);
    let syscalls = syscalls(&session);
    let words: Vec<&str> = [syscalls.to_str().unwrap(), "prowl"]
        .into_iter()
        .chain(prey.words.iter().map(String::as_str))
        .collect();
    let ended = session.run(words);
    let shut = outcomes(&ended.text());
    for name in ["seize", "getfd", "writev"] {
        assert_eq!(shut[name], libc::EPERM, "{name}");
    }
    // The file has another errno; it was the domain, not the filter, that answered.
    for name in ["mem", "environ"] {
        assert_eq!(shut[name], libc::EACCES, "{name}");
    }
    if kept {
        for name in ["stop", "pidfd-kill", "kill"] {
            assert_eq!(shut[name], libc::EPERM, "{name}");
        }
        assert!(prey.unharmed());
    } else {
        skip("signals to processes outside are kept by Linux 6.12 and later");
    }
}

#[test]
fn a_signal_to_all_ends_nobody_outside() {
    if !root() {
        return;
    }
    let session = session();
    if !signals_are_kept() {
        skip("signals to processes outside are kept by Linux 6.12 and later");
        return;
    }
    let mut prey = Prey::new(&session, agent_user());
    let ended = session.sh("sleep 600 & kill -9 -1; wait $!; echo $?; echo still here");
    // The shell spares itself; its own child is gone.
    assert_eq!(ended.text().trim(), "137\nstill here", "{}", ended.stderr);
    assert!(prey.unharmed());
}

#[test]
fn an_agent_with_uid_0_cannot_stop_its_launcher() {
    if !root() {
        return;
    }
    let kept = signals_are_kept();
    if !kept {
        skip("signals to processes outside are kept by Linux 6.12 and later");
        return;
    }
    let session = session().as_root();
    let ended = session.sh(
        "for s in STOP TERM KILL INT; do kill -$s $PPID 2>/dev/null && echo $s; done; \
         for d in /proc/[0-9]*; do read c 2>/dev/null <$d/comm; [ \"$c\" = enforcer ] && kill -KILL ${d#/proc/} 2>/dev/null && echo $d; done; \
         echo refused",
    );
    assert_eq!(ended.text().trim(), "refused", "{}", ended.stderr);
    assert_eq!(ended.code(), 0);
}

#[test]
fn filters_of_the_agents_own_change_nothing() {
    if !root() {
        return;
    }
    let session = session();
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let session = session.variable("VICTIM", victim);
    let mut attempts = Attempts::new();
    for way in [
        "log",
        "allow-many",
        "listener",
        "dispatch",
        "no-new-privs",
        "shown-name",
        "undumpable",
        "personality",
    ] {
        attempts = attempts.with(way, "$SYSCALLS stack $TAG $VICTIM $TAG");
    }
    let outcomes = attempts.prove(&session, &forbidding());
    outcomes.ended.trail.assert_whole();
    for name in attempts.names() {
        outcomes
            .ended
            .trail
            .denied_exec(&format!("forbidden {name}"))
            .assert_denied_exec(session.denial());
    }
}

#[test]
fn setuid_and_setgid_bits_give_nothing() {
    if !root() {
        return;
    }
    let session = session();
    let id = session.place(&program("id").expect("id"), "bin/id");
    fs::set_permissions(&id, fs::Permissions::from_mode(0o6755)).unwrap();
    let (uid, gid) = agent_user();
    let free = Command::new(&id)
        .arg("-u")
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&free.stdout).trim(), "0");
    let ended = session.sh(&format!(
        "{} -u; cp {0} own; chmod 6755 own; ./own -u; setpriv --nnp {0} -u 2>/dev/null || {0} -u",
        id.display()
    ));
    assert_eq!(
        ended.text(),
        format!("{uid}\n{uid}\n{uid}\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_fork_bomb_meets_its_limit() {
    if !root() {
        return;
    }
    let session = session();
    let running = session.start([syscalls(&session).as_os_str(), "bomb".as_ref()]);
    let ended = running.wait();
    if ended.stderr.contains("no limit on the number of processes") {
        skip("this machine has no pids controller");
        return;
    }
    let (made, errno) = ended
        .text()
        .trim()
        .split_once(' ')
        .map(|(made, errno)| (made.parse::<u32>().unwrap(), errno.parse::<i32>().unwrap()))
        .unwrap();
    assert_eq!(errno, libc::EAGAIN, "{made}");
    assert!((quick(4000, 1000)..4096).contains(&made), "{made}");
}

//! An agent's tree and the cgroups around it: children are governed, who leaves dies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::IoSlice,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{fs::OpenOptionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use enforcer_tests::{
    Attempts, Ended, Running, Session, cgroup_root, forbidding, loosening, open, patience, probe,
    root, skip,
};
use nix::sys::{
    signal::Signal,
    socket::{ControlMessage, MsgFlags, sendmsg},
};

/// Waits for `go`, tries the forbidden program, says `done`, waits for `end`.
const SCRIPT: &str = "\
    echo $$ >pid.new; mv pid.new pid; while [ ! -e go ]; do sleep 0.05; done\n\
    $VICTIM first; echo $? >result\n\
    $DIAL tcp 127.0.0.2 9 >dialled 2>/dev/null\n\
    echo >done; while [ ! -e end ]; do sleep 0.05; done\n";

const HATCHES: &[&str] = &["namespaces", "mount"];

fn session() -> Session {
    let mut policy = forbidding();
    policy["connect"]["rules"] =
        serde_json::json!([{"id": "no-host", "decision": "deny", "hosts": ["127.0.0.2"]}]);
    // What hands descriptors in listens outside, and is root's as some of the agents are.
    policy["connect"]["outside_listeners"] = serde_json::json!({"unix": "allow"});
    // Two of the ways out of a cgroup need a hatch open.
    let session = Session::new(&loosening(policy, HATCHES));
    let victim = session.place(probe!("victim"), "bin/forbidden");
    let dial = session.place(probe!("dial"), "bin/dial");
    let mark = session.work().join("mark");
    session
        .variable("VICTIM", victim)
        .variable("DIAL", dial)
        .variable("MARK", mark)
}

fn pid_in(path: &Path) -> i32 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs; one that is dead and not yet waited for does not.
fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// A cgroup beside the agents', taken away when the test is over.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn new(name: &str) -> Self {
        let path = cgroup_root().join(format!("enforcer-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_child_cgroup_is_governed_and_taken_away() {
    if !root() {
        return;
    }
    let session = session();
    let work = session.work();
    let running = session.start(["/bin/sh", "-c", SCRIPT]);
    running.until("the script waits", |_| work.join("pid").exists());
    let cgroup = running.cgroup().expect("the agent has a cgroup");
    let child = cgroup.join("child").join("grandchild");
    fs::create_dir_all(&child).unwrap();
    let pid = pid_in(&work.join("pid"));
    fs::write(child.join("cgroup.procs"), pid.to_string()).unwrap();
    fs::write(work.join("go"), "").unwrap();
    running.until("the script is done", |_| work.join("done").exists());
    fs::write(work.join("end"), "").unwrap();
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!work.join("mark").exists(), "the forbidden program ran");
    let line = ended.trail.denied_exec("first");
    line.assert_denied_exec(session.denial());
    assert_ne!(line.number("cgroup"), ended.trail.lines[0].number("cgroup"));
    let dialled = fs::read_to_string(work.join("dialled")).unwrap();
    assert_eq!(dialled.trim(), format!("1 connect: {}", libc::EPERM));
    assert_eq!(
        ended
            .trail
            .lines
            .iter()
            .filter(|line| line.is_escape())
            .count(),
        0
    );
    ended.trail.assert_whole();
}

/// The only escape in the trail is that of this process.
fn assert_escaped(ended: &Ended, pid: i32) {
    let escapes: Vec<_> = ended
        .trail
        .lines
        .iter()
        .filter(|line| line.is_escape())
        .collect();
    let [line] = escapes[..] else {
        panic!("{} escapes\n{}", escapes.len(), ended.trail.shown());
    };
    assert!(line.denied());
    assert_eq!(line.text("verdict"), "killed");
    assert_eq!(
        line.number("pid"),
        u64::from(pid.cast_unsigned()),
        "{line:?}"
    );
}

#[test]
fn a_process_that_is_moved_out_from_outside_is_killed() {
    if !root() {
        return;
    }
    let elsewhere = Elsewhere::new("outside");
    let session = session();
    let work = session.work();
    let running = session.start([
        "/bin/sh",
        "-c",
        "sleep 1000 & echo $! >pid.new; mv pid.new pid; wait $!; echo $?",
    ]);
    running.until("the script waits", |_| work.join("pid").exists());
    let pid = pid_in(&work.join("pid"));
    fs::write(elsewhere.0.join("cgroup.procs"), pid.to_string()).unwrap();
    // We, the mover, are of no agent.
    let ended = running.wait();
    assert_eq!(ended.text().trim(), "137", "{}", ended.stderr);
    assert_escaped(&ended, pid);
    ended.trail.assert_whole();
}

/// Gives an open file to whoever connects first to the session's socket `door`.
fn hand_in(running: &Running, session: &Session, file: &File) {
    let listener = UnixListener::bind(session.work().join("door.new")).unwrap();
    fs::set_permissions(
        session.work().join("door.new"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    fs::rename(session.work().join("door.new"), session.work().join("door")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut visitor = None;
    running.until("the agent comes for the file", |_| {
        visitor = listener.accept().ok();
        visitor.is_some()
    });
    let (stream, _) = visitor.unwrap();
    let fds: [RawFd; 1] = [file.as_raw_fd()];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::empty(),
        None,
    )
    .unwrap();
}

/// Python that takes the file as `fd`.
const TAKE: &str = "\
import os, socket, sys, time, ctypes\n\
u = socket.socket(socket.AF_UNIX)\n\
while True:\n\
\x20   try: u.connect('door'); break\n\
\x20   except OSError: time.sleep(0.02)\n\
fd = socket.recv_fds(u, 1, 1)[1][0]\n\
def note(name, text):\n\
\x20   open(name + '.new', 'w').write(str(text)); os.rename(name + '.new', name)\n";

/// Runs an agent that is given `cgroup.procs` (or the directory) of another cgroup.
fn with_door(session: &Session, file: &File, code: &str) -> Ended {
    let running = session.start(["/usr/bin/python3", "-c", &format!("{TAKE}{code}")]);
    hand_in(&running, session, file);
    running.wait()
}

fn procs(cgroup: &Elsewhere) -> File {
    OpenOptions::new()
        .write(true)
        .open(cgroup.0.join("cgroup.procs"))
        .unwrap()
}

#[test]
fn who_moves_another_one_out_dies_and_so_does_the_other_one() {
    if !root() {
        return;
    }
    let elsewhere = Elsewhere::new("other");
    let session = session();
    let work = session.work();
    let ended = with_door(
        &session,
        &procs(&elsewhere),
        "p = os.fork()\n\
         if p == 0:\n\
         \x20   time.sleep(1000)\n\
         note('pid', p)\n\
         os.write(fd, str(p).encode())\n\
         for n in range(100): note('survived', n)\n\
         time.sleep(1)\n",
    );
    assert_eq!(ended.code(), 137, "the mover: {}", ended.stderr);
    assert!(!work.join("survived").exists(), "the mover went on");
    let pid = pid_in(&work.join("pid"));
    assert_escaped(&ended, pid);
    until("the moved one dies", || !alive(pid));
}

#[test]
fn the_moved_one_dies_also_when_the_launcher_was_away() {
    if !root() {
        return;
    }
    let elsewhere = Elsewhere::new("away");
    // Calls that wait for a supervisor would stop with the launcher.
    let session = session().option("--keep");
    let work = session.work();
    let code = "p = os.fork()\n\
        if p == 0:\n\
        \x20   time.sleep(1000)\n\
        note('pid', p)\n\
        note('mover', os.getpid())\n\
        os.write(fd, str(p).encode())\n\
        time.sleep(1000)\n";
    let running = session.start(["/usr/bin/python3", "-c", &format!("{TAKE}{code}")]);
    running.until("the command starts", |running| {
        !running.trail().lines.is_empty()
    });
    // The command ends and the escape is there when the launcher looks again, both at once.
    running.signal(Signal::SIGSTOP);
    hand_in(&running, &session, &procs(&elsewhere));
    let mover = work.join("mover");
    running.until("the mover dies", |_| {
        mover.exists() && !alive(pid_in(&mover))
    });
    let pid = pid_in(&work.join("pid"));
    assert!(alive(pid), "who killed it?");
    running.signal(Signal::SIGCONT);
    let ended = running.wait();
    assert_escaped(&ended, pid);
    until("the moved one dies", || !alive(pid));
}

#[test]
fn the_next_launcher_kills_who_left_after_the_last_one_was_killed() {
    if !root() {
        return;
    }
    let elsewhere = Elsewhere::new("later");
    // Without its supervisor the script could execute nothing more, and would end.
    let session = session().unsupervised();
    let work = session.work();
    let running = session.start([
        "/bin/sh",
        "-c",
        "sleep 1000 & echo $! >pid.new; mv pid.new pid; wait; sleep 1000",
    ]);
    running.until("the script waits", |_| work.join("pid").exists());
    let cgroup = running.cgroup().expect("the agent has a cgroup");
    running.signal(Signal::SIGKILL);
    let killed = running.wait_kept();
    let pid = pid_in(&work.join("pid"));
    fs::write(elsewhere.0.join("cgroup.procs"), pid.to_string()).unwrap();
    assert_eq!(Session::new(&open()).run(["/bin/true"]).code(), 0);
    until("the moved one dies", || !alive(pid));
    assert!(cgroup.exists(), "a living tree was taken down");
    fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
    until("the tree ends", || {
        fs::read_to_string(cgroup.join("cgroup.procs"))
            .unwrap_or_default()
            .is_empty()
    });
    assert_eq!(Session::new(&open()).run(["/bin/true"]).code(), 0);
    killed.await_taken_away();
}

#[test]
fn who_leaves_dies() {
    if !root() {
        return;
    }
    let elsewhere = Elsewhere::new("self");
    let session = session();
    let work = session.work();
    let ended = with_door(
        &session,
        &procs(&elsewhere),
        "note('pid', os.getpid())\nos.write(fd, b'0')\nnote('survived', 1)\nos.execv(os.environ['VICTIM'], ['x'])\n",
    );
    assert_eq!(ended.code(), 137, "{}", ended.stderr);
    assert!(!work.join("survived").exists() && !work.join("mark").exists());
    assert_escaped(&ended, pid_in(&work.join("pid")));
}

#[test]
fn who_forks_into_another_cgroup_dies() {
    if !root() {
        return;
    }
    let elsewhere = Elsewhere::new("fork");
    // Only who may write to the cgroup may do this: an agent with uid 0.
    let session = session().as_root();
    let work = session.work();
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(&elsewhere.0)
        .unwrap();
    let ended = with_door(
        &session,
        &directory,
        "a = (ctypes.c_uint64 * 11)(0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, fd)\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         note('trying', 1)\n\
         p = libc.syscall(435, ctypes.byref(a), ctypes.sizeof(a))\n\
         if p == 0:\n\
         \x20   os.execv(os.environ['VICTIM'], ['x'])\n\
         if p < 0:\n\
         \x20   print('errno', ctypes.get_errno(), flush=True); sys.exit(3)\n\
         for n in range(100): note('survived', n)\n\
         time.sleep(1)\n",
    );
    assert!(work.join("trying").exists(), "{}", ended.stderr);
    assert_eq!(ended.code(), 137, "{} {}", ended.text(), ended.stderr);
    assert!(!work.join("survived").exists(), "the parent went on");
    assert!(
        !work.join("mark").exists(),
        "the child ran the forbidden program"
    );
    let escapes: Vec<_> = ended
        .trail
        .lines
        .iter()
        .filter(|line| line.is_escape())
        .collect();
    assert_eq!(escapes.len(), 1, "{}", ended.trail.shown());
    let child = escapes[0].number("pid") as i32;
    until("the child dies", || !alive(child));
}

/// Tries to write the shell's pid to every cgroup file that it sees, and to make cgroups.
const WRITE_EVERYWHERE: &str = "\
    for f in $(find /sys/fs/cgroup /proc/1/root/sys/fs/cgroup -name cgroup.procs -o -name tasks -o -name cgroup.threads 2>/dev/null); do\n\
      if (echo $$ >$f) 2>/dev/null; then echo \"wrote $f\"; fi\n\
      d=${f%/*}\n\
      if mkdir $d/escape 2>/dev/null; then echo \"made $d/escape\"; rmdir $d/escape; fi\n\
    done\n\
    mkdir m; if mount -t cgroup2 none m 2>/dev/null; then echo mounted; fi\n\
    echo end\n";

#[test]
fn no_cgroup_file_can_be_written() {
    if !root() {
        return;
    }
    for session in [session(), session().as_root()] {
        let ended = session.sh(WRITE_EVERYWHERE);
        assert_eq!(
            ended.text().trim(),
            "end",
            "as uid {}: {}",
            session.uid(),
            ended.stderr
        );
        assert!(
            !ended
                .trail
                .lines
                .iter()
                .any(enforcer_tests::Line::is_escape)
        );
    }
}

#[test]
fn a_cgroup_that_the_agent_makes_itself_is_governed() {
    if !root() {
        return;
    }
    // Root owns its cgroup's files, and a user namespace of its own shows them to it.
    let session = session().as_root();
    let spaces = session.place(probe!("namespaces"), "bin/namespaces");
    let session = session.variable("SPACES", spaces);
    let attempts = Attempts::new().with("moved", "mkdir m; $SPACES cgroup m $VICTIM $TAG");
    session.set_policy(&loosening(open(), HATCHES));
    let free = attempts.run(&session);
    if !free.output("moved").contains("moved") {
        skip(&format!(
            "root's agent can make no cgroup here: {}",
            free.output("moved").trim()
        ));
        return;
    }
    let outcomes = attempts.prove(&session, &loosening(forbidding(), HATCHES));
    assert!(outcomes.output("moved").contains("moved"));
    let trail = &outcomes.ended.trail;
    let line = trail.denied_exec("forbidden moved");
    line.assert_denied_exec(session.denial());
    assert_ne!(line.number("cgroup"), trail.lines[0].number("cgroup"));
    assert!(!trail.lines.iter().any(enforcer_tests::Line::is_escape));
}

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::FromRawFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    process::{Child, Command as Process, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::*;
use crate::{
    RequestRate,
    trial::{INSTANCE, as_root, db, exec, scratch},
};
use enforcer_control::{
    RequestRecord, RequestState, client,
    protocol::{Operation, Reply, ReplyFault},
};
use enforcer_decide::approval::{Ending, Scope};

/// The agent's user in these tests.
const AGENT: u32 = 65_533;
/// Somebody who has nothing to do with it.
const STRANGER: u32 = 65_532;
/// An approver that is not root.
const APPROVER: &str = "nobody";
const SOON: Duration = Duration::from_secs(20);

struct Trial {
    scratch: tempfile::TempDir,
    desk: Option<DeskHandle>,
    socket: PathBuf,
}

impl Trial {
    fn new(limits: RequestLimits) -> Self {
        let scratch = scratch();
        // Peers of other users must reach the socket.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let socket = scratch.path().join("approvals.sock");
        let desk = start(DeskSettings {
            agent: None,
            breaker: None,
            db: db(&scratch),
            instance: INSTANCE.to_owned(),
            socket: socket.clone(),
            approvers: Approvers::resolve(Some(&[APPROVER.to_owned()])).unwrap(),
            agent_uid: AGENT,
            agent_gids: vec![AGENT],
            agent_cgroup: "/enforcer/of-this-test".to_owned(),
            limits,
            directory: None,
            notify: Vec::new(),
            tools: None,
        })
        .unwrap();
        Self {
            scratch,
            desk: Some(desk),
            socket,
        }
    }

    fn desk(&self) -> &DeskHandle {
        self.desk.as_ref().unwrap()
    }

    fn ask(&self, asked: Asked) -> Receiver<Answer> {
        self.ask_for(asked, pidfd(std::process::id()))
    }

    fn ask_for(&self, asked: Asked, process: OwnedFd) -> Receiver<Answer> {
        let (sender, receiver) = channel();
        self.desk().ask(
            asked,
            process,
            |_| {},
            move |answer| drop(sender.send(answer)),
        );
        receiver
    }

    fn request(&self, request: &Operation) -> Reply {
        client::request(&self.socket, request).unwrap()
    }

    fn pending(&self) -> Vec<RequestRecord> {
        let reply = self.request(&Operation::List { all: false });
        assert_eq!(reply.fault, None, "{reply:?}");
        reply.requests.unwrap()
    }

    fn store(&self) -> Store {
        Store::open(&db(&self.scratch)).unwrap()
    }
}

fn pidfd(pid: u32) -> OwnedFd {
    // SAFETY: the call takes two numbers and gives a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just made it, nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn sleeper() -> Child {
    Process::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn approve(id: &str) -> Operation {
    Operation::Answer {
        id: id.to_owned(),
        approve: true,
        reason: "fine".to_owned(),
        scope: None,
        for_s: None,
        by: None,
    }
}

/// Does something with another user's credentials: of this thread alone, as the kernel has them.
fn as_user<T: Send + 'static>(uid: u32, act: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(move || {
        // SAFETY: the bare call changes the credentials of the calling thread, which ends soon.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(changed, 0, "needs root: {}", io::Error::last_os_error());
        act()
    })
    .join()
    .unwrap()
}

fn request_as(uid: u32, trial: &Trial, request: Operation) -> Reply {
    let socket = trial.socket.clone();
    as_user(uid, move || client::request(&socket, &request).unwrap())
}

#[test]
fn an_answer_over_the_socket_reaches_who_waits() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let told = trial.ask(exec(&["git", "push"]));
    let pending = trial.pending();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].command, "/usr/bin/git push");
    let id = &pending[0].id;
    assert_eq!(
        trial.request(&approve(&id[..6])).ended.as_deref(),
        Some([id.clone()].as_slice())
    );
    assert_eq!(
        told.recv_timeout(SOON).unwrap().ending,
        Ending::Approved {
            approver: "root".to_owned(),
            reason: "fine".to_owned(),
            scope: Scope::Once,
        }
    );
    assert_eq!(trial.pending(), []);
    let again = trial.request(&approve(id));
    assert_eq!(again.fault, Some(ReplyFault::Ended));
    assert!(again.error.unwrap().contains("approved by root"));
    let unknown = trial.request(&approve("ffffffff-0000"));
    assert_eq!(unknown.fault, Some(ReplyFault::NotFound));
}

#[test]
fn the_agents_user_can_neither_see_nor_answer() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let told = trial.ask(exec(&["git", "push"]));
    let id = trial.pending().remove(0).id;
    for request in [
        approve(&id),
        Operation::List { all: false },
        Operation::Show { id: id.clone() },
        Operation::Watch,
    ] {
        let reply = request_as(AGENT, &trial, request.clone());
        assert_eq!(
            reply.fault,
            Some(ReplyFault::Refused),
            "{request:?}: {reply:?}"
        );
        assert_eq!(reply.requests, None);
        let reply = request_as(STRANGER, &trial, request.clone());
        assert_eq!(
            reply.fault,
            Some(ReplyFault::Refused),
            "{request:?}: {reply:?}"
        );
    }
    assert_eq!(
        told.recv_timeout(Duration::from_millis(50)),
        Err(RecvTimeoutError::Timeout)
    );
    // Why it was denied it may know.
    trial.desk().note_denial("git push: no");
    let reply = request_as(AGENT, &trial, Operation::Last);
    assert_eq!(reply.denials, Some(vec!["git push: no".to_owned()]));
    assert_eq!(
        request_as(STRANGER, &trial, Operation::Last).fault,
        Some(ReplyFault::Refused)
    );
}

#[test]
fn a_named_user_answers_under_its_own_name() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let told = trial.ask(exec(&["git", "push"]));
    let id = trial.pending().remove(0).id;
    let uid = nix::unistd::User::from_name(APPROVER)
        .unwrap()
        .unwrap()
        .uid
        .as_raw();
    let claim = Operation::Answer {
        id,
        approve: false,
        reason: "no".to_owned(),
        scope: None,
        for_s: None,
        // Only root is believed.
        by: Some("the president".to_owned()),
    };
    assert_eq!(request_as(uid, &trial, claim).fault, None);
    assert_eq!(
        told.recv_timeout(SOON).unwrap().ending,
        Ending::Denied {
            approver: APPROVER.to_owned(),
            reason: "no".to_owned()
        }
    );
}

#[test]
fn a_peer_inside_the_agents_cgroup_is_the_agent_even_as_root() {
    if !as_root() {
        return;
    }
    let scratch = scratch();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap();
    let socket = scratch.path().join("approvals.sock");
    let _desk = start(DeskSettings {
        agent: None,
        breaker: None,
        db: db(&scratch),
        instance: INSTANCE.to_owned(),
        socket: socket.clone(),
        approvers: Approvers::resolve(None).unwrap(),
        agent_uid: 0,
        agent_gids: vec![0],
        agent_cgroup: own.to_owned(),
        limits: RequestLimits::default(),
        directory: None,
        notify: Vec::new(),
        tools: None,
    })
    .unwrap();
    let reply = client::request(&socket, &Operation::List { all: true }).unwrap();
    assert_eq!(reply.fault, Some(ReplyFault::Refused));
}

#[test]
fn a_process_that_ends_cancels_its_request() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let mut child = sleeper();
    let told = trial.ask_for(exec(&["git", "push"]), pidfd(child.id()));
    let id = trial.pending().remove(0).id;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(told.recv_timeout(SOON).unwrap().ending, Ending::Cancelled);
    assert_eq!(
        trial.store().get(&id).unwrap().unwrap().state,
        RequestState::Cancelled
    );
}

#[test]
fn nobody_answers_and_the_time_is_up() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits {
        timeout: Duration::from_millis(150),
        ..RequestLimits::default()
    });
    let start = Instant::now();
    let told = trial.ask(exec(&["git", "push"]));
    assert_eq!(
        told.recv_timeout(SOON).unwrap().ending,
        Ending::Expired(Duration::from_millis(150))
    );
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[test]
fn who_is_gone_when_the_desk_ends_has_cancelled() {
    if !as_root() {
        return;
    }
    let mut trial = Trial::new(RequestLimits::default());
    let mut child = Process::new("sleep").arg("60").spawn().unwrap();
    let (sender, told) = channel();
    trial.desk().asker().ask(
        exec(&["git", "push"]),
        pidfd(child.id()),
        |_| {},
        move |answer| sender.send(answer).unwrap(),
    );
    let id = trial.pending().remove(0).id;
    // The desk hears of both at once.
    child.kill().unwrap();
    child.wait().unwrap();
    trial.desk.take().unwrap().shutdown();
    assert_eq!(told.try_recv().unwrap().ending, Ending::Cancelled);
    assert_eq!(
        trial.store().get(&id).unwrap().unwrap().state,
        RequestState::Cancelled
    );
}

#[test]
fn shutting_down_denies_and_takes_the_socket_away() {
    if !as_root() {
        return;
    }
    let mut trial = Trial::new(RequestLimits::default());
    let told = trial.ask(exec(&["git", "push"]));
    let id = trial.pending().remove(0).id;
    let asker = trial.desk().asker();
    trial.desk.take().unwrap().shutdown();
    match told.try_recv().unwrap().ending {
        Ending::Denied { reason, .. } => assert!(reason.contains("supervisor ended"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(!trial.socket.exists());
    assert_eq!(
        trial.store().get(&id).unwrap().unwrap().state,
        RequestState::Denied
    );
    // Asking a desk that is gone is refused, at once.
    let (sender, told) = channel();
    asker.ask(
        exec(&["git"]),
        pidfd(std::process::id()),
        |_| {},
        move |answer| {
            sender.send(answer).unwrap();
        },
    );
    assert!(matches!(
        told.try_recv().unwrap().ending,
        Ending::Refused(_)
    ));
}

#[test]
fn the_last_denials_are_kept_and_no_more() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    for n in 0..20 {
        trial.desk().note_denial(&format!("denial {n}"));
    }
    let denials = trial.request(&Operation::Last).denials.unwrap();
    assert_eq!(denials.len(), LAST_DENIALS);
    assert_eq!(denials.first().unwrap(), "denial 4");
    assert_eq!(denials.last().unwrap(), "denial 19");
}

#[test]
fn garbage_is_answered_with_an_error() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let deep = "[".repeat(60_000);
    for garbage in [
        "",
        "\n",
        "null\n",
        "{}\n",
        "{\"op\":\"answer\"}\n",
        "{\"op\":\"answer\",\"id\":7,\"approve\":true}\n",
        "{\"op\":\"list\",\"surprise\":1}\n",
        "{\"op\":\"dance\"}\n",
        "\u{0}\u{1}\u{fffd}\n",
        &deep,
    ] {
        let mut stream = UnixStream::connect(&trial.socket).unwrap();
        stream.write_all(garbage.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let reply: Reply = serde_json::from_str(&line).unwrap();
        assert_eq!(reply.fault, Some(ReplyFault::Bad), "{garbage:.40?}");
    }
    assert_eq!(trial.pending(), []);
}

#[test]
fn a_gibibyte_is_cut_off_after_the_first_of_it() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let mut stream = UnixStream::connect(&trial.socket).unwrap();
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0_u64;
    while sent < 1 << 30 {
        match stream.write(&piece) {
            Ok(written) => sent += written as u64,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                break;
            }
        }
    }
    assert!(sent < 4 << 20, "{sent} bytes were taken");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.contains("longer than 65536 bytes"), "{line}");
    assert_eq!(trial.pending(), []);
}

#[test]
fn idle_connections_are_bounded_and_let_go() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let idle: Vec<UnixStream> = (0..32)
        .map(|_| UnixStream::connect(&trial.socket).unwrap())
        .collect();
    let mut line = String::new();
    let extra = UnixStream::connect(&trial.socket).unwrap();
    BufReader::new(extra).read_line(&mut line).unwrap();
    let reply: Reply = serde_json::from_str(&line).unwrap();
    assert_eq!(reply.fault, Some(ReplyFault::Busy));
    // They have five seconds.
    let mut line = String::new();
    BufReader::new(&idle[0]).read_line(&mut line).unwrap();
    assert!(line.contains("no request within 5 s"), "{line}");
    drop(idle);
    let start = Instant::now();
    while trial
        .request(&Operation::List { all: false })
        .fault
        .is_some()
    {
        assert!(start.elapsed() < SOON);
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_agent_cannot_take_all_connections() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let socket = trial.socket.clone();
    let held: Vec<UnixStream> = as_user(AGENT, move || {
        (0..40)
            .map(|_| UnixStream::connect(&socket).unwrap())
            .collect()
    });
    assert_eq!(trial.pending(), []);
    drop(held);
}

#[test]
fn ten_thousand_connections_do_no_harm() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let told = trial.ask(exec(&["git", "push"]));
    for n in 0..10_000_u32 {
        let mut stream = UnixStream::connect(&trial.socket).unwrap();
        if n % 3 == 0 {
            // The other end may have turned us away already.
            let _ = stream.write_all(b"{\"op\":");
        }
    }
    let start = Instant::now();
    let id = loop {
        let reply = trial.request(&Operation::List { all: false });
        if let Some(requests) = reply.requests {
            break requests[0].id.clone();
        }
        assert_eq!(reply.fault, Some(ReplyFault::Busy));
        assert!(start.elapsed() < SOON);
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(trial.request(&approve(&id)).fault, None);
    assert!(matches!(
        told.recv_timeout(SOON).unwrap().ending,
        Ending::Approved { .. }
    ));
}

#[test]
fn a_watch_tells_what_is_pending_and_what_happens() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let _first = trial.ask(exec(&["git", "push"]));
    let first = trial.pending().remove(0).id;
    let mut watch = client::DeskWatch::start(&trial.socket).unwrap();
    let mut next = || watch.wait().unwrap().unwrap();
    assert!(matches!(next(), DeskEvent::New { request } if request.id == first));
    let _second = trial.ask(exec(&["git", "pull"]));
    let DeskEvent::New { request: second } = next() else {
        panic!("not a new request")
    };
    trial.request(&approve(&second.id));
    assert!(matches!(
        next(),
        DeskEvent::Ended { id, state: RequestState::Approved, outcome }
            if id == second.id && outcome.approver.as_deref() == Some("root")
    ));
}

#[test]
fn a_watcher_that_speaks_is_let_go() {
    if !as_root() {
        return;
    }
    let trial = Trial::new(RequestLimits::default());
    let mut stream = UnixStream::connect(&trial.socket).unwrap();
    stream.write_all(b"{\"op\":\"watch\"}\n").unwrap();
    // A moment, so that this is not read with the request.
    thread::sleep(Duration::from_millis(50));
    stream.write_all(b"and more\n").unwrap();
    let mut rest = Vec::new();
    // Closed: with an end or a reset, as the kernel likes.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

/// Clock ticks that a thread of ours has used.
fn ticks(thread: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // utime and stime, the 14th and 15th field of all (proc(5)).
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_thousand_wait_for_nothing_and_are_all_told() {
    if !as_root() {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < 8192 {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(8192), hard).unwrap();
    }
    let trial = Trial::new(RequestLimits {
        rate: RequestRate {
            count: 2000,
            window: Duration::from_mins(1),
        },
        ..RequestLimits::default()
    });
    let (sender, thread_id) = channel();
    let mut asked = exec(&["git", "first"]);
    asked.rule = None;
    let gone = {
        let mut child = sleeper();
        let fd = pidfd(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        fd
    };
    // The desk calls back on its own thread.
    trial.desk().ask(
        asked,
        gone,
        |_| {},
        move |_| {
            sender.send(nix::unistd::gettid().as_raw()).unwrap();
        },
    );
    let desk_thread = thread_id.recv_timeout(SOON).unwrap();

    let told: Vec<_> = (0..1000)
        .map(|n: u32| trial.ask(exec(&["git", &n.to_string()])))
        .collect();
    let start = Instant::now();
    let pending = loop {
        let pending = trial.pending();
        if pending.len() == 1000 {
            break pending;
        }
        assert!(start.elapsed() < SOON, "{} of 1000", pending.len());
        thread::sleep(Duration::from_millis(10));
    };
    // What the list itself has set going is over.
    thread::sleep(Duration::from_millis(50));
    let before = ticks(desk_thread);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(ticks(desk_thread), before, "waiting costs time");
    let rule = Operation::Answer {
        id: pending[0].id.clone(),
        approve: true,
        reason: String::new(),
        scope: Some("rule".to_owned()),
        for_s: None,
        by: Some("kim".to_owned()),
    };
    assert_eq!(trial.request(&rule).ended.unwrap().len(), 1000);
    for told in told {
        assert!(matches!(
            told.recv_timeout(SOON).unwrap().ending,
            Ending::Approved { approver, .. } if approver == "root for kim"
        ));
    }
}

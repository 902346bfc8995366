//! Who can answer: not the agent, by no way, and nothing that it does keeps others from answering.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use enforcer_tests::{Request, Running, Session, agent_user, enforcer, root};
use serde_json::{Value, json};

use crate::scene::{asking, marks, session, sign};

/// The line that approves a request.
fn approval(request: &Request) -> String {
    json!({"op": "answer", "id": request.id(), "approve": true, "reason": "", "by": "root"})
        .to_string()
}

/// A copy of the program under test that the agent can run.
fn own_copy(session: &Session) -> PathBuf {
    let built = PathBuf::from(enforcer().get_program());
    session.place(&built, "bin/enforcer")
}

fn assert_waiting(session: &Session, running: &Running, id: &str) {
    assert_eq!(running.request().id(), id);
    assert_eq!(marks(session), 0);
}

/// Tries to answer from inside: with the command, with the socket, with the database.
const INSIDE: &str = "\
    $ASKED one & while [ ! -e id ]; do sleep 0.05; done\n\
    id=$(cat id); socket=$(cat socket)\n\
    $ENFORCER approvals approve $id; echo \"approve $?\"\n\
    $ENFORCER approvals deny $id; echo \"deny $?\"\n\
    $ASKS answer $socket \"$(cat line)\"; echo \"raw $?\"\n\
    (: >>/var/lib/enforcer/approvals.db) && echo \"database\"\n\
    ls -A /var/lib/enforcer\n\
    echo >tried; wait; echo end\n";

fn tries_inside(session: &Session) {
    let enforcer = own_copy(session);
    fs::set_permissions(&enforcer, fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!("ENFORCER={}; export ENFORCER\n{INSIDE}", enforcer.display());
    let running = session.start(["/bin/sh", "-c", &script]);
    let request = running.request();
    let socket = running.socket();
    let work = session.work();
    fs::write(work.join("line"), approval(&request)).unwrap();
    fs::write(work.join("socket"), socket.to_str().unwrap()).unwrap();
    fs::write(work.join("new"), request.id()).unwrap();
    fs::rename(work.join("new"), work.join("id")).unwrap();
    running.await_file(&work.join("tried"));
    assert_waiting(session, &running, request.id());
    request.approve(&[]);
    let ended = running.wait();
    assert_eq!(marks(session), 1);
    let text = ended.text();
    for said in [
        "approve 0",
        "deny 0",
        "\"ended\"",
        "database",
        "approvals.db",
    ] {
        assert!(!text.contains(said), "{said}: {text}\n{}", ended.stderr);
    }
    assert!(text.contains("raw ") && text.ends_with("end\n"), "{text}");
}

#[test]
fn the_agents_user_cannot_from_inside() {
    if root() {
        tries_inside(&session(&asking(json!({}))));
    }
}

#[test]
fn the_agents_root_cannot_from_inside() {
    if root() {
        tries_inside(&session(&asking(json!({}))).as_root());
    }
}

/// `enforcer approvals` as somebody else, or somewhere else.
fn answers(request: &Request, verb: &str, as_whom: impl FnOnce(&mut Command)) -> Output {
    let mut command = enforcer();
    command.args(["approvals", verb, request.id()]);
    as_whom(&mut command);
    command.output().unwrap()
}

#[test]
fn the_agents_user_cannot_from_outside() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"approvers": ["root", "nobody"]})));
    let copy = own_copy(&session);
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    let (uid, gid) = agent_user();
    for verb in ["approve", "deny"] {
        let output = Command::new(&copy)
            .args(["approvals", verb, request.id()])
            .uid(uid)
            .gid(gid)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{output:?}");
    }
    let asks = session.directory().join("bin/asks");
    let output = Command::new(asks)
        .arg("answer")
        .arg(running.socket())
        .arg(approval(&request))
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("ended"), "{said}");
    assert_waiting(&session, &running, request.id());
    request.deny(&[]);
    assert_eq!(running.wait().text(), "status 126\n");
}

#[test]
fn a_stranger_cannot() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let copy = own_copy(&session);
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    for words in [
        vec!["approve", request.id()],
        vec!["show", request.id()],
        vec!["list", "--json"],
    ] {
        let output = Command::new(&copy)
            .arg("approvals")
            .args(&words)
            .uid(54321)
            .gid(54321)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains(request.id()), "{words:?}: {said}");
        assert!(words[0] == "list" || !output.status.success(), "{output:?}");
    }
    assert_waiting(&session, &running, request.id());
    request.deny(&[]);
    running.wait();
}

/// Root, but moved into the agent's cgroup: it counts as the agent.
#[test]
fn root_in_the_agents_cgroup_cannot() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    let processes = running.cgroup().unwrap().join("cgroup.procs");
    let output = answers(&request, "approve", |command| {
        let enter = move || fs::write(&processes, "0");
        // SAFETY: the child writes to a file; nothing else of this process is touched.
        unsafe { command.pre_exec(enter) };
    });
    assert!(!output.status.success(), "{output:?}");
    assert_waiting(&session, &running, request.id());
    request.approve(&[]);
    assert_eq!(running.wait().text(), "status 0\n");
}

#[test]
fn with_an_empty_list_nobody_can() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({"approvers": [], "timeout_s": 20})));
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    let output = answers(&request, "approve", |_| {});
    assert!(!output.status.success(), "{output:?}");
    assert_waiting(&session, &running, request.id());
    let ended = running.wait();
    assert_eq!(ended.text(), "status 126\n");
    assert_eq!(ended.request().state(), "expired");
}

#[test]
fn a_named_approver_can() {
    if !root() {
        return;
    }
    // A user that is neither root nor the agent.
    let name = "daemon";
    let Some(user) = nix::unistd::User::from_name(name).unwrap() else {
        enforcer_tests::skip("there is no user daemon");
        return;
    };
    let session = session(&asking(json!({"approvers": [name]})));
    let copy = own_copy(&session);
    let running = session.start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
    let request = running.request();
    let output = Command::new(&copy)
        .args(["approvals", "approve", request.id(), "--reason", "mine"])
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let ended = running.wait();
    assert_eq!(ended.text(), "status 0\n");
    assert_eq!(ended.request().text("approver"), name);
}

/// The reply to one line.
fn reply(socket: &Path, line: &[u8]) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .ok()?;
    stream.write_all(line).ok()?;
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[test]
fn garbage_and_crowds_do_not_keep_others_from_answering() {
    if !root() {
        return;
    }
    let session = session(&asking(json!({})));
    let running = session.start([
        "/bin/sh",
        "-c",
        "$ASKED one & while [ ! -e socket ]; do sleep 0.05; done\n\
         $ASKS flood $(cat socket); wait; echo end",
    ]);
    let request = running.request();
    let socket = running.socket();

    // From root, whom the desk believes most.
    let long = vec![b'x'; 1 << 20];
    let deep = "[".repeat(60_000) + "\n";
    for garbage in [
        &b"\n"[..],
        b"{}\n",
        b"null\n",
        b"\xff\xfe\n",
        b"{\"op\":\"answer\"}\n",
        b"{\"op\":\"answer\",\"id\":\"\",\"approve\":true}\n",
        b"{\"op\":\"answer\",\"id\":\"%\",\"approve\":true}\n",
        b"{\"op\":\"answer\",\"id\":7,\"approve\":1}\n",
        b"{\"op\":\"approve\"}\n",
        &long,
        deep.as_bytes(),
    ] {
        if let Some(reply) = reply(&socket, garbage) {
            assert!(reply["fault"].is_string(), "{reply}");
        }
    }
    assert_waiting(&session, &running, request.id());

    // The agent's own crowd, inside and outside, is still there when root answers.
    let work = session.work();
    fs::write(work.join("new"), socket.to_str().unwrap()).unwrap();
    fs::rename(work.join("new"), work.join("socket")).unwrap();
    running.await_file(&work.join("flooded"));
    let (uid, gid) = agent_user();
    let outside = session.work().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    let mut crowd = Command::new(session.directory().join("bin/asks"))
        .arg("flood")
        .arg(&socket)
        .current_dir(&outside)
        .uid(uid)
        .gid(gid)
        .spawn()
        .unwrap();
    running.await_file(&outside.join("flooded"));
    let silent: Vec<_> = (0..4).map(|_| UnixStream::connect(&socket)).collect();
    assert_waiting(&session, &running, request.id());
    request.approve(&[]);
    running.until("it has run", |_| marks(&session) == 1);
    drop(silent);
    sign(&session, "end");
    fs::write(outside.join("end"), "").unwrap();
    crowd.wait().unwrap();
    let ended = running.wait();
    assert_eq!(ended.text(), "end\n", "{}", ended.stderr);
}

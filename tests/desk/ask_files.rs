//! Requests and answers as files.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use enforcer_tests::{Ended, Request, Running, Session, agent_user, root};
use serde_json::{Value, json};

use crate::scene::{asking, marks, session};

/// A session with a directory for answers.
struct Desk {
    session: Session,
    directory: PathBuf,
}

impl Desk {
    fn new(approvals: Value) -> Self {
        let session = session(&asking(approvals));
        let directory = session.directory().join("answers");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        let session = session.option("--approvals-dir").option(&directory);
        Self { session, directory }
    }

    fn start(&self) -> (Running, Request) {
        let running = self
            .session
            .start(["/bin/sh", "-c", "$ASKED one; echo status $?"]);
        let request = running.request();
        running.await_file(&self.proposal(request.id()));
        (running, request)
    }

    fn proposal(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.proposal.json"))
    }

    fn response(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.response.json"))
    }

    fn processed(&self, name: &str) -> PathBuf {
        self.directory.join("processed").join(name)
    }

    fn answer(&self, id: &str, text: &str) {
        fs::write(self.response(id), text).unwrap();
    }

    /// Both files are in the archive.
    fn assert_archived(&self, id: &str) {
        for name in [format!("{id}.proposal.json"), format!("{id}.response.json")] {
            assert!(self.processed(&name).exists(), "{name}");
            assert!(!self.directory.join(&name).exists(), "{name}");
        }
    }
}

fn line_reason(ended: &Ended) -> String {
    ended
        .trail
        .execs()
        .find(|line| line.text("decision") == "ask")
        .unwrap_or_else(|| panic!("{}", ended.trail.shown()))
        .reason()
        .to_owned()
}

#[test]
fn a_proposal_is_answered() {
    if !root() {
        return;
    }
    for (status, runs) in [("approved", true), ("rejected", false), ("modified", false)] {
        let desk = Desk::new(json!({}));
        let (running, request) = desk.start();
        let proposal: Value =
            serde_json::from_slice(&fs::read(desk.proposal(request.id())).unwrap()).unwrap();
        assert_eq!(proposal["id"], request.id());
        assert_eq!(proposal["command"], request.0["command"]);
        assert_eq!(proposal["sha256"], request.0["sha256"]);
        let mode = fs::metadata(desk.proposal(request.id()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        desk.answer(
            request.id(),
            &json!({"status": status, "notes": "as noted", "id": request.id(), "approver": "ci-bot"})
                .to_string(),
        );
        let ended = running.wait();
        let expected = if runs { "status 0\n" } else { "status 126\n" };
        assert_eq!(ended.text(), expected, "{status}: {}", ended.stderr);
        assert_eq!(marks(&desk.session), usize::from(runs), "{status}");
        let kept = ended.request();
        assert_eq!(kept.state(), if runs { "approved" } else { "denied" });
        assert_eq!(kept.text("approver"), "root for ci-bot");
        assert!(line_reason(&ended).contains("as noted"), "{status}");
        desk.assert_archived(request.id());
    }
}

#[test]
fn a_response_may_come_in_pieces() {
    if !root() {
        return;
    }
    let desk = Desk::new(json!({}));
    let (running, request) = desk.start();
    let path = desk.response(request.id());
    for part in ["", "{\"sta", "tus\": \"appro", "ved\", \"notes\": \"x\""] {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        file.write_all(part.as_bytes()).unwrap();
        drop(file);
        thread::sleep(Duration::from_millis(200));
        assert_eq!(running.request().id(), request.id(), "after {part:?}");
        assert_eq!(marks(&desk.session), 0);
    }
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"}").unwrap();
    drop(file);
    let ended = running.wait();
    assert_eq!(ended.text(), "status 0\n", "{}", ended.stderr);
    desk.assert_archived(request.id());
}

/// Puts a response there that is nobody's answer, and waits until it is archived; the request still waits.
fn forged(
    (desk, running, id): (&Desk, &Running, &str),
    name: &str,
    put: impl FnOnce(&Desk, &Path),
) {
    let place = desk.response(id);
    put(desk, &place);
    running.until(name, |_| fs::symlink_metadata(&place).is_err());
    assert_eq!(running.request().id(), id, "{name}: it was answered");
    assert_eq!(marks(&desk.session), 0, "{name}");
}

/// Makes a file elsewhere on the same file system, as it is to be, and moves it to its place in one step.
fn moved(desk: &Desk, place: &Path, text: &str, make: impl FnOnce(&Path)) {
    let fresh = desk.session.directory().join("fresh");
    fs::write(&fresh, text).unwrap();
    fs::set_permissions(&fresh, Permissions::from_mode(0o644)).unwrap();
    make(&fresh);
    fs::rename(&fresh, place).unwrap();
}

const YES: &str = "{\"status\": \"approved\"}";

#[test]
fn what_is_nobodys_answer_has_no_effect() {
    if !root() {
        return;
    }
    let (uid, gid) = agent_user();
    let desk = Desk::new(json!({}));
    let (running, request) = desk.start();
    let waiting = (&desk, &running, request.id());
    forged(waiting, "owned by the agent's user", |desk, place| {
        moved(desk, place, YES, |file| {
            chown(file, Some(uid), Some(gid)).unwrap();
        });
    });
    forged(waiting, "owned by a stranger", |desk, place| {
        moved(desk, place, YES, |file| {
            chown(file, Some(54321), Some(54321)).unwrap();
        });
    });
    forged(waiting, "writable by all", |desk, place| {
        moved(desk, place, YES, |file| {
            fs::set_permissions(file, Permissions::from_mode(0o666)).unwrap();
        });
    });
    forged(waiting, "a link", |desk, place| {
        let target = desk.session.directory().join("target");
        fs::write(&target, YES).unwrap();
        symlink(target, place).unwrap();
    });
    forged(waiting, "two names", |desk, place| {
        let other = desk.session.directory().join("other");
        moved(desk, place, YES, |file| fs::hard_link(file, other).unwrap());
    });
    forged(waiting, "a pipe", |_, place| {
        nix::unistd::mkfifo(place, nix::sys::stat::Mode::S_IRUSR).unwrap();
    });
    forged(waiting, "another id", |desk, place| {
        let text = "{\"status\": \"approved\", \"id\": \"00000000-0000-4000-8000-000000000000\"}";
        moved(desk, place, text, |_| {});
    });
    forged(waiting, "another status", |desk, place| {
        moved(desk, place, "{\"status\": \"yes\"}", |_| {});
    });
    forged(waiting, "too long", |desk, place| {
        let text = format!(
            "{{\"status\": \"approved\", \"notes\": \"{}\"}}",
            "x".repeat(70_000)
        );
        moved(desk, place, &text, |_| {});
    });
    // It can still be answered.
    desk.answer(request.id(), YES);
    let ended = running.wait();
    assert_eq!(ended.text(), "status 0\n", "{}", ended.stderr);
    assert_eq!(marks(&desk.session), 1);
    let archived = fs::read_dir(desk.directory.join("processed"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().contains(".response.json")
        })
        .count();
    assert_eq!(archived, 10, "nine of nobody's and the answer");
}

/// An old answer, put there again for the next request.
#[test]
fn an_answer_cannot_be_used_again() {
    if !root() {
        return;
    }
    let desk = Desk::new(json!({}));
    let (running, first) = desk.start();
    let text = json!({"status": "approved", "id": first.id()}).to_string();
    desk.answer(first.id(), &text);
    assert_eq!(running.wait().text(), "status 0\n");
    assert_eq!(marks(&desk.session), 1);

    // Before the next request is there, and for it.
    desk.answer(first.id(), &text);
    let (running, second) = desk.start();
    assert_ne!(first.id(), second.id());
    desk.answer(first.id(), &text);
    desk.answer(second.id(), &text);
    let archived = desk.processed(&format!("{}.response.json", second.id()));
    running.until("it is archived", |_| archived.exists());
    assert_eq!(running.request().id(), second.id());
    assert_eq!(marks(&desk.session), 1);
    desk.answer(second.id(), "{\"status\": \"rejected\", \"notes\": \"no\"}");
    assert_eq!(running.wait().text(), "status 126\n");
    assert_eq!(marks(&desk.session), 1);
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    if !root() {
        return;
    }
    let (uid, _) = agent_user();
    for (mode, owner) in [(0o777, 0), (0o720, 0), (0o700, uid)] {
        let desk = Desk::new(json!({}));
        chown(&desk.directory, Some(owner), None).unwrap();
        fs::set_permissions(&desk.directory, Permissions::from_mode(mode)).unwrap();
        let ended = desk.session.run(["/bin/true"]);
        assert_ne!(ended.code(), 0, "{mode:o} {owner}");
        assert!(
            ended.stderr.contains(desk.directory.to_str().unwrap()),
            "{mode:o} {owner}: {}",
            ended.stderr
        );
    }
    // Below a directory of the agent's.
    let desk = Desk::new(json!({}));
    let below = desk.session.work().join("answers");
    fs::create_dir(&below).unwrap();
    fs::set_permissions(&below, Permissions::from_mode(0o700)).unwrap();
    let session = desk.session.option("--approvals-dir").option(&below);
    assert_ne!(session.run(["/bin/true"]).code(), 0);
}

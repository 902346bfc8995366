use std::{
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    DeskHandle, DeskSettings, RequestLimits, Store, serve,
    trial::{INSTANCE, as_root, db, exec, scratch},
};
use enforcer_control::{RequestState, protocol::Operation};
use enforcer_decide::approval::{Answer, Ending};

const AGENT: u32 = 65_533;
const SOON: Duration = Duration::from_secs(20);
/// Long enough for a wrong answer to arrive.
const WHILE: Duration = Duration::from_millis(150);

struct Trial {
    _scratch: tempfile::TempDir,
    settings: DeskSettings,
    desk: DeskHandle,
    directory: PathBuf,
}

impl Trial {
    fn new() -> Self {
        let scratch = scratch();
        let directory = scratch.path().join("files");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .unwrap();
        let settings = DeskSettings {
            agent: None,
            breaker: None,
            db: db(&scratch),
            instance: INSTANCE.to_owned(),
            socket: scratch.path().join("approvals.sock"),
            approvers: Approvers::resolve(Some(&["nobody".to_owned()])).unwrap(),
            agent_uid: AGENT,
            agent_gids: vec![AGENT],
            agent_cgroup: "/enforcer/of-this-test".to_owned(),
            limits: RequestLimits::default(),
            directory: Some(directory.clone()),
            notify: Vec::new(),
            tools: None,
        };
        Self {
            desk: serve::start(settings.clone()).unwrap(),
            settings,
            _scratch: scratch,
            directory,
        }
    }

    /// Asks; gives the id and what will be told.
    fn ask(&self, words: &[&str]) -> (String, Receiver<Answer>) {
        let known = self.proposals();
        let (sender, told) = channel();
        self.desk.ask(
            exec(words),
            own_pidfd(),
            |_| {},
            move |answer| {
                drop(sender.send(answer));
            },
        );
        let id = eventually(|| self.proposals().into_iter().find(|id| !known.contains(id)));
        (id, told)
    }

    fn proposals(&self) -> Vec<String> {
        fs::read_dir(&self.directory)
            .unwrap()
            .filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                Some(name.strip_suffix(PROPOSAL)?.to_owned())
            })
            .collect()
    }

    fn response(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}{RESPONSE}"))
    }

    fn respond(&self, id: &str, text: &str) {
        let temporary = self.directory.join("being-written");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.response(id)).unwrap();
    }

    fn processed(&self, name: &str) -> PathBuf {
        self.directory.join(PROCESSED).join(name)
    }

    /// The response is archived, and nobody was told anything.
    fn is_refused(&self, id: &str, told: &Receiver<Answer>) {
        let archived = self.processed(&format!("{id}{RESPONSE}"));
        eventually(|| fs::symlink_metadata(&archived).ok());
        assert_eq!(told.recv_timeout(WHILE), Err(RecvTimeoutError::Timeout));
        assert_eq!(self.proposals(), [id], "it is pending still");
    }
}

fn own_pidfd() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the call takes two numbers and gives a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just made it, nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < SOON, "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_script_reads_a_proposal_and_answers() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (id, told) = trial.ask(&["git", "push"]);
    let proposal = trial.directory.join(format!("{id}{PROPOSAL}"));
    let record: RequestRecord = serde_json::from_slice(&fs::read(&proposal).unwrap()).unwrap();
    assert_eq!(record.id, id);
    assert_eq!(record.state, RequestState::Pending);
    assert_eq!(record.command, "/usr/bin/git push");
    assert_eq!(fs::metadata(&proposal).unwrap().mode() & 0o777, 0o600);
    trial.respond(
        &id,
        &format!(r#"{{"status": "approved", "notes": "fine", "id": "{id}", "approver": "bot", "more": 1}}"#),
    );
    assert!(matches!(
        told.recv_timeout(SOON).unwrap().ending,
        Ending::Approved { approver, reason, .. } if approver == "root for bot" && reason == "fine"
    ));
    for kind in [PROPOSAL, RESPONSE] {
        let archived = trial.processed(&format!("{id}{kind}"));
        eventually(|| fs::metadata(&archived).ok());
    }
    assert_eq!(trial.proposals(), [""; 0]);
}

#[test]
fn rejected_and_modified_are_denials() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    for (status, reason) in [("rejected", "no"), ("modified", "To be done otherwise: no")] {
        let (id, told) = trial.ask(&["git", "push", status]);
        trial.respond(&id, &format!(r#"{{"status": "{status}", "notes": "no"}}"#));
        assert_eq!(
            told.recv_timeout(SOON).unwrap().ending,
            Ending::Denied {
                approver: "root".to_owned(),
                reason: reason.to_owned(),
            }
        );
    }
}

#[test]
fn a_response_counts_when_it_is_whole() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (id, told) = trial.ask(&["git", "push"]);
    let text = r#"{"status": "approved", "notes": "in pieces"}"#;
    for piece in text.as_bytes().chunks(9) {
        assert_eq!(
            told.recv_timeout(Duration::from_millis(20)),
            Err(RecvTimeoutError::Timeout)
        );
        // Each piece by a writer of its own, as a shell's `>>` does.
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(trial.response(&id))
            .unwrap();
        file.write_all(piece).unwrap();
    }
    assert!(matches!(
        told.recv_timeout(SOON).unwrap().ending,
        Ending::Approved { .. }
    ));
}

#[test]
fn a_response_of_somebody_else_is_forged() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (id, told) = trial.ask(&["git", "push"]);
    for owner in [AGENT, 12_345] {
        let temporary = trial.directory.join("being-written");
        fs::write(&temporary, r#"{"status": "approved"}"#).unwrap();
        chown(&temporary, Some(owner), None).unwrap();
        fs::rename(temporary, trial.response(&id)).unwrap();
        trial.is_refused(&id, &told);
    }
    // An approver's, though, that others could have written.
    let temporary = trial.directory.join("being-written");
    fs::write(&temporary, r#"{"status": "approved"}"#).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o666)).unwrap();
    fs::rename(temporary, trial.response(&id)).unwrap();
    trial.is_refused(&id, &told);
    // A real one still counts.
    trial.respond(&id, r#"{"status": "approved"}"#);
    assert!(matches!(
        told.recv_timeout(SOON).unwrap().ending,
        Ending::Approved { .. }
    ));
}

#[test]
fn a_response_for_another_request_is_refused() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (id, told) = trial.ask(&["git", "push"]);
    let other = Uuid::new_v4();
    trial.respond(
        &id,
        &format!(r#"{{"status": "approved", "id": "{other}"}}"#),
    );
    trial.is_refused(&id, &told);
}

#[test]
fn links_pipes_and_giants_are_refused() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (id, told) = trial.ask(&["git", "push"]);
    let yes = trial.directory.join("yes");
    fs::write(&yes, r#"{"status": "approved"}"#).unwrap();
    symlink(&yes, trial.response(&id)).unwrap();
    trial.is_refused(&id, &told);
    fs::hard_link(&yes, trial.response(&id)).unwrap();
    eventually(|| (!trial.response(&id).exists()).then_some(()));
    nix::unistd::mkfifo(&trial.response(&id), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    eventually(|| (!trial.response(&id).exists()).then_some(()));
    let giant = format!(
        r#"{{"status": "approved", "notes": "{}"}}"#,
        "x".repeat(70_000)
    );
    trial.respond(&id, &giant);
    eventually(|| (!trial.response(&id).exists()).then_some(()));
    trial.respond(&id, r#"{"status": "perhaps"}"#);
    trial.is_refused(&id, &told);
    // Each lies in the archive under a name of its own.
    let archived = fs::read_dir(trial.directory.join(PROCESSED))
        .unwrap()
        .count();
    assert_eq!(archived, 5);
}

#[test]
fn an_old_response_cannot_be_used_again() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (first, told) = trial.ask(&["git", "push"]);
    trial.respond(&first, r#"{"status": "approved"}"#);
    told.recv_timeout(SOON).unwrap();
    let used = trial.processed(&format!("{first}{RESPONSE}"));
    eventually(|| fs::metadata(&used).ok());
    let (second, told) = trial.ask(&["git", "push"]);
    assert_ne!(first, second);
    // Put back under its own name: it has ended, the file is archived unread.
    fs::copy(&used, trial.response(&first)).unwrap();
    eventually(|| (!trial.response(&first).exists()).then_some(()));
    // What speaks of the first does not speak of the second.
    trial.respond(
        &second,
        &format!(r#"{{"status": "approved", "id": "{first}"}}"#),
    );
    trial.is_refused(&second, &told);
}

#[test]
fn responses_to_nobody_are_archived_and_other_files_left() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let unknown = Uuid::new_v4().to_string();
    trial.respond(&unknown, r#"{"status": "approved"}"#);
    let archived = trial.processed(&format!("{unknown}{RESPONSE}"));
    eventually(|| fs::metadata(&archived).ok());
    for name in ["notes.txt", "..response.json", "x.response.json"] {
        fs::write(trial.directory.join(name), "{}").unwrap();
    }
    // Another run's pending request, in the same directory, is not ours to archive.
    let store = Store::open(&trial.settings.db).unwrap();
    let other = Uuid::new_v4().to_string();
    let now = jiff::Timestamp::now();
    store
        .insert(&RequestRecord::new(
            other.clone(),
            "another-run",
            &exec(&["ls"]),
            now,
            now,
        ))
        .unwrap();
    trial.respond(&other, r#"{"status": "approved"}"#);
    thread::sleep(WHILE);
    for name in ["notes.txt", "..response.json", "x.response.json"] {
        assert!(trial.directory.join(name).exists(), "{name}");
    }
    assert!(trial.response(&other).exists());
    assert_eq!(
        store.get(&other).unwrap().unwrap().state,
        RequestState::Pending
    );
}

#[test]
fn an_answer_by_the_socket_archives_the_proposal() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (id, told) = trial.ask(&["git", "push"]);
    let reply = enforcer_control::client::request(
        &trial.settings.socket,
        &Operation::Answer {
            id: id.clone(),
            approve: false,
            reason: String::new(),
            scope: None,
            for_s: None,
            by: None,
        },
    )
    .unwrap();
    assert_eq!(reply.fault, None);
    told.recv_timeout(SOON).unwrap();
    let archived = trial.processed(&format!("{id}{PROPOSAL}"));
    eventually(|| fs::metadata(&archived).ok());
}

#[test]
fn a_directory_that_the_agent_could_write_is_refused() {
    if !as_root() {
        return;
    }
    let scratch = scratch();
    let approvers = Approvers::resolve(None).unwrap();
    let open = |path: &Path, agent: u32| {
        Directory::open(path, &approvers, agent, &[agent])
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let refused = |path: &Path, agent: u32, word: &str| {
        let error = open(path, agent).unwrap_err();
        assert!(error.contains(word), "{error}");
    };
    let directory = scratch.path().join("above/files");
    refused(&directory, AGENT, "install -d");
    fs::create_dir_all(&directory).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&directory, 0o755);
    open(&directory, AGENT).unwrap();
    refused(&directory, 0, "runs as root");
    for bad in [0o757, 0o775] {
        mode(&directory, bad);
        refused(&directory, AGENT, "chmod go-w");
    }
    mode(&directory, 0o755);
    chown(&directory, Some(AGENT), None).unwrap();
    refused(&directory, AGENT, "chown root");
    chown(&directory, Some(12_345), None).unwrap();
    refused(&directory, AGENT, "not an approver");
    chown(&directory, Some(0), None).unwrap();
    let above = scratch.path().join("above");
    mode(&above, 0o777);
    refused(&directory, AGENT, "above it");
    mode(&above, 0o1777);
    open(&directory, AGENT).unwrap();
    mode(&above, 0o775);
    chown(&above, None, Some(AGENT)).unwrap();
    refused(&directory, AGENT, "above it");
    chown(&above, Some(AGENT), Some(0)).unwrap();
    mode(&above, 0o755);
    refused(&directory, AGENT, "above it");
    chown(&above, Some(0), None).unwrap();
    fs::remove_dir(directory.join(PROCESSED)).unwrap();
    symlink("/tmp", directory.join(PROCESSED)).unwrap();
    refused(&directory, AGENT, "processed");
}

#[test]
fn what_an_earlier_run_left_is_archived_at_the_start() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let (id, told) = trial.ask(&["git", "push"]);
    let proposal = fs::read(trial.directory.join(format!("{id}{PROPOSAL}"))).unwrap();
    let settings = trial.settings.clone();
    trial.desk.shutdown();
    told.recv_timeout(SOON).unwrap();
    // As a run that was killed leaves them.
    let left = Uuid::new_v4().to_string();
    for kind in [PROPOSAL, RESPONSE] {
        fs::write(trial.directory.join(format!("{left}{kind}")), &proposal).unwrap();
    }
    let desk = serve::start(settings).unwrap();
    for kind in [PROPOSAL, RESPONSE] {
        let archived = trial
            .directory
            .join(PROCESSED)
            .join(format!("{left}{kind}"));
        eventually(|| fs::metadata(&archived).ok());
    }
    desk.shutdown();
}

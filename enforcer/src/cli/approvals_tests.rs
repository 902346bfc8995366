use std::{fs, os::unix::fs::DirBuilderExt, sync::mpsc};

use clap::Parser;

use super::*;
use crate::cli::error::CliError;
use enforcer_approvals::{
    DeskHandle, DeskSettings, RequestLimits, serve,
    trial::{as_root, connect, db, exec, scratch},
};
use enforcer_control::{Approvers, SOCKET_NAME};
use enforcer_decide::approval::{Answer, Asked, Ending, Scope};
use enforcer_policy::Risk;

const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: ApprovalsArgs,
}

fn parse(words: &[&str]) -> Result<ApprovalsArgs, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"approvals").chain(words)).map(|cli| cli.args)
}

/// Two agents that run.
struct Trial {
    scratch: tempfile::TempDir,
    desks: [DeskHandle; 2],
}

impl Trial {
    fn new() -> Self {
        let scratch = scratch();
        let desks = ["one", "two"].map(|instance| {
            let directory = scratch.path().join("run").join(instance);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(&directory)
                .unwrap();
            serve::start(DeskSettings {
                agent: None,
                breaker: None,
                db: db(&scratch),
                instance: instance.to_owned(),
                socket: directory.join(SOCKET_NAME),
                approvers: Approvers::resolve(None).unwrap(),
                agent_uid: 65_533,
                agent_gids: vec![65_533],
                agent_cgroup: "/enforcer/of-this-test".to_owned(),
                limits: RequestLimits::default(),
                directory: None,
                notify: Vec::new(),
                tools: None,
            })
            .unwrap()
        });
        // A run that was killed leaves its socket's file.
        let dead = scratch.path().join("run/dead");
        fs::create_dir(&dead).unwrap();
        drop(std::os::unix::net::UnixListener::bind(dead.join(SOCKET_NAME)).unwrap());
        Self { scratch, desks }
    }

    fn ask(&self, desk: usize, asked: Asked) -> mpsc::Receiver<Answer> {
        let (sender, told) = mpsc::channel();
        // What never becomes readable stands for a process that lives on.
        let (held, other) = std::io::pipe().unwrap();
        self.desks[desk].ask(
            asked,
            held.into(),
            |_| {},
            move |answer| {
                drop(other);
                drop(sender.send(answer));
            },
        );
        told
    }

    fn run_dir(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    fn with<T>(&self, act: impl FnOnce(&Desks<'_>) -> T) -> T {
        act(&Desks {
            root: &self.run_dir(),
            db: &db(&self.scratch),
        })
    }

    /// The ids of what is pending, as listed, once there are so many.
    fn pending(&self, count: usize) -> Vec<RequestRecord> {
        let start = std::time::Instant::now();
        loop {
            let found = self
                .with(|desks| desks.pending().map_err(|f| f.text))
                .unwrap();
            if found.len() == count {
                return found.into_iter().map(|(_, record)| record).collect();
            }
            assert!(start.elapsed() < SOON, "{} of {count}", found.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs the command line; its exit status.
    fn cli(&self, words: &[&str]) -> Result<ExitCode, CliError> {
        let (run_dir, db) = (self.run_dir(), db(&self.scratch));
        let mut all = vec![
            "--run-dir",
            run_dir.to_str().unwrap(),
            "--db",
            db.to_str().unwrap(),
        ];
        all.extend(words);
        run(&parse(&all).unwrap())
    }
}

fn verdict(approve: bool) -> Verdict {
    Verdict {
        approve,
        reason: "because".to_owned(),
        scope: approve.then_some(Reach::Once),
        lasting: None,
    }
}

#[test]
fn requests_of_all_agents_are_listed_by_risk() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let mut dangerous = exec(&["rm", "-rf", "x"]);
    dangerous.risk = Risk::Critical;
    let _one = trial.ask(0, exec(&["git", "push"]));
    let _two = trial.ask(1, dangerous);
    let commands: Vec<String> = trial.pending(2).into_iter().map(|r| r.command).collect();
    assert_eq!(commands, ["/usr/bin/rm -rf x", "/usr/bin/git push"]);
}

#[test]
fn the_json_of_a_list_has_what_scripts_need() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let _told = trial.ask(0, exec(&["git", "push"]));
    let listed = serde_json::to_value(trial.pending(1)).unwrap();
    for (key, value) in [
        ("state", "pending"),
        ("agent", "coder"),
        ("risk", "MEDIUM"),
        ("command", "/usr/bin/git push"),
        ("rule", "push"),
        ("reason", "Pushes to a remote [push]"),
    ] {
        assert_eq!(listed[0][key], value, "{key}");
    }
    for key in ["id", "expires_at", "asked_at"] {
        assert!(listed[0][key].is_string(), "{key}");
    }
}

#[test]
fn an_answer_finds_its_desk_by_the_start_of_the_id() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let one = trial.ask(0, exec(&["git", "push"]));
    let two = trial.ask(1, connect("192.0.2.7", 443));
    let pending = trial.pending(2);
    for record in &pending {
        let approve = record.kind == "connect";
        assert!(
            trial
                .with(|d| d.answer_one(&record.id[..8], &verdict(approve)))
                .is_ok()
        );
    }
    assert!(matches!(
        one.recv_timeout(SOON).unwrap().ending,
        Ending::Denied { reason, .. } if reason == "because"
    ));
    assert!(matches!(
        two.recv_timeout(SOON).unwrap().ending,
        Ending::Approved {
            scope: Scope::Once,
            ..
        }
    ));
    // Too late: said so, with how it ended.
    let failure = trial
        .with(|d| d.answer_one(&pending[0].id, &verdict(true)))
        .err()
        .unwrap();
    assert_eq!(failure.code, 1);
    assert!(
        failure.text.contains("has ended already"),
        "{}",
        failure.text
    );
    // The past of all of them is in the database.
    let history = trial.with(|d| d.history().map_err(|f| f.text)).unwrap();
    assert_eq!(history.len(), 2);
}

#[test]
fn ended_requests_of_ended_agents_are_still_known() {
    if !as_root() {
        return;
    }
    let mut trial = Trial::new();
    let told = trial.ask(0, exec(&["git", "push"]));
    let id = trial.pending(1).remove(0).id;
    let Trial { desks, scratch } = trial;
    drop(desks);
    told.recv_timeout(SOON).unwrap();
    fs::remove_dir_all(scratch.path().join("run")).unwrap();
    trial = Trial::new();
    let old = Desks {
        root: &scratch.path().join("run"),
        db: &db(&scratch),
    };
    let record = old.find(&id[..6]).map_err(|f| f.text).unwrap();
    assert!(
        record.ending().contains("supervisor ended"),
        "{}",
        record.ending()
    );
    let failure = old.answer_one(&id, &verdict(true)).err().unwrap();
    assert_eq!(failure.code, 1);
    assert!(
        failure.text.contains("supervisor ended"),
        "{}",
        failure.text
    );
    // Another machine's database knows nothing of it.
    assert_eq!(trial.with(|d| d.find(&id)).err().unwrap().code, 1);
}

#[test]
fn exit_statuses_say_what_went_wrong() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let _told = trial.ask(0, exec(&["git", "push"]));
    let id = trial.pending(1).remove(0).id;
    for (words, code) in [
        (vec!["approve", "ffffffff"], 1),
        (vec!["show", "ffffffff"], 1),
        (vec!["deny", "ff"], 2),
        // The worst of several counts.
        (vec!["deny", "ffffffff", "ff"], 2),
        (vec!["list"], 0),
        (vec!["list", "--json", "--all"], 0),
        (vec!["show", &id], 0),
        (
            vec!["approve", &id, "--scope", "session", "--for", "30m"],
            0,
        ),
        (vec!["approve", &id], 1),
    ] {
        assert_eq!(
            trial.cli(&words).unwrap(),
            ExitCode::from(code),
            "{words:?}"
        );
    }
    let error = trial.cli(&["approve", &id, "--for", "30m"]).unwrap_err();
    assert!(error.to_string().contains("--scope session"), "{error}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for words in [
        vec!["approve"],
        vec!["deny"],
        vec!["show"],
        vec!["approve", "abcd", "--scope", "for-ever"],
        vec!["approve", "abcd", "--for", "soon"],
        vec!["approve", "abcd", "--for", "0"],
        vec!["deny", "abcd", "--scope", "once"],
    ] {
        assert!(parse(&words).is_err(), "{words:?}");
    }
}

#[test]
fn times_are_read() {
    for (text, seconds) in [
        ("90", 90),
        ("30s", 30),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
    ] {
        assert_eq!(parse_time(text).unwrap().as_secs(), seconds, "{text}");
    }
    for text in [
        "",
        "m",
        "0s",
        "-1s",
        "1w",
        "1.5h",
        "99999999999999999999d",
        "20000000000000000d",
    ] {
        assert!(parse_time(text).is_err(), "{text}");
    }
}

#[test]
fn a_request_is_shown_whole_and_harmless() {
    if !as_root() {
        return;
    }
    let trial = Trial::new();
    let mut asked = exec(&["git", "push", "two words", "\x1b[2K\x1b]0;x\x07"]);
    enforcer_approvals::trial::exec_request(&mut asked).argv[0] = b"ls".to_vec();
    let _told = trial.ask(0, asked);
    let record = trial.pending(1).remove(0);
    let mut out = Vec::new();
    text::show(&mut out, &record, text::Style::plain()).unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(!shown.contains('\x1b'), "{shown:?}");
    for part in [
        record.id.as_str(),
        "argv[2]   two words",
        "argv[0] is not the name of the program",
        "look twice",
        "/work",
        &"ab".repeat(32),
        "Pushes to a remote [push]",
        "open a pull request",
        "pid 4711 of uid 1000",
        "4710 bash -c something",
        "s left",
    ] {
        assert!(shown.contains(part), "{part} not in\n{shown}");
    }
    let mut out = Vec::new();
    text::list(
        &mut out,
        std::slice::from_ref(&record),
        text::Style::plain(),
    )
    .unwrap();
    let line = String::from_utf8(out).unwrap();
    assert!(
        line.starts_with(&record.id[..8]) && line.contains("pending"),
        "{line}"
    );
    assert!(
        !line.contains('\x1b') && line.lines().count() == 1,
        "{line:?}"
    );
}

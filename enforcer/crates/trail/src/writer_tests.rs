//! Rotation, writers at once, full disks, and directories that will not do.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, json};

use super::{Writer, WriterOptions};
use crate::{AuditError, Entry, Event, Record};

fn record(id: &str, size: usize) -> Record {
    let mut parameters = Map::new();
    parameters.insert("command".into(), json!(id));
    parameters.insert("pad".into(), json!("x".repeat(size)));
    let now = Timestamp::from_second(0).expect("time");
    Record::tool_call(now, Event::Approval, "a", "exec", "r", false, &parameters)
}

/// Commands of all lines of a trail, the oldest file first. Panics on a line that is not whole.
fn commands(path: &Path, backups: u32) -> Vec<String> {
    let mut names: Vec<PathBuf> = (1..=backups)
        .rev()
        .map(|n| PathBuf::from(format!("{}.{n}", path.display())))
        .collect();
    names.push(path.to_owned());
    let mut all = Vec::new();
    for name in names {
        let Ok(text) = fs::read_to_string(&name) else {
            continue;
        };
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "torn end in {}",
            name.display()
        );
        for line in text.lines() {
            all.push(
                Entry::parse(line.as_bytes())
                    .expect("whole line")
                    .parameter("command"),
            );
        }
    }
    all
}

fn small(max_bytes: u64, backups: u32) -> WriterOptions {
    WriterOptions {
        max_bytes,
        backups,
        mode: 0o640,
    }
}

#[test]
fn lines_are_appended_and_the_file_is_private() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("t.jsonl");
    let mut writer = Writer::open(&path).expect("open");
    writer.append(&record("one", 0)).expect("append");
    assert_eq!(
        (writer.pending(), fs::read(&path).expect("read").len()),
        (1, 0)
    );
    writer.flush().expect("flush");
    writer.append(&record("two", 0)).expect("append");
    writer.sync().expect("sync");
    assert_eq!((writer.pending(), writer.pending_bytes()), (0, 0));
    assert_eq!(commands(&path, 0), ["one", "two"]);
    let mode = fs::metadata(&path).expect("stat").permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn rotation_is_exact_and_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("t.jsonl");
    let mut line = Vec::new();
    record("0000", 10).write_line(&mut line).expect("line");
    // Three lines fit to the byte.
    let max = line.len() as u64 * 3;
    let mut writer = Writer::with_options(&path, small(max, 2)).expect("open");
    for n in 0..20 {
        writer
            .append(&record(&format!("{n:04}"), 10))
            .expect("append");
        if n % 7 == 0 {
            writer.flush().expect("flush");
        }
    }
    writer.flush().expect("flush");
    let all: Vec<String> = (12..20).map(|n| format!("{n:04}")).collect();
    assert_eq!(commands(&path, 5), all);
    for (name, lines) in [("t.jsonl", 2), ("t.jsonl.1", 3), ("t.jsonl.2", 3)] {
        let text = fs::read_to_string(dir.path().join(name)).expect(name);
        assert_eq!(text.lines().count(), lines, "{name}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 3);
}

#[test]
fn a_line_longer_than_a_file_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let mut writer = Writer::with_options(&dir.path().join("t"), small(200, 1)).expect("open");
    assert!(matches!(
        writer.append(&record("a", 500)),
        Err(AuditError::LineTooLong { max: 200, .. })
    ));
    assert_eq!((writer.pending(), writer.pending_bytes()), (0, 0));
}

#[test]
fn writers_at_once_lose_nothing_through_rotation() {
    const WRITERS: usize = 6;
    const EACH: usize = 400;
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("t.jsonl");
    // Enough files that nothing is dropped: about 2400 lines of 150 bytes in files of 8 KiB.
    let options = small(8 * 1024, 90);
    std::thread::scope(|scope| {
        for w in 0..WRITERS {
            let path = &path;
            scope.spawn(move || {
                let mut writer = Writer::with_options(path, options).expect("open");
                for n in 0..EACH {
                    writer
                        .append(&record(&format!("{w}/{n}"), n % 50))
                        .expect("append");
                    if n % (w + 1) == 0 {
                        writer.flush().expect("flush");
                    }
                }
                writer.flush().expect("flush");
            });
        }
    });
    let all = commands(&path, 90);
    assert!(
        fs::read_dir(dir.path()).expect("dir").count() > 20,
        "it rotated"
    );
    assert_eq!(all.len(), WRITERS * EACH);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), WRITERS * EACH);
    // Each writer's lines are in its order.
    for w in 0..WRITERS {
        let own: Vec<_> = all
            .iter()
            .filter_map(|c| c.strip_prefix(&format!("{w}/")))
            .collect();
        assert!(
            own.iter()
                .map(|n| n.parse::<usize>().expect("number"))
                .is_sorted(),
            "writer {w}"
        );
    }
}

#[test]
fn a_removed_file_comes_back_and_a_torn_end_is_cut() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("t.jsonl");
    let mut writer = Writer::open(&path).expect("open");
    writer.append(&record("one", 0)).expect("append");
    writer.flush().expect("flush");
    fs::remove_file(&path).expect("remove");
    writer.append(&record("two", 0)).expect("append");
    writer.flush().expect("flush");
    assert_eq!(commands(&path, 0), ["two"]);
    let mut foreign = fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("open");
    foreign.write_all(&vec![b'{'; 200_000]).expect("tear");
    writer.append(&record("three", 0)).expect("append");
    writer.flush().expect("flush");
    assert_eq!(commands(&path, 0), ["two", "three"]);
}

#[test]
fn places_that_will_not_do() {
    let dir = tempfile::tempdir().expect("dir");
    let at = |name: &str| dir.path().join(name);
    let open = |path: &Path| Writer::open(path).map(|_| ()).expect_err("refused");
    assert!(matches!(
        open(&at("none/t")),
        AuditError::DirectoryMissing { .. }
    ));
    fs::write(at("file"), "").expect("write");
    assert!(matches!(
        open(&at("file/t")),
        AuditError::NotADirectory { .. }
    ));
    assert!(matches!(
        open(Path::new("/")),
        AuditError::NoFileName { .. }
    ));
    symlink(at("file"), at("link")).expect("link");
    assert!(matches!(open(&at("link")), AuditError::Symlink { .. }));
    fs::create_dir(at("d")).expect("mkdir");
    assert!(matches!(open(&at("d")), AuditError::NotAFile { .. }));
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("fifo");
    assert!(matches!(open(&at("pipe")), AuditError::NotAFile { .. }));
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o666)).expect("chmod");
    assert!(matches!(
        open(&at("file")),
        AuditError::FileOwner { mode: 0o666, .. }
    ));
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o775)).expect("chmod");
    let error = open(&at("d/t"));
    assert!(matches!(
        error,
        AuditError::DirectoryWritable { mode: 0o775, .. }
    ));
    assert!(error.to_string().contains("chmod go-w"));
    assert!(!at("d/t").exists(), "nothing is left behind");
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(at("d"), fs::Permissions::from_mode(0o755)).expect("chmod");
        std::os::unix::fs::chown(at("d"), Some(12345), None).expect("chown");
        assert!(matches!(
            open(&at("d/t")),
            AuditError::DirectoryOwner { owner: 12345, .. }
        ));
    } else {
        eprintln!("SKIPPED: foreign owner (needs root)");
    }
}

#[test]
fn an_abandoned_trail_leaves_no_file() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("t");
    Writer::open(&path)
        .expect("open")
        .abandon()
        .expect("abandon");
    assert!(!path.exists());
    let mut writer = Writer::open(&path).expect("open");
    writer.append(&record("one", 0)).expect("append");
    writer.flush().expect("flush");
    writer.abandon().expect("abandon");
    assert_eq!(commands(&path, 0), ["one"]);
    fs::write(&path, "").expect("truncate");
    Writer::open(&path)
        .expect("open")
        .abandon()
        .expect("abandon");
    assert!(path.exists(), "it was there before");
}

#[test]
fn a_full_disk_cuts_no_line_and_keeps_the_rest() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let dir = tempfile::tempdir().expect("dir");
    let place = dir.path().to_owned();
    // A mount namespace of the thread's own: nothing has to be unmounted.
    let ran = std::thread::spawn(move || {
        let none = None::<&str>;
        let made = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| {
                mount(
                    Some("tmpfs"),
                    &place,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    Some("size=64k,mode=755"),
                )
            });
        if let Err(e) = made {
            eprintln!("SKIPPED: a full disk (no tmpfs of its own: {e})");
            return;
        }
        let path = place.join("t.jsonl");
        let mut writer = Writer::open(&path).expect("open");
        for n in 0..40 {
            writer
                .append(&record(&n.to_string(), 3000))
                .expect("append");
        }
        let error = writer.flush().expect_err("full");
        assert!(matches!(error, AuditError::NoSpace { .. }), "{error}");
        let written = commands(&path, 0);
        assert!(written.len() > 5 && written.len() < 40, "{}", written.len());
        assert_eq!(writer.pending(), 40 - written.len());
        // Still full: nothing more, nothing torn.
        writer.flush().expect_err("still full");
        assert_eq!(commands(&path, 0), written);
        let mut other = Writer::open(&path).expect("open");
        other
            .write_or_forget(&record("forgotten", 3000))
            .expect_err("still full");
        assert_eq!(other.pending(), 0);
        // Room again: the rest follows, each line once.
        mount(
            none,
            &place,
            none,
            MsFlags::MS_REMOUNT,
            Some("size=1m,mode=755"),
        )
        .expect("remount");
        writer.flush().expect("flush");
        other.flush().expect("flush");
        assert_eq!(
            commands(&path, 0),
            (0..40).map(|n| n.to_string()).collect::<Vec<_>>()
        );
        other
            .write_or_forget(&record("40", 3000))
            .expect("there is room");
        assert_eq!(commands(&path, 0).last().map(String::as_str), Some("40"));
    })
    .join();
    assert!(ran.is_ok());
}

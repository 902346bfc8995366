use std::{os::unix::fs::PermissionsExt, sync::Arc, thread};

use super::*;
use crate::trial::{INSTANCE, at, db, exec, scratch};

fn record(id: &str, instance: &str, seconds: i64) -> RequestRecord {
    RequestRecord::new(
        id.to_owned(),
        instance,
        &exec(&["git", "push", "--force"]),
        at(seconds),
        at(seconds + 300),
    )
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_record_comes_back_as_it_was() {
    let scratch = scratch();
    let store = Store::open(&db(&scratch)).unwrap();
    let mut written = record("11111111-aaaa", INSTANCE, 0);
    store.insert(&written).unwrap();
    assert_eq!(store.get(&written.id).unwrap().unwrap(), written);
    let outcome = Conclusion {
        answered_at: Some(at(3)),
        approver: Some("kim".to_owned()),
        answer_reason: Some("why not".to_owned()),
        scope: Some("session".to_owned()),
    };
    assert!(
        store
            .end(&written.id, RequestState::Approved, &outcome)
            .unwrap()
    );
    written.state = RequestState::Approved;
    written.outcome = outcome.clone();
    assert_eq!(store.get(&written.id).unwrap().unwrap(), written);
    // It ends once.
    assert!(
        !store
            .end(&written.id, RequestState::Denied, &outcome)
            .unwrap()
    );
    assert_eq!(store.get("no such id").unwrap(), None);
}

#[test]
fn only_root_can_read_it() {
    let scratch = scratch();
    let path = db(&scratch);
    let store = Store::open(&path).unwrap();
    store.insert(&record("11111111-aaaa", INSTANCE, 0)).unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for name in ["approvals.db", "approvals.db-wal", "approvals.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
}

#[test]
fn a_place_that_others_can_use_is_refused() {
    let scratch = scratch();
    let path = db(&scratch);
    drop(Store::open(&path).unwrap());
    let directory = path.parent().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("mode 0755") && error.contains("chmod 0700"),
        "{error}"
    );
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("mode 0644"), "{error}");
    // A link leads who knows where.
    let real = directory.join("real.db");
    fs::rename(&path, &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    assert!(Store::open(&path).is_err());
    assert!(Store::open_existing(&path).is_err());
}

#[test]
fn a_newer_schema_is_left_alone() {
    let scratch = scratch();
    let path = db(&scratch);
    let store = Store::open(&path).unwrap();
    store
        .connection
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    drop(store);
    for error in [
        Store::open(&path).unwrap_err(),
        Store::open_existing(&path).unwrap_err(),
    ] {
        assert!(
            matches!(error, ApprovalsError::NewerSchema { found: 99, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let scratch = scratch();
    let path = db(&scratch);
    drop(Store::open(&path).unwrap());
    for name in ["approvals.db-wal", "approvals.db-shm"] {
        let _ = fs::remove_file(path.with_file_name(name));
    }
    fs::write(&path, "not a database ".repeat(100)).unwrap();
    assert!(Store::open(&path).is_err());
}

#[test]
fn nothing_there_is_not_an_error_for_a_reader() {
    let scratch = scratch();
    assert!(Store::open_existing(&db(&scratch)).unwrap().is_none());
    assert!(!db(&scratch).exists());
}

#[test]
fn ids_are_found_by_their_start() {
    let scratch = scratch();
    let store = Store::open(&db(&scratch)).unwrap();
    store.insert(&record("12345678-aaaa", INSTANCE, 0)).unwrap();
    store.insert(&record("12349999-bbbb", INSTANCE, 1)).unwrap();
    assert_eq!(store.find("12345").unwrap().id, "12345678-aaaa");
    assert!(matches!(
        store.find("1234"),
        Err(ApprovalsError::Ambiguous { count: 2, .. })
    ));
    assert!(matches!(store.find("123"), Err(ApprovalsError::ShortId(_))));
    // What is a pattern elsewhere is plain text here.
    assert!(matches!(
        store.find("%%%%"),
        Err(ApprovalsError::NotFound(_))
    ));
}

#[test]
fn what_a_dead_launcher_left_is_denied_and_told_once() {
    let scratch = scratch();
    let path = db(&scratch);
    let store = Store::open(&path).unwrap();
    store.insert(&record("aaaaaaaa-1", "dead", 0)).unwrap();
    store.insert(&record("bbbbbbbb-2", "dead", 1)).unwrap();
    store.insert(&record("cccccccc-3", "alive", 2)).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let ended = store.abandon("dead", at(9)).unwrap();
    let ids: Vec<&str> = ended.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["aaaaaaaa-1", "bbbbbbbb-2"]);
    for record in &ended {
        assert_eq!(store.get(&record.id).unwrap().as_ref(), Some(record));
        assert_eq!(record.state, RequestState::Denied);
        assert_eq!(record.outcome.answer_reason.as_deref(), Some(ABANDONED));
        assert_eq!(record.outcome.answered_at, Some(at(9)));
    }
    assert_eq!(
        store.get("cccccccc-3").unwrap().unwrap().state,
        RequestState::Pending
    );
    assert_eq!(store.abandon("dead", at(10)).unwrap(), []);
}

#[test]
fn old_requests_are_forgotten_but_never_pending_ones() {
    let scratch = scratch();
    let store = Store::open(&db(&scratch)).unwrap();
    let day = 24 * 3600;
    for (id, ended) in [("aaaaaaaa-1", true), ("bbbbbbbb-2", false)] {
        store.insert(&record(id, INSTANCE, 0)).unwrap();
        if ended {
            store
                .end(id, RequestState::Expired, &Conclusion::default())
                .unwrap();
        }
    }
    assert_eq!(store.prune(at(KEEP_DAYS * day - 1)).unwrap(), 0);
    assert_eq!(store.prune(at(KEEP_DAYS * day + 1)).unwrap(), 1);
    let left: Vec<String> = store
        .history(10)
        .unwrap()
        .into_iter()
        .map(|r| r.id)
        .collect();
    assert_eq!(left, ["bbbbbbbb-2"]);
}

#[test]
fn many_launchers_open_and_write_at_once() {
    let scratch = scratch();
    let path = Arc::new(db(&scratch));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let path = Arc::clone(&path);
            thread::spawn(move || {
                let store = Store::open(&path).unwrap();
                let instance = format!("run-{writer}");
                for n in 0..25 {
                    let id = format!("{writer:04}{n:04}-x");
                    store.insert(&record(&id, &instance, n)).unwrap();
                    assert!(
                        store
                            .end(&id, RequestState::Denied, &Conclusion::default())
                            .unwrap()
                    );
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let store = Store::open_existing(&path).unwrap().unwrap();
    let all = store.history(1000).unwrap();
    assert_eq!(all.len(), 200);
    assert!(
        all.iter()
            .all(|record| record.state == RequestState::Denied)
    );
    assert_eq!(store.history_of("run-3", 1000).unwrap().len(), 25);
}

/// Locks of this process on a file, as the kernel lists them.
fn locks(path: &Path) -> usize {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    let owner = format!(" {} ", std::process::id());
    fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&inode) && line.contains(&owner))
        .count()
}

#[test]
fn opening_it_again_leaves_the_locks_of_others_here() {
    let scratch = scratch();
    let path = db(&scratch);
    let first = Store::open(&path).unwrap();
    first.insert(&record("11111111-aaaa", INSTANCE, 0)).unwrap();
    let held = locks(&path);
    assert!(held > 0, "SQLite holds a lock as long as it is connected");
    drop(Store::open(&path).unwrap());
    drop(Store::open_existing(&path).unwrap());
    assert_eq!(locks(&path), held);
    drop(first);
}

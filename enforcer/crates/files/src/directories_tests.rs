use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    thread,
};

use super::{DirectoryChange, DirectoryError, directory};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_missing_is_made_with_all_above_it() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("var/lib/enforcer");
    assert_eq!(directory(&path, 0o711).unwrap(), DirectoryChange::Made);
    assert_eq!(mode(&path), 0o711);
    assert_eq!(mode(&here.path().join("var/lib")), 0o755);
    assert_eq!(directory(&path, 0o711).unwrap(), DirectoryChange::Nothing);
}

#[test]
fn what_is_too_open_is_tightened_and_what_is_tighter_stays() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("x");
    fs::create_dir(&path).unwrap();
    for (before, wanted, after) in [
        (0o755, 0o700, 0o700),
        (0o777, 0o751, 0o751),
        (0o2775, 0o750, 0o2750),
        (0o1777, 0o711, 0o1711),
        (0o700, 0o751, 0o700),
    ] {
        set(&path, before);
        let done = directory(&path, wanted).unwrap();
        assert_eq!(mode(&path), after);
        assert_eq!(done == DirectoryChange::Nothing, before == after);
        if before != after {
            assert_eq!(done, DirectoryChange::Mended(before, after));
        }
    }
}

#[test]
fn what_others_own_or_have_put_there_is_refused_and_left() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("x");
    fs::create_dir(&path).unwrap();
    chown(&path, Some(65534), None).unwrap();
    let refused = directory(&path, 0o700).unwrap_err();
    assert!(matches!(
        refused,
        DirectoryError::Owner { owner: 65534, .. }
    ));
    assert!(refused.to_string().contains("chown root"), "{refused}");
    chown(&path, Some(0), None).unwrap();
    set(&path, 0o777);
    fs::write(path.join("approvals.db-wal"), "x").unwrap();
    chown(path.join("approvals.db-wal"), Some(65534), None).unwrap();
    for _ in 0..2 {
        let refused = directory(&path, 0o700).unwrap_err().to_string();
        assert!(refused.contains("approvals.db-wal"), "{refused}");
        assert_eq!(mode(&path), 0o777);
    }
    fs::remove_file(path.join("approvals.db-wal")).unwrap();
    assert_eq!(
        directory(&path, 0o700).unwrap(),
        DirectoryChange::Mended(0o777, 0o700)
    );
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert!(matches!(
        directory(&path, 0o700),
        Err(DirectoryError::NotADirectory { .. })
    ));
    fs::remove_file(&path).unwrap();
    // Not for ever, either.
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert!(directory(&path, 0o700).is_err());
}

#[test]
fn several_make_it_and_take_it_away_at_once() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("run/enforcer");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    directory(&path, 0o711).unwrap();
                    let _ = fs::remove_dir(&path);
                }
            });
        }
    });
}

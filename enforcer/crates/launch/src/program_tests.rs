use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A directory with `tool` (everyone's), `mine` (root's), `plain` (no program) and `dir`.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(place.path(), 0o755);
    for (name, bits) in [("tool", 0o755), ("mine", 0o700), ("plain", 0o644)] {
        fs::write(place.path().join(name), "#!/bin/sh\n").unwrap();
        mode(&place.path().join(name), bits);
    }
    fs::create_dir(place.path().join("dir")).unwrap();
    place
}

fn nobody() -> Option<Identity> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    Some(Identity::resolve(Some("nobody"), |_| None).unwrap())
}

fn find(command: &str, path: &str, identity: &Identity) -> Result<PathBuf, LaunchError> {
    find_program(
        command.as_ref(),
        Some(path.as_ref()),
        Path::new("/"),
        identity,
    )
}

#[test]
fn path_is_searched_with_the_agents_eyes() {
    let Some(nobody) = nobody() else { return };
    let here = place();
    let other = place();
    let path = format!(
        "/nowhere:{}:{}",
        here.path().display(),
        other.path().display()
    );
    assert_eq!(
        find("tool", &path, &nobody).unwrap(),
        here.path().join("tool")
    );
    // Not executable in the first place: the second is taken, as a shell does.
    fs::remove_file(here.path().join("mine")).unwrap();
    fs::copy(here.path().join("plain"), here.path().join("mine")).unwrap();
    let free = other.path().join("mine");
    fs::set_permissions(&free, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(find("mine", &path, &nobody).unwrap(), free);

    // Root's own program is no program of the agent's; it is one of root's.
    fs::set_permissions(&free, fs::Permissions::from_mode(0o700)).unwrap();
    let error = find("mine", &path, &nobody).unwrap_err();
    assert_eq!(error.exit_code(), 126, "{error}");
    let root = Identity::current().unwrap();
    assert_eq!(find("mine", &path, &root).unwrap(), free);

    // A directory that the agent cannot search might as well not be there.
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(
        find("tool", &path, &nobody).unwrap(),
        other.path().join("tool")
    );
    let error = find("no-such-tool", &path, &nobody).unwrap_err();
    assert_eq!(error.exit_code(), 127, "{error}");
}

#[test]
fn what_is_missing_and_what_cannot_run_have_their_own_codes() {
    let Some(nobody) = nobody() else { return };
    let here = place();
    let path = here.path().to_str().unwrap();
    for (command, code) in [
        ("no-such-command", 127),
        ("", 127),
        ("/no/such/command", 127),
        ("/etc/passwd/x", 127),
        ("plain", 126),
        ("dir", 126),
        ("/usr", 126),
        ("/etc/passwd", 126),
    ] {
        let error = find(command, path, &nobody).unwrap_err();
        assert_eq!(error.exit_code(), code, "{command}: {error}");
    }
}

#[test]
fn a_relative_path_counts_from_the_directory() {
    let Some(nobody) = nobody() else { return };
    let here = place();
    let find = |command: &str, path: &str| {
        find_program(command.as_ref(), Some(path.as_ref()), here.path(), &nobody)
    };
    assert_eq!(find("./tool", "/bin").unwrap(), Path::new("./tool"));
    assert_eq!(find("tool", ":/bin").unwrap(), Path::new("./tool"));
    assert!(find("tool", "/bin").is_err());
}

#[test]
fn a_directory_that_the_agent_cannot_enter_is_an_error() {
    let Some(nobody) = nobody() else { return };
    let here = place();
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let below = here.path().join("dir");
    for directory in [
        here.path(),
        &below,
        Path::new("/etc/passwd"),
        Path::new("/gone"),
    ] {
        let error = find_program("true".as_ref(), None, directory, &nobody).unwrap_err();
        assert!(matches!(error, LaunchError::Directory { .. }), "{error}");
    }
    // The question was asked on a thread of its own: this one still sees everything.
    assert!(fs::read_dir(&below).is_ok());
}

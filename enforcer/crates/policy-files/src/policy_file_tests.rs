//! Files that the agent could change, that are no files, or that are too large are refused before reading.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

const POLICY: &str = r#"{"version": "2", "exec": {}, "connect": {}}"#;
/// A user that owns nothing here.
const STRANGER: u32 = 54_321;

/// A directory of the caller's, mode 0755, below the temporary directory.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

fn file(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    path
}

fn refusal(path: &Path, agent_uid: Option<u32>) -> String {
    load(path, agent_uid).unwrap_err().to_string()
}

/// Makes `path` the agent's and gives the agent's uid: as root a stranger's, else the caller's own.
fn give_to_agent(path: &Path) -> u32 {
    let me = nix::unistd::geteuid().as_raw();
    if me != 0 {
        return me;
    }
    chown(path, Some(STRANGER), None).unwrap();
    STRANGER
}

#[test]
fn a_file_that_only_its_owner_can_write_is_read() {
    let dir = directory();
    let path = file(dir.path(), "p.json", POLICY);
    for agent in [None, Some(0), Some(STRANGER)] {
        let loaded = load(&path, agent).unwrap();
        assert_eq!(loaded.path, path);
        assert_eq!(loaded.parsed.policy.version, "2");
    }
}

#[test]
fn a_file_of_the_agents_user_is_refused_with_the_mend() {
    let dir = directory();
    let path = file(dir.path(), "p.json", POLICY);
    let agent = give_to_agent(&path);
    let said = refusal(&path, Some(agent));
    if nix::unistd::geteuid().is_root() {
        let path = path.display();
        assert_eq!(
            said,
            format!(
                "policy {path} belongs to the agent's user (uid {agent}), so the agent could change it; \
                 run: chown root:root {path} && chmod 644 {path}"
            )
        );
    } else {
        // The caller's own directory comes first.
        assert!(said.contains("belongs to the agent's user"), "{said}");
    }
    // `policy check` asks nothing about owners.
    assert!(load(&path, None).is_ok());
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let dir = directory();
    let path = file(dir.path(), "p.json", POLICY);
    for (mode, who) in [
        (0o664, "its group (mode 664)"),
        (0o646, "everyone (mode 646)"),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for agent in [0, STRANGER] {
            let said = refusal(&path, Some(agent));
            assert!(said.contains(&format!("can be written by {who}")), "{said}");
            assert!(said.contains("chmod 644"), "{said}");
        }
        assert!(load(&path, None).is_ok());
    }
}

#[test]
fn a_directory_in_which_the_agent_could_replace_the_file_is_refused() {
    let dir = directory();
    let inner = dir.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    let path = file(&inner, "p.json", POLICY);
    assert!(load(&path, Some(STRANGER)).is_ok());

    let outer = dir.path().join("a");
    fs::set_permissions(&outer, Permissions::from_mode(0o777)).unwrap();
    let said = refusal(&path, Some(STRANGER));
    assert!(
        said.contains("a, which can be written by everyone (mode 777)"),
        "{said}"
    );
    assert!(said.contains("chmod go-w"), "{said}");
    // With the sticky bit only owners replace.
    fs::set_permissions(&outer, Permissions::from_mode(0o1777)).unwrap();
    assert!(load(&path, Some(STRANGER)).is_ok());

    fs::set_permissions(&outer, Permissions::from_mode(0o755)).unwrap();
    let agent = give_to_agent(&outer);
    let said = refusal(&path, Some(agent));
    assert!(said.contains("belongs to the agent's user"), "{said}");
    let install = format!(
        "run: install -D -m 644 {} /etc/enforcer/p.json",
        path.display()
    );
    assert!(said.contains(&install), "{said}");
}

#[test]
fn root_as_the_agent_is_not_kept_from_its_own_groups_directory() {
    let dir = directory();
    let path = file(dir.path(), "p.json", POLICY);
    fs::set_permissions(dir.path(), Permissions::from_mode(0o775)).unwrap();
    assert!(load(&path, Some(0)).is_ok());
    assert!(refusal(&path, Some(STRANGER)).contains("can be written by its group (mode 775)"));
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    assert!(refusal(&path, Some(0)).contains("can be written by everyone (mode 777)"));
}

#[test]
fn a_symlink_is_refused_and_one_on_the_way_is_followed_only_through_safe_directories() {
    let dir = directory();
    let good = dir.path().join("good");
    let open = dir.path().join("open");
    fs::create_dir(&good).unwrap();
    fs::create_dir(&open).unwrap();
    let path = file(&good, "p.json", POLICY);
    let link = dir.path().join("link.json");
    symlink(&path, &link).unwrap();
    for agent in [None, Some(STRANGER)] {
        assert_eq!(
            refusal(&link, agent),
            format!(
                "policy {} is a symlink; name the file that it leads to",
                link.display()
            )
        );
    }

    symlink(&good, open.join("way")).unwrap();
    symlink("../good", open.join("relative")).unwrap();
    assert!(load(&open.join("way/p.json"), Some(STRANGER)).is_ok());
    assert!(load(&open.join("relative/../good/p.json"), Some(STRANGER)).is_ok());
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    for way in ["way/p.json", "relative/p.json"] {
        let said = refusal(&open.join(way), Some(STRANGER));
        assert!(
            said.contains("open, which can be written by everyone"),
            "{said}"
        );
    }
    assert!(load(&path, Some(STRANGER)).is_ok());

    symlink("loop", dir.path().join("loop")).unwrap();
    assert!(refusal(&dir.path().join("loop/p.json"), Some(STRANGER)).contains("cannot be read"));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let dir = directory();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, kind) in [
        (dir.path(), "a directory"),
        (pipe.as_path(), "a pipe"),
        (socket.as_path(), "a socket"),
        (Path::new("/dev/zero"), "a device"),
    ] {
        for agent in [None, Some(STRANGER)] {
            let wanted = format!("policy {} is {kind}; name a regular file", path.display());
            assert_eq!(refusal(path, agent), wanted);
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let dir = directory();
    for missing in ["no.json", "no/no.json"] {
        let path = dir.path().join(missing);
        for agent in [None, Some(STRANGER)] {
            let wanted = format!(
                "policy {0} does not exist; check the name (--policy), take one that comes along (--policy built-in:coding-agent), or put one there: install -D -m 644 policies/coding-agent.json {0}",
                path.display()
            );
            assert_eq!(refusal(&path, agent), wanted);
        }
    }
}

#[test]
fn a_hundred_megabytes_are_refused_without_reading_them() {
    let dir = directory();
    let path = file(dir.path(), "large.json", "");
    // A hole: if it were read, it would be NULs and another message.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100_000_000)
        .unwrap();
    let said = refusal(&path, None);
    assert!(
        said.contains("is too large (100000000 bytes, at most 16777216 are read)"),
        "{said}"
    );
}

#[test]
fn a_file_that_reports_no_size_is_read_within_the_bound() {
    // Files of procfs and the like say 0 bytes and hold more.
    let said = refusal(Path::new("/proc/self/status"), None);
    assert!(said.contains("/proc/self/status:1:"), "{said}");
    assert!(said.contains("this is not JSON"), "{said}");
}

#[test]
fn faults_of_the_text_are_told_one_a_line_with_the_file() {
    let dir = directory();
    let text = "{\"version\": \"2\", \"connect\": {}, \"exec\": {\"rules\": [\n{\"id\": \"a\", \"decision\": \"deny\"},\n\
                {\"id\": \"a\", \"decision\": \"deny\", \"glob\": [\"x\"]}]}}";
    let path = file(dir.path(), "p.json", text);
    let said = refusal(&path, None);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].starts_with(&format!("{}:2:1: exec.rules[0]: ", path.display())),
        "{said}"
    );
    assert!(
        lines[1].starts_with(&format!("{}:3:2: exec.rules[1].id: ", path.display())),
        "{said}"
    );

    let path = file(dir.path(), "bytes.json", b"{\"version\": \"\xfe\"}");
    assert!(refusal(&path, None).contains("bytes.json:1:14: the text is not UTF-8"));
    let path = file(dir.path(), "empty.json", "");
    assert!(refusal(&path, None).contains("empty.json: the policy is empty; "));
}

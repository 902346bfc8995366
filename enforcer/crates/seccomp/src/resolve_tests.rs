use std::fs::{self, File};
use std::os::fd::FromRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::*;

fn call(dirfd: i32, flags: i32) -> ExecCall {
    ExecCall {
        dirfd,
        path: 0,
        argv: 0,
        flags,
    }
}

fn text(path: impl AsRef<[u8]>) -> ExecText {
    ExecText {
        path: path.as_ref().to_vec(),
        argv: vec![b"zero".to_vec(), b"one".to_vec()],
    }
}

fn me() -> u32 {
    nix::unistd::gettid().as_raw().unsigned_abs()
}

fn resolve(tid: u32, path: impl AsRef<[u8]>) -> Result<Found, Unresolved> {
    Resolver::new(Roots::Any, Eyes::own().unwrap())
        .unwrap()
        .exec(tid, &call(libc::AT_FDCWD, 0), text(path))
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// The name of the file that runs.
fn file_name(found: &Found) -> Option<&[u8]> {
    let path = found.action.resolved.as_deref()?;
    path.rsplit(|byte| *byte == b'/').next()
}

/// A directory with a program `tool`, a link `alias` to it, and scripts.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::copy("/bin/true", at("tool")).unwrap();
    symlink("tool", at("alias")).unwrap();
    symlink(at("alias"), at("far")).unwrap();
    symlink("loop", at("loop")).unwrap();
    fs::write(at("script"), "#!/bin/sh -e x\necho\n").unwrap();
    fs::write(at("nested"), format!("#!{}\n", at("script").display())).unwrap();
    fs::write(at("orphan"), "#!/no/such/thing\n").unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in ["script", "nested", "orphan"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    place
}

/// A process that sits in a directory; killed when dropped.
struct Sitting(Child);

impl Sitting {
    fn new(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn links_are_followed_and_the_path_stays_as_given() {
    let place = place();
    for name in ["tool", "alias", "far", "./alias", "../%/far"] {
        let name = name.replace('%', place.path().file_name().unwrap().to_str().unwrap());
        let path = place.path().join(name);
        let found = resolve(me(), bytes(&path)).unwrap();
        assert_eq!(found.action.path, bytes(&path));
        assert_eq!(file_name(&found), Some(&b"tool"[..]));
        assert_eq!(found.action.argv.len(), 2);
        assert!(found.action.script.is_none() && !found.action.fileless && !found.action.found);
    }
}

#[test]
fn what_is_no_program_gives_the_kernels_errno() {
    let place = place();
    for (name, errno) in [
        ("none", libc::ENOENT),
        ("tool/x", libc::ENOTDIR),
        ("loop", libc::ELOOP),
        ("fifo", libc::EACCES),
        (".", libc::EACCES),
        ("orphan", libc::ENOENT),
    ] {
        let path = place.path().join(name);
        assert_eq!(
            resolve(me(), bytes(&path)).unwrap_err().errno,
            errno,
            "{name}"
        );
    }
    assert_eq!(resolve(me(), "").unwrap_err().errno, libc::ENOENT);
    assert_eq!(resolve(me(), "/dev/null").unwrap_err().errno, libc::EACCES);
    let long = format!("/{}", "x".repeat(300));
    assert_eq!(resolve(me(), long).unwrap_err().errno, libc::ENAMETOOLONG);
    let nul = resolve(me(), "/bin/true\0x").unwrap_err();
    assert_eq!(nul.errno, libc::ENOENT);
}

#[test]
fn scripts_are_followed_to_their_interpreter() {
    let place = place();
    let path = place.path().join("script");
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let shell = shell.file_name().unwrap().as_encoded_bytes();
    let found = resolve(me(), bytes(&path)).unwrap();
    let script = found.action.script.clone().unwrap();
    assert_eq!(script.interpreter, b"/bin/sh");
    assert_eq!(script.argument.as_deref(), Some(&b"-e x"[..]));
    assert_eq!(file_name(&found), Some(shell));
    // An approval is for the script, not for its interpreter.
    assert_eq!(found.identity().unwrap().path, bytes(&path));
    let nested = resolve(me(), bytes(&place.path().join("nested"))).unwrap();
    assert_eq!(
        nested.action.script.clone().unwrap().interpreter,
        bytes(&path)
    );
    assert_eq!(file_name(&nested), Some(shell));
}

#[test]
fn a_file_that_changes_is_looked_at_again() {
    let place = place();
    let path = place.path().join("script");
    let mut resolver = Resolver::new(Roots::Any, Eyes::own().unwrap()).unwrap();
    let mut interpreter = || {
        let found = resolver.exec(me(), &call(libc::AT_FDCWD, 0), text(bytes(&path)));
        found
            .unwrap()
            .action
            .script
            .map(|script| script.interpreter)
    };
    // Same size, at once: the same stamp if the clock has not ticked.
    for round in 0..50 {
        let name = if round % 2 == 0 { "/bin/ls" } else { "/bin/sh" };
        fs::write(&path, format!("#!{name}\n")).unwrap();
        assert_eq!(interpreter().as_deref(), Some(name.as_bytes()), "{round}");
    }
    thread::sleep(TICK * 2);
    assert_eq!(interpreter().as_deref(), Some(&b"/bin/sh"[..]));
    assert_eq!(interpreter().as_deref(), Some(&b"/bin/sh"[..]));
    fs::write(&path, "#!/bin/ls\n").unwrap();
    assert_eq!(interpreter().as_deref(), Some(&b"/bin/ls"[..]));
    fs::copy("/bin/true", &path).unwrap();
    assert_eq!(interpreter(), None);
}

#[test]
fn descriptors_are_named_as_the_kernel_names_them() {
    let place = place();
    let directory = File::open(place.path()).unwrap();
    let tool = File::open(place.path().join("tool")).unwrap();
    let mut resolver = Resolver::new(Roots::Any, Eyes::own().unwrap()).unwrap();
    let number = directory.as_raw_fd();
    let found = resolver
        .exec(me(), &call(number, 0), text("alias"))
        .unwrap();
    assert_eq!(
        found.action.path,
        format!("/dev/fd/{number}/alias").as_bytes()
    );
    assert_eq!(file_name(&found), Some(&b"tool"[..]));
    let absolute = resolver.exec(me(), &call(number, 0), text("/bin/true"));
    assert_eq!(absolute.unwrap().action.path, b"/bin/true");
    let no_follow = call(number, libc::AT_SYMLINK_NOFOLLOW);
    let link = resolver.exec(me(), &no_follow, text("alias")).unwrap_err();
    assert_eq!(link.errno, libc::ELOOP);
    let number = tool.as_raw_fd();
    let found = resolver
        .exec(me(), &call(number, libc::AT_EMPTY_PATH), text(""))
        .unwrap();
    assert_eq!(found.action.path, format!("/dev/fd/{number}").as_bytes());
    assert_eq!(file_name(&found), Some(&b"tool"[..]));
    let flagless = resolver.exec(me(), &call(number, 0), text("")).unwrap_err();
    assert_eq!(flagless.errno, libc::ENOENT);
    let closed = resolver.exec(me(), &call(9999, 0), text("x")).unwrap_err();
    assert_eq!(closed.errno, libc::EBADF);
}

#[test]
fn what_has_no_name_left_is_fileless() {
    let place = place();
    let path = place.path().join("tool");
    let open = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let name = format!("/proc/self/fd/{}", open.as_raw_fd());
    let found = resolve(me(), &name).unwrap();
    assert!(found.action.fileless);
    assert_eq!(file_name(&found), Some(&b"tool"[..]));
    // SAFETY: a name and a flag; the descriptor is new.
    let memory = unsafe {
        let fd = libc::memfd_create(c"ghost".as_ptr(), libc::MFD_CLOEXEC);
        File::from_raw_fd(fd)
    };
    fs::copy("/bin/true", format!("/proc/self/fd/{}", memory.as_raw_fd())).unwrap();
    for name in ["/dev/fd/%", "/proc/self/fd/%", "/proc/thread-self/fd/%"] {
        let name = name.replace('%', &memory.as_raw_fd().to_string());
        let found = resolve(me(), &name).unwrap();
        assert!(found.action.fileless, "{name}");
        assert_eq!(file_name(&found), Some(&b"memfd:ghost"[..]));
    }
}

#[test]
fn another_process_is_seen_with_its_own_directory_and_self() {
    let place = place();
    let sleep = fs::canonicalize("/bin/sleep").unwrap();
    let child = Sitting::new(Command::new(&sleep).arg("60").current_dir(place.path()));
    let pid = child.0.id();
    let found = resolve(pid, "alias").unwrap();
    assert_eq!(found.action.path, b"alias");
    assert_eq!(file_name(&found), Some(&b"tool"[..]));
    symlink("/proc/self/exe", place.path().join("myself")).unwrap();
    let name = sleep.file_name().unwrap().as_encoded_bytes();
    for path in [
        "/proc/self/exe",
        "/proc/thread-self/exe",
        "/proc/self/task/../exe",
        "myself",
        "./myself",
        "/proc/self/cwd/myself",
    ] {
        let found = resolve(pid, path);
        // The path to /proc/self/task is no link, so `..` is the process itself.
        let found = found.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(file_name(&found), Some(name), "{path}");
    }
    let directory = working_directory(pid).unwrap();
    let meta = fs::metadata(place.path()).unwrap();
    assert_eq!(directory.path, bytes(place.path()));
    assert_eq!(
        (directory.inode, directory.device),
        (meta.ino(), meta.dev())
    );
    drop(child);
    assert!(working_directory(pid).is_err());
    assert!(resolve(pid, "/bin/true").is_err());
}

#[test]
fn a_caller_in_another_root_is_resolved_there() {
    if !crate::rig::may_run("other-root") {
        return;
    }
    let place = place();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("bin")).unwrap();
    fs::create_dir_all(at("deep/er")).unwrap();
    // What the same paths mean outside is something else.
    fs::copy("/bin/true", at("bin/inner")).unwrap();
    symlink("inner", at("bin/true")).unwrap();
    symlink("/bin/inner", at("absolute")).unwrap();
    symlink("../../../../../bin/true", at("deep/er/upwards")).unwrap();
    let chroot = format!(
        "chroot('{}') or die; chdir('/deep/er') or die; sleep 60",
        place.path().display()
    );
    let child = Sitting::new(Command::new("/usr/bin/perl").args(["-e", &chroot]));
    let pid = child.0.id();
    let deep = at("deep/er");
    while fs::read_link(format!("/proc/{pid}/cwd")).unwrap() != deep {
        thread::yield_now();
    }
    for path in [
        "/bin/true",
        "/absolute",
        "../../absolute",
        "upwards",
        "/deep/er/upwards",
        "/../../bin/true",
        "../../../../bin/inner",
    ] {
        let found = resolve(pid, path);
        let found = found.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(file_name(&found), Some(&b"inner"[..]), "{path}");
    }
    assert_eq!(resolve(pid, "/bin/sh").unwrap_err().errno, libc::ENOENT);
    // What the first caller's root is holds for all where nobody can change it.
    let mut fixed = Resolver::new(Roots::Fixed, Eyes::own().unwrap()).unwrap();
    for caller in [pid, me()] {
        let found = fixed.exec(caller, &call(libc::AT_FDCWD, 0), text("/bin/true"));
        assert_eq!(file_name(found.as_ref().unwrap()), Some(&b"inner"[..]));
    }
}

#[test]
fn a_file_is_identified_by_its_content() {
    let place = place();
    let path = place.path().join("tool");
    let content = fs::read(&path).unwrap();
    let found = resolve(me(), bytes(&place.path().join("alias"))).unwrap();
    let identity = found.identity().unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(identity.path, bytes(&path));
    assert_eq!(identity.size, content.len() as u64);
    assert_eq!(identity.sha256[..], Sha256::digest(&content)[..]);
    assert_eq!((identity.device, identity.inode), (meta.dev(), meta.ino()));
    assert_eq!(
        identity.changed,
        (meta.ctime(), u32::try_from(meta.ctime_nsec()).unwrap())
    );
    // A write in the same tick could not be told by the stamp, so it was waited for.
    assert!(age(&walk::stat(&found.file).unwrap()).unwrap() >= TICK);
    fs::write(&path, &content).unwrap();
    assert_ne!(found.identity().unwrap().changed, identity.changed);
}

#[test]
fn a_file_that_is_being_written_is_not_vouched_for() {
    let place = place();
    let path = place.path().join("tool");
    let found = resolve(me(), bytes(&path)).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    let error = found.identity().unwrap_err();
    assert!(matches!(error, IdentityError::OpenForWriting), "{error}");
    drop(writer);
    // A process that another test forks meanwhile has a copy of the descriptor until it ends.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = found.identity() {
        assert!(
            matches!(error, IdentityError::OpenForWriting) && Instant::now() < deadline,
            "{error}"
        );
        thread::sleep(Duration::from_millis(10));
    }
    let huge = File::create(place.path().join("huge")).unwrap();
    huge.set_len(identity::LARGEST + 1).unwrap();
    huge.set_permissions(fs::Permissions::from_mode(0o755))
        .unwrap();
    drop(huge);
    let found = resolve(me(), bytes(&place.path().join("huge"))).unwrap();
    let error = found.identity().unwrap_err();
    assert!(matches!(error, IdentityError::TooLarge(_)), "{error}");
}

#[test]
fn a_socket_is_resolved_with_the_users_rights() {
    if !crate::rig::may_run("socket-file") {
        return;
    }
    let place = place();
    let at = |name: &str| place.path().join(name);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(at("closed")).unwrap();
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let _open = std::os::unix::net::UnixListener::bind(at("open")).unwrap();
    let _closed = std::os::unix::net::UnixListener::bind(at("closed/inner")).unwrap();
    symlink("open", at("to-open")).unwrap();
    let eyes = Eyes {
        uid: 65534,
        gid: 65534,
        groups: vec![65534],
        ..Eyes::own().unwrap()
    };
    let mut resolver = Resolver::new(Roots::Any, eyes).unwrap();
    let child = Sitting::new(Command::new("sleep").arg("60").current_dir(place.path()));
    let mut socket = |name: &str| resolver.socket(child.0.id(), name.as_bytes());
    for name in ["open", "to-open", at("to-open").to_str().unwrap()] {
        assert_eq!(socket(name).unwrap().path, bytes(&at("open")), "{name}");
    }
    for (name, errno) in [
        ("closed/inner", libc::EACCES),
        ("none", libc::ENOENT),
        ("tool", libc::ECONNREFUSED),
    ] {
        assert_eq!(socket(name).unwrap_err().errno, errno, "{name}");
    }
    // The thread is who it was.
    assert!(File::open(at("closed")).is_ok());
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let ids = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    assert_eq!(ids, "Uid:\t0\t0\t0\t0");
}

#[test]
fn a_name_is_the_links_own() {
    let place = place();
    let at = |name: &str| place.path().join(name);
    let mut resolver = Resolver::new(Roots::Any, Eyes::own().unwrap()).unwrap();
    let mut name = |path: &Path| {
        let found = resolver.exec(me(), &call(libc::AT_FDCWD, 0), text(bytes(path)));
        String::from_utf8(file_name(&found.unwrap()).unwrap().to_vec()).unwrap()
    };
    thread::sleep(TICK * 2);
    assert_eq!(name(&at("tool")), "tool");
    fs::rename(at("tool"), at("moved")).unwrap();
    assert_eq!(name(&at("moved")), "moved");
    fs::hard_link(at("moved"), at("second")).unwrap();
    thread::sleep(TICK * 2);
    for _ in 0..2 {
        assert_eq!(name(&at("moved")), "moved");
        assert_eq!(name(&at("second")), "second");
    }
}

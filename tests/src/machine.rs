//! What the machine gives that the tests run on.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use serde_json::Value;

use crate::session::enforcer;

/// What `enforcer doctor` says of this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Denied execs are killed.
    Partial,
    /// Denied execs fail with EPERM; the kill stands behind.
    Full,
}

/// What this kernel gives, asked once.
///
/// # Panics
///
/// When it gives nothing: then no test could show anything.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        // Asked once for all executables: it loads every program, which takes a guest many seconds.
        match env::var("ENFORCER_LEVEL").as_deref() {
            Ok("full") => return Level::Full,
            Ok("partial") => return Level::Partial,
            _ => {}
        }
        let output = enforcer().args(["doctor", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        match report["enforcement"].as_str() {
            Some("full") => Level::Full,
            Some("partial") => Level::Partial,
            other => panic!("nothing can be enforced here ({other:?}): {report:#}"),
        }
    })
}

/// Whether we are in a virtual machine of `cargo xtask vm`, which is some fifty times slower.
pub fn in_guest() -> bool {
    Path::new("/vm/limit").exists()
}

/// `host`, or `guest` where everything takes longer.
pub fn quick<T>(host: T, guest: T) -> T {
    if in_guest() { guest } else { host }
}

/// How long a session may take before it is a failure.
pub fn patience() -> Duration {
    quick(Duration::from_secs(90), Duration::from_mins(4))
}

/// The test that runs, by its thread's name.
fn test_name() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

/// Says that this machine lacks what the running test needs. At most once a test: each line counts as one.
///
/// # Panics
///
/// When the file for it cannot be written.
pub fn skip(reason: &str) {
    let line = format!("{}: {reason}\n", test_name());
    eprint!("skipped: {line}");
    if let Some(path) = env::var_os("ENFORCER_SKIPS") {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Whether we are root; else the test is recorded as skipped.
#[must_use]
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// A program in the system's directories.
pub fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

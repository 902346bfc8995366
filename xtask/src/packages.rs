//! System packages: which ones are needed for what, and their installation with apt.

use std::collections::HashSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{as_root, command, find, note, run, step};

/// What compiling the workspace needs beside rustup's stable toolchain.
pub const BUILD: &[&str] = &["gcc", "libc6-dev", "libseccomp-dev", "pkg-config"];

/// Debian's own Rust compiler, its library sources and LLVM: the second route to an eBPF object.
///
/// LLVM must be the one that `rustc-web` uses (`rustc -vV`), or bpf-linker cannot read its bitcode.
pub const EBPF: &[&str] = &[
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "llvm-22-dev",
    "libpolly-22-dev",
    "g++",
];

/// What lint, the integration tests and the virtual machines run.
pub const TEST: &[&str] = &[
    "bash",
    "busybox-static",
    "findutils",
    "git",
    "hostname",
    "iproute2",
    "make",
    "mount",
    "procps",
    "python3",
    "qemu-system-x86",
    "strace",
    "util-linux",
    "xz-utils",
];

/// What the fuzz targets are built with: libFuzzer is C++.
pub const FUZZ: &[&str] = &["g++"];

/// Debian's clippy, of the same version as [`EBPF`]'s compiler; lints the kernel programs on that route.
pub const EBPF_LINT: &[&str] = &["rust-web-clippy"];

/// Installs the packages that are missing; does nothing (and needs no root) when there are none.
///
/// # Errors
/// When apt fails or there is no way to become root; the message lists the missing packages.
pub fn ensure(purpose: &str, packages: &[&str]) -> Result<()> {
    if find("dpkg-query").is_none() || find("apt-get").is_none() {
        note(&format!(
            "not a Debian system: the equivalents of these must be present for {purpose}: {}",
            packages.join(" ")
        ));
        return Ok(());
    }
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!(
        "Installing packages for {purpose}: {}",
        missing.join(" ")
    ));
    install(&missing).with_context(|| {
        format!(
            "packages for {purpose} are missing; as root: apt-get update && apt-get install {}",
            missing.join(" ")
        )
    })
}

fn install(packages: &[&str]) -> Result<()> {
    // A stale mirror list must not hide that the install itself would work: its own failure says more.
    if let Err(error) = run(&mut apt_get(&["update"])?) {
        note(&format!("warning: {error:#}"));
    }
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(packages);
    if let Err(error) = run(&mut apt_get(&words)?) {
        // What a killed installation left half done stops every later one, of any package.
        note(&format!(
            "{error:#}: finishing what an earlier installation left, then once more"
        ));
        finish_interrupted()?;
        run(&mut apt_get(&words)?)?;
    }
    let missing = missing(packages)?;
    if !missing.is_empty() {
        bail!(
            "apt-get ended well but these are still not installed: {}",
            missing.join(" ")
        );
    }
    Ok(())
}

/// Configures what was unpacked and fetches what that depends on, as dpkg and apt ask a person to do.
fn finish_interrupted() -> Result<()> {
    let mut configure = as_root("env")?;
    configure.args([
        NONINTERACTIVE,
        "dpkg",
        "--force-confdef",
        "--force-confold",
        "--configure",
        "-a",
    ]);
    // It fails where a dependency is not there yet: that is what apt is asked to mend next.
    if let Err(error) = run(&mut configure) {
        note(&format!("warning: {error:#}"));
    }
    run(&mut apt_get(&["install", "-y", "--fix-broken"])?)
}

const NONINTERACTIVE: &str = "DEBIAN_FRONTEND=noninteractive";

/// apt-get as root, asking nothing, and waiting for another that is at work (a new machine often updates itself).
///
/// # Errors
/// When we are not root and there is no sudo.
pub fn apt_get(words: &[&str]) -> Result<Command> {
    let mut apt = as_root("env")?;
    apt.args([NONINTERACTIVE, "apt-get", "-q", "-o", LOCK_TIMEOUT]);
    apt.args(words);
    Ok(apt)
}

/// Seconds that apt waits for dpkg's lock.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=600";

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails when it does not know one of the names, but still lists the others.
    let listed = command("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .context("cannot start dpkg-query")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let installed: HashSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect())
}

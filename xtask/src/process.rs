//! Running programs: each one is shown before it runs, and a failure says what failed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::root;

/// Variables that steer cargo and rustc: right for the workspace, wrong for another toolchain.
const STEERING: &[&str] = &[
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
];

/// Prints the heading of a step.
pub fn step(what: &str) {
    println!("==> {what}");
    flush();
}

/// Prints a remark inside a step.
pub fn note(what: &str) {
    println!("    {what}");
    flush();
}

/// Our lines and those of the programs we run must keep their order.
fn flush() {
    // A closed standard output is not a reason to stop building.
    let _ = std::io::stdout().flush();
}

/// A command that starts in the repository's top directory.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root::repository());
    command
}

/// The cargo that runs us, for the workspace's own crates.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Removes what an outer cargo and the user's own settings would do to another toolchain: the wrong rustc,
/// the wrong shared libraries, the wrong flags.
pub fn scrub(command: &mut Command) -> &mut Command {
    for variable in STEERING {
        command.env_remove(variable);
    }
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(&name);
        }
    }
    unwrap_cargo(command);
    command.env_remove("LD_LIBRARY_PATH")
}

/// Gives a command the environment that the user has, without what `cargo run` and rustup add to it for us.
pub fn unwrap_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let added = matches!(
            &*text,
            "CARGO" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT" | "RUSTUP_TOOLCHAIN_SOURCE"
        );
        if added || text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if let Some(libraries) = env::var_os("LD_LIBRARY_PATH") {
        let cargo = env::var_os("CARGO").map(PathBuf::from);
        let toolchain = cargo
            .as_deref()
            .and_then(Path::parent)
            .and_then(Path::parent);
        let ours = |path: &PathBuf| {
            path.starts_with(root::target()) || toolchain.is_some_and(|top| path.starts_with(top))
        };
        let kept: Vec<PathBuf> = env::split_paths(&libraries)
            .filter(|path| !ours(path))
            .collect();
        match env::join_paths(&kept) {
            Ok(kept) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", kept),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command
}

/// Shows and runs a command; an unsuccessful end is an error.
///
/// # Errors
/// When the program cannot be started or does not end with status 0.
pub fn run(command: &mut Command) -> Result<()> {
    note(&format!("$ {}", shown(command)));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command quietly and returns what it printed to its standard output.
///
/// # Errors
/// When the program cannot be started or does not end with status 0; the message carries its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line, for people.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Where PATH finds a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let path =
        env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    // Administration programs lie outside an ordinary user's PATH.
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we are root: the owner of our own process.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command that runs as root: itself when we are root, else through sudo.
///
/// # Errors
/// When we are not root and there is no sudo.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(command(program));
    }
    let mut sudo =
        sudo().with_context(|| format!("`{}` must run as root", program.as_ref().display()))?;
    sudo.arg(program);
    Ok(sudo)
}

/// A command that runs as root in our environment: sudo alone would take away most of it, and PATH in any case.
///
/// # Errors
/// When we are not root and there is no sudo.
pub fn as_root_with_environment(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(command(program));
    }
    let mut path = OsString::from("PATH=");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut sudo =
        sudo().with_context(|| format!("`{}` must run as root", program.as_ref().display()))?;
    sudo.args(["--preserve-env", "env"]).arg(path).arg(program);
    Ok(sudo)
}

fn sudo() -> Result<Command> {
    match find("sudo") {
        Some(sudo) => Ok(command(sudo)),
        None => bail!("not root, and there is no sudo: run this task as root, or install sudo"),
    }
}

//! The release binary, and running a command under it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{
    as_root, as_root_with_environment, cargo, is_root, note, run as run_command, shown, step,
    unwrap_cargo,
};
use crate::{ebpf, root, toolchain};

/// Where `run` puts the policy: a clone belongs to the user who made it, who is also the agent's user, and
/// enforcer refuses a policy that the agent's user can write.
const POLICIES: &str = "/run/enforcer-policies";
/// The directory of the rule sets beside a policy.
const RULE_SETS: &str = "rules";
/// Where `enforcer run` keeps the audit trail.
const TRAIL: &str = "/var/log/enforcer/audit.jsonl";

/// Builds `target/release/enforcer` and all that it needs.
///
/// # Errors
/// When a part of the toolchain is missing or something does not compile.
pub fn release() -> Result<PathBuf> {
    ebpf::build(&toolchain::ensure(false)?)?;
    user_space()
}

/// Builds the release binary over an existing object of kernel programs.
///
/// # Errors
/// When it does not compile.
pub fn user_space() -> Result<PathBuf> {
    step("Release binary");
    let target = root::target();
    run_command(
        cargo()
            .args([
                "build",
                "--quiet",
                "--release",
                "--package",
                "enforcer",
                "--target-dir",
            ])
            .arg(&target),
    )?;
    let binary = target.join("release/enforcer");
    if !binary.is_file() {
        bail!("cargo ended well but there is no {}", binary.display());
    }
    note(&binary.display().to_string());
    Ok(binary)
}

/// Builds, then becomes `enforcer run` with the given command, or with the demonstration.
///
/// # Errors
/// When the build fails, or there is no way to become root. Does not return otherwise.
pub fn run(policy: Option<&Path>, words: &[OsString]) -> Result<()> {
    let binary = release()?;
    let demonstration = root::repository().join("policies/demo.sh");
    let policy = policy.map_or_else(
        || root::repository().join("policies/coding-agent.json"),
        Path::to_path_buf,
    );
    let policy = install_policy(&policy)?;

    if !is_root() {
        note("not root: using sudo to load the kernel programs; the command itself runs as you");
    }
    let mut enforcer = as_root_with_environment(&binary)?;
    unwrap_cargo(&mut enforcer);
    enforcer.arg("run").arg("--policy").arg(policy).arg("--");
    if words.is_empty() {
        enforcer.arg("bash").arg(demonstration);
    } else {
        enforcer.args(words);
    }
    // The command belongs to where the user stands, not to the repository.
    if let Ok(here) = std::env::current_dir() {
        enforcer.current_dir(here);
    }
    step(&format!("Running under the policy (trail: {TRAIL})"));
    note(&format!("$ {}", shown(&enforcer)));
    let error = enforcer.exec();
    Err(error).with_context(|| format!("cannot start `{}`", shown(&enforcer)))
}

/// Copies a policy to a root-owned place and returns its path there.
fn install_policy(policy: &Path) -> Result<PathBuf> {
    if !policy.is_file() {
        bail!(
            "there is no policy at {}: name one with --policy FILE",
            policy.display()
        );
    }
    let name = policy
        .file_name()
        .with_context(|| format!("{} names no file", policy.display()))?;
    let installed = Path::new(POLICIES).join(name);
    step(&format!(
        "Policy: copying {} to {POLICIES}, where only root can write",
        policy.display()
    ));
    let mut install = as_root("install")?;
    install
        .args(["-D", "-o", "root", "-g", "root", "-m", "0644", "--"])
        .arg(policy)
        .arg(&installed);
    run_command(&mut install)?;
    install_rule_sets(policy)?;
    Ok(installed)
}

/// Copies the rule sets that lie beside a policy, and takes away those of an earlier one: they would count.
fn install_rule_sets(policy: &Path) -> Result<()> {
    let installed = Path::new(POLICIES).join(RULE_SETS);
    run_command(as_root("rm")?.args(["-rf", "--"]).arg(&installed))?;
    let beside = policy.with_file_name(RULE_SETS);
    if !beside.is_dir() {
        return Ok(());
    }
    let mut install = as_root("install")?;
    install.args(["-D", "-o", "root", "-g", "root", "-m", "0644", "-t"]);
    install.arg(&installed).arg("--");
    let mut some = false;
    for entry in
        fs::read_dir(&beside).with_context(|| format!("cannot read {}", beside.display()))?
    {
        let file = entry?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            install.arg(file);
            some = true;
        }
    }
    if some {
        run_command(&mut install)?;
    }
    Ok(())
}

//! The figures: what governing costs on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{as_root_with_environment, cargo, note, output, run, step, unwrap_cargo};
use crate::{ebpf, root, toolchain};

/// The bench's name in the crate `enforcer`.
const BENCH: &str = "figures";

/// The bench of one decision, by criterion, and the name that `--only` has for it.
const DECISION: (&str, &str) = ("decision", "user-decision");

/// Measures one decision in user space. It needs neither root nor the kernel programs in force.
fn decision(quick: bool) -> Result<()> {
    step("One decision in user space (criterion)");
    let mut bench = cargo();
    bench
        .args([
            "bench",
            "--quiet",
            "--package",
            "enforcer",
            "--bench",
            DECISION.0,
            "--target-dir",
        ])
        .arg(root::target())
        .args(["--", "--noplot"]);
    if quick {
        bench.args(["--warm-up-time", "0.5", "--measurement-time", "1"]);
    }
    run(&mut bench)
}

/// Builds everything and measures.
///
/// # Errors
/// When something does not compile, there is no way to become root, or a measurement fails.
pub fn figures(quick: bool, json: Option<&Path>, only: Option<&str>) -> Result<()> {
    ebpf::build(&toolchain::ensure(false)?)?;
    if only.is_none_or(|only| DECISION.1.contains(only)) {
        decision(quick)?;
    }
    // A name that is criterion's alone leaves nothing else to measure.
    if only == Some(DECISION.1) {
        return Ok(());
    }
    step("Release binary and bench");
    let bench = build()?;
    note(&bench.display().to_string());
    step(if quick {
        "Figures (about half a minute; leave the machine alone meanwhile)"
    } else {
        "Figures (two to four minutes; leave the machine alone meanwhile)"
    });
    // Under sudo the agent would run as the user who called, and a bare worker as root.
    let mut command = as_root_with_environment(&bench)?;
    unwrap_cargo(&mut command);
    command.env_remove("SUDO_USER");
    if quick {
        command.arg("--quick");
    }
    if let Some(json) = json {
        // The command starts in the repository's top directory, not where the user stands.
        let json = std::path::absolute(json)
            .with_context(|| format!("{} cannot be made absolute", json.display()))?;
        command.arg("--json").arg(json);
    }
    if let Some(only) = only {
        command.args(["--only", only]);
    }
    run(&mut command)
}

/// Compiles the bench, and `enforcer` beside it; cargo says where it lies.
fn build() -> Result<PathBuf> {
    let messages = output(
        cargo()
            .args([
                "build",
                "--quiet",
                "--release",
                "--package",
                "enforcer",
                "--bench",
                BENCH,
                "--message-format",
                "json-render-diagnostics",
                "--target-dir",
            ])
            .arg(root::target()),
    )?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == BENCH)
            .then(|| message["executable"].as_str().map(PathBuf::from))
            .flatten()
    });
    match executable {
        Some(executable) if executable.is_file() => Ok(executable),
        _ => bail!("cargo ended well but names no bench `{BENCH}`"),
    }
}

//! `enforcer doctor`.

use std::io::Write;
use std::process::ExitCode;

use nix::unistd::geteuid;

use crate::cli::error::{CliError, Context};
use crate::doctor::{self, Runs};

/// Arguments of `enforcer doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Runs `enforcer doctor`. Exit status 1 when nothing can be enforced.
///
/// # Errors
///
/// When the output cannot be written.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let report = doctor::examine();
    let mut out = enforcer_say::out();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)
            .context("the report cannot be written")?;
    } else {
        writeln!(out, "kernel {}", report.kernel)?;
        for check in &report.checks {
            let mark = match (check.ok, check.required) {
                (true, _) => "ok     ",
                (false, true) => "MISSING",
                (false, false) => "absent ",
            };
            writeln!(out, "  {mark}  {:<28} {}", check.name, check.detail)?;
        }
        if let Some(first) = &report.first_judgement {
            writeln!(out, "first judgement: {}", first.plain)?;
            if first.asking != first.plain {
                writeln!(out, "  where the policy asks: {}", first.asking)?;
            }
        }
        match &report.runs {
            None if !geteuid().is_root() => {
                writeln!(out, "enforcement: not tried: that takes root; use sudo")?;
            }
            None => writeln!(
                out,
                "enforcement: none: nothing can be enforced here; see MISSING above"
            )?,
            Some(Runs { plain, .. }) => {
                let level = plain.level.as_str();
                writeln!(out, "enforcement: {level}: {}", plain.describe())?;
                for weakness in plain.weaknesses() {
                    writeln!(out, "weaker: {weakness}")?;
                }
            }
        }
    }
    Ok(if report.runs.is_none() {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

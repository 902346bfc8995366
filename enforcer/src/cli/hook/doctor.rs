//! `enforcer hook doctor`.

use std::{io::Write, process::ExitCode};

use crate::cli::audit::clean;
use crate::cli::error::CliError;
use enforcer_hook::{
    Format,
    doctor::{self, Finding, HookReport, HookStatus},
};

const EXAMPLES: &str = "\
Most agents go on in silence where their hook does not start, is turned off, or is not trusted. For each agent this
looks at the settings that hold a hook of enforcer (the project's in this directory, the user's, the machine's), at what
turns hooks off there, and, for Codex, at the trust, and asks Codex itself. Then it runs the very command of the settings
with two calls that do nothing: one that cannot be judged, which must be denied, and `true`. They are judged as any call;
they count in no breaker and no rate, and are not in the trail.

Run it as the user of the agent, in the project's directory: settings, trust and state are that user's.

  asked      the agent asks the hook, and the hook answers
  faulty     one hook is asked; another, or something besides, is not as it should be
  NOT ASKED  the agent goes on without the hook
  absent     no such agent in PATH, and no settings that name the hook

Exit status: 0 all are asked or absent, 1 something is to be mended, 2 bad use.

Examples:
  enforcer hook doctor
  enforcer hook doctor codex
  sudo -u kim env HOME=/home/kim enforcer hook doctor claude --json | jq .[].verdict";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// The agents [default: all]; one that is named must be asked
    #[arg(value_enum, value_name = "AGENT")]
    agents: Vec<Format>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn doctor(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let named = !args.agents.is_empty();
    let wanted = if named {
        args.agents.as_slice()
    } else {
        &doctor::ALL
    };
    let reports: Vec<HookReport> = wanted
        .iter()
        .map(|format| doctor::examine(*format))
        .collect();
    let mut out = enforcer_say::out();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&reports)?)?;
    } else {
        for report in &reports {
            show(&mut out, report)?;
        }
    }
    out.flush()?;
    let well =
        |report: &HookReport| report.is_well() && (!named || report.verdict == HookStatus::Asked);
    Ok(if reports.iter().all(well) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn problem(out: &mut impl Write, finding: &Finding, indent: &str) -> std::io::Result<()> {
    writeln!(
        out,
        "{indent}- {}\n{indent}  mend: {}",
        clean(&finding.what),
        clean(&finding.mend)
    )
}

fn show(out: &mut impl Write, report: &HookReport) -> std::io::Result<()> {
    let verdict = match report.verdict {
        HookStatus::Asked => "asked",
        HookStatus::Faulty => "faulty",
        HookStatus::NotAsked => "NOT ASKED",
        HookStatus::Absent => "absent",
    };
    let version = report.version.as_deref().map(clean);
    let version = version.map(|version| format!(" {version}"));
    writeln!(
        out,
        "{}{}: {verdict}",
        report.title,
        version.unwrap_or_default()
    )?;
    for finding in &report.problems {
        problem(out, finding, "  ")?;
    }
    for hooked in &report.hooks {
        let state = if hooked.problems.is_empty() {
            "is asked and answers"
        } else {
            "is of no use as it is"
        };
        writeln!(
            out,
            "  {} ({}) {state}\n    runs: {}",
            hooked.file.display(),
            hooked.reach,
            clean(&hooked.command)
        )?;
        for finding in &hooked.problems {
            problem(out, finding, "    ")?;
        }
    }
    for note in &report.notes {
        writeln!(out, "  note: {}", clean(note))?;
    }
    Ok(())
}

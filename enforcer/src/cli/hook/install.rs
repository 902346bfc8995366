//! `enforcer hook install|uninstall`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use crate::cli::error::CliError;
use enforcer_hook::{
    Format,
    doctor::unproven,
    install::{FileChange, InstallPlan, REQUIREMENT, Reach, Requirement},
    prepare,
};
use enforcer_policy_files::policy_file;

#[derive(Clone, Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own on the command line"
)]
pub(super) struct InstallArgs {
    /// The agent
    #[arg(value_enum)]
    agent: Format,
    /// The settings of the project in this directory [default]
    #[arg(long)]
    project: bool,
    /// The user's own settings
    #[arg(long, conflicts_with = "project")]
    user: bool,
    /// The settings of the machine, which count before a user's and which no user can write. Needs root
    #[arg(long, conflicts_with_all = ["project", "user"])]
    managed: bool,
    /// The policy that the hook shall judge by
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Show the difference and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl InstallArgs {
    fn reach(&self) -> Reach {
        if self.managed {
            Reach::Managed
        } else if self.user {
            Reach::User
        } else {
            Reach::Project
        }
    }
}

/// Puts the hook in, or takes it out. Status 1: it is in, and the agent will not ask it as things are.
pub(super) fn install(args: &InstallArgs, installs: bool) -> Result<ExitCode, CliError> {
    // A hook with a policy that cannot be used would deny everything.
    let policy = match &args.policy {
        Some(policy) => Some((policy, policy_file::load(policy, None)?)),
        None => None,
    };
    let plan = InstallPlan::new(args.agent, args.reach(), args.policy.as_deref())?;
    let change = if installs {
        plan.install()?
    } else {
        plan.uninstall()?
    };
    let mut out = enforcer_say::out();
    requirement(&plan, installs, args.dry_run)?;
    // Settings whose trust cannot be written are written all the same: the user may trust them by hand.
    let (trusting, mut but) = match plan.trusting(&change) {
        Ok(Some(trusting)) => (Some(trusting.change), trusting.but),
        Ok(None) => (None, Vec::new()),
        Err(error) => (None, vec![error.to_string()]),
    };
    let file = change.file().display();
    let needed = [Some(&change), trusting.as_ref()];
    let needed: Vec<&FileChange> = needed
        .into_iter()
        .flatten()
        .filter(|change| change.is_needed())
        .collect();
    for change in &needed {
        write!(out, "{}", change.diff())?;
    }
    if needed.is_empty() {
        let said = if installs {
            "has the hook already"
        } else {
            "has no hook of enforcer"
        };
        writeln!(out, "{file} {said}")?;
    } else if args.dry_run {
        writeln!(out, "nothing was changed (--dry-run)")?;
    } else {
        for change in &needed {
            change.make()?;
        }
        if installs && let Some((file, loaded)) = &policy {
            prepare(file, loaded.parsed.sources());
        }
        for change in &needed {
            let file = change.file().display();
            let said = if installs {
                "is written"
            } else {
                "is as it was without the hook"
            };
            writeln!(out, "{file} {said}")?;
        }
        if installs {
            writeln!(
                out,
                "to let the policy approve calls without a question: enforcer hook consent yes\nto see whether {} asks \
                 it: enforcer hook doctor {}",
                args.agent.title(),
                args.agent.as_str()
            )?;
        }
    }
    out.flush()?;
    if installs && let Some(limit) = plan.limit() {
        writeln!(enforcer_say::err(), "enforcer: {limit}")?;
    }
    // The form of the trust is that of the versions that were tried.
    if installs
        && trusting.is_some()
        && let Some(why) = unproven(args.agent)
    {
        writeln!(
            enforcer_say::err(),
            "enforcer: {why}: whether it takes the trust as it is written, enforcer hook doctor {} proves",
            args.agent.as_str()
        )?;
    }
    but.retain(|_| installs || trusting.is_none());
    for why in &but {
        writeln!(
            enforcer_say::err(),
            "enforcer: {} will NOT ask this hook: {why}",
            args.agent.title()
        )?;
    }
    Ok(if but.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What keeps users from turning hooks off, in a file of its own.
fn requirement(plan: &InstallPlan, installs: bool, dry_run: bool) -> Result<(), CliError> {
    let Some(Requirement { says, change }) = plan.requirement(installs)? else {
        return Ok(());
    };
    let mut out = enforcer_say::out();
    write!(out, "{}", change.diff())?;
    if installs && !says {
        writeln!(
            out,
            "{} is there and does not turn hooks on: users can turn them off, until it has\n{REQUIREMENT}",
            change.file().display()
        )?;
    }
    if !dry_run {
        change.make()?;
    }
    Ok(())
}

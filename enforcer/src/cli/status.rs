//! `enforcer status`: what runs on this machine.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::bail;
use clap::Args;
use nix::unistd::geteuid;

use crate::{
    approvals::BreakerState,
    run::status::{self, AgentStatus, HostStatus, InKernel, Launcher},
    say,
};

const EXAMPLES: &str = "\
Examples:
  sudo enforcer status
  sudo enforcer status --json
  sudo enforcer status --json | jq -r '.agents[] | select(.launcher == \"gone\") | .id'

A host is a set of kernel programs, loaded once and shared by all agents; the first run loads it, and it
stays until `enforcer stop --all`. An agent is one governed process tree.

Exit status: 0 done, 2 not root.";

/// Shows the agents that run on this machine, and the kernel programs that judge them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// As JSON: an object with `hosts` and `agents`
    #[arg(long)]
    json: bool,
}

/// Runs `enforcer status`.
///
/// # Errors
///
/// Not root, or standard output cannot be written.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    if !geteuid().is_root() {
        bail!(
            "enforcer status needs root: an agent's user is not to see what others run; use sudo"
        );
    }
    let status = status::status()?;
    let mut out = say::out();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for host in &status.hosts {
        host_text(&mut out, host)?;
    }
    if status.hosts.is_empty() {
        writeln!(
            out,
            "No kernel programs are loaded: the first `enforcer run` loads them."
        )?;
    }
    for agent in &status.agents {
        agent_text(&mut out, agent)?;
    }
    if status.agents.is_empty() {
        writeln!(out, "No agent is running.")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A text in a colour, on a terminal.
fn coloured(text: &str, colour: &str) -> String {
    if io::stdout().is_terminal() {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn host_text(out: &mut impl Write, host: &HostStatus) -> io::Result<()> {
    let HostStatus {
        name, used, slots, ..
    } = host;
    let build = if host.current {
        "this build"
    } else {
        "another build: it goes with its last agent"
    };
    if let Some(broken) = &host.broken {
        writeln!(out, "host {name}: {}: {broken}", coloured("BROKEN", "1;31"))?;
        return Ok(());
    }
    writeln!(
        out,
        "host {name}: {} enforcement, {used} of {slots} slots used ({build})",
        host.level.unwrap_or("no")
    )
}

fn agent_text(out: &mut impl Write, agent: &AgentStatus) -> io::Result<()> {
    let name = agent.name.as_deref().unwrap_or("unknown");
    let processes = agent.processes.len();
    writeln!(out, "{name} [{}]", agent.id)?;
    writeln!(
        out,
        "  {} by {}{}, {processes} process{}{}",
        if agent.mode == "observe" {
            "only observed"
        } else {
            "governed"
        },
        agent.policy.display(),
        agent
            .kernel
            .as_ref()
            .map_or_else(String::new, |kernel| format!(
                " (generation {})",
                kernel.generation
            )),
        if processes == 1 { "" } else { "es" },
        match agent.launcher {
            Launcher::Running => String::new(),
            Launcher::Gone => coloured("; its launcher is gone", "33"),
        }
    )?;
    if agent.user.is_some() || agent.tenant.is_some() {
        let tenant = agent.tenant.as_deref();
        writeln!(
            out,
            "  for {}{}",
            agent.user.as_deref().unwrap_or("nobody"),
            tenant.map_or_else(String::new, |tenant| format!(", tenant {tenant}"))
        )?;
    }
    if let Some(kernel) = &agent.kernel {
        kernel_text(out, kernel)?;
    } else {
        writeln!(out, "  it is just being started, or its host is gone")?;
    }
    if agent.waiting > 0 {
        let what = format!("{} waiting for an answer", agent.waiting);
        writeln!(
            out,
            "  {}: `enforcer approvals list`",
            coloured(&what, "33")
        )?;
    }
    writeln!(out, "  trail {}", agent.trail.display())
}

fn kernel_text(out: &mut impl Write, kernel: &InKernel) -> io::Result<()> {
    let InKernel {
        execs, connects, ..
    } = kernel;
    writeln!(
        out,
        "  execs {} allowed, {} denied; connects {} allowed, {} denied (by the kernel)",
        execs.allowed, execs.denied, connects.allowed, connects.denied
    )?;
    if kernel.lost > 0 {
        let what = format!(
            "{} actions denied for want of room in the buffer",
            kernel.lost
        );
        writeln!(out, "  {}", coloured(&what, "1;31"))?;
    }
    let breaker = &kernel.breaker;
    match breaker.state {
        BreakerState::Closed => {}
        BreakerState::Open => writeln!(out, "  breaker {}", coloured("OPEN", "1;31"))?,
        BreakerState::HalfOpen => writeln!(out, "  breaker {}", coloured("half open", "33"))?,
    }
    for rate in &breaker.rates {
        writeln!(
            out,
            "  {}s{}: {}/{} in {} s",
            rate.of,
            if rate.per_user { " of the user" } else { "" },
            rate.used,
            rate.count,
            rate.window_s
        )?;
    }
    Ok(())
}

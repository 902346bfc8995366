//! `enforcer status`: what runs on this machine.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Args;
use nix::unistd::geteuid;

use super::{
    agent::{governed_words, policy_words},
    breaker::rate_words,
};
use crate::cli::error::{CliError, refuse};
use enforcer_agent::{
    Enforcement,
    status::{self, AgentStatus, CountedBy, HostStatus, InKernel, LauncherState},
};
use enforcer_control::{Counted, words::counted};
use enforcer_decide::breaker::BreakerState;
use enforcer_launch::agent_of;

const EXAMPLES: &str = "\
Examples:
  sudo enforcer status
  sudo enforcer status --json
  sudo enforcer status --json | jq -r '.agents[] | select(.launcher == \"gone\") | .id'

A host is a set of kernel programs, loaded once and shared by all agents; the first run loads it, and it
stays until `enforcer stop --all`. An agent is one governed process tree. Its execs and connects are counted by
its launcher, or, where that does not answer, by the kernel programs, which do not see what the supervisor
refuses before them.

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
pub fn run(args: &StatusArgs) -> Result<ExitCode, CliError> {
    if !geteuid().is_root() {
        refuse!(
            "enforcer status needs root: an agent's user is not to see what others run; use sudo"
        );
    }
    if agent_of(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()).is_some() {
        refuse!("inside an agent nobody sees what others run; ask the operator");
    }
    let status = status::status()?;
    let mut out = enforcer_say::out();
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

/// Everything of an agent, a line for each thing that can be asked of it.
fn agent_text(out: &mut impl Write, agent: &AgentStatus) -> io::Result<()> {
    writeln!(out, "{} [{}]", agent.name, agent.id)?;
    let observed = agent.governed == "observe";
    let how = governed_words(agent.governed);
    let how = if observed {
        coloured(how, "33")
    } else {
        how.to_owned()
    };
    writeln!(out, "  {how}")?;
    if let Some(reason) = &agent.refused {
        let what = if observed {
            format!("not let in, and all would be denied: {reason}")
        } else {
            format!("not let in, and all is denied: {reason}")
        };
        writeln!(out, "  {}", coloured(&what, "1;31"))?;
    }
    if let Some(mode) = agent.mode.as_deref().filter(|mode| *mode != "everywhere") {
        writeln!(out, "  mode {mode}")?;
    }
    if agent.user.is_some() || agent.tenant.is_some() {
        let tenant = agent.tenant.as_deref();
        writeln!(
            out,
            "  for {}{}",
            agent.user.as_deref().unwrap_or("nobody"),
            tenant.map_or_else(String::new, |tenant| format!(", tenant {tenant}"))
        )?;
    }
    writeln!(
        out,
        "  policy {}",
        policy_words(&agent.policy, &agent.policy_sha256)
    )?;
    if !agent.capabilities.is_empty() {
        writeln!(out, "  capabilities: {}", agent.capabilities.join(", "))?;
    }
    let processes = counted(agent.processes.len() as u64, "process");
    writeln!(out, "  {processes}")?;
    let launcher = match agent.launcher {
        LauncherState::Running => None,
        LauncherState::Silent => Some(
            "its launcher does not answer: it is stopped or hangs, and what waits for it waits",
        ),
        LauncherState::Gone if agent.execs_fail => Some(
            "its launcher is gone: it stays governed, nothing can be changed or answered, and no program starts (ENOSYS)",
        ),
        LauncherState::Gone => {
            Some("its launcher is gone: it stays governed, nothing can be changed or answered")
        }
    };
    if let Some(words) = launcher {
        let words = coloured(words, "33");
        writeln!(out, "  {words}; `enforcer stop {}` ends it", agent.id)?;
    }
    if let Some(enforcement) = &agent.enforcement {
        enforcement_text(out, enforcement)?;
    }
    if let Some(kernel) = &agent.kernel {
        kernel_text(out, kernel, observed)?;
    } else {
        writeln!(out, "  it is just being started, or its host is gone")?;
    }
    if agent.waiting > 0 {
        let what = format!(
            "{} for approval waiting",
            counted(agent.waiting as u64, "request")
        );
        writeln!(
            out,
            "  {}: `enforcer approvals list`",
            coloured(&what, "33")
        )?;
    }
    writeln!(out, "  trail {}", agent.trail.display())
}

fn enforcement_text(out: &mut impl Write, enforcement: &Enforcement) -> io::Result<()> {
    let level = enforcement.level.as_str();
    if enforcement.observed {
        writeln!(
            out,
            "  enforcement: nothing is blocked; if it were: {level}"
        )?;
    } else {
        writeln!(out, "  enforcement: {level}: {}", enforcement.describe())?;
    }
    for weakness in enforcement.weaknesses() {
        writeln!(out, "  weaker: {weakness}")?;
    }
    Ok(())
}

fn kernel_text(out: &mut impl Write, kernel: &InKernel, observed: bool) -> io::Result<()> {
    let by = match kernel.counted_by {
        CountedBy::Launcher => "",
        CountedBy::Kernel => {
            " by the kernel programs (what the supervisor refused before them is in the trail alone)"
        }
    };
    for (noun, Counted { allowed, denied }) in
        [("exec", kernel.execs), ("connect", kernel.connects)]
    {
        writeln!(out, "  {noun}s: {allowed} allowed, {denied} denied{by}")?;
    }
    if let Some(count) = kernel.observed.filter(|count| *count > 0) {
        let actions = counted(count, "action");
        writeln!(
            out,
            "  of the allowed {actions} only because it was observed: the policy does not allow them"
        )?;
    }
    if kernel.lost > 0 {
        let events = counted(kernel.lost, "event");
        let what =
            format!("{events} lost for want of room in the buffer; their actions were denied");
        writeln!(out, "  {}", coloured(&what, "1;31"))?;
    } else {
        writeln!(out, "  no events lost")?;
    }
    let breaker = &kernel.breaker;
    let row = counted(breaker.denials, "denial");
    match breaker.state {
        BreakerState::Closed => {
            let opens = match breaker.limit {
                0 => String::new(),
                limit => format!(", {limit} open it"),
            };
            writeln!(out, "  breaker closed: {row} in a row{opens}")?;
        }
        BreakerState::Open | BreakerState::HalfOpen => {
            let (word, colour) = if breaker.state == BreakerState::Open {
                ("OPEN", "1;31")
            } else {
                ("half open", "33")
            };
            let comes = match breaker.state {
                _ if observed => "nothing is blocked, it is only observed",
                BreakerState::HalfOpen => {
                    "one process is let try, to all others everything is denied"
                }
                _ => "everything is denied",
            };
            writeln!(
                out,
                "  breaker {}: after {row} in a row; {comes}",
                coloured(word, colour)
            )?;
        }
    }
    for rate in &breaker.rates {
        writeln!(out, "  rate of {}", rate_words(rate))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_control::{BreakerStatus, RateStatus};

    fn agent() -> AgentStatus {
        AgentStatus {
            enforcement: None,
            id: "reviewer-1-ab".to_owned(),
            name: "reviewer".to_owned(),
            execs_fail: false,
            refused: None,
            cgroup: Some(77),
            user: Some("kim".to_owned()),
            tenant: None,
            policy: "/etc/enforcer/policies/strict.json".into(),
            policy_sha256: "0123456789abcdef".to_owned(),
            trail: "/var/log/enforcer/audit.jsonl".into(),
            capabilities: vec!["deploy".to_owned()],
            governed: "enforce",
            mode: Some("everywhere".to_owned()),
            launcher: LauncherState::Running,
            processes: vec![7],
            waiting: 1,
            kernel: Some(InKernel {
                host: "h".to_owned(),
                slot: 0,
                generation: 3,
                counted_by: CountedBy::Launcher,
                execs: Counted {
                    allowed: 12,
                    denied: 1,
                },
                connects: Counted::default(),
                observed: Some(0),
                lost: 0,
                breaker: BreakerStatus {
                    agent: "reviewer".to_owned(),
                    id: "reviewer-1-ab".to_owned(),
                    state: BreakerState::Closed,
                    denials: 1,
                    limit: 10,
                    since: None,
                    half_open_after_s: None,
                    trial: None,
                    observed: false,
                    rates: vec![RateStatus {
                        of: "exec".to_owned(),
                        per_user: false,
                        used: 12,
                        count: 100,
                        window_s: 3_600,
                    }],
                },
            }),
        }
    }

    fn shown(agent: &AgentStatus) -> String {
        let mut out = Vec::new();
        agent_text(&mut out, agent).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_agent_is_told_whole() {
        assert_eq!(
            shown(&agent()),
            "\
reviewer [reviewer-1-ab]
  enforced: what its policy denies is blocked
  for kim
  policy /etc/enforcer/policies/strict.json (sha256 0123456789ab)
  capabilities: deploy
  1 process
  execs: 12 allowed, 1 denied
  connects: 0 allowed, 0 denied
  no events lost
  breaker closed: 1 denial in a row, 10 open it
  rate of execs: 12/100 in 1 h
  1 request for approval waiting: `enforcer approvals list`
  trail /var/log/enforcer/audit.jsonl
"
        );
    }

    #[test]
    fn what_is_only_observed_or_without_its_launcher_is_not_told_otherwise() {
        let mut agent = agent();
        agent.governed = "observe";
        agent.launcher = LauncherState::Gone;
        agent.execs_fail = true;
        agent.refused = Some("no trust".to_owned());
        agent.mode = Some("disabled".to_owned());
        let kernel = agent.kernel.as_mut().unwrap();
        kernel.counted_by = CountedBy::Kernel;
        kernel.breaker.state = BreakerState::Open;
        kernel.lost = 1;
        let said = shown(&agent);
        for words in [
            "only observed",
            "mode disabled",
            "all would be denied: no trust",
            "no program starts (ENOSYS)",
            "`enforcer stop reviewer-1-ab` ends it",
            "1 denied by the kernel programs (",
            "breaker OPEN: after 1 denial in a row; nothing is blocked",
            "1 event lost",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!said.contains("everything is denied"), "{said}");
        agent.launcher = LauncherState::Silent;
        let said = shown(&agent);
        assert!(
            said.contains("does not answer") && !said.contains("is gone"),
            "{said}"
        );
    }
}

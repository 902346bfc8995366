//! The agent's first process: made in its governed cgroup, where it waits until all is there that will judge it.

use std::path::Path;

use enforcer_common::own::Own;

use super::{command::ResolvedCommand, error::Result, governed::GovernedAgent, plan::RunPlan};
use enforcer_kernel::{events::Feed, host::Host};
use enforcer_launch::{OpenFiles, OwnProgram, Pending, SpawnPlan, spawn};
use enforcer_seccomp::{IPC, SyscallGroups};

/// The process, and what the kernel was told of it.
pub struct FirstProcess {
    /// It waits.
    pub pending: Pending,
    /// Its number: its first exec is the operator's.
    pub pid: u32,
    /// What the kernel will tell of it.
    pub feed: Feed,
}

impl FirstProcess {
    /// Makes it: in a cgroup that is governed already, and forked while this process has one thread. It has to be known to
    /// the kernel before it is let go, since its first exec, and what the launcher itself starts in it, are let pass.
    /// The host has done its part
    /// then.
    ///
    /// # Errors
    ///
    /// A filter cannot be made, the process cannot be had, or the kernel does not take what it is told.
    pub fn make(
        plan: &RunPlan<'_>,
        host: Host,
        governed: &GovernedAgent,
        audit: &Path,
    ) -> Result<Self> {
        let ResolvedCommand {
            identity,
            directory,
            variables,
            program,
            words,
        } = &plan.command;
        let GovernedAgent {
            cgroup,
            basis,
            first,
            own,
            slot,
            ..
        } = governed;
        // Each process that waits for an answer takes a descriptor of ours.
        let open_files = OpenFiles::present()?;
        if !plan.options.governing.keep {
            open_files.raise()?;
        }
        let policy = &plan.terms.policy;
        let confinement = plan.command.confinement(audit, policy)?;
        let groups = SyscallGroups::shipped()?;
        let loosened = &basis.open;
        // One filter in either case: only one may have a listener, and each costs every system call.
        let (filters, notify) = if first.supervised() {
            let filter = groups.filter_with_listener(loosened, first.notified)?;
            (Vec::new(), Some(filter))
        } else {
            (vec![groups.filter(loosened)?], None)
        };
        let pending = spawn(&SpawnPlan {
            program: program.clone(),
            argv: words.clone(),
            env: variables.clone(),
            directory: directory.clone(),
            identity,
            cgroup,
            domain: basis.machine.domain.clone(),
            filters,
            notify,
            open_files: Some(open_files),
            confinement: confinement.as_ref(),
            own_ipc: !loosened.iter().any(|group| group == IPC),
        })?;
        let pid = pending.pid().as_raw().unsigned_abs();
        slot.agent.set_operator(pid)?;
        (slot.agent).set_own(&own.as_ref().map_or(Own::NONE, OwnProgram::own))?;
        let feed = host.feed(&slot.agent)?;
        drop(host);
        Ok(Self { pending, pid, feed })
    }
}

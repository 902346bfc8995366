//! The start self-test: one exec and one connect that must be denied, under programs loaded and attached just
//! as the agent's are. If either passes, nothing may call itself enforcing.

use anyhow::{Context, bail};

use crate::{
    kernel::instance::Instance,
    launch::{AgentCgroup, Probe},
    policy::compile::{Tables, compile_closed},
};

/// Slot of the self-test.
const SLOT: u32 = 1;

/// The self-test's tables: everything is denied.
///
/// # Errors
///
/// Never for a sound build.
pub fn tables() -> anyhow::Result<Tables> {
    compile_closed(0).context("the self-test's policy")
}

/// Attempts both in `cgroup`.
///
/// # Errors
///
/// One of them passed, or could not be attempted.
pub fn attempt(instance: &mut Instance, cgroup: &AgentCgroup) -> anyhow::Result<()> {
    // Detached again when the links are dropped.
    let _links = instance.govern(cgroup.open()?, cgroup.id(), SLOT)?;
    let probe = Probe::attempt(cgroup).context("the self-test could not be run")?;
    if !probe.exec_denied {
        bail!(
            "self-test: an exec that the policy denies was not stopped ({}); nothing is enforced, so nothing was started. Run `enforcer doctor`",
            probe.exec_outcome
        );
    }
    if !probe.connect_denied {
        bail!(
            "self-test: a connect that the policy denies was not stopped ({}); nothing is enforced, so nothing was started. Run `enforcer doctor`",
            probe.connect_outcome
        );
    }
    Ok(())
}

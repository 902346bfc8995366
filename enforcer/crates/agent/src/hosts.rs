//! The host that a run joins: found, or loaded and proven by this run, while all others wait.

use super::{error::Result, in_force::InForce, selftest};
use enforcer_kernel::{
    KernelError,
    host::{self, Host, LockedHosts},
    instance::{Instance, Types},
};
use enforcer_launch::{AGENT_LEVEL, AgentCgroup, CgroupRoot, LandlockDomain};

/// What is to be known of the kernel to load a host, if one will have to be loaded. Makes nothing.
///
/// # Errors
///
/// The kernel does not show it.
pub fn types() -> Result<Option<Types>, KernelError> {
    if host::seems_there(AGENT_LEVEL) {
        return Ok(None);
    }
    Types::read().map(Some)
}

/// Finds the host of this build, or loads it: what does not refuse is not in force there, and where something must
/// refuse that does not there is no host.
///
/// # Errors
///
/// The kernel lacks something, or a self-test failed. Nothing is left behind.
pub fn find_or_load(
    held: &LockedHosts,
    root: &CgroupRoot,
    id: &str,
    kernel: Option<Types>,
    domain: &LandlockDomain,
) -> Result<Host> {
    if let Some(host) = Host::find(held, AGENT_LEVEL) {
        return Ok(host);
    }
    let mut instance = match kernel {
        Some(types) => Instance::load_with(AGENT_LEVEL, types)?,
        None => Instance::load(AGENT_LEVEL)?,
    };
    let probe = Probe(AgentCgroup::create(root, &format!("{id}.probe"))?);
    let in_force = selftest::prove(&mut instance, probe.0.path(), domain)?;
    drop(probe);
    Ok(instance.pin(held, &in_force.seen())?)
}

/// What is in force for the agents of a host.
pub fn in_force(host: &Host) -> InForce {
    InForce::of(host.seen())
}

/// The cgroup of the self-test, taken away when dropped.
struct Probe(AgentCgroup);

impl Drop for Probe {
    fn drop(&mut self) {
        if let Err(error) = self
            .0
            .kill_all(super::scene::KILL_PATIENCE)
            .and_then(|()| self.0.remove())
        {
            enforcer_say::say!("enforcer: the self-test's cgroup: {error}");
        }
    }
}

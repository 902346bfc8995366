//! What a start has made so far, so that a start that fails takes it away again. What an agent has on the machine is made
//! by way of it alone.

use std::{fs::File, io::Read, process, time::Duration};

use super::enforcement::Enforcement;
use super::error::{AgentError, Result};
use super::state::{AgentRecord, StateDirectory};
use enforcer_decide::Principal;
use enforcer_kernel::{
    KernelError,
    agent::{Agent, AgentPlan},
    host::{Host, LockedHosts},
};
use enforcer_launch::{AgentCgroup, CgroupRoot};
use enforcer_say::say;

/// How long killed processes may take to die.
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What has been made so far; dropped, it is all taken away. Whoever works in it (the agent's process, the desk, the
/// supervisor) has to be gone by then.
#[derive(Debug)]
pub struct Scene {
    id: String,
    /// The agent's state, and what was written there.
    state: StateDirectory,
    facts: AgentRecord,
    cgroup: Option<AgentCgroup>,
    /// The agent in the kernel.
    seated: Option<Agent>,
    kept: bool,
}

impl Scene {
    /// Gives the agent an id and writes its state. That comes first: whoever finds it without its launcher takes the rest
    /// away.
    ///
    /// # Errors
    ///
    /// The state cannot be written.
    pub fn open(facts: AgentRecord, principal: &Principal) -> Result<Self> {
        let id = new_id(principal.agent.as_deref())?;
        Ok(Self {
            state: StateDirectory::create(&id, &facts, principal)?,
            id,
            facts,
            cgroup: None,
            seated: None,
            kept: false,
        })
    }

    /// The name of the agent's cgroup, pins and state.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The agent's state.
    pub fn state(&self) -> &StateDirectory {
        &self.state
    }

    /// What was written there.
    pub fn facts(&self) -> &AgentRecord {
        &self.facts
    }

    /// Writes down what is in force for the agent.
    ///
    /// # Errors
    ///
    /// The state cannot be written.
    pub fn enforced_by(&mut self, enforcement: Enforcement) -> Result<()> {
        self.facts.enforcement = Some(enforcement);
        self.state.note(&self.facts)
    }

    /// Makes the agent's cgroup.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn make_cgroup(&mut self, root: &CgroupRoot) -> Result<AgentCgroup> {
        let cgroup = AgentCgroup::create(root, &self.id)?;
        self.cgroup = Some(cgroup.clone());
        Ok(cgroup)
    }

    /// Takes a slot in a host, which is written down before, and gives the host's lock back.
    ///
    /// # Errors
    ///
    /// There is no slot left, or the tables find no room.
    pub fn take_slot(
        &mut self,
        host: &Host,
        held: LockedHosts,
        plan: &AgentPlan<'_>,
    ) -> Result<Agent> {
        let agent = host.admit(held, plan, |place| {
            // Not written down, it does not get one.
            self.state.seat(&host.name(), place).map_err(|error| {
                KernelError::map("SLOTS", format!("the agent's state: {}", error.whole()))
            })
        })?;
        self.seated = Some(agent.clone());
        Ok(agent)
    }

    /// Leaves everything in place.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let complain = |what: &dyn std::fmt::Display| {
            say!("enforcer: while cleaning up {}: {what}", self.id);
        };
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup
                .kill_all(KILL_PATIENCE)
                .and_then(|()| cgroup.remove())
        {
            complain(&error);
        }
        if let Some(agent) = &self.seated
            && let Err(error) = agent.free()
        {
            complain(&error);
        }
        if let Err(error) = self.state.remove() {
            complain(&error);
        }
    }
}

/// A secret number from the kernel.
fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(AgentError::system("/dev/urandom cannot be read"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// A new name for the agent's cgroup and state.
fn new_id(agent: Option<&str>) -> Result<String> {
    let stem: String = agent
        .unwrap_or("agent")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        // A cgroup's name begins with a letter or a digit.
        .skip_while(|c| *c == '-')
        .take(24)
        .collect();
    let stem = if stem.is_empty() { "agent" } else { &stem };
    let random = random()? & 0xffff_ffff;
    Ok(format!("{stem}-{}-{random:08x}", process::id()))
}

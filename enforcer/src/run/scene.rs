//! What a start has made so far, so that a start that fails takes it away again.

use std::time::Duration;

use super::state::State;
use crate::say::say;
use crate::{
    kernel::{agent::Agent, attach::PinDir},
    launch::AgentCgroup,
};

/// How long killed processes may take to die.
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What has been made so far; dropped, it is all taken away.
#[derive(Debug)]
pub struct Scene {
    id: String,
    /// Cgroups, in the order in which they were made.
    pub cgroups: Vec<AgentCgroup>,
    /// The links of the agent's cgroup.
    pub pins: Option<PinDir>,
    /// The agent in the kernel.
    pub agent: Option<Agent>,
    /// The agent's state.
    pub state: Option<State>,
    kept: bool,
}

impl Scene {
    /// Nothing has been made for agent `id`.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            cgroups: Vec::new(),
            pins: None,
            agent: None,
            state: None,
            kept: false,
        }
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
        for cgroup in &self.cgroups {
            if let Err(error) = cgroup
                .kill_all(KILL_PATIENCE)
                .and_then(|()| cgroup.remove())
            {
                complain(&error);
            }
        }
        if let Some(pins) = &self.pins
            && let Err(error) = pins.remove()
        {
            complain(&error);
        }
        if let Some(agent) = &self.agent
            && let Err(error) = agent.free()
        {
            complain(&error);
        }
        if let Some(state) = self.state.take()
            && let Err(error) = state.remove()
        {
            complain(&error);
        }
    }
}

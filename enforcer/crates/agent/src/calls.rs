//! The calls that the agent's filter stops, and how each is answered.

use tokio::sync::mpsc::UnboundedSender;

use super::error::AgentError;
use enforcer_seccomp::Listener;

/// Stopped calls. Each is answered once; where that fails the run ends.
#[derive(Debug)]
pub struct Calls {
    /// Where they come from.
    pub listener: Listener,
    failures: UnboundedSender<AgentError>,
}

impl Calls {
    /// Calls of this listener. A failure goes to `failures`, where it ends the run.
    pub fn new(listener: Listener, failures: UnboundedSender<AgentError>) -> Self {
        Self { listener, failures }
    }

    /// Whether the caller still waits in this call: what was read of its memory and its descriptors belongs to the call only
    /// then.
    pub fn is_valid(&self, id: u64) -> bool {
        self.listener.is_valid(id)
    }

    /// Lets a call go on to the kernel's judgement.
    pub fn go_on(&self, id: u64) {
        if let Err(error) = self.listener.allow(id) {
            self.fail(error.into());
        }
    }

    /// Has a call fail.
    pub fn refuse(&self, id: u64, errno: i32) {
        if let Err(error) = self.listener.refuse(id, errno) {
            self.fail(error.into());
        }
    }

    /// Ends the run: what cannot be recorded or answered must not go on.
    pub fn fail(&self, error: AgentError) {
        // The main loop is gone when the run has ended already.
        let _ = self.failures.send(error);
    }
}

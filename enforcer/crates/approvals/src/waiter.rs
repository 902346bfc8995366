//! Who waits: a call that is made exactly once.

use std::fmt;

use enforcer_decide::approval::{Answer, Ending};

/// What is called with the answer: exactly once, also when the desk breaks down.
pub struct Waiter {
    pub(super) request: String,
    call: Option<Box<dyn FnOnce(Answer) + Send>>,
}

impl Waiter {
    /// Wraps the call. It is made on the desk's thread and must return at once.
    pub fn new(call: impl FnOnce(Answer) + Send + 'static) -> Self {
        Self {
            request: String::new(),
            call: Some(Box::new(call)),
        }
    }

    pub(super) fn tell(mut self, answer: Answer) {
        if let Some(call) = self.call.take() {
            call(answer);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call(Answer {
                request: std::mem::take(&mut self.request),
                ending: Ending::Refused("The approvals desk has ended".to_owned()),
            });
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

/// Names one waiter of one desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaiterId(pub(super) u64);

//! The bounds of a call: whatever happens inside, an answer comes out, in time.

use std::{
    panic,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::{Answered, format::Shape};

/// How long a call may take. Agents wait for 30 seconds or more, and go on when their patience ends.
pub const PATIENCE: Duration = Duration::from_secs(22);
/// Bytes of the stack that a call has.
const STACK: usize = 16 << 20;

/// Where the work broke down.
static BROKE_AT: Mutex<String> = Mutex::new(String::new());

/// What the answer has to look like, as far as that is known by now.
#[derive(Clone, Debug)]
pub struct KnownShape(Arc<Mutex<Option<Shape>>>);

impl KnownShape {
    /// From now on it is known.
    pub fn tell(&self, shape: &Shape) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shape.clone());
    }

    fn shape(&self) -> Option<Shape> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Does the work on a thread of its own. A panic in it, and work that does not end in time, are answered with a denial.
pub fn bounded(
    shape: Option<Shape>,
    work: impl FnOnce(&KnownShape) -> Answered + Send + 'static,
) -> Answered {
    within(PATIENCE, shape, work)
}

fn within(
    patience: Duration,
    shape: Option<Shape>,
    work: impl FnOnce(&KnownShape) -> Answered + Send + 'static,
) -> Answered {
    let told = KnownShape(Arc::new(Mutex::new(shape)));
    // Standard error is for the reason alone.
    panic::set_hook(Box::new(|info| {
        let mut place = BROKE_AT.lock().unwrap_or_else(PoisonError::into_inner);
        *place = info.location().map(ToString::to_string).unwrap_or_default();
    }));
    let (sender, receiver) = mpsc::channel();
    let inner = told.clone();
    let spawned = thread::Builder::new()
        .name("hook".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // Nobody listens any more when the time is up.
            let _ = sender.send(work(&inner));
        });
    let reason = match spawned {
        Err(error) => format!("The hook cannot start a thread, so it denies: {error}"),
        Ok(_) => match receiver.recv_timeout(patience) {
            Ok(answered) => return answered,
            Err(mpsc::RecvTimeoutError::Timeout) => format!(
                "The hook did not come to a decision within {} s, so it denies",
                patience.as_secs()
            ),
            Err(mpsc::RecvTimeoutError::Disconnected) => format!(
                "The hook broke down, so it denies; report this as a defect ({})",
                BROKE_AT.lock().unwrap_or_else(PoisonError::into_inner)
            ),
        },
    };
    Answered::deny(told.shape().as_ref(), &reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn a_panic_is_answered_with_a_denial() {
        let answered = bounded(None, |told| {
            told.tell(&Format::Gemini.shape());
            panic!("on purpose");
        });
        assert_eq!(answered.code, 0);
        assert!(
            answered
                .stdout
                .starts_with(r#"{"decision":"deny","reason":"The hook broke down"#)
        );
        assert!(answered.stdout.contains("guard.rs"), "{}", answered.stdout);
        let answered = bounded(None, |_| panic!("before anything is known"));
        assert_eq!(answered.code, 2);
        assert!(answered.stdout.is_empty() && answered.stderr.contains("broke down"));
    }

    #[test]
    fn work_that_does_not_end_is_answered_with_a_denial() {
        let shape = Some(Format::Claude.shape());
        let answered = within(Duration::from_millis(50), shape, |_| {
            thread::sleep(Duration::from_mins(10));
            Answered::by_status("late")
        });
        assert!(answered.stdout.contains(r#""permissionDecision":"deny""#));
    }
}

//! What waits for a person in a session, and the person's answers.

use std::{
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    machine::patience,
    session::{Ended, Running, enforcer},
};

/// Between two looks at what is pending.
const PAUSE: Duration = Duration::from_millis(30);

/// A request as `enforcer approvals list --json` shows it.
#[derive(Clone, Debug)]
pub struct Request(pub Value);

impl Request {
    /// A member as text, empty if it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// Where it stands: `pending`, `approved`, …
    pub fn state(&self) -> &str {
        self.text("state")
    }

    /// Approves it as root, with these options.
    ///
    /// # Panics
    ///
    /// When the answer has no effect.
    pub fn approve(&self, options: &[&str]) {
        self.answer("approve", options);
    }

    /// Denies it as root.
    ///
    /// # Panics
    ///
    /// When the answer has no effect.
    pub fn deny(&self, options: &[&str]) {
        self.answer("deny", options);
    }

    fn answer(&self, verb: &str, options: &[&str]) {
        let output = approvals(&[&[verb, self.id()], options].concat());
        assert!(output.status.success(), "{verb}: {output:?}");
    }
}

/// Runs `enforcer approvals` as root.
///
/// # Panics
///
/// When it cannot be started.
pub fn approvals(words: &[&str]) -> Output {
    enforcer().arg("approvals").args(words).output().unwrap()
}

/// The agent's requests; other runs on this machine have theirs in the same list.
fn requests_of(agent: &str, words: &[&str]) -> Vec<Request> {
    let output = approvals(words);
    // Another run may be ending just now, and only its desk was there to refuse: nothing pending.
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    all.into_iter()
        .filter(|request| request["agent"] == agent)
        .map(Request)
        .collect()
}

impl Running {
    /// What waits, in the order of the list.
    pub fn pending(&self) -> Vec<Request> {
        requests_of(self.agent(), &["list", "--json"])
    }

    /// All requests, also those that have ended, newest first.
    pub fn requests(&self) -> Vec<Request> {
        requests_of(self.agent(), &["list", "--all", "--json"])
    }

    /// Waits until so many requests are pending.
    ///
    /// # Panics
    ///
    /// When there are not so many in time.
    pub fn await_pending(&self, count: usize) -> Vec<Request> {
        let deadline = Instant::now() + patience();
        loop {
            let pending = self.pending();
            if pending.len() == count {
                return pending;
            }
            if Instant::now() > deadline {
                self.destroy();
                panic!(
                    "{} pending, not {count}; stdout {:?}, stderr {:?}",
                    pending.len(),
                    self.stdout(),
                    self.stderr()
                );
            }
            thread::sleep(PAUSE);
        }
    }

    /// Waits for the only request.
    ///
    /// # Panics
    ///
    /// When there is none in time.
    pub fn request(&self) -> Request {
        self.await_pending(1).remove(0)
    }

    /// Where requests are answered.
    ///
    /// # Panics
    ///
    /// When it is not there.
    pub fn socket(&self) -> PathBuf {
        self.left_over()
            .iter()
            .filter(|path| path.starts_with("/run/enforcer"))
            .map(|path| path.join("approvals.sock"))
            .find(|path| path.exists())
            .expect("the run has a socket for answers")
    }

    /// Waits for a file that the command makes.
    ///
    /// # Panics
    ///
    /// When it is not there in time.
    pub fn await_file(&self, path: &Path) {
        self.until(&path.display().to_string(), |_| path.exists());
    }
}

impl Ended {
    /// All requests of the session, newest first.
    pub fn requests(&self) -> Vec<Request> {
        requests_of(self.agent(), &["list", "--all", "--json"])
    }

    /// The only one.
    ///
    /// # Panics
    ///
    /// When there is another number of them.
    pub fn request(&self) -> Request {
        let mut all = self.requests();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

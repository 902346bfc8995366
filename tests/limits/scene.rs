//! A session with a forbidden program and a fine one, and what its trail tells of the breaker.

use std::{path::PathBuf, process::Output};

use enforcer_tests::{Ended, Line, Running, Session, Trail, enforcer, open, probe};
use serde_json::{Value, json};

/// Why the forbidden program is denied.
pub const BY_RULE: &str = "It is forbidden [forbidden]";
/// Why an open breaker denies.
pub const OPEN: &str = "Circuit breaker tripped (too many denials)";

/// Forbids `forbidden` and connects to 127.0.0.9, allows the rest; with further sections.
pub fn policy(sections: &Value) -> Value {
    let mut policy = open();
    policy["exec"]["rules"] = json!([{
        "id": "forbidden", "decision": "deny", "justification": "It is forbidden",
        "argv": {"program": "forbidden"},
    }]);
    for (name, section) in sections.as_object().unwrap() {
        policy[name] = section.clone();
    }
    policy
}

/// A session and the paths of its programs.
pub struct Scene {
    pub session: Session,
    pub spree: PathBuf,
    pub forbidden: PathBuf,
    pub fine: PathBuf,
}

impl Scene {
    pub fn new(policy: &Value) -> Self {
        Self::of(Session::new(policy))
    }

    pub fn of(session: Session) -> Self {
        let victim = probe!("victim");
        Self {
            spree: session.place(probe!("spree"), "bin/spree"),
            forbidden: session.place(victim, "bin/forbidden"),
            fine: session.place(victim, "bin/fine"),
            session,
        }
    }

    /// Steps of `spree`, with `F` for the forbidden program and `A` for the fine one.
    fn command(&self, steps: &[&str]) -> Vec<String> {
        let spree = self.spree.display().to_string();
        let word = |word: &str| match word {
            "F" => self.forbidden.display().to_string(),
            "A" => self.fine.display().to_string(),
            word => word.to_owned(),
        };
        let step = |step: &&str| step.split(' ').map(word).collect::<Vec<_>>().join(" ");
        [spree].into_iter().chain(steps.iter().map(step)).collect()
    }

    pub fn run(&self, steps: &[&str]) -> Ended {
        self.session.run(self.command(steps))
    }

    pub fn start(&self, steps: &[&str]) -> Running {
        self.session.start(self.command(steps))
    }
}

/// Reasons of the denials in their order; a trip is `trip` and its count.
pub fn told(trail: &Trail) -> Vec<String> {
    trail
        .lines
        .iter()
        .filter_map(|line| match line.0["event"].as_str() {
            Some("denial") => Some(line.reason().to_owned()),
            Some("circuit_breaker_trip") => Some(trip(line)),
            _ => None,
        })
        .collect()
}

/// A trip as [`told`] gives it, its words checked.
fn trip(line: &Line) -> String {
    let count = line.0["denial_count"].as_u64().unwrap();
    assert_eq!(
        line.reason(),
        format!("Circuit breaker tripped after {count} denials")
    );
    format!("trip {count}")
}

/// So many times the same.
pub fn times(count: usize, reason: &str) -> Vec<String> {
    vec![reason.to_owned(); count]
}

/// Runs `enforcer breaker` as root.
pub fn breaker(words: &[&str]) -> Output {
    enforcer().arg("breaker").args(words).output().unwrap()
}

/// How the breaker of a run stands.
pub fn status(agent: &str) -> Value {
    let output = breaker(&["status", agent, "--json"]);
    assert!(output.status.success(), "{output:?}");
    let mut all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// A rate of [`status`].
pub fn used(status: &Value, of: &str, per_user: bool) -> u64 {
    let rates = status["rates"].as_array().unwrap();
    let rate = rates
        .iter()
        .find(|rate| rate["of"] == of && rate["per_user"] == per_user);
    rate.unwrap()["used"].as_u64().unwrap()
}

/// Allowed execs of the program `fine`.
pub fn fine(trail: &Trail) -> usize {
    let execs = trail.execs();
    execs
        .filter(|line| !line.denied() && line.command().ends_with("/fine"))
        .count()
}

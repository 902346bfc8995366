//! An agent that does what it is told, for what is changed while it runs.

use std::{cell::Cell, fs, path::PathBuf, process::Output};

use enforcer_tests::{Running, Session, enforcer, root};
use serde_json::{Value, json};

use crate::fresh::both;

/// An agent that does what it is told, one thing after the other.
pub struct Obedient {
    pub session: Session,
    pub running: Running,
    /// How many scripts it was given.
    pub asked: Cell<usize>,
}

/// Takes a script from q0, q1, … as soon as it is there, and leaves what it said in r0, r1, ….
const OBEYS: &str = r#"
n=0
while [ ! -e end ]; do
    if [ -e "q$n" ]; then
        { . "./q$n"; echo "status $?"; } > part 2>&1
        mv part "r$n"
        n=$((n + 1))
    else
        sleep 0.02
    fi
done"#;

impl Obedient {
    /// `None`, recorded as skipped, where there is no root.
    pub fn start(policy: &Value) -> Option<Self> {
        Self::of(|| Session::new(policy))
    }

    pub fn of(session: impl FnOnce() -> Session) -> Option<Self> {
        if !root() {
            return None;
        }
        let session = session();
        let running = session.start(["/bin/sh", "-c", OBEYS]);
        let agent = Self {
            session,
            running,
            asked: Cell::new(0),
        };
        assert_eq!(agent.does("echo ready").0, "ready\n");
        Some(agent)
    }

    /// Has it do something: what that said, and its exit status.
    pub fn does(&self, script: &str) -> (String, i32) {
        let number = self.asked.replace(self.asked.get() + 1);
        let work = self.session.work();
        let [new, question, reply] =
            ["new", "q", "r"].map(|stem| work.join(format!("{stem}{number}")));
        fs::write(&new, script).unwrap();
        fs::rename(&new, question).unwrap();
        self.running.until(script, |_| reply.exists());
        let said = fs::read_to_string(reply).unwrap();
        // What a process is told of its denial can come behind it.
        let (said, status) = said.rsplit_once("status ").unwrap();
        let (status, more) = status.split_once('\n').unwrap();
        (said.to_owned() + more, status.parse().unwrap())
    }

    /// Another policy's file beside the agent's own.
    pub fn file(&self, name: &str, policy: &Value) -> PathBuf {
        let file = self.session.directory().join(name);
        fs::write(&file, policy.to_string()).unwrap();
        file
    }

    pub fn reload(&self, options: &[&str]) -> Output {
        let mut words = vec!["reload", self.running.agent()];
        words.extend(options);
        enforcer().args(words).output().unwrap()
    }

    pub fn set(&self, options: &[&str]) -> Output {
        let mut words = vec!["agent", "set", self.running.agent()];
        words.extend(options);
        enforcer().args(words).output().unwrap()
    }

    pub fn end(self) -> enforcer_tests::Ended {
        fs::write(self.session.work().join("end"), "").unwrap();
        self.running.wait()
    }
}

/// Asserts that a change was made, and gives what was said of it.
pub fn made(output: &Output) -> String {
    let (out, err) = both(output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    out + &err
}

/// Asserts that nothing was changed, and gives why.
pub fn refused(output: &Output) -> String {
    let (out, err) = both(output);
    assert_eq!(output.status.code(), Some(2), "{out}{err}");
    assert!(err.contains("unchanged: "), "{err}");
    err
}

/// Allows all, but one program and the addresses of one network.
pub fn but(program: &str, network: &str) -> Value {
    json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": format!("no-{program}"), "decision": "deny", "argv": {"program": program}},
        ]},
        "connect": {"default": "allow", "rules": [
            {"id": format!("no-{network}"), "decision": "deny", "hosts": [network]},
        ]},
        "breaker": {"denials": 1_000_000},
    })
}

pub const DENIED: i32 = 126;

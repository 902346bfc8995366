//! Many ways to one forbidden program, tried in two sessions: one whose policy allows everything, where each way
//! must lead there, and one that forbids the program, where none may.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::session::{Ended, Session};

/// One way to the forbidden program.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its name; `$TAG` in the script.
    pub name: &'static str,
    /// A shell script that reaches the program.
    pub script: String,
}

/// A list of attempts.
///
/// Each script finds in its environment `TAG` (the attempt's name) and `MARK` (the file that the forbidden
/// program appends to when it really runs), and runs in a fresh directory of its own.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    list: Vec<Attempt>,
}

/// What became of attempts in one session.
#[derive(Debug)]
pub struct Outcomes {
    /// The session.
    pub ended: Ended,
    marks: PathBuf,
    results: PathBuf,
}

impl Attempts {
    /// No attempts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an attempt.
    #[must_use]
    pub fn with(mut self, name: &'static str, script: impl Into<String>) -> Self {
        self.list.push(Attempt {
            name,
            script: script.into(),
        });
        self
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().map(|attempt| attempt.name)
    }

    /// Runs all attempts in one session.
    ///
    /// # Panics
    ///
    /// When the session cannot be run.
    pub fn run(&self, session: &Session) -> Outcomes {
        let directory = session.directory();
        let fresh = (0..u32::MAX)
            .map(|number| directory.join(format!("attempts-{number}")))
            .find(|path| !path.exists())
            .unwrap();
        let scripts = fresh.join("scripts");
        fs::create_dir_all(&scripts).unwrap();
        for shared in ["marks", "results", "places"] {
            let path = fresh.join(shared);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        }
        let mut driver = String::new();
        for attempt in &self.list {
            let script = scripts.join(attempt.name);
            fs::write(&script, &attempt.script).unwrap();
            write!(
                driver,
                "mkdir {base}/places/{name}\n\
                 cd {base}/places/{name}\n\
                 TAG={name} MARK={base}/marks/{name} PATH=.:$PATH sh {script} >{base}/results/{name}.out 2>&1\n\
                 echo $? >{base}/results/{name}\n",
                base = fresh.display(),
                name = attempt.name,
                script = script.display(),
            )
            .unwrap();
        }
        let path = scripts.join("driver");
        fs::write(&path, driver).unwrap();
        let ended = session.run([Path::new("/bin/sh"), &path]);
        Outcomes {
            ended,
            marks: fresh.join("marks"),
            results: fresh.join("results"),
        }
    }

    /// Shows that every attempt reaches the program when nothing is forbidden, and none when `policy` is in
    /// force. Returns the second session.
    ///
    /// # Panics
    ///
    /// When an attempt fails in the first or succeeds in the second.
    pub fn prove(&self, session: &Session, policy: &Value) -> Outcomes {
        // The same system-call groups are open in both.
        let mut free = open();
        if let Some(syscalls) = policy.get("syscalls") {
            free["syscalls"] = syscalls.clone();
        }
        session.set_policy(&free);
        let free = self.run(session);
        let lame: Vec<_> = self.names().filter(|name| free.ran(name) == 0).collect();
        assert!(
            lame.is_empty(),
            "attempts that reach nothing even where all is allowed: {:#?}",
            free.said(&lame)
        );
        session.set_policy(policy);
        let governed = self.run(session);
        let won: Vec<_> = self.names().filter(|name| governed.ran(name) > 0).collect();
        assert!(
            won.is_empty(),
            "the forbidden program ran: {:#?}\n{}",
            governed.said(&won),
            governed.ended.trail.shown()
        );
        governed
    }
}

/// A policy that allows everything, also what is denied unless a policy says otherwise. System-call groups are shut.
pub fn open() -> Value {
    json!({
        "version": "2",
        "exec": {"default": "allow", "fileless": "allow", "loader": "allow"},
        "connect": {"default": "allow"},
    })
}

/// The policy with these groups of `policies/built-in/syscall-groups.json` open.
#[must_use]
pub fn loosening(mut policy: Value, groups: &[&str]) -> Value {
    let allowed: Vec<Value> = groups
        .iter()
        .map(|name| json!({"name": name, "reason": "what stands behind it is to be seen"}))
        .collect();
    policy["syscalls"] = json!({"allow": allowed});
    policy
}

/// The policy with all groups of `policies/built-in/syscall-groups.json` shut: also those that are open where processes outside
/// are out of reach.
#[must_use]
pub fn shutting(mut policy: Value) -> Value {
    policy["syscalls"]["deny"] = json!([{"name": "ptrace", "reason": "it is to be seen"}]);
    policy
}

/// A policy that allows everything but the program `forbidden`, by the rule of that name.
pub fn forbidding() -> Value {
    json!({
        "version": "2",
        "exec": {"default": "allow", "rules": [
            {"id": "forbidden", "decision": "deny", "argv": {"program": "forbidden"}},
        ]},
        "connect": {"default": "allow"},
    })
}

impl Outcomes {
    /// How often the forbidden program ran in an attempt.
    pub fn ran(&self, name: &str) -> usize {
        fs::read(self.marks.join(name)).map_or(0, |marks| marks.len())
    }

    /// The exit status of an attempt's script.
    ///
    /// # Panics
    ///
    /// When the script did not run.
    pub fn status(&self, name: &str) -> i32 {
        let text = fs::read_to_string(self.results.join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}; {}", self.ended.stderr));
        text.trim().parse().unwrap()
    }

    /// What an attempt printed.
    pub fn output(&self, name: &str) -> String {
        let bytes = fs::read(self.results.join(format!("{name}.out"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn said(&self, names: &[&'static str]) -> BTreeMap<&'static str, String> {
        names
            .iter()
            .map(|name| (*name, self.output(name)))
            .collect()
    }
}

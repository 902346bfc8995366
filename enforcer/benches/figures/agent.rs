//! The place of a bench, and agents in it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use enforcer_trail::{Entry, Reader};
use tempfile::TempDir;

use crate::worker::{Role, Worker};

/// The programs and files of a bench.
#[derive(Debug)]
pub struct Bench {
    /// Fewer rounds.
    pub quick: bool,
    place: TempDir,
    worker: PathBuf,
}

/// The `enforcer` that cargo built beside the bench.
pub const ENFORCER: &str = env!("CARGO_BIN_EXE_enforcer");

impl Bench {
    /// Makes a directory that only root can write, which is where policies and trails have to lie.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn new(quick: bool) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::Builder::new()
            .prefix("enforcer-bench.")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in("/var/lib")
            .context("no directory can be made in /var/lib")?;
        // The agent's user may not be able to reach the build directory.
        let worker = place.path().join("worker");
        std::fs::copy(std::env::current_exe()?, &worker)?;
        Ok(Self {
            quick,
            place,
            worker,
        })
    }

    /// `full`, or `quick` in a quick run.
    pub fn rounds(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Starts a worker that nobody governs.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn bare(&self, role: Role) -> anyhow::Result<Worker> {
        let role = match role {
            Role::Plain => "plain",
            Role::Notified => "notified",
            Role::Judged => "judged",
            Role::TracedCalls => "traced-calls",
            Role::TracedExecs => "traced-execs",
        };
        Worker::start(Command::new(&self.worker).args(["--worker", role]))
    }

    /// A name in the bench's directory.
    pub fn place(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Writes a policy.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn policy(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.place.path().join(format!("{name}.json"));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// The path of a trail.
    pub fn trail(&self, name: &str) -> PathBuf {
        self.place.path().join(format!("{name}.jsonl"))
    }

    /// Starts a governed worker.
    ///
    /// # Errors
    ///
    /// `enforcer run` does not start it.
    pub fn governed(&self, name: &str, policy: &str) -> anyhow::Result<Agent> {
        self.governed_with(name, policy, &[])
    }

    /// Starts a governed worker with further options of `enforcer run`.
    ///
    /// # Errors
    ///
    /// `enforcer run` does not start it.
    pub fn governed_with(
        &self,
        name: &str,
        policy: &str,
        options: &[&str],
    ) -> anyhow::Result<Agent> {
        let policy = self.policy(name, policy)?;
        let trail = self.trail(name);
        let worker = Worker::start(
            run_with(&policy, &trail, options)
                .arg(&self.worker)
                .args(["--worker", "plain"]),
        )?;
        Ok(Agent { worker, trail })
    }
}

/// `enforcer run` with a policy and a trail, up to its `--`. As root, whoever called sudo: so do the bare workers.
pub fn run(policy: &Path, trail: &Path) -> Command {
    run_with(policy, trail, &[])
}

/// The same, with more options; as root unless they name another user.
pub fn run_with(policy: &Path, trail: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(ENFORCER);
    command.args(["run", "--quiet"]).args(options);
    if !options.contains(&"--user") {
        command.args(["--user", "root"]);
    }
    command
        .arg("--policy")
        .arg(policy)
        .arg("--audit")
        .arg(trail)
        .arg("--");
    command
}

/// A governed worker with its trail.
#[derive(Debug)]
pub struct Agent {
    /// The worker; its process is `enforcer run`.
    pub worker: Worker,
    trail: PathBuf,
}

impl Agent {
    /// Process id of `enforcer run`.
    pub fn pid(&self) -> u32 {
        self.worker.child.id()
    }

    /// The socket of its desk.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn socket(&self) -> anyhow::Result<PathBuf> {
        Ok(self.own("/run/enforcer")?.join("approvals.sock"))
    }

    /// Its entry of a directory: found by the process id in its name.
    fn own(&self, root: &str) -> anyhow::Result<PathBuf> {
        let mine = format!("-{}-", self.pid());
        for entry in std::fs::read_dir(root).with_context(|| root.to_owned())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().contains(&mine) {
                return Ok(entry.path());
            }
        }
        bail!("{root} has nothing of process {}", self.pid())
    }

    /// Ends it, and gives the trail.
    ///
    /// # Errors
    ///
    /// It did not end well, or the trail cannot be read.
    pub fn stop(self) -> anyhow::Result<Vec<Entry>> {
        self.worker.stop()?;
        let (lines, _) = Reader::new(&self.trail).last(usize::MAX, |_| true)?;
        lines
            .iter()
            .map(|line| Entry::parse(line).context("a line of the trail is malformed"))
            .collect()
    }
}

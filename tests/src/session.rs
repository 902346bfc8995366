//! A session under `enforcer run`, with all that it needs in a directory of its own.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io::Read,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    machine::{Level, level, patience},
    trail::{Denial, Trail},
};

/// Used where the machine has no user for agents.
const NOBODY: u32 = 65534;
/// How often something is looked at that is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// The binary under test: `ENFORCER_BIN`, else the release build of this repository.
pub fn enforcer() -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/enforcer");
    enforcer_at(env::var_os("ENFORCER_BIN").unwrap_or(built.into()))
}

/// The same, by another copy of the program.
fn enforcer_at(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // What the tester's own session has must not decide who the agent is.
    for name in [
        "SUDO_UID",
        "SUDO_GID",
        "DOAS_USER",
        "PKEXEC_UID",
        "CLAUDE_AGENT_NAME",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A native policy whose breaker, if it has none of its own, does not come into the way.
fn patient(policy: &Value) -> Value {
    let mut policy = policy.clone();
    if policy["version"] == "2"
        && let Some(members) = policy.as_object_mut()
    {
        members
            .entry("breaker")
            .or_insert_with(|| json!({"denials": 1_000_000}));
    }
    policy
}

/// The unprivileged user that agents run as here: uid and gid.
pub fn agent_user() -> (u32, u32) {
    match User::from_name("agent") {
        Ok(Some(user)) => (user.uid.as_raw(), user.gid.as_raw()),
        _ => (NOBODY, NOBODY),
    }
}

/// Builds and starts sessions. All files lie in one temporary directory that belongs to root.
#[derive(Debug)]
pub struct Session {
    directory: TempDir,
    agent: String,
    user: (u32, u32),
    options: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    on_deny_kill: bool,
    installed: Option<PathBuf>,
    work: PathBuf,
    bare: bool,
    before: Vec<OsString>,
    starts: AtomicU32,
}

impl Session {
    /// A session under a policy, run as the unprivileged user.
    ///
    /// # Panics
    ///
    /// When its files cannot be made; that needs root.
    pub fn new(policy: &Value) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new()
            .prefix("enforcer-test-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        // The run's cgroup and state are named after the agent: a name of our own finds them.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let agent = format!("t{}n{number}", std::process::id());
        let session = Self {
            agent,
            user: agent_user(),
            options: Vec::new(),
            variables: Vec::new(),
            on_deny_kill: false,
            installed: None,
            work: directory.path().join("work"),
            bare: false,
            before: Vec::new(),
            starts: AtomicU32::new(0),
            directory,
        };
        session.set_policy(policy);
        fs::create_dir(&session.work).unwrap();
        chown(&session.work, Some(session.user.0), Some(session.user.1)).unwrap();
        session
    }

    /// Writes another policy for the sessions that start from now on. One that says nothing of the breaker gets a
    /// patient one: most sessions here try one forbidden thing after another, and want to see each denied for itself.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn set_policy(&self, policy: &Value) {
        let path = self.policy();
        fs::write(&path, patient(policy).to_string()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }

    /// Runs the command as root.
    ///
    /// # Panics
    ///
    /// When its directory cannot be given to root.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.user = (0, 0);
        // This root has no capabilities: it needs a directory of its own like anyone else.
        chown(self.work(), Some(0), Some(0)).unwrap();
        self
    }

    /// Runs the command as this user, in a directory of its own.
    #[must_use]
    pub fn of(mut self, (uid, gid): (u32, u32), directory: &Path) -> Self {
        self.user = (uid, gid);
        directory.clone_into(&mut self.work);
        self
    }

    /// Starts `enforcer` with the session's variables alone, without those that the tester has.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Starts `enforcer` by this command, which is given its command line.
    #[must_use]
    pub fn by<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.before.extend(words.into_iter().map(Into::into));
        self
    }

    /// Kills denied execs, also where the kernel could refuse them.
    #[must_use]
    pub fn on_deny_kill(mut self) -> Self {
        self.on_deny_kill = true;
        self.option("--on-deny").option("kill")
    }

    /// Leaves execs to the kernel programs alone: no supervisor sees them, so that they go on, governed, when the launcher
    /// is gone. What asks has one all the same.
    #[must_use]
    pub fn unsupervised(self) -> Self {
        let quiet = self.option("--quiet");
        match level() {
            Level::Full => quiet,
            Level::Partial => quiet.on_deny_kill(),
        }
    }

    /// Runs a copy of `enforcer` that is root's, as an installed one is, whoever built it.
    #[must_use]
    pub fn installed(mut self) -> Self {
        let built = enforcer().get_program().to_owned();
        self.installed = Some(self.place(Path::new(&built), "bin/enforcer"));
        self
    }

    /// The path of `enforcer` in this session.
    pub fn enforcer(&self) -> PathBuf {
        let built = || enforcer().get_program().into();
        self.installed.clone().unwrap_or_else(built)
    }

    /// One more word on the command line of `enforcer run`.
    #[must_use]
    pub fn option(mut self, word: impl Into<OsString>) -> Self {
        self.options.push(word.into());
        self
    }

    /// A variable for the command.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The session's directory. Root's, readable by everyone.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The policy's file.
    pub fn policy(&self) -> PathBuf {
        self.directory().join("policy.json")
    }

    /// The directory that the command runs in. The agent's own.
    pub fn work(&self) -> PathBuf {
        self.work.clone()
    }

    /// The uid that the command runs as.
    pub fn uid(&self) -> u32 {
        self.user.0
    }

    /// The name that the next start gives its agent.
    pub fn next_agent(&self) -> String {
        format!("{}s{}", self.agent, self.starts.load(Ordering::Relaxed))
    }

    /// How execs are denied in this session.
    pub fn denial(&self) -> Denial {
        // What outlives the launcher has no supervisor, so where the kernel cannot refuse, it kills.
        let kept = self.options.iter().any(|option| option == "--keep");
        if self.on_deny_kill || kept && level() == Level::Partial {
            Denial::Killed
        } else {
            Denial::Errno
        }
    }

    /// Copies an executable below the session's directory, where the agent can run it and not change it.
    ///
    /// # Panics
    ///
    /// When it cannot be copied.
    pub fn place(&self, executable: &Path, name: &str) -> PathBuf {
        let target = self.directory().join(name);
        let parent = target.parent().unwrap();
        // Whatever the tester's umask is.
        let mut here = self.directory().to_owned();
        for part in parent.strip_prefix(self.directory()).unwrap() {
            here.push(part);
            if !here.is_dir() {
                fs::create_dir(&here).unwrap();
                fs::set_permissions(&here, Permissions::from_mode(0o755)).unwrap();
            }
        }
        copy_program(executable, &target);
        target
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    ///
    /// When it does not end in time, or leaves a cgroup, a pin or a state behind.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Ended {
        self.start(words).wait()
    }

    /// Runs a script with `sh -c`, as [`Session::run`].
    ///
    /// # Panics
    ///
    /// As [`Session::run`].
    pub fn sh(&self, script: &str) -> Ended {
        self.run(["/bin/sh", "-c", script])
    }

    /// Starts a command.
    ///
    /// # Panics
    ///
    /// When `enforcer` cannot be started.
    pub fn start<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Running {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        // Another name for each start: what is left of one run is told from what the next one made.
        let agent = format!("{}s{start}", self.agent);
        let trail = self.directory().join(format!("trail-{start}.jsonl"));
        let output = |kind: &str| {
            let path = self.directory().join(format!("{kind}-{start}"));
            (File::create(&path).unwrap(), path)
        };
        // Files, not pipes: a process that outlives the session must not keep us waiting.
        let (out, stdout) = output("stdout");
        let (err, stderr) = output("stderr");
        let mut line = self.before.clone();
        line.push(self.enforcer().into());
        let mut command = enforcer_at(&line[0]);
        if self.bare {
            command.env_clear();
        }
        command
            .args(&line[1..])
            .arg("run")
            .arg("--policy")
            .arg(self.policy())
            .args(["--agent", &agent, "--user", &self.user.0.to_string()])
            .arg("--audit")
            .arg(&trail)
            .args(&self.options)
            .arg("--")
            .args(words)
            .current_dir(self.work())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdout(out)
            .stderr(err);
        let child = command.spawn().expect("enforcer starts");
        Running {
            child,
            agent,
            trail,
            stdout,
            stderr,
        }
    }
}

/// Copies a file that is to be executed, by another process: what a thread of ours has open for writing another thread's
/// child has open too, for a moment, and such a file cannot be executed.
///
/// # Panics
///
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "{}",
        from.display()
    );
    fs::set_permissions(to, Permissions::from_mode(0o755)).unwrap();
}

/// A session that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    agent: String,
    trail: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// The agent's name.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The launcher's pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends the launcher a signal.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What the trail holds by now.
    pub fn trail(&self) -> Trail {
        Trail::read_so_far(&self.trail)
    }

    /// Where the trail is.
    pub fn trail_path(&self) -> &Path {
        &self.trail
    }

    /// What the command has printed by now.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What the command and the launcher have printed to stderr by now.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// The agent's cgroup, as long as it exists.
    pub fn cgroup(&self) -> Option<PathBuf> {
        below(&cgroups(), &self.agent).into_iter().find(|path| {
            path.extension()
                .is_none_or(|extension| extension != "probe")
        })
    }

    /// What this session has made and not taken away: its cgroup and state.
    pub fn left_over(&self) -> Vec<PathBuf> {
        left_over(&self.agent)
    }

    /// Waits until something holds.
    ///
    /// # Panics
    ///
    /// When it does not hold in time.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + patience();
        while !holds(self) {
            if Instant::now() > deadline {
                self.destroy();
                panic!(
                    "not in time: {what}; stdout {:?}, stderr {:?}",
                    self.stdout(),
                    self.stderr()
                );
            }
            thread::sleep(PAUSE);
        }
    }

    /// Waits for the end of the launcher, and checks that it left nothing behind.
    ///
    /// # Panics
    ///
    /// When it does not end in time, or has left a cgroup, a pin or a state.
    pub fn wait(self) -> Ended {
        let agent = self.agent.clone();
        let ended = self.wait_kept();
        let left = left_over(&agent);
        assert!(left.is_empty(), "left behind: {left:?}; {}", ended.stderr);
        ended
    }

    /// As [`Running::wait`], for a session that may leave something behind (`--keep`, a killed launcher).
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn wait_kept(mut self) -> Ended {
        let deadline = Instant::now() + patience();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.destroy();
                let _ = self.child.wait();
                panic!(
                    "the session does not end; stdout {:?}, stderr {:?}",
                    self.stdout(),
                    self.stderr()
                );
            }
            thread::sleep(PAUSE);
        };
        Ended {
            status,
            stdout: fs::read(&self.stdout).unwrap(),
            stderr: self.stderr(),
            trail: Trail::read(&self.trail),
            agent: self.agent.clone(),
        }
    }

    /// Kills the session's tree; the launcher then ends by itself.
    pub fn destroy(&self) {
        if let Some(cgroup) = self.cgroup() {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        }
        thread::sleep(Duration::from_secs(2));
        let _ = kill(self.pid(), Signal::SIGKILL);
    }
}

/// A session that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How the launcher ended.
    pub status: ExitStatus,
    /// What the command printed.
    pub stdout: Vec<u8>,
    /// What the command and the launcher printed to stderr.
    pub stderr: String,
    /// The trail.
    pub trail: Trail,
    agent: String,
}

impl Ended {
    /// The agent's name.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The exit status as a shell shows it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// What the command printed, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Waits until nothing of the session is left: whoever has started since takes it away, and another that starts at the
    /// same time may be about it just now.
    ///
    /// # Panics
    ///
    /// When something stays.
    pub fn await_taken_away(&self) {
        let deadline = Instant::now() + patience();
        while !self.left_over().is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", self.left_over());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the session has made and not taken away.
    pub fn left_over(&self) -> Vec<PathBuf> {
        left_over(&self.agent)
    }
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The root of the cgroup v2 hierarchy.
pub fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let root = mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ');
            let place = words.nth(1)?;
            (words.next() == Some("cgroup2")).then_some(place)
        })
        .unwrap_or("/sys/fs/cgroup");
    PathBuf::from(root)
}

/// Where agents' cgroups lie.
pub fn cgroups() -> PathBuf {
    cgroup_root().join("enforcer")
}

/// Entries of a directory that are of this agent (`NAME-pid-random`).
fn below(directory: &Path, agent: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(OsStr::to_str)
                .and_then(|name| name.strip_prefix(agent))
                .is_some_and(|rest| rest.starts_with('-'))
        })
        .collect()
}

/// What sessions of this agent have made and not taken away: cgroups and states.
pub fn left_over(agent: &str) -> Vec<PathBuf> {
    [cgroups(), PathBuf::from("/run/enforcer")]
        .into_iter()
        .flat_map(|place| below(&place, agent))
        .collect()
}

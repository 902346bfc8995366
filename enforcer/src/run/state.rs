//! What is kept of a running agent, so that a later start can write its last events and take it down.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use enforcer_common::limits::Limits;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use crate::{
    approvals::SOCKET_NAME,
    audit::Stamp,
    decide::{Engine, Masking, Subject},
    directories, hook,
    kernel::agent::Place,
    policy::compile::lower_limits,
};

/// Where the states lie. Only root reads their facts: a seed would let an agent look for colliding names.
pub const STATE_ROOT: &str = directories::RUNNING.path;
/// The file of a state.
const FACTS: &str = "facts.json";
/// The file that a launcher locks.
const LOCK: &str = "lock";
/// The file that says where the agent is in the kernel; it comes later.
const PLACE: &str = "place.json";

/// Where an agent is in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seated {
    /// The name of its host.
    pub host: String,
    /// Its slot there.
    pub place: Place,
}

/// What a later start needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The agent's name.
    pub agent: Option<String>,
    /// For whom it works.
    #[serde(default)]
    pub user: Option<String>,
    /// Whose agent it is.
    #[serde(default)]
    pub tenant: Option<String>,
    /// What the tables were compiled for.
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
    /// Whether it was only observed.
    #[serde(default)]
    pub observed: bool,
    /// The trail.
    pub audit: PathBuf,
    /// Seed of the policy's name hashes.
    pub seed: u64,
    /// Where the policy came from.
    pub policy_path: PathBuf,
    /// The policy as it was read.
    pub policy_text: String,
}

impl Facts {
    /// The agent's engine, as it was.
    ///
    /// # Errors
    ///
    /// The policy is one of another version.
    pub fn engine(&self) -> anyhow::Result<Engine> {
        let parsed = crate::policy::parse(&self.policy_text).context("its policy")?;
        let capabilities = self.capabilities.clone();
        Engine::with_capabilities(parsed.policy, capabilities, self.seed).context("its policy")
    }

    /// The limits of its policy.
    ///
    /// # Errors
    ///
    /// The policy is one of another version.
    pub fn limits(&self) -> anyhow::Result<Limits> {
        let policy = crate::policy::parse(&self.policy_text)
            .context("its policy")?
            .policy;
        Ok(lower_limits(&policy.limits, &policy.breaker))
    }

    /// What a writer puts on its records; `masking` is its policy's.
    pub fn stamp(&self, masking: Masking) -> Stamp {
        Stamp::new(self.user.as_deref(), self.tenant.as_deref(), masking).observed(self.observed)
    }
}

/// The state of one agent; as long as it is held, no other process takes the agent for a left-over.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    _lock: Flock<File>,
    _cleaning: Option<Flock<File>>,
}

/// How long a start waits for another one that cleans up, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EACH: Duration = Duration::from_millis(5);

impl State {
    /// Writes the state of a new agent and holds it.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written.
    pub fn create(id: &str, facts: &Facts, subject: &Subject) -> anyhow::Result<Self> {
        let _root = Root::hold(true)?.context("the state's common directory is gone")?;
        let directory = Path::new(STATE_ROOT).join(id);
        make(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        let lock = match Self::lock(&directory) {
            Ok(Some(lock)) => lock,
            Ok(None) => bail!("{} is held by another process", directory.display()),
            Err(error) => return Err(error).context("the state's lock cannot be taken"),
        };
        let state = Self {
            directory,
            _lock: lock,
            _cleaning: None,
        };
        let for_hooks = hook::shared::Facts::of(subject);
        let written = state
            .write(FACTS, 0o600, || serde_json::to_vec(facts))
            .and_then(|()| {
                state.write(hook::shared::Facts::FILE, 0o644, || {
                    serde_json::to_vec(&for_hooks)
                })
            })
            .and_then(|()| {
                state.write(hook::shared::Facts::POLICY, 0o644, || {
                    Ok(facts.policy_text.clone().into_bytes())
                })
            });
        if let Err(error) = written {
            state.take_away();
            return Err(error);
        }
        Ok(state)
    }

    /// Writes down where the agent is in the kernel. Before it is there: whoever finds the state without its launcher can
    /// clear that up.
    ///
    /// # Errors
    ///
    /// The state cannot be written.
    pub fn seat(&self, host: &str, place: Place) -> anyhow::Result<()> {
        let host = host.to_owned();
        self.write(PLACE, 0o600, || serde_json::to_vec(&Seated { host, place }))
    }

    /// Whether a launcher holds an agent's state.
    pub fn is_held(id: &str) -> bool {
        let lock = File::open(Path::new(STATE_ROOT).join(id).join(LOCK));
        // Shared: two that look at once do not take each other for the launcher.
        lock.is_ok_and(|lock| Flock::lock(lock, FlockArg::LockSharedNonblock).is_err())
    }

    /// Where an agent is in the kernel; `None` if it is not there yet, or there is no such agent.
    pub fn seated(id: &str) -> Option<Seated> {
        let text = fs::read(Path::new(STATE_ROOT).join(id).join(PLACE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(
        &self,
        name: &str,
        mode: u32,
        content: impl FnOnce() -> serde_json::Result<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        let written = content().map_err(io::Error::from).and_then(|text| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(&text)?;
            // Whatever the umask is.
            file.set_permissions(fs::Permissions::from_mode(mode))
        });
        written.with_context(|| {
            format!(
                "{} cannot be written; make room on its file system",
                path.display()
            )
        })
    }

    /// Takes over the state of an agent whose launcher is gone; `None` if it is still held, or if another process
    /// has taken it away meanwhile. The facts are missing if the launcher died before it had written them.
    ///
    /// # Errors
    ///
    /// The state cannot be read.
    pub fn take_over(id: &str) -> anyhow::Result<Option<(Self, Option<Facts>)>> {
        let directory = Path::new(STATE_ROOT).join(id);
        // Before the common directory: whoever is at it needs that to be done.
        let Some(cleaning) = Self::clean(&directory)? else {
            return Ok(None);
        };
        let Some(_root) = Root::hold(false)? else {
            return Ok(None);
        };
        if !directory.is_dir() {
            return Ok(None);
        }
        let Some(lock) = Self::lock(&directory)
            .with_context(|| format!("{} cannot be locked", directory.display()))?
        else {
            return Ok(None);
        };
        let file = directory.join(FACTS);
        let facts = match fs::read(&file) {
            Ok(text) => Some(serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{} is not a state of this version; clean up with the version that wrote it",
                    file.display()
                )
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be read", file.display()));
            }
        };
        let state = Self {
            directory,
            _lock: lock,
            _cleaning: Some(cleaning),
        };
        Ok(Some((state, facts)))
    }

    /// What is kept of an agent, whether or not its launcher runs.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read: it is root's.
    pub fn facts(id: &str) -> anyhow::Result<Facts> {
        let file = Path::new(STATE_ROOT).join(id).join(FACTS);
        let text = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a state of this version", file.display()))
    }

    /// Waits for another start that cleans up after the same launcher: what that writes is there for whoever comes behind
    /// this one. `None` if the state is gone, or the other does not get on.
    fn clean(directory: &Path) -> anyhow::Result<Option<Flock<File>>> {
        let fail = || format!("{} cannot be locked", directory.display());
        // The directory itself: a file that is made here could come while the directory is taken away.
        let mut file = match File::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(fail)?,
        };
        let begun = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(lock)),
                Err((again, Errno::EWOULDBLOCK)) if begun.elapsed() < PATIENCE => {
                    file = again;
                    sleep(LOOK_EACH);
                }
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(errno).with_context(fail),
            }
        }
    }

    fn lock(directory: &Path) -> io::Result<Option<Flock<File>>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join(LOCK))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }

    /// The file that says how many lost events the trail already tells of.
    pub fn tally(&self) -> PathBuf {
        self.directory.join("lost")
    }

    /// Where the control socket goes.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET_NAME)
    }

    /// The agents that have a state.
    pub fn existing() -> Vec<String> {
        let Ok(entries) = fs::read_dir(STATE_ROOT) else {
            return Vec::new();
        };
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Takes the state away.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn remove(self) -> anyhow::Result<()> {
        let _root = Root::hold(false)?;
        fs::remove_dir_all(&self.directory)
            .with_context(|| format!("{} cannot be removed", self.directory.display()))?;
        self.take_away();
        Ok(())
    }

    /// Removes what can be removed; the last agent takes the common directory with it.
    fn take_away(&self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir(STATE_ROOT);
    }
}

/// The common directory, held: launchers that start, end and clean up at once do so one after the other, so that
/// none sees another's state half made or half gone.
struct Root(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl Root {
    /// Waits for the directory; `None` if it does not exist and is not to be made.
    fn hold(make_it: bool) -> anyhow::Result<Option<Self>> {
        let root = Path::new(STATE_ROOT);
        loop {
            if make_it {
                directories::directory(root, directories::RUNNING.mode)?;
            }
            let directory = match File::open(root) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if make_it {
                        continue;
                    }
                    return Ok(None);
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("{STATE_ROOT} cannot be opened"));
                }
            };
            let held = Flock::lock(directory, FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)
                .with_context(|| format!("{STATE_ROOT} cannot be locked"))?;
            // Whoever held it before may have taken it away.
            let same = held.metadata().ok().zip(fs::metadata(root).ok());
            if same.is_some_and(|(ours, there)| ours.ino() == there.ino()) {
                return Ok(Some(Self(held)));
            }
        }
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mode = directories::RUNNING.mode;
    DirBuilder::new().mode(mode).create(path)?;
    // Whatever the umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

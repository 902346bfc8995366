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

use enforcer_common::limits::LimitRules;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use super::{
    editions::{Edition, Editions},
    enforcement::Enforcement,
    error::{AgentError, Result},
    own_terms::Changes,
};
use enforcer_control::SOCKET_NAME;
use enforcer_decide::{Engine, Principal};
use enforcer_files::directories;
use enforcer_hook::shared::Handover;
use enforcer_kernel::agent::SlotPlace;
use enforcer_policy::{
    Policy, PolicyError,
    compile::{CompileError, limit_rules},
};
use enforcer_redact::Masking;
use enforcer_trail::Stamp;

/// Where the states lie. Only root reads their facts: a seed would let an agent look for colliding names.
pub const STATE_ROOT: &str = directories::RUNNING.path;
/// The file of a state.
const FACTS: &str = "facts.json";
/// The file that a launcher locks.
const LOCK: &str = "lock";
/// The file that says where the agent is in the kernel; it comes later.
const PLACE: &str = "place.json";

/// Why a state cannot be written, read or held.
#[derive(Debug, thiserror::Error)]
pub enum AgentStateError {
    /// Something cannot be done to a file or directory of it.
    #[error("{} {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What cannot be done, and how to mend it.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A directory of it cannot be locked.
    #[error("{} cannot be locked", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: Errno,
    },
    /// The launcher's lock cannot be taken.
    #[error("the state's lock cannot be taken")]
    Lock(#[source] io::Error),
    /// Somebody else has it.
    #[error("{} is held by another process", .0.display())]
    Held(PathBuf),
    /// The directory of all states is not there.
    #[error("the state's common directory is gone")]
    NoRoot,
    /// Another version has written it.
    #[error("{} is not a state of this version{mend}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// How to mend it.
        mend: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The policy in it is none.
    #[error("its policy")]
    Policy(#[source] PolicyError),
    /// The policy in it has no tables.
    #[error("its policy")]
    Compiled(#[source] CompileError),
}

impl AgentStateError {
    fn file(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, what, source }
    }

    fn locked(path: &Path) -> impl FnOnce(Errno) -> Self {
        let path = path.to_owned();
        move |source| Self::Locked { path, source }
    }

    fn version(path: &Path, mend: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Version { path, mend, source }
    }
}

/// Where an agent is in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seated {
    /// The name of its host.
    pub host: String,
    /// Its slot there.
    pub place: SlotPlace,
}

/// What a later start needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRecord {
    /// The agent's name.
    pub agent: Option<String>,
    /// For whom it works.
    #[serde(default)]
    pub user: Option<String>,
    /// Whose agent it is.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Whether it was only observed.
    #[serde(default)]
    pub observed: bool,
    /// The trail.
    pub audit: PathBuf,
    /// What is in force for it; nothing before it is governed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Enforcement::read_kept"
    )]
    pub enforcement: Option<Enforcement>,
    /// What decides.
    pub decides: Decides,
    /// What decided before: events that are not written yet may tell of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Decides>,
}

/// What decides for an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decides {
    /// The generation of its tables; nothing if the agent never had others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Where the policy came from.
    pub policy_path: PathBuf,
    /// The policy as it was read, with all that it includes.
    pub policy_text: String,
    /// What the tables were compiled for.
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
    /// Seed of the policy's name hashes.
    pub seed: u64,
    /// What was changed of the policy for this agent.
    #[serde(default)]
    pub changes: Changes,
}

impl Decides {
    /// The engine, as it was.
    ///
    /// # Errors
    ///
    /// The policy is one of another version.
    pub fn engine(&self) -> Result<Engine> {
        let capabilities = self.capabilities.clone();
        Engine::with_capabilities(self.policy()?, capabilities, self.seed)
            .map_err(|error| AgentStateError::Compiled(error).into())
    }

    /// The policy, as it was.
    ///
    /// # Errors
    ///
    /// It is one of another version.
    pub fn policy(&self) -> Result<Policy> {
        let mut policy = enforcer_policy::parse(&self.policy_text)
            .map_err(AgentStateError::Policy)?
            .policy;
        self.changes.apply(&mut policy);
        Ok(policy)
    }
}

impl AgentRecord {
    /// The limits of its policy.
    ///
    /// # Errors
    ///
    /// The policy is one of another version.
    pub fn limits(&self) -> Result<LimitRules> {
        let policy = self.decides.policy()?;
        Ok(limit_rules(&policy.limits, &policy.breaker))
    }

    /// What a writer puts on its records; `masking` is its policy's.
    pub fn stamp(&self, masking: Masking) -> Stamp {
        Stamp::new(self.user.as_deref(), self.tenant.as_deref(), masking).observed(self.observed)
    }

    /// How its last events are told.
    ///
    /// # Errors
    ///
    /// A policy is one of another version.
    pub fn editions(&self) -> Result<Editions> {
        let edition = |decides: &Decides| {
            let engine = decides.engine()?;
            Ok::<_, AgentError>(Edition {
                stamp: self.stamp(engine.policy().masking),
                wording: engine.into_wording(),
            })
        };
        let generation = self.decides.generation.unwrap_or_default();
        let editions = Editions::new(generation, edition(&self.decides)?, self.observed);
        Ok(match &self.before {
            Some(before) => editions.with(before.generation.unwrap_or_default(), edition(before)?),
            None => editions,
        })
    }
}

/// The state of one agent; as long as it is held, no other process takes the agent for a left-over.
#[derive(Debug)]
pub struct StateDirectory {
    directory: PathBuf,
    _lock: Flock<File>,
    _cleaning: Option<Flock<File>>,
}

/// How long a start waits for another one that cleans up, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EACH: Duration = Duration::from_millis(5);

impl StateDirectory {
    /// Writes the state of a new agent and holds it.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written.
    pub fn create(id: &str, facts: &AgentRecord, principal: &Principal) -> Result<Self> {
        let _root = Root::hold(true)?.ok_or(AgentStateError::NoRoot)?;
        let directory = Path::new(STATE_ROOT).join(id);
        make(&directory).map_err(AgentStateError::file(&directory, "cannot be made"))?;
        let lock = match Self::lock(&directory) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(AgentStateError::Held(directory).into()),
            Err(error) => return Err(AgentStateError::Lock(error).into()),
        };
        let state = Self {
            directory,
            _lock: lock,
            _cleaning: None,
        };
        if let Err(error) = write_facts(&state.directory, facts, principal) {
            state.take_away();
            return Err(error);
        }
        Ok(state)
    }

    /// Writes down what decides by now, in the name of the launcher, which holds the state.
    ///
    /// # Errors
    ///
    /// It cannot be written; what was written before stands.
    pub fn rewrite(id: &str, facts: &AgentRecord, principal: &Principal) -> Result<()> {
        write_facts(&Path::new(STATE_ROOT).join(id), facts, principal)
    }

    /// Writes down what has become known of the agent since.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn note(&self, facts: &AgentRecord) -> Result<()> {
        write_record(&self.directory, facts)
    }

    /// Writes down where the agent is in the kernel. Before it is there: whoever finds the state without its launcher can
    /// clear that up.
    ///
    /// # Errors
    ///
    /// The state cannot be written.
    pub fn seat(&self, host: &str, place: SlotPlace) -> Result<()> {
        let host = host.to_owned();
        write(&self.directory.join(PLACE), 0o600, || {
            serde_json::to_vec(&Seated { host, place })
        })
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

    /// Takes over the state of an agent whose launcher is gone; `None` if it is still held, or if another process
    /// has taken it away meanwhile. The facts are missing if the launcher died before it had written them.
    ///
    /// # Errors
    ///
    /// The state cannot be read.
    pub fn take_over(id: &str) -> Result<Option<(Self, Option<AgentRecord>)>> {
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
            .map_err(AgentStateError::file(&directory, "cannot be locked"))?
        else {
            return Ok(None);
        };
        let file = directory.join(FACTS);
        let facts = match fs::read(&file) {
            Ok(text) => {
                let mend = "; clean up with the version that wrote it";
                Some(serde_json::from_slice(&text).map_err(AgentStateError::version(&file, mend))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(AgentStateError::file(&file, "cannot be read")(error).into());
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
    pub fn facts(id: &str) -> Result<AgentRecord> {
        let file = Path::new(STATE_ROOT).join(id).join(FACTS);
        let text = fs::read(&file).map_err(AgentStateError::file(&file, "cannot be read"))?;
        Ok(serde_json::from_slice(&text).map_err(AgentStateError::version(&file, ""))?)
    }

    /// Who the agent is, as its hooks are told.
    pub fn handover(id: &str) -> Option<Handover> {
        let text = fs::read(Path::new(STATE_ROOT).join(id).join(Handover::FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Waits for another start that cleans up after the same launcher: what that writes is there for whoever comes behind
    /// this one. `None` if the state is gone, or the other does not get on.
    fn clean(directory: &Path) -> Result<Option<Flock<File>>> {
        // The directory itself: a file that is made here could come while the directory is taken away.
        let mut file = match File::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(AgentStateError::file(directory, "cannot be locked"))?,
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
                Err((_, errno)) => return Err(AgentStateError::locked(directory)(errno).into()),
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
    pub fn remove(&self) -> Result<()> {
        let _root = Root::hold(false)?;
        fs::remove_dir_all(&self.directory)
            .map_err(AgentStateError::file(&self.directory, "cannot be removed"))?;
        self.take_away();
        Ok(())
    }

    /// Removes what can be removed; the last agent takes the common directory with it.
    fn take_away(&self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir(STATE_ROOT);
    }
}

fn write_record(directory: &Path, facts: &AgentRecord) -> Result<()> {
    write(&directory.join(FACTS), 0o600, || serde_json::to_vec(facts))
}

/// Writes what a later start and the hooks inside the agent need to know.
fn write_facts(directory: &Path, facts: &AgentRecord, principal: &Principal) -> Result<()> {
    let for_hooks = Handover::of(principal);
    write_record(directory, facts)?;
    write(&directory.join(Handover::FILE), 0o644, || {
        serde_json::to_vec(&for_hooks)
    })?;
    write(&directory.join(Handover::POLICY), 0o644, || {
        Ok(facts.decides.policy_text.clone().into_bytes())
    })
}

/// Writes a file whole: who reads it meanwhile has the old one.
fn write(
    path: &Path,
    mode: u32,
    content: impl FnOnce() -> serde_json::Result<Vec<u8>>,
) -> Result<()> {
    let new = path.with_extension("new");
    let written = content().map_err(io::Error::from).and_then(|text| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&new, path)
    });
    Ok(written.map_err(AgentStateError::file(
        path,
        "cannot be written; make room on its file system",
    ))?)
}

/// The common directory, held: launchers that start, end and clean up at once do so one after the other, so that
/// none sees another's state half made or half gone.
struct Root(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl Root {
    /// Waits for the directory; `None` if it does not exist and is not to be made.
    fn hold(make_it: bool) -> Result<Option<Self>> {
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
                    return Err(AgentStateError::file(root, "cannot be opened")(error).into());
                }
            };
            let held = Flock::lock(directory, FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)
                .map_err(AgentStateError::locked(root))?;
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

//! What is kept of a running agent, so that a later start can write its last events and take it down.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Where the states lie. Only root sees them: a seed would let an agent look for colliding names.
pub const STATE_ROOT: &str = "/run/enforcer";

/// What a later start needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The agent's name.
    pub agent: Option<String>,
    /// The trail.
    pub audit: PathBuf,
    /// Seed of the policy's name hashes.
    pub seed: u64,
    /// Where the policy came from.
    pub policy_path: PathBuf,
    /// The policy as it was read.
    pub policy_text: String,
}

/// The state of one agent; as long as it is held, no other process takes the agent for a left-over.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl State {
    /// Writes the state of a new agent and holds it.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written.
    pub fn create(id: &str, facts: &Facts) -> anyhow::Result<Self> {
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        match make(Path::new(STATE_ROOT)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("{STATE_ROOT} cannot be made"));
            }
            _ => {}
        }
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
        };
        let file = state.directory.join("facts.json");
        let written = serde_json::to_vec(facts)
            .map_err(io::Error::from)
            .and_then(|text| {
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&file)?
                    .write_all(&text)
            });
        if let Err(error) = written {
            let _ = fs::remove_dir_all(&state.directory);
            return Err(error).with_context(|| format!("{} cannot be written", file.display()));
        }
        Ok(state)
    }

    /// Takes over the state of an agent whose launcher is gone; `None` if it is still held.
    ///
    /// # Errors
    ///
    /// The state is missing or cannot be read.
    pub fn take_over(id: &str) -> anyhow::Result<Option<(Self, Facts)>> {
        let directory = Path::new(STATE_ROOT).join(id);
        let Some(lock) = Self::lock(&directory)
            .with_context(|| format!("{} cannot be locked", directory.display()))?
        else {
            return Ok(None);
        };
        let file = directory.join("facts.json");
        let text = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let facts = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a state of this version", file.display()))?;
        Ok(Some((
            Self {
                directory,
                _lock: lock,
            },
            facts,
        )))
    }

    fn lock(directory: &Path) -> io::Result<Option<Flock<File>>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
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
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)?;
        // The last agent takes the common directory with it.
        let _ = fs::remove_dir(STATE_ROOT);
        Ok(())
    }
}

//! What is remembered of an agent between calls of a hook without a launcher: its breaker and its rates.
//!
//! One file an agent (`hook/NAME.json`), one for all agents of the user (`hook/%user.json`), each replaced as a whole
//! under a lock, so that calls at the same time count exactly.

use std::{
    fs,
    fs::File,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Format,
    names::{UNNAMED, agent_of, file_name},
    place::{self, OwnFileError},
};
use enforcer_control::protocol::CallClass;
use enforcer_decide::{
    breaker::{BreakerMemory, BreakerState},
    ratelimit::Window,
    wording,
};
use enforcer_policy::{
    Cause, Decision, Policy,
    model::{self, Rate},
};

/// Where the files lie, below [`place::root`].
const DIRECTORY: &str = "hook";
/// The file of all agents together; no agent's name is written so.
const USER: &str = "%user.json";

/// Why the state cannot be used. Nothing is allowed then.
#[derive(Debug, Error)]
pub enum HookStateError {
    /// The file or its directory.
    #[error(transparent)]
    Place(#[from] OwnFileError),
    /// The content.
    #[error("{path} is no state of a hook ({why}); run: enforcer hook breaker reset {agent}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
        /// The agent.
        agent: String,
    },
    /// The lock.
    #[error("{path} cannot be locked: {errno}")]
    Lock {
        /// The file.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A clock.
    #[error("the clock cannot be read: {0}")]
    Clock(String),
}

/// What the state says of a call that the rules have judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What the rules say. `trip`: how many denials have just opened the breaker.
    AsJudged {
        /// Set if it has.
        trip: Option<u64>,
    },
    /// The breaker is open.
    Open,
    /// A rate is used up: whose, and the reason.
    Limited(Cause, String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    version: u8,
    clock: Clock,
    #[serde(default)]
    breaker: BreakerMemory,
    #[serde(default)]
    exec: Window,
    #[serde(default)]
    connect: Window,
}

/// A clock of our own, ms, that never goes back: it follows the machine's boot time, across a reboot the wall clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    boot: String,
    boottime_ms: u64,
    wall_ms: u64,
    now_ms: u64,
}

/// The machine's clocks, read once.
#[derive(Clone, Debug)]
struct Clocks {
    boot: String,
    boottime_ms: u64,
    wall_ms: u64,
}

impl Clocks {
    fn read() -> Result<Self, HookStateError> {
        let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_err(|errno| HookStateError::Clock(errno.to_string()))?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            boottime_ms: boottime.tv_sec().unsigned_abs() * 1000
                + boottime.tv_nsec().unsigned_abs() / 1_000_000,
            wall_ms: wall.map_or(0, |wall| u64::try_from(wall.as_millis()).unwrap_or(0)),
        })
    }
}

impl Clock {
    /// Moves to the machine's clocks; gives the time of ours.
    fn advance(&mut self, to: &Clocks) -> u64 {
        let elapsed = if self.boot == to.boot {
            to.boottime_ms.saturating_sub(self.boottime_ms)
        } else {
            // At least the new boot's time has passed; how much more only the wall clock says, which may be set.
            (to.wall_ms.saturating_sub(self.wall_ms)).max(to.boottime_ms)
        };
        *self = Self {
            boot: to.boot.clone(),
            boottime_ms: to.boottime_ms,
            wall_ms: to.wall_ms,
            now_ms: self.now_ms.saturating_add(elapsed),
        };
        self.now_ms
    }
}

/// The states of the user's agents.
#[derive(Clone, Debug)]
pub struct States {
    directory: PathBuf,
}

/// A state that no other call can change meanwhile.
#[derive(Debug)]
pub struct LockedState {
    path: PathBuf,
    memory: Memory,
    before: Memory,
    _lock: Flock<File>,
}

/// What is known of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookBreakerStatus {
    /// The agent's name.
    pub agent: String,
    /// `closed`, `open`, or `half-open`.
    pub state: &'static str,
    /// Denials in a row.
    pub denials: u64,
}

impl States {
    /// The states below a root ([`place::root`]); the directory is made if it is missing.
    ///
    /// # Errors
    ///
    /// It cannot be made or is not safe.
    pub fn open(root: &Path) -> Result<Self, HookStateError> {
        Ok(Self {
            directory: place::directory(root, DIRECTORY)?,
        })
    }

    /// An agent's file. Names are the same in upper and lower case: so an agent has one breaker however it is written.
    fn path(&self, agent: Option<&str>) -> PathBuf {
        let name = format!("{}.json", file_name(agent));
        // One from before, in the case in which it was written then.
        let same = |known: &String| known.eq_ignore_ascii_case(&name);
        let known = self.files().into_iter().find(same);
        self.directory
            .join(known.unwrap_or_else(|| name.to_ascii_lowercase()))
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.strip_suffix(".json").is_some())
            .collect();
        names.sort_unstable();
        names
    }

    /// Takes an agent's state.
    ///
    /// # Errors
    ///
    /// It cannot be locked or read.
    pub fn hold(&self, agent: Option<&str>) -> Result<LockedState, HookStateError> {
        LockedState::take(self.path(agent), agent.unwrap_or(UNNAMED))
    }

    /// Takes what all agents of the user share.
    ///
    /// # Errors
    ///
    /// As [`States::hold`].
    pub fn hold_user(&self) -> Result<LockedState, HookStateError> {
        LockedState::take(self.directory.join(USER), "--all")
    }

    /// What is known of one agent, or of all.
    ///
    /// # Errors
    ///
    /// A state cannot be read.
    pub fn status(
        &self,
        agent: Option<&str>,
        rules: &model::BreakerSettings,
    ) -> Result<Vec<HookBreakerStatus>, HookStateError> {
        let agents = match agent {
            Some(agent) => vec![agent.to_owned()],
            None => self.agents(),
        };
        let mut found = Vec::with_capacity(agents.len());
        for agent in agents {
            let mut held = self.hold(Some(&agent))?;
            let now = held.memory.clock.advance(&Clocks::read()?);
            let breaker = &mut held.memory.breaker;
            found.push(HookBreakerStatus {
                state: breaker.standing(rules, now).as_str(),
                denials: breaker.denials,
                agent,
            });
        }
        Ok(found)
    }

    /// Forgets what is known of an agent, also if it cannot be read: the breaker is closed, the rates are free. Says
    /// whether anything was known.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn reset(&self, agent: &str) -> Result<bool, HookStateError> {
        let path = self.path(Some(agent));
        let known = fs::symlink_metadata(&path).is_ok();
        remove(&path)?;
        Ok(known)
    }

    /// Forgets what is known of agents without a name of their own, which go by whose hook they ask.
    ///
    /// # Errors
    ///
    /// As [`States::reset`].
    pub fn reset_unnamed(&self) -> Result<(), HookStateError> {
        let words = Format::value_variants()
            .iter()
            .map(|format| format.as_str());
        for agent in words.chain([UNNAMED]) {
            self.reset(agent)?;
        }
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn reset_all(&self) -> Result<(), HookStateError> {
        remove(&self.directory.join(USER))?;
        self.agents()
            .iter()
            .try_for_each(|agent| self.reset(agent).map(drop))
    }

    fn agents(&self) -> Vec<String> {
        let files = self.files();
        let names = files.iter().filter_map(|name| name.strip_suffix(".json"));
        let mut agents: Vec<String> = names.filter_map(agent_of).collect();
        agents.sort_unstable();
        agents
    }
}

fn remove(path: &Path) -> Result<(), HookStateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(OwnFileError::Io {
            path: path.display().to_string(),
            source: error,
        }
        .into()),
        _ => Ok(()),
    }
}

impl LockedState {
    fn take(path: PathBuf, agent: &str) -> Result<Self, HookStateError> {
        let lock_path = path.with_extension("lock");
        let file = place::open(&lock_path, true)?.ok_or(HookStateError::Lock {
            path: lock_path.display().to_string(),
            errno: Errno::ENOENT,
        })?;
        let lock = lock(file).map_err(|errno| HookStateError::Lock {
            path: lock_path.display().to_string(),
            errno,
        })?;
        let memory = match place::read(&path)? {
            None => Memory {
                version: 1,
                ..Memory::default()
            },
            Some(bytes) => {
                let corrupt = |why: String| HookStateError::Corrupt {
                    path: path.display().to_string(),
                    why,
                    agent: agent.to_owned(),
                };
                let memory: Memory =
                    serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
                if memory.version != 1 {
                    return Err(corrupt(format!("version {}", memory.version)));
                }
                memory
            }
        };
        Ok(Self {
            before: memory.clone(),
            path,
            memory,
            _lock: lock,
        })
    }

    /// Where the breaker stands.
    ///
    /// # Errors
    ///
    /// The clock cannot be read.
    pub fn standing(
        &mut self,
        rules: &model::BreakerSettings,
    ) -> Result<BreakerState, HookStateError> {
        let now = self.memory.clock.advance(&Clocks::read()?);
        Ok(self.memory.breaker.standing(rules, now))
    }

    /// Counts a call that the rules have judged, and says what comes of it. Without a decision it counts nowhere.
    ///
    /// # Errors
    ///
    /// The clock cannot be read.
    pub fn settle(
        &mut self,
        user: Option<&mut Self>,
        policy: &Policy,
        decision: Option<Decision>,
        kind: CallClass,
        user_name: &str,
    ) -> Result<Settled, HookStateError> {
        let clocks = Clocks::read()?;
        let user = user.map(|user| &mut user.memory);
        Ok(self
            .memory
            .settle(user, policy, decision, kind, user_name, &clocks))
    }

    /// Keeps what has changed.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save(&self) -> Result<(), HookStateError> {
        let unclocked = |memory: &Memory| Memory {
            clock: Clock::default(),
            ..memory.clone()
        };
        if unclocked(&self.memory) == unclocked(&self.before) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&self.memory)
            .map_err(|error| HookStateError::Clock(error.to_string()))?;
        place::replace(&self.path, &bytes)?;
        Ok(())
    }
}

fn lock(file: File) -> Result<Flock<File>, Errno> {
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno),
        }
    }
}

impl Memory {
    fn settle(
        &mut self,
        user: Option<&mut Self>,
        policy: &Policy,
        decision: Option<Decision>,
        kind: CallClass,
        user_name: &str,
        clocks: &Clocks,
    ) -> Settled {
        let now = self.clock.advance(clocks);
        let rules = &policy.breaker;
        if self.breaker.standing(rules, now) == BreakerState::Open {
            return Settled::Open;
        }
        match decision {
            None | Some(Decision::Ask) => Settled::AsJudged { trip: None },
            Some(Decision::Deny) => Settled::AsJudged {
                trip: self.breaker.deny(rules, now),
            },
            Some(Decision::Allow) => {
                let limits = &policy.limits;
                let (own, of_user): (Option<Rate>, Option<Rate>) = match kind {
                    CallClass::Exec => (limits.exec, limits.user_exec),
                    CallClass::Connect => (limits.connect, limits.user_connect),
                    CallClass::Other => (None, None),
                };
                let window = self.window(kind);
                if let Some(rate) = own
                    && !window.has_room(rate, now)
                {
                    return Settled::Limited(Cause::Rate, wording::rate_exceeded(rate));
                }
                if let (Some(user), Some(rate)) = (user, of_user) {
                    let now = user.clock.advance(clocks);
                    if !user.window(kind).take(rate, now) {
                        return Settled::Limited(
                            Cause::UserRate,
                            wording::user_rate_exceeded(rate, user_name),
                        );
                    }
                }
                if let Some(rate) = own {
                    self.window(kind).take(rate, now);
                }
                self.breaker.allow();
                Settled::AsJudged { trip: None }
            }
        }
    }

    fn window(&mut self, kind: CallClass) -> &mut Window {
        if kind == CallClass::Connect {
            &mut self.connect
        } else {
            &mut self.exec
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

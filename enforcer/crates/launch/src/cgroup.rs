//! The cgroup (v2) that holds one agent's process tree.
//!
//! Every process below the agent is in `<v2 root>/enforcer/<id>` or a child of it: the kernel programs know
//! an agent by this directory. The directories belong to root and are never delegated.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use super::LaunchError;

/// Directory below the v2 root that holds all agents.
pub const PARENT: &str = "enforcer";
/// How many steps an agent's cgroup is below the v2 root.
pub const AGENT_LEVEL: u32 = 2;
/// Processes and threads an agent may have at a time, unless told otherwise.
pub const DEFAULT_PIDS_MAX: u64 = 4096;

const AS_ROOT: &str =
    "run as root, on a host (or in a container) where the cgroup v2 root is writable";

fn failed(
    path: &Path,
    step: &'static str,
    mend: &'static str,
) -> impl Fn(io::Error) -> LaunchError {
    move |source| LaunchError::Cgroup {
        path: path.to_owned(),
        step,
        source,
        mend,
    }
}

/// Mount points of the cgroup v2 file systems in the text of `/proc/self/mounts`, the usual places first.
pub fn v2_mounts(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mount_points(mounts, |kind| kind == "cgroup2");
    found.sort_by_key(|path| match path.to_str() {
        Some("/sys/fs/cgroup") => 0,
        Some("/sys/fs/cgroup/unified") => 1,
        _ => 2,
    });
    found
}

/// Mount points whose file system type is wanted, in the order of the text of `/proc/self/mounts`.
pub(super) fn mount_points(mounts: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            wanted(kind).then(|| PathBuf::from(unescape(point)))
        })
        .collect()
}

/// `/proc/self/mounts` writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(field: &str) -> String {
    let mut out = field.to_owned();
    for (escape, plain) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        out = out.replace(escape, plain);
    }
    out
}

/// The root of the cgroup v2 hierarchy.
#[derive(Clone, Debug)]
pub struct CgroupRoot {
    path: PathBuf,
}

impl CgroupRoot {
    /// Finds it: at `/sys/fs/cgroup` (pure), `/sys/fs/cgroup/unified` (hybrid), or wherever it is mounted.
    ///
    /// # Errors
    /// When none is mounted.
    pub fn find() -> Result<Self, LaunchError> {
        let file = Path::new("/proc/self/mounts");
        let mounts = fs::read_to_string(file).map_err(failed(file, "read", "mount /proc"))?;
        v2_mounts(&mounts)
            .into_iter()
            // The text also lists what another mount covers.
            .find(|path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC))
            .map(|path| Self { path })
            .ok_or(LaunchError::NoCgroup2)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of a process's cgroup in this hierarchy.
    ///
    /// # Errors
    /// When the process is gone, or in no cgroup that can be seen here.
    pub fn id_of(&self, pid: u32) -> io::Result<u64> {
        let listed = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = listed
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(fs::metadata(self.path.join(path))?.ino())
    }

    /// The agents' cgroups that exist: of running agents, of kept ones, and leftovers.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list_existing(&self) -> Result<Vec<AgentCgroup>, LaunchError> {
        let parent = self.path.join(PARENT);
        if !parent.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for path in children(&parent)? {
            match AgentCgroup::at(self, path) {
                // Its agent has ended meanwhile.
                Err(LaunchError::Cgroup { source, .. }) if gone(&source) => {}
                other => found.push(other?),
            }
        }
        Ok(found)
    }
}

/// What became of the limit on an agent's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PidsLimit {
    /// In force.
    Set(u64),
    /// Not in force, and why.
    Unavailable(String),
}

/// One agent's cgroup.
///
/// Dropping it leaves it in place: a tree that outlives its launcher stays governed.
#[derive(Clone, Debug)]
pub struct AgentCgroup {
    path: PathBuf,
    id: u64,
    level: u32,
}

impl AgentCgroup {
    /// Makes `<v2 root>/enforcer/<id>`.
    ///
    /// # Errors
    /// When the id is no good name, is in use, or the directory cannot be made.
    pub fn create(root: &CgroupRoot, id: &str) -> Result<Self, LaunchError> {
        if !valid_id(id) {
            return Err(LaunchError::BadCgroupId(id.to_owned()));
        }
        let parent = root.path.join(PARENT);
        let path = parent.join(id);
        // Another launcher that ends takes the empty parent away, perhaps between the two steps.
        let mut tries = 0;
        loop {
            match make_directory(&parent) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match check_parent(&parent) {
                        Err(LaunchError::Cgroup { source, .. }) if gone(&source) => {}
                        other => other?,
                    }
                }
                Err(error) if gone(&error) && tries < 100 => {}
                other => other.map_err(failed(&parent, "create", AS_ROOT))?,
            }
            match make_directory(&path) {
                Ok(()) => break,
                Err(error) if gone(&error) && tries < 100 => tries += 1,
                Err(error) => Err(error).map_err(failed(
                    &path,
                    "create",
                    "an agent of this name may still run: choose another name, or remove the empty directory",
                ))?,
            }
        }
        Self::at(root, path)
    }

    fn at(root: &CgroupRoot, path: PathBuf) -> Result<Self, LaunchError> {
        let meta = fs::metadata(&path).map_err(failed(&path, "stat", AS_ROOT))?;
        let below = path.strip_prefix(&root.path).unwrap_or(&path);
        let level = below.components().count() as u32;
        Ok(Self {
            id: meta.ino(),
            level,
            path,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How `/proc/PID/cgroup` of its processes names it behind `0::`.
    pub fn membership(&self) -> String {
        format!("/{PARENT}/{}", self.name())
    }

    /// The cgroup id as `bpf_get_current_cgroup_id` gives it: the inode number of the directory.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many steps it is below the v2 root, which has level 0 (`bpf_get_current_ancestor_cgroup_id`).
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    /// The directory, opened (for `CLONE_INTO_CGROUP` and for attaching programs).
    ///
    /// # Errors
    /// When it is gone.
    pub fn open(&self) -> Result<OwnedFd, LaunchError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&self.path, flags, Mode::empty())
            .map_err(|errno| failed(&self.path, "open", "start the agent again")(errno.into()))
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, pid: Pid) -> Result<(), LaunchError> {
        let file = self.path.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(failed(&file, "move a process in", AS_ROOT))
    }

    /// Limits how many processes and threads the tree has at a time, where the kernel offers that.
    pub fn limit_pids(&self, max: u64) -> PidsLimit {
        let Some(parent) = self.path.parent() else {
            return PidsLimit::Unavailable("no parent cgroup".to_owned());
        };
        // The controller is handed down level by level; a level that has it already takes it again.
        for level in [parent.parent(), Some(parent)].into_iter().flatten() {
            let offered = fs::read_to_string(level.join("cgroup.controllers")).unwrap_or_default();
            if !offered.split_whitespace().any(|name| name == "pids") {
                return PidsLimit::Unavailable(format!(
                    "the pids controller is not on cgroup v2 at {}",
                    level.display()
                ));
            }
            if let Err(error) = fs::write(level.join("cgroup.subtree_control"), "+pids") {
                return PidsLimit::Unavailable(format!(
                    "the pids controller cannot be enabled at {}: {error}",
                    level.display()
                ));
            }
        }
        match fs::write(self.path.join("pids.max"), max.to_string()) {
            Ok(()) => PidsLimit::Set(max),
            Err(error) => PidsLimit::Unavailable(format!("pids.max: {error}")),
        }
    }

    /// The processes in it and in its children.
    ///
    /// # Errors
    /// When it cannot be read. A child that goes away meanwhile is no error.
    pub fn procs(&self) -> Result<Vec<Pid>, LaunchError> {
        let mut pids = Vec::new();
        for directory in self.tree()? {
            let file = directory.join("cgroup.procs");
            match fs::read_to_string(&file) {
                Ok(text) => pids.extend(
                    text.lines()
                        .filter_map(|line| line.parse().ok())
                        .map(Pid::from_raw),
                ),
                Err(error) if gone(&error) => {}
                // A threaded child: its processes are listed in its domain.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(failed(&file, "read", AS_ROOT)(error)),
            }
        }
        Ok(pids)
    }

    /// Whether no living process is in it or below it. True when the directory is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_empty(&self) -> Result<bool, LaunchError> {
        let file = self.path.join("cgroup.events");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(!text.lines().any(|line| line == "populated 1")),
            Err(error) if gone(&error) => Ok(true),
            Err(error) => Err(failed(&file, "read", AS_ROOT)(error)),
        }
    }

    /// Kills every process in it and below it and waits until they are gone.
    ///
    /// # Errors
    /// When some are still there after `patience`, or the kernel refuses.
    pub fn kill_all(&self, patience: Duration) -> Result<(), LaunchError> {
        self.kill_by("cgroup.kill", patience)
    }

    fn kill_by(&self, switch: &str, patience: Duration) -> Result<(), LaunchError> {
        let deadline = Instant::now() + patience;
        let switch = self.path.join(switch);
        let mut pause = Duration::from_micros(200);
        while !self.is_empty()? {
            // `cgroup.kill` (5.14) also catches forks that run at the same time. Without it they are frozen
            // first, where that works, or one that forks faster than we read would never be caught.
            if fs::write(&switch, "1").is_err() {
                let _ = fs::write(self.path.join("cgroup.freeze"), "1");
                for pid in self.procs()? {
                    // One that has died meanwhile is what is wanted.
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
            if Instant::now() > deadline {
                let pids = self.procs()?;
                return Err(LaunchError::Undead {
                    path: self.path.clone(),
                    count: pids.len(),
                    seconds: patience.as_secs(),
                    pids: pids
                        .iter()
                        .take(8)
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" "),
                });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Removes it and its children, the deepest first. It must be empty. The last agent takes the common parent
    /// with it.
    ///
    /// # Errors
    /// When a process is still in it.
    pub fn remove(&self) -> Result<(), LaunchError> {
        for directory in self.tree()?.iter().rev() {
            remove_directory(directory)?;
        }
        if let Some(parent) = self.path.parent() {
            // Refused while it holds another agent.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    /// The directory and all below it, parents first.
    fn tree(&self) -> Result<Vec<PathBuf>, LaunchError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let mut all = vec![self.path.clone()];
        let mut next = 0;
        while next < all.len() {
            all.extend(children(&all[next])?);
            next += 1;
        }
        Ok(all)
    }
}

fn valid_id(id: &str) -> bool {
    // A leading letter or digit also rules out `.`, `..` and names that look like options; `cgroup.` names
    // are the kernel's own files.
    (1..=64).contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !id.starts_with("cgroup.")
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR)
    )
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(path)?;
    // The umask of the operator must not decide who can look in.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn check_parent(parent: &Path) -> Result<(), LaunchError> {
    for path in [parent.to_owned(), parent.join("cgroup.procs")] {
        let meta = fs::metadata(&path).map_err(failed(&path, "stat", AS_ROOT))?;
        if meta.uid() != 0 || meta.permissions().mode() & 0o022 != 0 {
            return Err(LaunchError::Delegated(parent.to_owned()));
        }
    }
    Ok(())
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, LaunchError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, "list", AS_ROOT)(error)),
    };
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

fn remove_directory(directory: &Path) -> Result<(), LaunchError> {
    // A cgroup stays busy for a moment after its last process has been reported dead.
    for _ in 0..100 {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(failed(directory, "remove", AS_ROOT)(error)),
        }
    }
    Err(failed(
        directory,
        "remove",
        "processes are still in it: kill them first",
    )(io::Error::from_raw_os_error(libc::EBUSY)))
}

/// The id of the agent that a process with this `/proc/PID/cgroup` belongs to (cgroups(7)).
pub fn agent_of(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut names = path.split('/');
    names.find(|name| *name == PARENT)?;
    let id = names.next()?.trim_end_matches(" (deleted)");
    (!id.is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;

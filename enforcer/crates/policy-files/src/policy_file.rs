//! Reads a policy's file, and refuses one that the agent's user could change.
//!
//! A policy decides what an agent may do, so the agent must not be able to write it or to put another file in
//! its place: not through the file, not through a symlink, not through a directory on the way to it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use crate::{rule_files, shipped, table_cache::TableCache};
use enforcer_policy::{MAX_BYTES, Parsed, PolicyError, Sources};

/// Write permission for the group or for others.
const SHARED_WRITE: u32 = 0o022;
/// In a directory: only the owner of an entry may replace it.
const STICKY: u32 = 0o1000;
/// Symlinks followed on the way to a file before it is called a loop (the kernel's own limit).
const MOST_LINKS: usize = 40;

/// What messages call the two kinds of files.
const POLICY: &str = "policy";
pub(crate) const RULE_SET: &str = "rule set";

/// A policy that was read from its file.
#[derive(Clone, Debug)]
pub struct LoadedPolicy {
    /// The file, as it was named.
    pub path: PathBuf,
    /// What it says, with all that it includes.
    pub parsed: Parsed,
}

/// Why a policy's file, or that of a rule set, cannot be used. `file` is what it is and its name: `policy /etc/p.json`.
/// Each message says what, where and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// There is no such file.
    #[error(
        "policy {path} does not exist; check the name (--policy), take one that comes along (--policy built-in:coding-agent), or put one there: install -D -m 644 policies/coding-agent.json {path}"
    )]
    Missing {
        /// The file.
        path: String,
    },
    /// No policy of this name comes along with the program.
    #[error("there is no policy {name}; these come along: {known}")]
    NotBuiltIn {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The file cannot be opened or read.
    #[error("{file} cannot be read: {source}; check its permissions and those of its directories")]
    Unreadable {
        /// The file.
        file: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The name is a symlink: whoever can change the link chooses the policy.
    #[error("{file} is a symlink; name the file that it leads to")]
    Symlink {
        /// The link.
        file: String,
    },
    /// A directory, pipe, socket or device.
    #[error("{file} is {kind}; name a regular file")]
    NotRegular {
        /// The name.
        file: String,
        /// What it is.
        kind: &'static str,
    },
    /// The file has more than [`MAX_BYTES`] bytes; nothing of it was read.
    #[error(
        "{file} is too large ({bytes} bytes, at most {MAX_BYTES} are read); write fewer, wider rules"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// The agent's user could write the file.
    #[error("{file} {how}, so the agent could change it; run: {mend}")]
    Writable {
        /// The file.
        file: String,
        /// Why the user can write it.
        how: String,
        /// Commands that mend it.
        mend: String,
    },
    /// The agent's user could put another file in the policy's place.
    #[error("{file} lies below {directory}, which {how}, so the agent could replace it; {mend}")]
    Replaceable {
        /// The file.
        file: String,
        /// The directory that the user can write.
        directory: String,
        /// Why the user can write it.
        how: String,
        /// What to do.
        mend: String,
    },
    /// The text is not a policy. One line for each fault.
    #[error("{}", lines(path, errors))]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong, one entry at least.
        errors: Vec<PolicyError>,
    },
}

fn lines(path: &str, errors: &[PolicyError]) -> String {
    let lines: Vec<String> = errors.iter().map(|error| error.in_file(path)).collect();
    lines.join("\n")
}

/// Reads and checks a policy's file.
///
/// `agent_uid` is the user that the agent will run as. With it, a file is refused that this user could write,
/// or whose directories would let them put another in its place; root can write everything, so for uid 0 only
/// what other users could write is refused. Without it (`policy check`) nothing is asked about owners.
///
/// # Errors
///
/// [`PolicyFileError`]; nothing is read from a file that is refused.
pub fn load(path: &Path, agent_uid: Option<u32>) -> Result<LoadedPolicy, PolicyFileError> {
    let invalid = |errors| PolicyFileError::Invalid {
        path: path.display().to_string(),
        errors,
    };
    let sources = sources(path, agent_uid)?;
    Ok(LoadedPolicy {
        path: path.to_owned(),
        parsed: enforcer_policy::parse_sources(sources).map_err(invalid)?,
    })
}

/// Reads it as [`load`] does, and gives with it what is kept of it below a directory for state. What this program has read
/// before without a fault it does not search for faults again.
///
/// # Errors
///
/// As [`load`].
pub fn load_kept(
    path: &Path,
    agent_uid: Option<u32>,
    state: &Path,
) -> Result<(LoadedPolicy, TableCache), PolicyFileError> {
    let sources = sources(path, agent_uid)?;
    let cache = TableCache::new(&sources.key(), Some(state));
    let parse = if cache.is_checked() {
        enforcer_policy::parse_sound
    } else {
        enforcer_policy::parse_sources
    };
    let parsed = parse(sources).map_err(|errors| PolicyFileError::Invalid {
        path: path.display().to_string(),
        errors,
    })?;
    let loaded = LoadedPolicy {
        path: path.to_owned(),
        parsed,
    };
    Ok((loaded, cache))
}

/// Reads a policy's file and what it includes as [`load`] does, and gives the texts: each is read once.
///
/// # Errors
///
/// As [`load`], but for the content.
pub fn sources(path: &Path, agent_uid: Option<u32>) -> Result<Sources, PolicyFileError> {
    if shipped::is_built_in(path) {
        let name = path.display().to_string();
        let Some(text) = shipped::text(path) else {
            return Err(PolicyFileError::NotBuiltIn {
                name,
                known: shipped::names().join(", "),
            });
        };
        return Sources::built_in(text)
            .map_err(|errors| PolicyFileError::Invalid { path: name, errors });
    }
    let bytes = read_as(POLICY, path, agent_uid)?;
    match enforcer_policy::utf8(&bytes) {
        Ok(text) => rule_files::include(path, text, agent_uid),
        Err(error) => Err(PolicyFileError::Invalid {
            path: path.display().to_string(),
            errors: vec![error],
        }),
    }
}

/// Reads the file of a policy or of a rule set (`what`), and gives its bytes.
///
/// # Errors
///
/// As [`load`], but for the content.
pub(crate) fn read_as(
    what: &str,
    path: &Path,
    agent_uid: Option<u32>,
) -> Result<Vec<u8>, PolicyFileError> {
    let name = format!("{what} {}", path.display());
    let unreadable = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            PolicyFileError::Missing {
                path: path.display().to_string(),
            }
        } else {
            PolicyFileError::Unreadable {
                file: name.clone(),
                source,
            }
        }
    };

    // Looked at before it is opened, because opening a device can have effects.
    regular(&name, &path.symlink_metadata().map_err(unreadable)?)?;
    let file = match agent_uid {
        None => open(path),
        Some(uid) => {
            let (directories, resolved) = way_to(path).map_err(unreadable)?;
            for directory in &directories {
                refuse_replaceable(&name, path, directory, uid, &unreadable)?;
            }
            open(&resolved)
        }
    };
    let file = file.map_err(|source| match source.raw_os_error() {
        Some(libc::ELOOP) => PolicyFileError::Symlink { file: name.clone() },
        _ => unreadable(source),
    })?;
    let metadata = file.metadata().map_err(unreadable)?;
    regular(&name, &metadata)?;
    if let Some(uid) = agent_uid {
        refuse_writable(&name, path, &metadata, uid)?;
    }

    content(file, &name, metadata.len(), &unreadable)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn regular(name: &str, metadata: &Metadata) -> Result<(), PolicyFileError> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Err(PolicyFileError::Symlink {
            file: name.to_owned(),
        });
    }
    if kind.is_file() {
        return Ok(());
    }
    let kind = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(PolicyFileError::NotRegular {
        file: name.to_owned(),
        kind,
    })
}

/// Reads the file, at most [`MAX_BYTES`] of it: it may grow between the look at its size and the reading.
fn content(
    file: File,
    name: &str,
    size: u64,
    unreadable: &dyn Fn(io::Error) -> PolicyFileError,
) -> Result<Vec<u8>, PolicyFileError> {
    let too_large = |bytes: u64| PolicyFileError::TooLarge {
        file: name.to_owned(),
        bytes,
    };
    if size > MAX_BYTES as u64 {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Why the user could write what has this metadata, if so.
fn writable(metadata: &Metadata, uid: u32) -> Option<String> {
    if uid != 0 && metadata.uid() == uid {
        return Some(format!("belongs to the agent's user (uid {uid})"));
    }
    // The group bits also bound what an access control list can grant.
    match metadata.mode() & SHARED_WRITE {
        0 => None,
        bits => {
            let who = if bits & 0o002 != 0 {
                "everyone"
            } else {
                "its group"
            };
            Some(format!(
                "can be written by {who} (mode {:03o})",
                metadata.mode() & 0o777
            ))
        }
    }
}

fn refuse_writable(
    name: &str,
    path: &Path,
    metadata: &Metadata,
    uid: u32,
) -> Result<(), PolicyFileError> {
    let Some(how) = writable(metadata, uid) else {
        return Ok(());
    };
    let file = shell_word(path);
    Err(PolicyFileError::Writable {
        file: name.to_owned(),
        how,
        mend: format!("chown root:root {file} && chmod 644 {file}"),
    })
}

fn refuse_replaceable(
    name: &str,
    file: &Path,
    directory: &Path,
    uid: u32,
    unreadable: &dyn Fn(io::Error) -> PolicyFileError,
) -> Result<(), PolicyFileError> {
    let metadata = directory.symlink_metadata().map_err(unreadable)?;
    let owned = uid != 0 && metadata.uid() == uid;
    if metadata.mode() & STICKY != 0 && !owned {
        return Ok(());
    }
    // Root as the agent needs no group bits; that others could choose its policy still matters.
    if uid == 0 && metadata.mode() & 0o002 == 0 {
        return Ok(());
    }
    let Some(how) = writable(&metadata, uid) else {
        return Ok(());
    };
    let install = install_command(file);
    let mend = if name.starts_with(RULE_SET) {
        // Where it lies is given: beside the policy.
        let directory = shell_word(directory);
        format!("run: chown root:root {directory} && chmod 755 {directory}")
    } else if owned {
        format!("run: {install}; and name that file")
    } else {
        format!(
            "run: chmod go-w {}; or: {install}; and name that file",
            shell_word(directory)
        )
    };
    Err(PolicyFileError::Replaceable {
        file: name.to_owned(),
        directory: directory.display().to_string(),
        how,
        mend,
    })
}

/// The command that puts a copy where only root writes.
fn install_command(file: &Path) -> String {
    let base = file.file_name().map_or(file, Path::new);
    let copy = Path::new("/etc/enforcer").join(base);
    format!(
        "install -D -m 644 {} {}",
        shell_word(file),
        shell_word(&copy)
    )
}

fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    match shlex::try_quote(&text) {
        Ok(quoted) => quoted.into_owned(),
        Err(_) => text,
    }
}

/// Every directory whose entries lead to the file, those of symlinks on the way included, and the file's name
/// with all of them resolved. The file itself is not resolved.
pub(crate) fn way_to(path: &Path) -> io::Result<(Vec<PathBuf>, PathBuf)> {
    let absolute = std::path::absolute(path)?;
    let mut ahead = parts(&absolute);
    let mut here = PathBuf::from("/");
    let mut seen = vec![here.clone()];
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        if ahead.is_empty() {
            return Ok((seen, next));
        }
        let metadata = next.symlink_metadata()?;
        if metadata.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = next.read_link()?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                ahead.push_front(part);
            }
        } else if metadata.is_dir() {
            if !seen.contains(&next) {
                seen.push(next.clone());
            }
            here = next;
        } else {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
    }
    Err(io::Error::from_raw_os_error(libc::EISDIR))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
#[path = "policy_file_tests.rs"]
mod tests;

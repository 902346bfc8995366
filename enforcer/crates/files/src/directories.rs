//! The directories of ours on a machine: what is kept, the trails, what runs. Whoever comes first makes them; one whose
//! mode is too open is tightened; one that is somebody else's is refused.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

/// A directory of ours.
#[derive(Clone, Copy, Debug)]
pub struct OwnDirectory {
    /// Where it is.
    pub path: &'static str,
    /// Who may do what in it, at most.
    pub mode: u32,
}

/// What is kept: requests for approval.
pub const STATE: OwnDirectory = OwnDirectory {
    path: "/var/lib/enforcer",
    mode: 0o700,
};
/// The trails. Readers of a tenant's trail pass through; nobody but root sees what lies there.
pub const TRAILS: OwnDirectory = OwnDirectory {
    path: "/var/log/enforcer",
    mode: 0o751,
};
/// What runs. Whoever may answer requests, and the agent itself, find the control socket in it, and what is left for hooks;
/// all else is root's to read.
pub const RUNNING: OwnDirectory = OwnDirectory {
    path: "/run/enforcer",
    mode: 0o711,
};
/// What a directory of the system's that was missing gets.
const SYSTEM: u32 = 0o755;
/// Write permission for the group or for others.
const SHARED_WRITE: u32 = 0o022;

/// Why a directory of ours cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It belongs to somebody else, who could change what lies in it.
    #[error(
        "{path} belongs to uid {owner}, not to root; look at what is in it, then, as root: chown root {path} && chmod {mode:04o} {path}, or move it away"
    )]
    Owner {
        /// The directory.
        path: String,
        /// Whose it is.
        owner: u32,
        /// The mode that it should have.
        mode: u32,
    },
    /// Others could write it, and somebody has.
    #[error(
        "{path} could be written by others, and {entry} in it belongs to uid {owner}; look at it, then move {path} away"
    )]
    Foreign {
        /// The directory.
        path: String,
        /// What lies in it.
        entry: String,
        /// Whose that is.
        owner: u32,
    },
    /// Its mode is too open, and only root can mend that.
    #[error("{path} is too open (mode {found:04o}); as root: chmod {mode:04o} {path}")]
    TooOpen {
        /// The directory.
        path: String,
        /// The mode that it has.
        found: u32,
        /// The mode that it should have.
        mode: u32,
    },
    /// Something else is there.
    #[error("{path} is not a directory; move it away")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// A system call failed.
    #[error("{path} cannot be {what}: {source}; {mend}")]
    System {
        /// The directory.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        mend: &'static str,
    },
}

/// What was done for a directory to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryChange {
    /// Nothing.
    Nothing,
    /// It was made.
    Made,
    /// It was too open; the mode that it had and the mode that it has.
    Mended(u32, u32),
}

/// Makes sure of the directories of ours that a start needs, and says what was done, in a line without a newline; `None`
/// if all were there and right.
///
/// # Errors
///
/// One cannot be made, or is not root's.
pub fn prepare(places: &[OwnDirectory]) -> Result<Option<String>, DirectoryError> {
    let mut made = Vec::new();
    let mut mended = Vec::new();
    for place in places {
        match directory(Path::new(place.path), place.mode)? {
            DirectoryChange::Nothing => {}
            DirectoryChange::Made => made.push(format!("{} (mode {:04o})", place.path, place.mode)),
            DirectoryChange::Mended(had, has) => {
                mended.push(format!("{} from mode {had:04o} to {has:04o}", place.path));
            }
        }
    }
    // Of what goes with the last agent alone nobody needs to hear.
    if made.len() == 1 && places.len() > 1 && made[0].starts_with(RUNNING.path) {
        made.clear();
    }
    let parts: Vec<String> = [("made", made), ("tightened", mended)]
        .iter()
        .filter(|(_, what)| !what.is_empty())
        .map(|(verb, what)| format!("{verb} {}", what.join(", ")))
        .collect();
    Ok((!parts.is_empty()).then(|| parts.join("; ")))
}

/// Makes sure of a directory: made with this mode if it is missing, with what is missing above it; tightened to this mode if
/// it is more open. One that is less open is left so.
///
/// # Errors
///
/// It cannot be made, belongs neither to root nor to this user, or could be written by others and was.
pub fn directory(path: &Path, mode: u32) -> Result<DirectoryChange, DirectoryError> {
    loop {
        let is_new = match make(path, mode) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                above(path)?;
                continue;
            }
            Err(source) => {
                return Err(system(
                    path,
                    "made",
                    source,
                    "mount a writable file system there",
                ));
            }
        };
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(path);
        let directory = match opened {
            Ok(directory) => directory,
            // Another process has taken it away meanwhile, and may have made it again; a link that leads nowhere is there
            // for ever.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) =>
            {
                continue;
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
                return Err(DirectoryError::NotADirectory {
                    path: path.display().to_string(),
                });
            }
            Err(source) => {
                return Err(system(path, "opened", source, "look at what is there"));
            }
        };
        return if is_new {
            Ok(DirectoryChange::Made)
        } else {
            tighten(path, &directory, mode)
        };
    }
}

/// Tightens a directory of ours if it is there.
///
/// # Errors
///
/// As [`directory`].
pub fn mend(place: OwnDirectory) -> Result<Option<String>, DirectoryError> {
    if fs::symlink_metadata(place.path).is_err() {
        return Ok(None);
    }
    prepare(&[place])
}

/// What a start would find, without changing anything.
///
/// # Errors
///
/// Why it would not start.
pub fn look(places: &[OwnDirectory]) -> Result<String, DirectoryError> {
    let mut found = Vec::new();
    for place in places {
        let path = || place.path.to_owned();
        found.push(match fs::metadata(place.path) {
            Err(_) => format!("{} (`enforcer run` makes it)", place.path),
            Ok(metadata) if !metadata.is_dir() => {
                return Err(DirectoryError::NotADirectory { path: path() });
            }
            Ok(metadata) if metadata.uid() != 0 => {
                return Err(DirectoryError::Owner {
                    path: path(),
                    owner: metadata.uid(),
                    mode: place.mode,
                });
            }
            Ok(metadata) if metadata.mode() & 0o777 & !place.mode != 0 => format!(
                "{} (mode {:04o}: `enforcer run` makes it {:04o})",
                place.path,
                metadata.mode() & 0o7777,
                metadata.mode() & (place.mode | 0o7000)
            ),
            Ok(_) => path(),
        });
    }
    Ok(found.join(", "))
}

/// Makes the directories above one.
fn above(path: &Path) -> Result<(), DirectoryError> {
    let missing: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .take_while(|above| fs::metadata(above).is_err() && !above.as_os_str().is_empty())
        .map(Path::to_owned)
        .collect();
    for above in missing.iter().rev() {
        match make(above, SYSTEM) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let mend = "mount a writable file system there";
                return Err(system(above, "made", error, mend));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes one directory with this mode, whatever the umask is.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        // Taken away again meanwhile: the caller looks for itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn tighten(path: &Path, directory: &File, mode: u32) -> Result<DirectoryChange, DirectoryError> {
    let name = || path.display().to_string();
    let metadata = directory
        .metadata()
        .map_err(|source| system(path, "looked at", source, "look at what is there"))?;
    let ours = |owner: u32| owner == 0 || owner == geteuid().as_raw();
    if !ours(metadata.uid()) {
        return Err(DirectoryError::Owner {
            path: name(),
            owner: metadata.uid(),
            mode,
        });
    }
    let found = metadata.mode() & 0o7777;
    if found & 0o777 & !mode == 0 {
        return Ok(DirectoryChange::Nothing);
    }
    let right = found & (mode | 0o7000);
    directory
        .set_permissions(Permissions::from_mode(right))
        .map_err(|_| DirectoryError::TooOpen {
            path: name(),
            found,
            mode: right,
        })?;
    // From here on nobody adds to it; what others have put there before would be believed.
    if found & SHARED_WRITE != 0 {
        let entries = fs::read_dir(path)
            .map_err(|source| system(path, "read", source, "look at what is there"))?;
        for entry in entries.flatten() {
            let owner = entry.metadata().map_or(0, |metadata| metadata.uid());
            if !ours(owner) {
                // As it was: the next start must not take it for good.
                let _ = directory.set_permissions(Permissions::from_mode(found));
                return Err(DirectoryError::Foreign {
                    path: name(),
                    entry: entry.file_name().to_string_lossy().into_owned(),
                    owner,
                });
            }
        }
    }
    Ok(DirectoryChange::Mended(found, right))
}

fn system(
    path: &Path,
    what: &'static str,
    source: io::Error,
    mend: &'static str,
) -> DirectoryError {
    DirectoryError::System {
        path: path.display().to_string(),
        what,
        source,
        mend,
    }
}

#[cfg(test)]
#[path = "directories_tests.rs"]
mod tests;

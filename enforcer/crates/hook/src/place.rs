//! Where a hook without a launcher keeps what it remembers: `$XDG_STATE_HOME/enforcer`, the user's own directory.

use std::{env, path::PathBuf};

use nix::unistd::{User, geteuid};
use thiserror::Error;

pub use enforcer_files::own_files::{OwnFileError, directory, open, read, replace};

/// Why there is no such directory, or what lies in it cannot be used.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// Neither `XDG_STATE_HOME` nor a home directory.
    #[error("there is no home directory to keep the hook's state in; set XDG_STATE_HOME")]
    NoHome,
    /// A file or directory.
    #[error("{0}")]
    File(#[from] OwnFileError),
}

/// The home directory: `HOME`, else that of the user.
pub fn home() -> Option<PathBuf> {
    env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute())
        .or_else(|| Some(User::from_uid(geteuid()).ok()??.dir))
}

/// The directory, whether or not it exists.
///
/// # Errors
///
/// [`PlaceError::NoHome`].
pub fn root() -> Result<PathBuf, PlaceError> {
    // A relative one is to be ignored (XDG Base Directory Specification).
    let given = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let base = match given.filter(|path| path.is_absolute()) {
        Some(base) => base,
        None => home().ok_or(PlaceError::NoHome)?.join(".local/state"),
    };
    Ok(base.join("enforcer"))
}

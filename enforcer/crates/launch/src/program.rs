//! Finding the program that a command names, as the agent's user would.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::privilege::{errno, with_eyes_of};
use super::{Identity, LaunchError};

/// Where programs are looked for when PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Finds the program of `command` and checks that the agent's user can execute it, and that it can enter
/// `directory`, from which a relative path counts.
///
/// # Errors
/// [`LaunchError::NotFound`] (127) and [`LaunchError::NotExecutable`] (126) as a shell tells them apart, and
/// [`LaunchError::Directory`].
pub fn find_program(
    command: &OsStr,
    path: Option<&OsStr>,
    directory: &Path,
    identity: &Identity,
) -> Result<PathBuf, LaunchError> {
    with_eyes_of(identity, || {
        // The whole path, not `.`: without a way in from the root most programs cannot work there.
        enter(directory).map_err(|source| LaunchError::Directory {
            path: directory.to_owned(),
            user: identity.display_name(),
            source,
        })?;
        search(command, path, directory)
    })?
}

fn search(command: &OsStr, path: Option<&OsStr>, directory: &Path) -> Result<PathBuf, LaunchError> {
    let not_found = |in_path| LaunchError::NotFound {
        command: command.to_owned(),
        in_path,
    };
    if command.is_empty() {
        return Err(not_found(false));
    }
    if command.as_bytes().contains(&b'/') {
        let given = PathBuf::from(command);
        return match executable(&directory.join(&given)) {
            Ok(()) => Ok(given),
            Err(error) if is_missing(&error) => Err(not_found(false)),
            Err(source) => Err(not_executable(given, source)),
        };
    }
    let default = OsString::from(DEFAULT_PATH);
    let mut refused = None;
    for place in path
        .unwrap_or(&default)
        .as_bytes()
        .split(|byte| *byte == b':')
    {
        // An empty part of PATH is the working directory.
        let candidate = if place.is_empty() {
            Path::new(".").join(command)
        } else {
            Path::new(OsStr::from_bytes(place)).join(command)
        };
        match executable(&directory.join(&candidate)) {
            Ok(()) => return Ok(candidate),
            Err(error) if is_missing(&error) => {}
            // In a directory that this user cannot search nothing is known to be there.
            Err(_) if directory.join(&candidate).symlink_metadata().is_err() => {}
            // As a shell does: a file that is not executable is remembered, and the search goes on.
            Err(error) => refused = refused.or(Some((candidate, error))),
        }
    }
    match refused {
        Some((candidate, source)) => Err(not_executable(candidate, source)),
        None => Err(not_found(true)),
    }
}

fn not_executable(path: PathBuf, source: io::Error) -> LaunchError {
    let mend = match source.raw_os_error() {
        Some(libc::EISDIR) => "it is a directory: name a program",
        _ => {
            "give the agent's user the right to execute it (chmod +x), and to enter its directories"
        }
    };
    LaunchError::NotExecutable { path, source, mend }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG)
    )
}

/// Whether the calling thread's file system identity can execute a file.
fn executable(path: &Path) -> io::Result<()> {
    access(path, libc::X_OK)?;
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !meta.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

fn enter(directory: &Path) -> io::Result<()> {
    if !std::fs::metadata(directory)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    access(directory, libc::X_OK)
}

/// `faccessat2` with the effective, that is the file system identity. Not the C library's: it may answer
/// from the ids of the process.
fn access(path: &Path, mode: libc::c_int) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::ENOENT))?;
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            mode,
            libc::AT_EACCESS,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(errno()))
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;

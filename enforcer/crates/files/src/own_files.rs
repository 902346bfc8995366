//! Files and directories that belong to whoever runs this program, and that nobody else could have written: nothing is
//! followed or believed that another user could have put there.

use std::{
    fs,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use thiserror::Error;

/// Bytes of a file of ours.
const MAX_BYTES: u64 = 32 << 20;

/// Why a file or directory of ours cannot be used.
#[derive(Debug, Error)]
pub enum OwnFileError {
    /// It is a link, belongs to somebody else, or can be written by others.
    #[error("{path} {how}; look at it, then remove it: rm -r {path}")]
    Unsafe {
        /// The file or directory.
        path: String,
        /// What is wrong with it.
        how: String,
    },
    /// A system call failed.
    #[error("{path}: {source}; make it readable and writable for the user of the agent")]
    Io {
        /// The file or directory.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OwnFileError + use<'_> {
    move |source| OwnFileError::Io {
        path: path.display().to_string(),
        source,
    }
}

/// A directory of ours below the root, made if it is missing.
///
/// # Errors
///
/// It cannot be made, or is not ours alone.
pub fn directory(root: &Path, name: &str) -> Result<PathBuf, OwnFileError> {
    let path = root.join(name);
    if !path.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed(&path))?;
    }
    known_directory(root, name)
}

/// A directory of ours below the root.
///
/// # Errors
///
/// It is not there, or is not ours alone.
pub fn known_directory(root: &Path, name: &str) -> Result<PathBuf, OwnFileError> {
    let path = root.join(name);
    for directory in [root, &path] {
        let metadata = fs::symlink_metadata(directory).map_err(failed(directory))?;
        refuse(directory, &metadata, metadata.is_dir(), "is no directory")?;
    }
    Ok(path)
}

fn refuse(
    path: &Path,
    metadata: &fs::Metadata,
    right_kind: bool,
    kind: &str,
) -> Result<(), OwnFileError> {
    let how = if metadata.file_type().is_symlink() {
        "is a symbolic link".to_owned()
    } else if !right_kind {
        kind.to_owned()
    } else if metadata.uid() != geteuid().as_raw() {
        format!("belongs to another user (uid {})", metadata.uid())
    } else if metadata.mode() & 0o022 != 0 {
        format!(
            "can be written by others (mode {:03o})",
            metadata.mode() & 0o777
        )
    } else {
        return Ok(());
    };
    Err(OwnFileError::Unsafe {
        path: path.display().to_string(),
        how,
    })
}

/// Opens a file of ours; `None` if it does not exist and is not to be made.
///
/// # Errors
///
/// It is a link, no regular file, or not ours alone.
pub fn open(path: &Path, make: bool) -> Result<Option<File>, OwnFileError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(make)
        .create(make)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(OwnFileError::Unsafe {
                path: path.display().to_string(),
                how: "is a symbolic link".to_owned(),
            });
        }
        Err(error) => return Err(failed(path)(error)),
    };
    let metadata = file.metadata().map_err(failed(path))?;
    refuse(path, &metadata, metadata.is_file(), "is no regular file")?;
    Ok(Some(file))
}

/// The content of a file of ours; `None` if it does not exist.
///
/// # Errors
///
/// As [`open`], and it is too large.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, OwnFileError> {
    let Some(file) = open(path, false)? else {
        return Ok(None);
    };
    let size = file.metadata().map_err(failed(path))?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(MAX_BYTES)).unwrap_or(0));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(OwnFileError::Unsafe {
            path: path.display().to_string(),
            how: format!("is larger than {} MiB", MAX_BYTES >> 20),
        });
    }
    Ok(Some(bytes))
}

/// Puts a file of ours in its place as a whole: a reader sees the old one or the new one.
///
/// # Errors
///
/// It cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), OwnFileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&new)?;
        file.write_all(bytes)?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map_err(failed(path))
}

//! The files of settings: read as what they are, and written as a whole.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::InstallError;

/// Largest settings file, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// What is put behind the name of the file as it was.
const BACKUP: &str = ".before-enforcer";

/// Makes the directory of a settings file. One of the machine is for all to read, whatever the umask is.
pub(super) fn make_directory(directory: &Path, managed: bool) -> Result<(), InstallError> {
    let there = directory.is_dir();
    fs::create_dir_all(directory).map_err(failed(directory))?;
    if managed && !there {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory, mode).map_err(failed(directory))?;
    }
    if managed {
        tight(directory, "/etc")?;
    }
    Ok(())
}

/// Refuses a file that others than root can change, itself or by a directory above it.
pub(super) fn tight(path: &Path, place: &'static str) -> Result<(), InstallError> {
    for part in path.ancestors() {
        let metadata = fs::metadata(part).map_err(failed(part))?;
        // In a sticky directory nobody can take away what is root's.
        let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 && !sticky {
            return Err(InstallError::Loose {
                path: part.display().to_string(),
                place,
            });
        }
    }
    Ok(())
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> InstallError + use<'_> {
    move |source| InstallError::Io {
        path: path.display().to_string(),
        source,
    }
}

pub(super) fn backup(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(BACKUP);
    file.with_file_name(name)
}

pub(super) fn mode(file: &Path) -> u32 {
    fs::metadata(file).map_or(0o600, |metadata| metadata.mode() & 0o777)
}

pub(super) fn read(file: &Path) -> Result<Option<String>, InstallError> {
    let settings = |why: String, mend| InstallError::Settings {
        path: file.display().to_string(),
        why,
        mend,
    };
    let metadata = match fs::symlink_metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(file)(error)),
    };
    if !metadata.is_file() {
        return Err(settings(
            "is no regular file".to_owned(),
            "change the file itself, or put it in its place",
        ));
    }
    if metadata.len() > MAX_BYTES {
        return Err(settings(
            format!("is larger than {} MiB", MAX_BYTES >> 20),
            "look at it",
        ));
    }
    let bytes = fs::read(file).map_err(failed(file))?;
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| settings("is no UTF-8".to_owned(), "save it as UTF-8"))
}

/// Puts a file in its place as a whole.
pub(super) fn write(file: &Path, content: &str, mode: u32) -> Result<(), InstallError> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let written = (|| {
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        out.write_all(content.as_bytes())?;
        out.set_permissions(fs::Permissions::from_mode(mode))?;
        out.sync_all()?;
        fs::rename(&new, file)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map_err(failed(file))
}

pub(super) fn remove(file: &Path) -> Result<(), InstallError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(file)(error)),
        _ => Ok(()),
    }
}

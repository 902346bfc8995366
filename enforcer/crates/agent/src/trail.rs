//! The trail's file from before the start to the first event: a start that fails leaves none behind.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Group, chown},
};

use super::{DEFAULT_AUDIT, error::Result};
use enforcer_files::directories;
use enforcer_trail::{AuditError, Writer, tenant_trail};

/// What the group of a tenant's readers is called, before the tenant's name.
const READERS: &str = "enforcer-";

/// Why there is no place for a trail.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    /// Its path cannot be made absolute.
    #[error("the trail's path `{}` cannot be made absolute; name a file with --audit", path.display())]
    Relative {
        /// As it was given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its directory cannot be made.
    #[error("{} cannot be made; name another trail with --audit", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its directory cannot be given to those who may read it.
    #[error("{} cannot be given to {group}", directory.display())]
    Readers {
        /// The directory.
        directory: PathBuf,
        /// Their group.
        group: String,
        /// What the system says.
        source: Errno,
    },
    /// Others take its directory away.
    #[error("the trail's directory goes away again and again; name another trail with --audit")]
    Unsettled,
    /// It was handed over before.
    #[error("the trail has a writer already; report this as a defect")]
    Taken,
}

/// The opened trail of a run that has not started yet. Dropped, it takes away what it has made, if that is still
/// empty.
#[derive(Debug)]
pub struct Trail {
    path: PathBuf,
    /// Directories that were made for it, outer ones first.
    made: Vec<PathBuf>,
    writer: Option<Writer>,
}

impl Trail {
    /// Opens the trail: the file that is given, else a tenant's own, else the usual one. Directories of these two are
    /// made if they are missing. The usual one stays: another launcher may be about to use it.
    ///
    /// # Errors
    ///
    /// The directory is missing or not ours, or the file is no trail of ours.
    pub fn open(given: Option<&Path>, tenant: Option<&str>) -> Result<Self> {
        // Another launcher of the tenant's, whose start has failed, may take its directories away meanwhile.
        for _ in 0..8 {
            let mut trail = Self::found(given, tenant)?;
            match Writer::open(&trail.path) {
                Ok(writer) => {
                    trail.writer = Some(writer);
                    return Ok(trail);
                }
                Err(AuditError::DirectoryMissing { .. }) if given.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(TrailError::Unsettled.into())
    }

    fn found(given: Option<&Path>, tenant: Option<&str>) -> Result<Self> {
        Ok(match (given, tenant) {
            (Some(path), _) => Self {
                path: std::path::absolute(path).map_err(|source| TrailError::Relative {
                    path: path.to_owned(),
                    source,
                })?,
                made: Vec::new(),
                writer: None,
            },
            (None, Some(tenant)) => Self::of_tenant(tenant)?,
            (None, None) => Self::usual()?,
        })
    }

    fn usual() -> Result<Self> {
        let trail = Self {
            path: PathBuf::from(DEFAULT_AUDIT),
            made: Vec::new(),
            writer: None,
        };
        directories::directory(
            Path::new(directories::TRAILS.path),
            directories::TRAILS.mode,
        )?;
        Ok(trail)
    }

    /// The trail of a tenant. Its directory belongs to the group `enforcer-TENANT`, if there is one: who is in it reads
    /// this trail and no other.
    fn of_tenant(tenant: &str) -> Result<Self> {
        let mut trail = Self {
            path: tenant_trail(Path::new(DEFAULT_AUDIT), tenant),
            made: Vec::new(),
            writer: None,
        };
        directories::directory(
            Path::new(directories::TRAILS.path),
            directories::TRAILS.mode,
        )?;
        trail.directory(2, directories::TRAILS.mode)?;
        if let Some(directory) = trail.directory(1, 0o750)? {
            let group = Group::from_name(&format!("{READERS}{tenant}"))
                .ok()
                .flatten();
            if let Some(group) = group {
                chown(&directory, None, Some(group.gid)).map_err(|source| TrailError::Readers {
                    directory: directory.clone(),
                    group: group.name,
                    source,
                })?;
                // Whatever is made in it belongs to the group.
                fs::set_permissions(&directory, Permissions::from_mode(0o2750))?;
            }
        }
        Ok(trail)
    }

    /// Makes the directory so many levels above the file, if it is missing; gives it if so.
    fn directory(&mut self, levels: usize, mode: u32) -> Result<Option<PathBuf>> {
        let Some(directory) = self.path.ancestors().nth(levels).map(Path::to_owned) else {
            return Ok(None);
        };
        match DirBuilder::new().mode(mode).create(&directory) {
            Ok(()) => {
                // Whatever the umask is.
                fs::set_permissions(&directory, Permissions::from_mode(mode))?;
                self.made.push(directory.clone());
                Ok(Some(directory))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(source) => Err(TrailError::Directory { directory, source }.into()),
        }
    }

    /// A file in the usual place for the last events of an agent whose own trail is no more; its directory is
    /// made if it is missing.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn spare(id: &str) -> Result<PathBuf> {
        let usual = Self::usual()?;
        Ok(usual.path.with_file_name(format!("{id}.jsonl")))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands the file over: from now on it holds what happens.
    ///
    /// # Errors
    ///
    /// It was handed over before.
    pub fn start(&mut self) -> Result<Writer> {
        Ok(self.writer.take().ok_or(TrailError::Taken)?)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // The failed start is told already; an empty file that stays does no harm.
            let _ = writer.abandon();
        }
        for directory in self.made.iter().rev() {
            // Refused while it holds anything.
            let _ = fs::remove_dir(directory);
        }
    }
}

//! The trail's file from before the start to the first event: a start that fails leaves none behind.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::DEFAULT_AUDIT;
use crate::audit::Writer;

/// The opened trail of a run that has not started yet. Dropped, it takes away what it has made, if that is still
/// empty.
#[derive(Debug)]
pub struct Trail {
    path: PathBuf,
    made: Option<PathBuf>,
    writer: Option<Writer>,
}

impl Trail {
    /// Opens the trail; the directory of the usual place is made if it is missing.
    ///
    /// # Errors
    ///
    /// The directory is missing or not ours, or the file is no trail of ours.
    pub fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let mut trail = match given {
            Some(path) => Self {
                path: std::path::absolute(path).with_context(|| {
                    format!(
                        "the trail's path `{}` cannot be made absolute; name a file with --audit",
                        path.display()
                    )
                })?,
                made: None,
                writer: None,
            },
            None => Self::usual()?,
        };
        trail.writer = Some(Writer::open(&trail.path)?);
        Ok(trail)
    }

    fn usual() -> anyhow::Result<Self> {
        let path = PathBuf::from(DEFAULT_AUDIT);
        let mut made = None;
        if let Some(directory) = path.parent() {
            match DirBuilder::new().mode(0o750).create(directory) {
                Ok(()) => made = Some(directory.to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "{} cannot be made; name another trail with --audit",
                            directory.display()
                        )
                    });
                }
            }
        }
        Ok(Self {
            path,
            made,
            writer: None,
        })
    }

    /// A file in the usual place for the last events of an agent whose own trail is no more; its directory is
    /// made if it is missing.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn spare(id: &str) -> anyhow::Result<PathBuf> {
        let mut usual = Self::usual()?;
        // Events will lie in it: it stays.
        usual.made = None;
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
    pub fn start(&mut self) -> anyhow::Result<Writer> {
        let Some(writer) = self.writer.take() else {
            bail!("the trail has a writer already; report this as a defect");
        };
        Ok(writer)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // The failed start is told already; an empty file that stays does no harm.
            let _ = writer.abandon();
        }
        if let Some(directory) = &self.made {
            // Refused while it holds anything.
            let _ = fs::remove_dir(directory);
        }
    }
}

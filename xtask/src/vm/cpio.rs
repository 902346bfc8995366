//! Writing an initramfs: a cpio archive in the `newc` form, as
//! Documentation/driver-api/early-userspace/buffer-format.rst of Linux describes it.
//!
//! Written here and not by `cpio`: everything in it belongs to root whoever builds it, and nothing needs to be
//! copied to a directory first.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const REGULAR: u32 = 0o100_000;

/// An archive under construction.
pub struct Archive<W: Write> {
    out: W,
    present: BTreeSet<PathBuf>,
    number: u32,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            present: BTreeSet::new(),
            number: 0,
        }
    }

    /// Adds a directory and the ones above it.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        self.directory_with(path, DIRECTORY & 0o7777)
    }

    /// Adds a directory with permission bits of its own.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn directory_with(&mut self, path: &Path, mode: u32) -> Result<()> {
        let path = relative(path);
        if path.as_os_str().is_empty() || self.present.contains(&path) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        self.entry(&path, 0o040_000 | mode, b"")
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn symlink(&mut self, path: &Path, to: &Path) -> Result<()> {
        self.leaf(path, SYMLINK, to.as_os_str().as_bytes())
    }

    /// Adds a file with the given content.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.leaf(path, REGULAR | mode, content)
    }

    /// Copies a file or symbolic link of the host to the same place.
    ///
    /// # Errors
    /// When it cannot be read or the archive cannot be written.
    pub fn copy(&mut self, path: &Path) -> Result<()> {
        self.copy_to(path, path)
    }

    /// Copies a file or symbolic link of the host to another place.
    ///
    /// # Errors
    /// When it cannot be read or the archive cannot be written.
    pub fn copy_to(&mut self, from: &Path, to: &Path) -> Result<()> {
        let meta = from
            .symlink_metadata()
            .with_context(|| format!("cannot read {}", from.display()))?;
        if meta.is_symlink() {
            return self.symlink(to, &fs::read_link(from)?);
        }
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(to, meta.permissions().mode() & 0o7777, &content)
    }

    /// Copies a directory of the host, without the subdirectories that `skip` names.
    ///
    /// # Errors
    /// When something in it cannot be read or the archive cannot be written.
    pub fn copy_tree(&mut self, from: &Path, to: &Path, skip: &[&str]) -> Result<()> {
        self.directory(to)?;
        let entries =
            fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if skip.iter().any(|skipped| name == *skipped) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.copy_tree(&entry.path(), &to.join(&name), skip)?;
            } else if kind.is_file() || kind.is_symlink() {
                self.copy_to(&entry.path(), &to.join(&name))?;
            }
        }
        Ok(())
    }

    /// Ends the archive and returns what it was written to.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn finish(mut self) -> Result<W> {
        self.entry(Path::new("TRAILER!!!"), 0, b"")?;
        self.out.flush().context("cannot write the initramfs")?;
        Ok(self.out)
    }

    fn leaf(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        let path = relative(path);
        if self.present.contains(&path) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        self.entry(&path, mode, content)
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        let name = path.as_os_str().as_bytes();
        let Ok(size) = u32::try_from(content.len()) else {
            bail!("{} is too large for an initramfs", path.display());
        };
        self.number += 1;
        // Magic, inode, mode, uid, gid, links, time, size, device and special device (two each), name, checksum.
        let header = format!(
            "070701{:08X}{mode:08X}{:08X}{:08X}{:08X}{:08X}{size:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}",
            self.number,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        );
        let mut write = |bytes: &[u8]| {
            self.out
                .write_all(bytes)
                .context("cannot write the initramfs")
        };
        write(header.as_bytes())?;
        write(name)?;
        write(b"\0")?;
        write(&[0; 4][..padding(header.len() + name.len() + 1)])?;
        write(content)?;
        write(&[0; 4][..padding(content.len())])?;
        self.present.insert(path.to_path_buf());
        Ok(())
    }
}

/// Bytes up to the next multiple of four.
fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

fn relative(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_aligned_and_names_its_parents_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/a/b/c"), 0o755, b"hello").unwrap();
        archive.file(Path::new("/a/b/d"), 0o644, b"").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let names: Vec<&str> = ["\0a\0", "a/b\0", "a/b/c\0", "a/b/d\0"].into();
        assert_eq!(
            text.matches("070701").count(),
            5,
            "two directories, two files and the trailer"
        );
        assert_eq!(
            text.matches("000081ED").count(),
            1,
            "the mode of the executable"
        );
        assert!(
            names[1..]
                .iter()
                .all(|name| text.matches(name).count() == 1),
            "{text:?}"
        );
        let starts = text.match_indices("070701").all(|(at, _)| at % 4 == 0);
        assert!(starts && bytes.len().is_multiple_of(4));
    }
}

//! The trail's file: opened safely, locked, rotated. All below one directory descriptor, so that nobody can swap
//! the directory under the writer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::AuditError;

/// Bytes that are read back to find the end of the last whole line.
const TAIL_BLOCK: u64 = 64 * 1024;

/// The directory of a trail and the name of its file in it.
#[derive(Debug)]
pub(super) struct Place {
    directory: File,
    name: OsString,
    /// The whole path, for messages.
    pub path: PathBuf,
    mode: Mode,
}

/// The trail's file with its lock held. No other writer appends or rotates meanwhile.
#[derive(Debug)]
pub(super) struct Locked {
    file: Flock<File>,
    /// Bytes in the file.
    pub size: u64,
}

/// Which file it is, and its size, as a writer left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
    size: u64,
}

impl Place {
    /// Checks the directory.
    pub fn open(path: &Path, mode: u32) -> Result<Self, AuditError> {
        let name = path
            .file_name()
            .ok_or_else(|| AuditError::NoFileName {
                path: path.to_owned(),
            })?
            .to_owned();
        let parent = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = match open(parent, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => {
                return Err(AuditError::DirectoryMissing {
                    path: parent.to_owned(),
                });
            }
            Err(Errno::ENOTDIR) => {
                return Err(AuditError::NotADirectory {
                    path: parent.to_owned(),
                });
            }
            Err(e) => return Err(AuditError::io(parent, "open", e)),
        };
        let meta = directory
            .metadata()
            .map_err(|e| AuditError::io(parent, "fstat", e))?;
        let us = geteuid().as_raw();
        // Root's own directories are as safe as ours.
        if meta.uid() != us && meta.uid() != 0 {
            return Err(AuditError::DirectoryOwner {
                path: parent.to_owned(),
                owner: meta.uid(),
                us,
            });
        }
        if meta.mode() & 0o022 != 0 {
            return Err(AuditError::DirectoryWritable {
                path: parent.to_owned(),
                mode: meta.mode() & 0o7777,
            });
        }
        Ok(Self {
            directory,
            name,
            path: path.to_owned(),
            mode: Mode::from_bits_truncate(mode),
        })
    }

    /// Opens the file, creating it if need be. True if this call created it.
    pub fn file(&self) -> Result<(File, bool), AuditError> {
        let flags = OFlag::O_RDWR
            | OFlag::O_APPEND
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC
            | OFlag::O_NONBLOCK;
        // Another writer may rotate or create between the two calls.
        loop {
            match openat(&self.directory, self.name.as_os_str(), flags, Mode::empty()) {
                Ok(fd) => {
                    let file = File::from(fd);
                    self.check(&file)?;
                    return Ok((file, false));
                }
                Err(Errno::ENOENT) => {}
                Err(Errno::ELOOP) => {
                    return Err(AuditError::Symlink {
                        path: self.path.clone(),
                    });
                }
                Err(Errno::EISDIR | Errno::ENXIO) => {
                    return Err(AuditError::NotAFile {
                        path: self.path.clone(),
                    });
                }
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(AuditError::io(&self.path, "open", e)),
            }
            match openat(
                &self.directory,
                self.name.as_os_str(),
                flags | OFlag::O_CREAT | OFlag::O_EXCL,
                self.mode,
            ) {
                Ok(fd) => return Ok((File::from(fd), true)),
                Err(Errno::EEXIST | Errno::EINTR) => {}
                Err(e) => return Err(AuditError::io(&self.path, "create", e)),
            }
        }
    }

    fn check(&self, file: &File) -> Result<(), AuditError> {
        let meta = file
            .metadata()
            .map_err(|e| AuditError::io(&self.path, "fstat", e))?;
        if !meta.file_type().is_file() {
            return Err(AuditError::NotAFile {
                path: self.path.clone(),
            });
        }
        let us = geteuid().as_raw();
        if meta.uid() != us || meta.mode() & 0o022 != 0 {
            let mode = meta.mode() & 0o7777;
            return Err(AuditError::FileOwner {
                path: self.path.clone(),
                owner: meta.uid(),
                mode,
                us,
            });
        }
        Ok(())
    }

    /// Locks the file that bears the name now. Reuses `held` when it still is that file.
    pub fn lock(&self, held: Option<File>) -> Result<Locked, AuditError> {
        let mut held = held;
        loop {
            let file = match held.take() {
                Some(file) => file,
                None => self.file()?.0,
            };
            let file = lock_exclusive(file).map_err(|e| AuditError::io(&self.path, "flock", e))?;
            let ours = file
                .metadata()
                .map_err(|e| AuditError::io(&self.path, "fstat", e))?;
            match fstatat(
                &self.directory,
                self.name.as_os_str(),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            ) {
                Ok(named) if named.st_ino == ours.ino() && named.st_dev == ours.dev() => {
                    return Ok(Locked {
                        size: ours.size(),
                        file,
                    });
                }
                // Rotated or removed by another since: the lock on the old file falls with it.
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(AuditError::io(&self.path, "fstatat", e)),
            }
        }
    }

    /// Moves the locked file to `.1`, after the older ones, and drops the oldest. The name is free afterwards.
    pub fn rotate(&self, backups: u32, locked: Locked) -> Result<(), AuditError> {
        if backups == 0 {
            self.remove(&self.name)
                .map_err(|e| AuditError::io(&self.path, "unlink", e))?;
        } else {
            for n in (1..=backups).rev() {
                let from = if n == 1 {
                    self.name.clone()
                } else {
                    self.backup(n - 1)
                };
                match renameat(
                    &self.directory,
                    from.as_os_str(),
                    &self.directory,
                    self.backup(n).as_os_str(),
                ) {
                    Ok(()) => {}
                    Err(Errno::ENOENT) if n > 1 => {}
                    Err(e) => return Err(AuditError::io(&self.path, "rename", e)),
                }
            }
        }
        // The lock guards the renames, so it goes last.
        drop(locked);
        Ok(())
    }

    /// Removes the file if it is empty. For a start that failed after creating it.
    pub fn remove_if_empty(&self, locked: Locked) -> Result<(), AuditError> {
        if locked.size == 0 {
            self.remove(&self.name)
                .map_err(|e| AuditError::io(&self.path, "unlink", e))?;
        }
        drop(locked);
        Ok(())
    }

    fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir)
    }

    fn backup(&self, n: u32) -> OsString {
        let mut name = self.name.clone();
        name.push(format!(".{n}"));
        name
    }
}

impl Locked {
    /// Appends all of `bytes`. On an error the file has the size that it had before.
    ///
    /// One `write` normally; the kernel may cut it (full disk, signal), then the rest follows.
    pub fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        use std::io::Write;
        let mut done = 0;
        while done < bytes.len() {
            match (&*self.file).write(&bytes[done..]) {
                Ok(0) => {
                    self.keep_lines(&bytes[..done])?;
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.keep_lines(&bytes[..done])?;
                    return Err(e);
                }
            }
        }
        self.size += done as u64;
        Ok(())
    }

    /// Cuts what was written back to its last whole line; `size` says where that ends.
    fn keep_lines(&mut self, written: &[u8]) -> std::io::Result<()> {
        let whole = written
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let end = self.size + whole as u64;
        self.file.set_len(end)?;
        self.size = end;
        Ok(())
    }

    /// Cuts a torn last line (a writer died, or the machine did): a line glued to it would be lost with it.
    pub fn mend(&mut self) -> std::io::Result<()> {
        let mut end = self.size;
        let mut block = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(if end == self.size { 1 } else { TAIL_BLOCK });
            block.resize(usize::try_from(end - start).unwrap_or(0), 0);
            self.file.read_exact_at(&mut block, start)?;
            if let Some(at) = block.iter().rposition(|b| *b == b'\n') {
                end = start + at as u64 + 1;
                break;
            }
            end = start;
        }
        if end != self.size {
            self.file.set_len(end)?;
            self.size = end;
        }
        Ok(())
    }

    /// Which file it is and how long it is now.
    pub fn mark(&self) -> std::io::Result<Mark> {
        let meta = self.file.metadata()?;
        Ok(Mark {
            device: meta.dev(),
            inode: meta.ino(),
            size: self.size,
        })
    }

    /// Makes what was written survive a power cut.
    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }

    /// Lets the lock go and keeps the file open.
    pub fn unlock(self) -> std::io::Result<File> {
        self.file.unlock().map_err(|(_, e)| e.into())
    }
}

fn lock_exclusive(file: File) -> Result<Flock<File>, Errno> {
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(locked) => return Ok(locked),
            Err((f, Errno::EINTR)) => file = f,
            Err((_, e)) => return Err(e),
        }
    }
}

//! Appends records to the trail's file: whole lines only, rotated at an exact size, several writers at once.

use std::fs::File;
use std::path::Path;

use super::file::{Locked, Mark, Place};
use super::{AuditError, Record, Stamp};

/// Bytes that a file may have before the next line goes to a new one.
pub const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// Older files that are kept, `.1` the youngest.
pub const BACKUPS: u32 = 5;

/// How a trail is kept.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// Bytes that a file may have. A longer line is refused.
    pub max_bytes: u64,
    /// Older files that are kept.
    pub backups: u32,
    /// Permissions of a new file (less the umask).
    pub mode: u32,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            max_bytes: MAX_BYTES,
            backups: BACKUPS,
            mode: 0o640,
        }
    }
}

/// Appends to a trail.
///
/// [`append`](Self::append) holds records, [`flush`](Self::flush) writes them. Records that a failed flush could
/// not write are still held: the caller denies what it cannot record, and may flush again. Dropping a writer
/// drops what it holds.
#[derive(Debug)]
pub struct Writer {
    place: Place,
    options: WriterOptions,
    stamp: Option<Stamp>,
    /// The file, between two flushes.
    file: Option<File>,
    /// How the last flush left the file; if it is so still, its last line is whole.
    left: Option<Mark>,
    /// Whole lines that are not yet written.
    held: Vec<u8>,
    /// How many they are.
    held_lines: usize,
    created: bool,
}

impl Writer {
    /// Opens a trail, creating its file.
    ///
    /// # Errors
    /// The directory is missing, not ours or writable by others; the file is a link, no regular file, or not
    /// ours; a system call failed.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        Self::with_options(path, WriterOptions::default())
    }

    /// Opens a trail that is kept otherwise than by default.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_options(path: &Path, options: WriterOptions) -> Result<Self, AuditError> {
        let place = Place::open(path, options.mode)?;
        let (file, created) = place.file()?;
        Ok(Self {
            place,
            options,
            stamp: None,
            file: Some(file),
            left: None,
            held: Vec::new(),
            held_lines: 0,
            created,
        })
    }

    /// Puts a stamp on every record from now on.
    #[must_use]
    pub fn stamped(self, stamp: Stamp) -> Self {
        Self {
            stamp: Some(stamp),
            ..self
        }
    }

    /// Puts another stamp on every record from now on; those that are held keep theirs.
    pub fn restamp(&mut self, stamp: Stamp) {
        self.stamp = Some(stamp);
    }

    /// The trail's file.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Records held and not yet written.
    pub fn pending(&self) -> usize {
        self.held_lines
    }

    /// Bytes held and not yet written.
    pub fn pending_bytes(&self) -> usize {
        self.held.len()
    }

    /// Holds a record for the next flush.
    ///
    /// # Errors
    /// The record is longer than a file may be.
    pub fn append(&mut self, record: &Record) -> Result<(), AuditError> {
        let before = self.held.len();
        match &self.stamp {
            Some(stamp) => stamp.put_on(record).write_line(&mut self.held)?,
            None => record.write_line(&mut self.held)?,
        }
        let bytes = self.held.len() - before;
        if bytes as u64 > self.options.max_bytes {
            self.held.truncate(before);
            return Err(AuditError::LineTooLong {
                bytes,
                max: self.options.max_bytes,
            });
        }
        self.held_lines += 1;
        Ok(())
    }

    /// Writes all that is held, in one `write` a file. No line is ever cut, by an error or by rotation.
    ///
    /// # Errors
    /// No space, or a system call failed; what could not be written is still held.
    pub fn flush(&mut self) -> Result<(), AuditError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut locked = self.place.lock(self.file.take())?;
        while !self.held.is_empty() {
            self.mend(&mut locked)?;
            let room = self.options.max_bytes.saturating_sub(locked.size);
            let fits = whole_lines(&self.held, room);
            if fits == 0 {
                self.place.rotate(self.options.backups, locked)?;
                locked = self.place.lock(None)?;
                continue;
            }
            let before = locked.size;
            let appended = locked.append(&self.held[..fits]);
            let written = usize::try_from(locked.size.saturating_sub(before)).unwrap_or(0);
            self.held_lines -= self.held[..written].split(|byte| *byte == b'\n').count() - 1;
            self.held.drain(..written);
            self.left = locked.mark().ok();
            if let Err(source) = appended {
                return Err(self.write_error(source));
            }
        }
        self.file = Some(
            locked
                .unlock()
                .map_err(|e| AuditError::io(&self.place.path, "flock", e))?,
        );
        Ok(())
    }

    /// Writes a record behind all that is held, or not at all: one that could not be written is not held either. For who
    /// does something only if it is recorded.
    ///
    /// # Errors
    /// As [`append`](Self::append) and [`flush`](Self::flush).
    pub fn write_or_forget(&mut self, record: &Record) -> Result<(), AuditError> {
        self.flush()?;
        self.append(record)?;
        let written = self.flush();
        if written.is_err() {
            // It alone: there was nothing else.
            self.held.clear();
            self.held_lines = 0;
        }
        written
    }

    /// Makes what was written survive a power cut. Slow; for the end of a session.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn sync(&mut self) -> Result<(), AuditError> {
        self.flush()?;
        let locked = self.place.lock(self.file.take())?;
        locked
            .sync()
            .map_err(|e| AuditError::io(&self.place.path, "fdatasync", e))?;
        self.file = Some(
            locked
                .unlock()
                .map_err(|e| AuditError::io(&self.place.path, "flock", e))?,
        );
        Ok(())
    }

    /// Gives up a trail in which nothing was written: removes the file if this writer created it and it is empty.
    /// For a start that fails, so that nothing is left behind.
    ///
    /// # Errors
    /// A system call failed.
    pub fn abandon(mut self) -> Result<(), AuditError> {
        if !self.created {
            return Ok(());
        }
        let locked = self.place.lock(self.file.take())?;
        self.place.remove_if_empty(locked)
    }

    /// Mends the end of a file that is not as this writer left it.
    fn mend(&self, locked: &mut Locked) -> Result<(), AuditError> {
        let mark = locked
            .mark()
            .map_err(|e| AuditError::io(&self.place.path, "fstat", e))?;
        if self.left == Some(mark) {
            return Ok(());
        }
        locked
            .mend()
            .map_err(|e| AuditError::io(&self.place.path, "ftruncate", e))
    }

    fn write_error(&self, source: std::io::Error) -> AuditError {
        use std::io::ErrorKind;
        match source.kind() {
            ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::WriteZero => AuditError::NoSpace {
                path: self.place.path.clone(),
                pending: self.held_lines,
            },
            _ => AuditError::io(&self.place.path, "write", source),
        }
    }
}

/// Bytes of the whole lines at the start of `lines` that have room.
fn whole_lines(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if lines.len() <= room {
        return lines.len();
    }
    lines[..room]
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod writer_tests;

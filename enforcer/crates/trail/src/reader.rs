//! Reads a trail back: the last lines over its rotated files, and new lines as they come.
//!
//! It reads what this program wrote and what a pre-tool hook wrote in the same format. A line is malformed where
//! the existing readers drop it: no JSON object, a key that is not one of the eight, no `timestamp`, `event` or
//! `agent`. The types of the values are not held against it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::AuditError;

/// The keys of a line, in their order.
const KEYS: [&str; 8] = [
    "timestamp",
    "event",
    "agent",
    "tool",
    "reason",
    "security_risk",
    "parameters",
    "denial_count",
];

/// Longest line that is kept while reading, bytes; the rest of a longer one is skipped.
const LINE_MAX: usize = 16 * 1024 * 1024;

/// Most rotated files that are looked at.
const BACKUPS_MAX: u32 = 99;

/// One line of a trail, whoever wrote it. Not sanitised: a foreign writer may have left anything in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    fields: Map<String, Value>,
}

/// Why a line is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON (a torn line, another format).
    #[error("not JSON")]
    NotJson,
    /// JSON, but no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A key that no reader of the trail knows.
    #[error("unknown key")]
    UnknownKey,
    /// One of `timestamp`, `event`, `agent` is missing.
    #[error("a required key is missing")]
    MissingKey,
}

impl Entry {
    /// Reads one line.
    ///
    /// # Errors
    /// Why the line is no entry.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        let value: Value =
            serde_json::from_slice(line.trim_ascii()).map_err(|_| Malformed::NotJson)?;
        let Value::Object(fields) = value else {
            return Err(Malformed::NotAnObject);
        };
        if fields.keys().any(|k| !KEYS.contains(&k.as_str())) {
            return Err(Malformed::UnknownKey);
        }
        if KEYS[..3].iter().any(|k| !fields.contains_key(*k)) {
            return Err(Malformed::MissingKey);
        }
        Ok(Self { fields })
    }

    /// A top-level value as text: a string as it is, anything else as JSON; empty when absent or null.
    pub fn text(&self, key: &str) -> String {
        plain(self.fields.get(key))
    }

    /// A value in `parameters`, as [`text`](Self::text) shows it.
    pub fn parameter(&self, key: &str) -> String {
        plain(self.fields.get("parameters").and_then(|p| p.get(key)))
    }

    /// `parameters`, if it is an object.
    pub fn parameters(&self) -> Option<&Map<String, Value>> {
        self.fields.get("parameters").and_then(Value::as_object)
    }

    /// Whether the action did not happen, or the breaker opened: anything but an approval, and but for what an agent was
    /// told to ask its user, of which the trail does not know what it came to.
    pub fn is_denied(&self) -> bool {
        self.fields.get("event").and_then(Value::as_str) != Some("approval")
            && self.parameter("verdict") != "asked"
    }
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

/// Reads the end of a trail.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
}

impl Reader {
    /// A reader of the trail at this path.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The last `count` lines for which `keep` is true, oldest first, from the file and, while that has too few,
    /// from the older ones. Blank lines are skipped. Also gives a follower that goes on where this ended.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn last(
        &self,
        count: usize,
        mut keep: impl FnMut(&[u8]) -> bool,
    ) -> Result<(Vec<Vec<u8>>, Follower), AuditError> {
        let file = self.open()?;
        let mut follower = Follower::new(&self.path, file)?;
        let mut newest = VecDeque::new();
        follower.poll_file(&mut |line| {
            if count > 0 && keep(line) {
                newest.push_back(line.to_vec());
                if newest.len() > count {
                    newest.pop_front();
                }
            }
        })?;
        let mut n = 1;
        while newest.len() < count && n <= BACKUPS_MAX {
            let Ok(file) = File::open(backup(&self.path, n)) else {
                break;
            };
            let missing = count - newest.len();
            let mut older = VecDeque::new();
            let mut lines = Lines::default();
            lines
                .read(&mut BufReader::new(file), &mut |line| {
                    if keep(line) {
                        older.push_back(line.to_vec());
                        if older.len() > missing {
                            older.pop_front();
                        }
                    }
                })
                .map_err(|e| AuditError::io(&self.path, "read", e))?;
            for line in older.into_iter().rev() {
                newest.push_front(line);
            }
            n += 1;
        }
        Ok((newest.into(), follower))
    }

    fn open(&self) -> Result<File, AuditError> {
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(AuditError::NoTrail {
                    path: self.path.clone(),
                });
            }
            Err(e) => return Err(AuditError::io(&self.path, "stat", e)),
        };
        if !meta.is_file() {
            return Err(AuditError::NotAFile {
                path: self.path.clone(),
            });
        }
        File::open(&self.path).map_err(|e| AuditError::io(&self.path, "open", e))
    }
}

/// Reads lines as they are appended, through rotations.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: BufReader<File>,
    inode: u64,
    device: u64,
    position: u64,
    lines: Lines,
}

impl Follower {
    fn new(path: &Path, file: File) -> Result<Self, AuditError> {
        let meta = file
            .metadata()
            .map_err(|e| AuditError::io(path, "fstat", e))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            inode: meta.ino(),
            device: meta.dev(),
            position: 0,
            lines: Lines::default(),
        })
    }

    /// Gives every line that is whole by now and was not given before. Returns at once; the caller waits between
    /// two calls. A file that is not there (between two files of a rotation, or removed) has no new lines.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn poll(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), AuditError> {
        // The name is looked at first: what was appended to the old file before the rotation is then all there.
        let named = fs::metadata(&self.path);
        self.poll_file(&mut each)?;
        let named = match named {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(AuditError::io(&self.path, "stat", e)),
        };
        if named.ino() == self.inode && named.dev() == self.device {
            if named.len() < self.position {
                // Truncated in place (another kind of rotation): from the start.
                let file =
                    File::open(&self.path).map_err(|e| AuditError::io(&self.path, "open", e))?;
                *self = Self::new(&self.path, file)?;
                self.poll_file(&mut each)?;
            }
            return Ok(());
        }
        for file in self.newer_files() {
            *self = Self::new(&self.path, file)?;
            self.poll_file(&mut each)?;
        }
        Ok(())
    }

    /// The files that came after the one that is open, oldest first. If that one is gone, all that are there.
    fn newer_files(&self) -> Vec<File> {
        let mut files: Vec<File> = Vec::new();
        let names = std::iter::once(self.path.clone())
            .chain((1..=BACKUPS_MAX).map(|n| backup(&self.path, n)));
        let mut last = None;
        for name in names {
            let Ok(file) = File::open(&name) else {
                break;
            };
            let Ok(meta) = file.metadata() else {
                break;
            };
            let id = (meta.dev(), meta.ino());
            if id == (self.device, self.inode) {
                break;
            }
            // A rotation meanwhile shows the same file under the next name too.
            if last != Some(id) {
                files.push(file);
            }
            last = Some(id);
        }
        files.reverse();
        files
    }

    fn poll_file(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), AuditError> {
        let read = self
            .lines
            .read(&mut self.file, each)
            .map_err(|e| AuditError::io(&self.path, "read", e))?;
        self.position += read;
        Ok(())
    }
}

/// Cuts a stream into lines; keeps the start of a line whose end has not come.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Reads to the end of what is there. Returns how many bytes that were.
    fn read(&mut self, from: &mut impl BufRead, each: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let room = (LINE_MAX.saturating_sub(self.partial.len())).max(1) as u64;
            let n = from
                .by_ref()
                .take(room)
                .read_until(b'\n', &mut self.partial)?;
            total += n as u64;
            if n == 0 {
                return Ok(total);
            }
            let ended = self.partial.last() == Some(&b'\n');
            if ended || self.partial.len() >= LINE_MAX {
                let line = self.partial.trim_ascii();
                if !line.is_empty() {
                    each(line);
                }
                self.partial.clear();
            }
        }
    }
}

fn backup(path: &Path, n: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod reader_tests;

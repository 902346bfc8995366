//! The desk's memory: every request and what became of it, in SQLite. Several launchers and the command line share
//! the file.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{
    ApprovalsError,
    row::{COLUMNS, SCHEMA, read, time},
};
use enforcer_control::{RequestRecord, RequestState, record::Conclusion};

/// The version of the schema below, kept in `user_version`.
const VERSION: i64 = 1;

/// How long a statement waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// Days that ended requests are kept.
const KEEP_DAYS: i64 = 90;

/// Ended requests that are kept at most.
const KEEP_ROWS: i64 = 50_000;

/// What a request that nobody can answer any more is told.
pub const ABANDONED: &str = "The supervisor ended before anyone answered";

/// The database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the database, makes it if there is none (directory mode 0700, file mode 0600), and forgets what ended
    /// long ago.
    ///
    /// # Errors
    ///
    /// The directory or file belongs to somebody else or can be read or written by others, or SQLite fails.
    pub fn open(path: &Path) -> Result<Self, ApprovalsError> {
        let directory = directory_of(path);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ApprovalsError::io(&directory, "mkdir")(error));
            }
            _ => {}
        }
        check(&directory, true)?;
        // Two launchers that start at once would both find no schema.
        let held = File::open(&directory).map_err(ApprovalsError::io(&directory, "open"))?;
        let _held = Flock::lock(held, FlockArg::LockExclusive)
            .map_err(|(_, errno)| ApprovalsError::io(&directory, "flock")(errno))?;
        // SQLite gives its `-wal` and `-shm` the mode of the file itself. A file that is there is not opened here: to
        // close it would drop the locks of this process's other connections (fcntl(2)).
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            // Closed before SQLite opens it.
            .map(drop);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ApprovalsError::io(path, "open")(error));
            }
            _ => {}
        }
        check(path, false)?;
        let store = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store.prepare(path)?;
        Ok(store)
    }

    /// Opens the database to read it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or is of a newer version.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, ApprovalsError> {
        match fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ApprovalsError::io(path, "open")(error)),
        }
        check(&directory_of(path), true)?;
        check(path, false)?;
        let store = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        match store.version()? {
            0 => Ok(None),
            VERSION => Ok(Some(store)),
            found => Err(ApprovalsError::NewerSchema {
                path: path.to_owned(),
                found,
                known: VERSION,
            }),
        }
    }

    fn connect(path: &Path, access: OpenFlags) -> Result<Self, ApprovalsError> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(ApprovalsError::database("opening"))?;
        connection
            .busy_timeout(BUSY)
            .map_err(ApprovalsError::database("setting the timeout"))?;
        Ok(Self { connection })
    }

    fn version(&self) -> Result<i64, ApprovalsError> {
        self.connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(ApprovalsError::database("reading the schema version"))
    }

    fn prepare(&self, path: &Path) -> Result<(), ApprovalsError> {
        let found = self.version()?;
        if found > VERSION {
            return Err(ApprovalsError::NewerSchema {
                path: path.to_owned(),
                found,
                known: VERSION,
            });
        }
        self.connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            .map_err(ApprovalsError::database("choosing the journal"))?;
        if found == 0 {
            self.connection
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
                ))
                .map_err(ApprovalsError::database("making the schema"))?;
        }
        Ok(())
    }

    /// Forgets requests that ended more than 90 days ago, and the oldest beyond 50,000.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn prune(&self, now: Timestamp) -> Result<usize, ApprovalsError> {
        let oldest = now
            .checked_sub(SignedDuration::from_hours(24 * KEEP_DAYS))
            .unwrap_or(Timestamp::MIN);
        let due: bool = self
            .connection
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM request WHERE state <> 'pending' AND asked_at < ?1) \
                 OR (SELECT COUNT(*) FROM request) > ?2",
                params![time(oldest), KEEP_ROWS],
                |row| row.get(0),
            )
            .map_err(ApprovalsError::database("counting requests"))?;
        // Most starts write nothing: many at once would wait for one another.
        if !due {
            return Ok(0);
        }
        self.connection
            .execute(
                "DELETE FROM request WHERE state <> 'pending' AND (asked_at < ?1 OR id NOT IN \
                 (SELECT id FROM request ORDER BY asked_at DESC LIMIT ?2))",
                params![time(oldest), KEEP_ROWS],
            )
            .map_err(ApprovalsError::database("forgetting old requests"))
    }

    /// Writes a new request.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn insert(&self, record: &RequestRecord) -> Result<(), ApprovalsError> {
        let fault = |error: serde_json::Error| ApprovalsError::Row {
            id: record.id.clone(),
            why: error.to_string(),
        };
        let argv = serde_json::to_string(&record.argv).map_err(fault)?;
        let parents = serde_json::to_string(&record.parents).map_err(fault)?;
        let sql = format!(
            "INSERT INTO request ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
             ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)"
        );
        self.connection
            .execute(
                &sql,
                params![
                    record.id,
                    record.state.as_str(),
                    record.agent,
                    record.instance,
                    record.kind,
                    record.risk,
                    record.command,
                    record.path,
                    argv,
                    record.cwd,
                    record.file,
                    record.sha256,
                    record.unprintable,
                    record.rule,
                    record.reason,
                    record.suggestion,
                    record.pid,
                    record.ppid,
                    record.uid,
                    parents,
                    record.waiting,
                    time(record.asked_at),
                    time(record.expires_at),
                    record.outcome.answered_at.map(time),
                    record.outcome.approver,
                    record.outcome.answer_reason,
                    record.outcome.scope,
                ],
            )
            .map_err(ApprovalsError::database("writing a request"))?;
        Ok(())
    }

    /// Ends a pending request; false if it is not pending (any more).
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn end(
        &self,
        id: &str,
        state: RequestState,
        outcome: &Conclusion,
    ) -> Result<bool, ApprovalsError> {
        let changed = self
            .connection
            .execute(
                "UPDATE request SET state = ?2, answered_at = ?3, approver = ?4, answer_reason = ?5, scope = ?6 \
                 WHERE id = ?1 AND state = 'pending'",
                params![
                    id,
                    state.as_str(),
                    outcome.answered_at.map(time),
                    outcome.approver,
                    outcome.answer_reason,
                    outcome.scope,
                ],
            )
            .map_err(ApprovalsError::database("ending a request"))?;
        Ok(changed == 1)
    }

    /// Writes how many processes asked for a request so far.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn set_waiting(&self, id: &str, waiting: u32) -> Result<(), ApprovalsError> {
        self.connection
            .execute(
                "UPDATE request SET waiting = ?2 WHERE id = ?1",
                params![id, waiting],
            )
            .map_err(ApprovalsError::database("counting a request"))?;
        Ok(())
    }

    /// One request.
    ///
    /// # Errors
    ///
    /// SQLite fails, or the row is damaged.
    pub fn get(&self, id: &str) -> Result<Option<RequestRecord>, ApprovalsError> {
        self.connection
            .query_row(
                &format!("SELECT {COLUMNS} FROM request WHERE id = ?1"),
                [id],
                |row| Ok(read(row)),
            )
            .optional()
            .map_err(ApprovalsError::database("reading a request"))?
            .transpose()
    }

    /// The request with this id, or the only one whose id starts so.
    ///
    /// # Errors
    ///
    /// There is none or more than one, the prefix is shorter than 4 characters, or SQLite fails.
    pub fn find(&self, prefix: &str) -> Result<RequestRecord, ApprovalsError> {
        check_prefix(prefix)?;
        let mut found = self.select(
            "WHERE substr(id, 1, length(?1)) = ?1 ORDER BY asked_at LIMIT 10",
            params![prefix],
        )?;
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(ApprovalsError::NotFound(prefix.to_owned())),
            count => Err(ApprovalsError::Ambiguous {
                prefix: prefix.to_owned(),
                count,
            }),
        }
    }

    /// The newest requests of all agents and runs, newest first.
    ///
    /// # Errors
    ///
    /// SQLite fails, or a row is damaged.
    pub fn history(&self, limit: u32) -> Result<Vec<RequestRecord>, ApprovalsError> {
        self.select("ORDER BY asked_at DESC LIMIT ?1", params![limit])
    }

    /// The newest requests of one run, newest first.
    ///
    /// # Errors
    ///
    /// SQLite fails, or a row is damaged.
    pub fn history_of(
        &self,
        instance: &str,
        limit: u32,
    ) -> Result<Vec<RequestRecord>, ApprovalsError> {
        self.select(
            "WHERE instance = ?1 ORDER BY asked_at DESC LIMIT ?2",
            params![instance, limit],
        )
    }

    /// Denies what is still pending of a run whose launcher has ended; gives those requests, for the trail.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn abandon(
        &self,
        instance: &str,
        now: Timestamp,
    ) -> Result<Vec<RequestRecord>, ApprovalsError> {
        let outcome = Conclusion {
            answered_at: Some(now),
            approver: Some("enforcer".to_owned()),
            answer_reason: Some(ABANDONED.to_owned()),
            scope: None,
        };
        let mut ended = Vec::new();
        for mut record in self.select(
            "WHERE state = 'pending' AND instance = ?1 ORDER BY asked_at",
            params![instance],
        )? {
            if self.end(&record.id, RequestState::Denied, &outcome)? {
                record.state = RequestState::Denied;
                record.outcome = outcome.clone();
                ended.push(record);
            }
        }
        Ok(ended)
    }

    fn select(
        &self,
        rest: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<RequestRecord>, ApprovalsError> {
        let doing = || ApprovalsError::database("reading requests");
        let mut statement = self
            .connection
            .prepare(&format!("SELECT {COLUMNS} FROM request {rest}"))
            .map_err(doing())?;
        let rows = statement
            .query_map(values, |row| Ok(read(row)))
            .map_err(doing())?;
        rows.map(|row| row.map_err(doing())?).collect()
    }
}

/// Ids are told apart by their first characters; fewer than four are a slip of the hand.
pub(super) fn check_prefix(prefix: &str) -> Result<(), ApprovalsError> {
    if prefix.len() < 4 {
        return Err(ApprovalsError::ShortId(prefix.to_owned()));
    }
    Ok(())
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Ours (or root's), nobody else's business, and no link.
fn check(path: &Path, directory: bool) -> Result<(), ApprovalsError> {
    let meta = fs::symlink_metadata(path).map_err(ApprovalsError::io(path, "lstat"))?;
    let mode = meta.mode() & 0o7777;
    let us = nix::unistd::geteuid().as_raw();
    let why = if directory != meta.is_dir() || !(meta.is_dir() || meta.is_file()) {
        "it is not what it should be: a directory with a regular file in it, no links".to_owned()
    } else if meta.uid() != us && meta.uid() != 0 {
        format!("it belongs to uid {}", meta.uid())
    } else if mode & 0o077 != 0 {
        format!("others can use it: mode {mode:04o}")
    } else {
        return Ok(());
    };
    Err(ApprovalsError::NotOurs {
        path: path.to_owned(),
        why,
        mode: if directory { "0700" } else { "0600" },
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod store_tests;

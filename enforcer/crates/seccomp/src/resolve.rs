//! From a stopped exec to the action that rules are asked about, and to the file that an approval is bound to.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use enforcer_common::limits::Thing;
use nix::sys::stat::fstat;

use super::eyes::Eyes;
use super::identity::{self, IdentityError};
use super::notify::ExecCall;
use super::readable;
use super::target::ExecText;
use super::walk::{self, Lookup, Root, View};
use enforcer_decide::approval::{DirectoryIdentity, FileIdentity};
use enforcer_files::changer::{Changer, Owned};
use enforcer_files::script::{self, HEAD};
use enforcer_policy::{ExecAction, ScriptHead};

/// Scripts in scripts that the kernel follows (`exec_binprm`, fs/exec.c).
const DEPTH: usize = 5;
/// Files that are remembered.
const REMEMBERED: usize = 1024;
/// The kernel stamps changes with a clock that ticks at least every 10 ms: two changes within a tick carry one
/// stamp. What changed longer ago than this has a stamp of its own.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// What the kernel writes behind the path of a file without a link.
const DELETED: &[u8] = b" (deleted)";

/// The path does not lead to a program. The kernel finds the same and fails with this errno, so the call may go
/// on: a shell that looks through `PATH` wants to hear `ENOENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path leads to no program: {}", io::Error::from_raw_os_error(*errno))]
pub struct Unresolved {
    /// What stands in the way.
    pub errno: i32,
}

impl From<io::Error> for Unresolved {
    fn from(error: io::Error) -> Self {
        Self {
            errno: error.raw_os_error().unwrap_or(libc::EACCES),
        }
    }
}

/// An exec, resolved.
#[derive(Debug)]
pub struct Found {
    /// What rules are asked about.
    pub action: ExecAction,
    /// The file that the path leads to (`O_PATH`); for a script, the script.
    file: OwnedFd,
}

impl Found {
    /// The file: for a script, the script.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Which file it is, roughly: to tell one denial from another.
    pub fn thing(&self) -> Thing {
        fstat(&self.file).map_or(Thing::NONE, |stat| Thing::program(stat.st_ino))
    }

    /// Says exactly which file it is. Reads all of it, so ask only where a person is asked.
    ///
    /// # Errors
    /// [`IdentityError`]: the file cannot be vouched for.
    pub fn identity(&self) -> Result<FileIdentity, IdentityError> {
        identity::identify(&self.file)
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: i64,
}

impl Stamp {
    fn of(stat: &libc::stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed: (stat.st_ctime, stat.st_ctime_nsec),
            size: stat.st_size,
        }
    }
}

/// What is known of the callers' roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Any of them may have a root or mount namespace of its own: each is looked at, which costs tens of
    /// microseconds with what the kernel has to clear away afterwards.
    Any,
    /// None of them can change it: they have no privilege, and new namespaces are refused. The first caller's
    /// holds for all.
    Fixed,
}

/// What a file is, for as long as its stamp is the same.
#[derive(Clone, Debug)]
struct Known {
    script: Option<ScriptHead>,
}

/// How long it is remembered whether the agent's user can change a directory. The kernel looks each time.
const DIRECTORY_KNOWN: Duration = Duration::from_secs(1);

/// Resolves execs. Remembers what files are, so that a program that has been seen is not read again.
#[derive(Debug)]
pub struct Resolver {
    root: Root,
    roots: Roots,
    fixed: Option<View>,
    files: HashMap<Stamp, Known>,
    eyes: Eyes,
    changer: Option<Changer>,
    /// Whether the agent's user can change a directory, or one above it, and since when that is known.
    directories: HashMap<PathBuf, (Instant, bool)>,
}

/// A file that a path led to.
struct Opened {
    file: OwnedFd,
    stat: libc::stat,
    known: Known,
    /// Its path, links followed.
    path: Vec<u8>,
    /// Whether the agent's user can change it.
    changeable: bool,
}

impl Resolver {
    /// For the processes of one agent, with whose eyes paths are looked at.
    ///
    /// # Errors
    /// When `/` cannot be looked at.
    pub fn new(roots: Roots, eyes: Eyes) -> io::Result<Self> {
        Ok(Self {
            root: Root::ours()?,
            roots,
            fixed: None,
            files: HashMap::new(),
            eyes,
            changer: None,
            directories: HashMap::new(),
        })
    }

    /// Says who the agent runs as: what this user can change is trusted in no directory.
    #[must_use]
    pub fn with_changer(mut self, changer: Changer) -> Self {
        self.changer = Some(changer);
        self
    }

    /// Resolves an exec as the stopped thread `tid` would, and with its user's rights. Opens only regular files of
    /// ordinary file systems that the user may execute: no device, nothing of the kernel's own, nothing that a
    /// server has to answer for.
    ///
    /// # Errors
    /// [`Unresolved`] when there is no such program, or the user may not execute it.
    pub fn exec(&mut self, tid: u32, call: &ExecCall, text: ExecText) -> Result<Found, Unresolved> {
        let view = match self.fixed.take() {
            Some(view) => view,
            None => View::of(tid, self.root)?,
        };
        let found = self.exec_in(&view, tid, call, text);
        if self.roots == Roots::Fixed {
            self.fixed = Some(view);
        }
        found
    }

    fn exec_in(
        &mut self,
        view: &View,
        tid: u32,
        call: &ExecCall,
        text: ExecText,
    ) -> Result<Found, Unresolved> {
        let given = Lookup {
            tid,
            dirfd: call.dirfd,
            path: &text.path,
            no_follow: call.flags & libc::AT_SYMLINK_NOFOLLOW != 0,
            empty: call.flags & libc::AT_EMPTY_PATH != 0,
        };
        let opened = self.open(&given, view)?;
        let mut fileless = opened.stat.st_nlink == 0;
        let mut changeable = opened.changeable;
        let mut last = None;
        let mut next = opened.known.script.clone();
        for _ in 0..DEPTH {
            let Some(script) = next.take() else { break };
            let named = Lookup {
                tid,
                dirfd: libc::AT_FDCWD,
                path: &script.interpreter,
                no_follow: false,
                empty: false,
            };
            let interpreter = self.open(&named, view)?;
            next.clone_from(&interpreter.known.script);
            last = Some(interpreter);
        }
        let resolved = last.map(|interpreter| {
            fileless |= interpreter.stat.st_nlink == 0;
            changeable |= interpreter.changeable;
            interpreter.path
        });
        let own = resolved.is_some().then(|| opened.path.clone());
        let action = ExecAction {
            path: kernel_name(call, text.path),
            found: false,
            argv: text.argv,
            resolved: Some(resolved.unwrap_or(opened.path)),
            script: opened.known.script,
            own,
            fileless,
            changeable,
        };
        Ok(Found {
            action,
            file: opened.file,
        })
    }

    fn open(&mut self, lookup: &Lookup<'_>, view: &View) -> Result<Opened, Unresolved> {
        let file = walk::open(lookup, view, &self.eyes)?;
        let stat = walk::stat(&file)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => {}
            libc::S_IFLNK => return Err(Unresolved { errno: libc::ELOOP }),
            _ => {
                return Err(Unresolved {
                    errno: libc::EACCES,
                });
            }
        }
        self.eyes.look(|| readable::executable(&file))??;
        if !readable::ordinary(&file)? {
            return Err(Unresolved {
                errno: libc::EACCES,
            });
        }
        let known = self.known(&file, &stat)?;
        let path = path_of(&file, stat.st_nlink == 0)?;
        let changeable = self.changeable(&stat, &path);
        Ok(Opened {
            file,
            stat,
            known,
            path,
            changeable,
        })
    }

    /// Whether the agent's user can change the file or a directory above it. What cannot be looked at can be.
    fn changeable(&mut self, stat: &libc::stat, path: &[u8]) -> bool {
        let Some(changer) = &self.changer else {
            return false;
        };
        let owned = Owned {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode,
        };
        if changer.how(owned).is_some() {
            return true;
        }
        let Some(directory) = Path::new(OsStr::from_bytes(path)).parent() else {
            return true;
        };
        let now = Instant::now();
        if let Some((since, known)) = self.directories.get(directory)
            && now.duration_since(*since) < DIRECTORY_KNOWN
        {
            return *known;
        }
        let found = !matches!(changer.on_the_way(directory), Ok(None));
        if self.directories.len() >= REMEMBERED {
            self.directories.clear();
        }
        self.directories.insert(directory.to_owned(), (now, found));
        found
    }

    fn known(&mut self, file: &OwnedFd, stat: &libc::stat) -> io::Result<Known> {
        let stamp = Stamp::of(stat);
        if let Some(known) = self.files.get(&stamp) {
            return Ok(known.clone());
        }
        let settled = age(stat).is_none_or(|age| age > TICK);
        let open = identity::reopen(file)?;
        let mut head = [0; HEAD];
        let mut read = 0;
        while read < HEAD {
            match open.read_at(&mut head[read..], read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        let known = Known {
            script: script::parse(&head),
        };
        // Once more: what was read has to belong to the stamp.
        if settled && Stamp::of(&walk::stat(&open)?) == stamp {
            if self.files.len() >= REMEMBERED {
                self.files.clear();
            }
            self.files.insert(stamp, known.clone());
        }
        Ok(known)
    }
}

/// Time since the last change; `None` if that lies in the future, where no later change can be stamped.
pub(super) fn age(stat: &libc::stat) -> Option<Duration> {
    let seconds = u64::try_from(stat.st_ctime).ok()?;
    let changed =
        SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(stat.st_ctime_nsec).ok()?);
    SystemTime::now().duration_since(changed).ok()
}

/// The path as the kernel names the exec (`alloc_bprm`, fs/exec.c).
fn kernel_name(call: &ExecCall, path: Vec<u8>) -> Vec<u8> {
    if call.dirfd == libc::AT_FDCWD || path.first() == Some(&b'/') {
        return path;
    }
    let mut name = format!("/dev/fd/{}", call.dirfd).into_bytes();
    if !path.is_empty() {
        name.push(b'/');
        name.extend_from_slice(&path);
    }
    name
}

/// The path that the file was reached by, links followed.
fn path_of(file: &impl AsRawFd, fileless: bool) -> io::Result<Vec<u8>> {
    let mut path = walk::name_of(file)?;
    if fileless && path.ends_with(DELETED) {
        path.truncate(path.len() - DELETED.len());
    }
    Ok(path)
}

/// A socket file, resolved.
#[derive(Debug)]
pub struct SocketFile {
    /// The file itself (`O_PATH`), for the connector.
    pub file: OwnedFd,
    /// Its path, links followed.
    pub path: Vec<u8>,
}

impl Resolver {
    /// Resolves the path in a unix socket's address as the stopped thread `tid` would, and with its user's
    /// rights: what that user cannot reach is not reached for it.
    ///
    /// # Errors
    /// [`Unresolved`] with what `connect` would say.
    pub fn socket(&mut self, tid: u32, path: &[u8]) -> Result<SocketFile, Unresolved> {
        let view = View::of(tid, self.root)?;
        let named = Lookup {
            tid,
            dirfd: libc::AT_FDCWD,
            path,
            no_follow: false,
            empty: false,
        };
        let file = walk::open(&named, &view, &self.eyes)?;
        if walk::stat(&file)?.st_mode & libc::S_IFMT != libc::S_IFSOCK {
            return Err(Unresolved {
                errno: libc::ECONNREFUSED,
            });
        }
        let path = walk::name_of(&file)?;
        Ok(SocketFile { file, path })
    }
}

/// A thread's working directory: its path and which directory it is.
///
/// # Errors
/// When the thread is gone.
pub fn working_directory(tid: u32) -> io::Result<DirectoryIdentity> {
    let directory = walk::directory(tid)?;
    let stat = walk::stat(&directory)?;
    Ok(DirectoryIdentity {
        path: walk::name_of(&directory)?,
        device: stat.st_dev,
        inode: stat.st_ino,
    })
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;

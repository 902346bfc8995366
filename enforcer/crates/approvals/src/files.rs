//! Requests and answers as files, for supervisors that are scripts: `ID.proposal.json` is written, `ID.response.json`
//! is read, both end in `processed/`. Who owns a response says who answered; so nobody but its owner may be able to
//! write the directory.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, RenameFlags, openat, renameat, renameat2},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::{Mode, mkdirat},
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use uuid::Uuid;

use super::{ApprovalsError, desk::PersonAnswer, ready::readable};
use enforcer_control::{Approvers, RequestRecord, approvers, peer::PeerGuard};
use enforcer_decide::approval::Scope;

const PROPOSAL: &str = ".proposal.json";
const RESPONSE: &str = ".response.json";
const PROCESSED: &str = "processed";

/// Bytes of a response.
const MAX_RESPONSE: u64 = 64 * 1024;

/// Files of one name in the archive.
const MAX_ARCHIVED: u32 = 1000;

/// A checked directory, held by descriptors: swapping its path has no effect.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    entries: File,
    processed: OwnedFd,
    /// Who owns it, and so must be able to read proposals.
    owner: (u32, u32),
}

impl Directory {
    /// Opens and checks it, makes `processed/` in it.
    ///
    /// # Errors
    ///
    /// It does not exist, or somebody beside an approver could write it.
    pub fn open(
        path: &Path,
        approvers: &Approvers,
        agent_uid: u32,
        agent_gids: &[u32],
    ) -> Result<Self, ApprovalsError> {
        let fault = |why: String| ApprovalsError::Directory {
            path: path.to_owned(),
            why,
        };
        if agent_uid == 0 {
            return Err(fault(
                "the agent runs as root, whose files cannot be told from an approver's; run it as another user (--user), \
                 or answer with `enforcer approvals`"
                    .to_owned(),
            ));
        }
        let real = fs::canonicalize(path).map_err(|error| {
            fault(format!(
                "{error}; create it: install -d -m 0700 {}",
                path.display()
            ))
        })?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(&real, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| fault(format!("it cannot be opened: {errno}")))?;
        let meta = directory
            .metadata()
            .map_err(ApprovalsError::io(path, "fstat"))?;
        let owner = meta.uid();
        if owner == agent_uid || !(owner == 0 || approvers.allows(owner)) {
            return Err(fault(format!(
                "it belongs to {}, who is not an approver or is the agent's own user: chown root {}",
                approvers::name(owner),
                path.display()
            )));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(fault(format!(
                "others than its owner can write it (mode {:04o}), and whoever can write it can answer: chmod go-w {}",
                meta.mode() & 0o7777,
                path.display()
            )));
        }
        if let Some(above) = real
            .ancestors()
            .skip(1)
            .find(|above| is_writable(above, agent_uid, agent_gids))
        {
            return Err(fault(format!(
                "the agent's user can write {} above it; choose a directory that only root can move",
                above.display()
            )));
        }
        match mkdirat(&directory, PROCESSED, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(ApprovalsError::io(path, "mkdir")(errno)),
        }
        let processed = openat(&directory, PROCESSED, flags, Mode::empty()).map_err(|errno| {
            fault(format!(
                "{PROCESSED} in it is not a directory that can be used ({errno}); move it away"
            ))
        })?;
        Ok(Self {
            path: path.to_owned(),
            entries: directory,
            processed,
            owner: (owner, meta.gid()),
        })
    }
}

/// Whether this user could replace entries of a directory; what cannot be looked at counts.
fn is_writable(directory: &Path, uid: u32, gids: &[u32]) -> bool {
    let Ok(meta) = fs::metadata(directory) else {
        return true;
    };
    let sticky = meta.mode() & 0o1000 != 0;
    meta.uid() == uid
        || (!sticky
            && (meta.mode() & 0o002 != 0
                || (meta.mode() & 0o020 != 0 && gids.contains(&meta.gid()))))
}

/// A response, read and checked.
#[derive(Debug)]
pub(super) struct Response {
    pub verdict: PersonAnswer,
    pub approver: String,
    pub notes: String,
}

#[derive(Deserialize)]
struct ResponseText {
    status: Status,
    #[serde(default)]
    notes: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    approver: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Approved,
    Modified,
    Rejected,
}

/// What a response file turned out to be.
enum Look {
    /// Not (wholly) there yet.
    NotYet,
    /// Nobody's answer, and why.
    Bad(String),
    Good(Response),
}

/// A directory at work.
pub(super) struct Files {
    place: Directory,
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Files {
    /// Starts to look at the directory. Needs the runtime of the desk's thread.
    pub fn new(place: Directory) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB;
        inotify.add_watch(
            Path::new(&format!("/proc/self/fd/{}", place.entries.as_raw_fd())),
            flags,
        )?;
        let ready = readable(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self {
            place,
            inotify,
            ready,
        })
    }

    /// Waits until responses come or change; gives their ids. Without a directory it waits for ever.
    pub async fn changed(files: Option<&Self>) -> Vec<String> {
        let Some(files) = files else {
            return std::future::pending().await;
        };
        loop {
            match files.ready.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => {
                    tracing::warn!(%error, "the approvals directory is no longer watched");
                    return std::future::pending().await;
                }
            }
            let mut ids = Vec::new();
            let mut overflow = false;
            while let Ok(events) = files.inotify.read_events() {
                for event in events {
                    overflow |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                    ids.extend(
                        event
                            .name
                            .as_deref()
                            .and_then(|n| n.to_str())
                            .and_then(|name| id_of(name, RESPONSE)),
                    );
                }
            }
            if overflow {
                ids = files.existing();
            }
            ids.sort_unstable();
            ids.dedup();
            if !ids.is_empty() {
                return ids;
            }
        }
    }

    /// The ids of the proposals and responses that lie there, also those that an earlier run has left.
    pub fn existing(&self) -> Vec<String> {
        let path = format!("/proc/self/fd/{}", self.place.entries.as_raw_fd());
        let Ok(entries) = fs::read_dir(path) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let name = name.to_str()?;
                id_of(name, RESPONSE).or_else(|| id_of(name, PROPOSAL))
            })
            .collect()
    }

    /// Writes a request's proposal, whole or not at all.
    pub fn propose(&self, record: &RequestRecord) {
        if let Err(error) = self.write(record) {
            tracing::warn!(
                directory = %self.place.path.display(),
                id = record.id,
                %error,
                "a proposal cannot be written; answer it with `enforcer approvals`"
            );
        }
    }

    fn write(&self, record: &RequestRecord) -> io::Result<()> {
        let directory = &self.place.entries;
        let temporary = format!(".{}{PROPOSAL}.new", record.id);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(
            directory,
            temporary.as_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?;
        let mut file = File::from(file);
        let written = serde_json::to_vec_pretty(record)
            .map_err(io::Error::from)
            .and_then(|text| file.write_all(&text))
            .and_then(|()| {
                let (uid, gid) = self.place.owner;
                fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                    .map_err(io::Error::from)
            })
            .and_then(|()| {
                let name = format!("{}{PROPOSAL}", record.id);
                renameat(directory, temporary.as_str(), directory, name.as_str())
                    .map_err(io::Error::from)
            });
        if written.is_err() {
            let _ = unlinkat(directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// A pending request's response, if it is there, whole and an approver's. What is nobody's answer is archived.
    pub fn response(&self, id: &str, guard: &PeerGuard) -> Option<Response> {
        let name = format!("{id}{RESPONSE}");
        match self.look(&name, id, guard) {
            Look::NotYet => None,
            Look::Good(response) => Some(response),
            Look::Bad(why) => {
                tracing::warn!(
                    directory = %self.place.path.display(),
                    file = name,
                    why,
                    "a response file is refused and archived"
                );
                self.put_away(&name);
                None
            }
        }
    }

    fn look(&self, name: &str, id: &str, guard: &PeerGuard) -> Look {
        // A pipe must not hold the desk up.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&self.place.entries, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Look::NotYet,
            Err(Errno::ELOOP) => return Look::Bad("it is a symbolic link".to_owned()),
            Err(errno) => return Look::Bad(format!("it cannot be opened: {errno}")),
        };
        let meta = match file.metadata() {
            Ok(meta) => meta,
            Err(error) => return Look::Bad(format!("it cannot be looked at: {error}")),
        };
        let owner = meta.uid();
        if !meta.is_file() || meta.nlink() > 1 {
            return Look::Bad("it is not a regular file with one name".to_owned());
        }
        if owner == guard.agent_uid || !guard.approvers.allows(owner) {
            return Look::Bad(format!(
                "it belongs to {}, who is not an approver",
                approvers::name(owner)
            ));
        }
        if meta.mode() & 0o022 != 0 {
            return Look::Bad(format!(
                "others than its owner can write it (mode {:04o})",
                meta.mode() & 0o7777
            ));
        }
        let mut text = Vec::new();
        if let Err(error) = file.take(MAX_RESPONSE + 1).read_to_end(&mut text) {
            return Look::Bad(format!("it cannot be read: {error}"));
        }
        if text.len() as u64 > MAX_RESPONSE {
            return Look::Bad(format!("it is longer than {MAX_RESPONSE} bytes"));
        }
        let response: ResponseText = match serde_json::from_slice(&text) {
            Ok(response) => response,
            // A part of a JSON text is no JSON text: the rest may still come. Only a whole one can be wrong.
            Err(error) if !error.is_data() => return Look::NotYet,
            Err(error) => return Look::Bad(error.to_string()),
        };
        if let Some(other) = response.id.as_deref().filter(|other| *other != id) {
            return Look::Bad(format!(
                "it speaks of another request, {}",
                enforcer_control::record::text(other)
            ));
        }
        let approver = match response.approver.as_deref() {
            Some(claim) if !claim.is_empty() => format!("{} for {claim}", approvers::name(owner)),
            _ => approvers::name(owner),
        };
        let notes = response.notes.unwrap_or_default();
        let (verdict, notes) = match response.status {
            Status::Approved => (
                PersonAnswer::Approve {
                    scope: Scope::Once,
                    lasting: None,
                },
                notes,
            ),
            Status::Rejected => (PersonAnswer::Deny, notes),
            // What a person has changed is another action: it is asked for anew.
            Status::Modified => (PersonAnswer::Deny, format!("To be done otherwise: {notes}")),
        };
        Look::Good(Response {
            verdict,
            approver,
            notes,
        })
    }

    /// A request has ended, or was never there: its files have had their time, and are not read.
    pub fn archive(&self, id: &str) {
        self.put_away(&format!("{id}{PROPOSAL}"));
        self.put_away(&format!("{id}{RESPONSE}"));
    }

    fn put_away(&self, name: &str) {
        let (from, to) = (&self.place.entries, &self.place.processed);
        for n in 0..MAX_ARCHIVED {
            let free = if n == 0 {
                name.to_owned()
            } else {
                format!("{name}.{n}")
            };
            match renameat2(from, name, to, free.as_str(), RenameFlags::RENAME_NOREPLACE) {
                Err(Errno::EEXIST) => {}
                Ok(()) | Err(Errno::ENOENT) => return,
                Err(errno) => {
                    tracing::warn!(
                        directory = %self.place.path.display(),
                        file = name,
                        %errno,
                        "a file cannot be archived"
                    );
                    return;
                }
            }
        }
    }
}

/// The id in a file's name; other names are not ours.
fn id_of(name: &str, kind: &str) -> Option<String> {
    let id = name.strip_suffix(kind)?;
    let uuid = Uuid::try_parse(id).ok()?;
    // One spelling only.
    (uuid.to_string() == id).then(|| id.to_owned())
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod files_tests;

//! A line on the standard error of a process of the agent's.
//!
//! The agent chooses what its descriptor 2 is: a full pipe, a stopped terminal, a file whose writer's rights
//! count. So a thread of its own writes, with the agent's rights and no more, and nobody waits for it longer
//! than he says.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use super::cgroup::PARENT;
use super::privilege::take_file_system_identity;
use super::{AgentCgroup, Identity, LaunchError};

/// Lines that wait at a time.
const QUEUE: usize = 32;
/// Longest line, bytes, with its newline: `PIPE_BUF`, of which a pipe that is writable takes all.
const LONGEST: usize = 4096;
/// Standard error.
const STANDARD_ERROR: i32 = 2;

/// File systems where writing is a command to the kernel or to a server (linux/magic.h).
const COMMANDING: [i64; 13] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinux
    0x4249_4e4d, // binfmt_misc
    0x6573_5546, // fuse
];

struct Line {
    to: OwnedFd,
    text: Vec<u8>,
    until: Instant,
    written: SyncSender<bool>,
}

/// Tells processes of one agent something.
#[derive(Debug)]
pub struct Teller {
    queue: SyncSender<Line>,
    place: String,
}

impl Teller {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When the thread cannot be had, or cannot give up its rights.
    pub fn start(identity: &Identity, cgroup: &AgentCgroup) -> Result<Self, LaunchError> {
        let (queue, lines) = sync_channel::<Line>(QUEUE);
        let (ready, started) = sync_channel(1);
        let identity = identity.clone();
        thread::Builder::new()
            .name("tell".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                // A background process that writes to its terminal, a reader that is gone: errors, not signals.
                let quiet = SigSet::all()
                    .thread_block()
                    .map_err(|errno| errno as i32)
                    .and_then(|()| take_file_system_identity(&identity));
                let go_on = quiet.is_ok();
                if ready.send(quiet).is_ok() && go_on {
                    serve(&lines);
                }
            })
            .map_err(|source| LaunchError::System {
                call: "thread",
                source,
                mend: "raise the limit of processes (ulimit -u)",
            })?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self {
                queue,
                place: format!("/{PARENT}/{}", cgroup.name()),
            }),
            failed => Err(LaunchError::System {
                call: "setfsuid",
                source: io::Error::from_raw_os_error(match failed {
                    Ok(Err(errno)) => errno,
                    _ => libc::EIO,
                }),
                mend: "run as root",
            }),
        }
    }

    /// Writes a line to the standard error of process `pid`, or of `parent` if that is gone. Returns when it is
    /// written or `wait` is over; tells whether it was written by then. Control characters are the caller's care.
    ///
    /// The process has to be in the agent's cgroup: a number that was given to another is told nothing.
    pub fn tell(&self, pid: u32, parent: Option<u32>, line: &str, wait: Duration) -> bool {
        let Some(to) = self
            .standard_error(pid)
            .or_else(|| self.standard_error(parent?))
        else {
            return false;
        };
        let mut text = line.as_bytes()[..line.floor_char_boundary(LONGEST - 1)].to_vec();
        text.push(b'\n');
        let until = Instant::now() + wait;
        let (written, answer) = sync_channel(1);
        let line = Line {
            to,
            text,
            until,
            written,
        };
        // A full queue: the thread hangs in a write that the agent has made hang.
        if self.queue.try_send(line).is_err() {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        answer.recv_timeout(left).unwrap_or(false)
    }

    fn standard_error(&self, pid: u32) -> Option<OwnedFd> {
        // SAFETY: numbers only; a descriptor that comes back is ours.
        let process = unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))?
        };
        if !self.is_agents(pid) {
            return None;
        }
        // SAFETY: as above. If the process of the pidfd is gone, the call fails, whoever has its number now.
        unsafe {
            let fd = libc::syscall(
                libc::SYS_pidfd_getfd,
                process.as_raw_fd(),
                STANDARD_ERROR,
                0,
            );
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
        }
    }

    fn is_agents(&self, pid: u32) -> bool {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        cgroups
            .lines()
            .filter_map(|line| line.strip_prefix("0::"))
            .filter_map(|path| path.split_once(&self.place))
            .any(|(_, below)| below.is_empty() || below.starts_with('/'))
    }
}

fn serve(lines: &Receiver<Line>) {
    for line in lines {
        let written = harmless(&line.to) && write(&line);
        // Whoever asked may have gone on.
        let _ = line.written.try_send(written);
    }
}

/// Whether writing there does no more than to show text.
fn harmless(to: &OwnedFd) -> bool {
    // SAFETY: all-zero structures of plain numbers are valid; the kernel fills them.
    let (stat, fs) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let mut fs: libc::statfs = std::mem::zeroed();
        if libc::fstat(to.as_raw_fd(), &raw mut stat) < 0
            || libc::fstatfs(to.as_raw_fd(), &raw mut fs) < 0
        {
            return false;
        }
        (stat, fs)
    };
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFIFO | libc::S_IFSOCK => true,
        libc::S_IFREG => !COMMANDING.contains(&fs.f_type),
        libc::S_IFCHR => std::io::IsTerminal::is_terminal(to),
        _ => false,
    }
}

fn write(line: &Line) -> bool {
    let fd = line.to.as_raw_fd();
    let left = line.until.saturating_duration_since(Instant::now());
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    };
    let patience = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one structure, which outlives the call.
    if unsafe { libc::poll(&raw mut poll, 1, patience) } != 1 || poll.revents & libc::POLLOUT == 0 {
        return false;
    }
    let piece = libc::iovec {
        iov_base: line.text.as_ptr().cast_mut().cast(),
        iov_len: line.text.len(),
    };
    // Another writer may have been quicker. The offset -1 stands for the file's own position.
    // SAFETY: the piece is as long as it says, and is only read.
    let mut written = unsafe { libc::pwritev2(fd, &raw const piece, 1, -1, libc::RWF_NOWAIT) };
    let errno = io::Error::last_os_error().raw_os_error();
    if written < 0 && matches!(errno, Some(libc::EOPNOTSUPP | libc::EINVAL)) {
        // SAFETY: as above.
        written = unsafe { libc::write(fd, line.text.as_ptr().cast(), line.text.len()) };
    }
    usize::try_from(written).is_ok_and(|written| written == line.text.len())
}

#[cfg(test)]
#[path = "tell_tests.rs"]
mod tests;

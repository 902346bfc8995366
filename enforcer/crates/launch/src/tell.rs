//! A line on the standard error of a process of the agent's.
//!
//! The agent chooses what its descriptor 2 is: a full pipe, a stopped terminal, a file whose writer's rights
//! count, a socket whose other end sees who writes. So a process of its own writes, as the agent's user and without
//! privileges, and nobody waits for it longer than he says. It stands outside the agent's cgroup: there the agent's
//! processes cannot reach it where the kernel keeps them from processes outside.

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::pipe2;

use super::cgroup::PARENT;
use super::servant::{Post, Servant, receive};
use super::{AgentCgroup, Identity, LaunchError};

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

/// Tells processes of one agent something.
#[derive(Debug)]
pub struct StderrNotifier {
    servant: Servant,
    place: String,
}

impl StderrNotifier {
    /// Starts the process that writes. Call it before other threads are started.
    ///
    /// # Errors
    /// When the process cannot be had, or cannot give up its rights.
    pub fn start(identity: &Identity, cgroup: &AgentCgroup) -> Result<Self, LaunchError> {
        let servant = Servant::begin(Post {
            identity,
            cgroup: None,
            // One: lines stay in their order.
            workers: 1,
            serve,
            name: "notifier",
        })?
        .serves()?;
        Ok(Self {
            servant,
            place: format!("/{PARENT}/{}", cgroup.name()),
        })
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
        let until = now().saturating_add(wait);
        let Ok((answer, written)) = pipe2(OFlag::O_CLOEXEC) else {
            return false;
        };
        // It has too much to do: it hangs in a write that the agent has made hang.
        let sent = self.servant.send(
            &[
                IoSlice::new(&nanoseconds(until).to_ne_bytes()),
                IoSlice::new(&text),
            ],
            &[to.as_raw_fd(), written.as_raw_fd()],
        );
        drop(written);
        if sent.is_err() || wait.is_zero() {
            return false;
        }
        let mut ready = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
        let left = PollTimeout::try_from(until.saturating_sub(now())).unwrap_or(PollTimeout::ZERO);
        let mut word = [0];
        poll(&mut ready, left) == Ok(1)
            && nix::unistd::read(&answer, &mut word) == Ok(1)
            && word == [1]
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

/// A clock that this process and the other read alike.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes until the launcher is gone. A message is until when the writer may wait (ns), then the line.
fn serve(requests: RawFd) {
    let mut message = [0; 8 + LONGEST];
    while let Some(request) = receive::<2>(requests, &mut message) {
        let (Some([to, answer]), Some((until, line))) = (
            request.descriptors,
            message[..request.length].split_first_chunk(),
        ) else {
            continue;
        };
        let until = Duration::from_nanos(u64::from_ne_bytes(*until));
        let written = kind(&to).is_some_and(|kind| write(&to, kind, line, until));
        // Nothing of it stays here.
        drop(to);
        // Whoever asked may have gone on.
        let _ = nix::unistd::write(&answer, &[written.into()]);
    }
}

/// What it is (`S_IFMT`), if writing there does no more than to show text.
fn kind(to: &OwnedFd) -> Option<libc::mode_t> {
    // SAFETY: all-zero structures of plain numbers are valid; the kernel fills them.
    let (stat, fs) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let mut fs: libc::statfs = std::mem::zeroed();
        if libc::fstat(to.as_raw_fd(), &raw mut stat) < 0
            || libc::fstatfs(to.as_raw_fd(), &raw mut fs) < 0
        {
            return None;
        }
        (stat, fs)
    };
    let kind = stat.st_mode & libc::S_IFMT;
    let harmless = match kind {
        libc::S_IFIFO | libc::S_IFSOCK => true,
        libc::S_IFREG => !COMMANDING.contains(&fs.f_type),
        libc::S_IFCHR => io::IsTerminal::is_terminal(to),
        _ => false,
    };
    harmless.then_some(kind)
}

fn write(to: &OwnedFd, kind: libc::mode_t, text: &[u8], until: Duration) -> bool {
    let left = PollTimeout::try_from(until.saturating_sub(now())).unwrap_or(PollTimeout::ZERO);
    let mut ready = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, left) != Ok(1)
        || !ready[0]
            .revents()
            .is_some_and(|is| is.contains(PollFlags::POLLOUT))
    {
        return false;
    }
    let fd = to.as_raw_fd();
    let piece = libc::iovec {
        iov_base: text.as_ptr().cast_mut().cast(),
        iov_len: text.len(),
    };
    // Another writer may have been quicker. A file never waits for a reader, and would say no where it must wait for its
    // disk. The offset -1 stands for the file's own position.
    let flags = if kind == libc::S_IFREG {
        0
    } else {
        libc::RWF_NOWAIT
    };
    // SAFETY: the piece is as long as it says, and is only read.
    let mut written = unsafe { libc::pwritev2(fd, &raw const piece, 1, -1, flags) };
    let errno = io::Error::last_os_error().raw_os_error();
    if written < 0 && matches!(errno, Some(libc::EOPNOTSUPP | libc::EINVAL)) {
        // SAFETY: as above.
        written = unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
    }
    usize::try_from(written).is_ok_and(|written| written == text.len())
}

#[cfg(test)]
#[path = "tell_tests.rs"]
mod tests;

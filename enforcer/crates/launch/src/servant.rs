//! A process of the launcher's that does one kind of work as the agent's user: what it does, the agent could do.
//!
//! A thread that only lends itself the agent's file rights is not enough where others see who is at work: the other end of
//! a socket sees the process's user.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use super::image::close_all_but;
use super::privilege::drop_all;
use super::{AgentCgroup, Identity, LaunchError};

/// What a servant is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Post<'a> {
    /// Whose user it gets.
    pub identity: &'a Identity,
    /// The cgroup that it is put into, if not the launcher's.
    pub cgroup: Option<&'a AgentCgroup>,
    /// Threads that serve.
    pub workers: usize,
    /// What each does, until the socket that it is given has ended.
    pub serve: fn(RawFd),
    /// What it is called in messages.
    pub name: &'static str,
}

/// The servant's end in the launcher. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Servant {
    pid: Pid,
    pidfd: OwnedFd,
    requests: OwnedFd,
}

/// A servant on its way. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Beginning {
    servant: Servant,
    name: &'static str,
}

impl Beginning {
    /// Waits until it serves.
    ///
    /// # Errors
    /// When it cannot be moved into its cgroup, or cannot give up its privileges.
    pub fn serves(self) -> Result<Servant, LaunchError> {
        let Self { servant, name } = self;
        let mut ready = [0; 4];
        match nix::unistd::read(&servant.requests, &mut ready) {
            Ok(4) => match i32::from_ne_bytes(ready) {
                0 => Ok(servant),
                errno => Err(failed(name, Errno::from_raw(errno))),
            },
            Ok(_) => Err(failed(name, Errno::EPIPE)),
            Err(errno) => Err(failed(name, errno)),
        }
    }
}

fn failed(name: &str, errno: Errno) -> LaunchError {
    LaunchError::Child {
        step: format!("starting the {name}"),
        source: errno.into(),
        mend: "run as root, and check the limits of processes (ulimit -u, pids.max)",
    }
}

impl Servant {
    /// Makes the process, which moves itself into its cgroup: that takes milliseconds, and the launcher has other things to
    /// do meanwhile. Call it before other threads are started: the process has threads of its own, and a lock that another
    /// thread held when it was forked would stay locked in it.
    ///
    /// # Errors
    /// When the kernel refuses the process.
    pub fn begin(post: Post<'_>) -> Result<Beginning, LaunchError> {
        let (requests, served) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(LaunchError::system(
            "socketpair",
            "raise the limit of open files (ulimit -n)",
        ))?;
        // SAFETY: the C library's own fork, which leaves its allocator in order; see above for other locks.
        let pid = match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                // SAFETY: _exit runs no code of the parent's.
                unsafe { libc::_exit(become_servant(served.as_raw_fd(), post)) }
            }
            Ok(ForkResult::Parent { child }) => child,
            Err(errno) => {
                return Err(LaunchError::system(
                    "fork",
                    "raise the limit of processes (ulimit -u)",
                )(errno));
            }
        };
        drop(served);
        // SAFETY: numbers only; it has not been waited for, so the number is its own.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        if pidfd < 0 {
            let errno = Errno::last();
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            return Err(failed(post.name, errno));
        }
        // From here on dropping it ends the process.
        let servant = Self {
            pid,
            // SAFETY: the kernel has just opened it for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) },
            requests,
        };
        let name = post.name;
        Ok(Beginning { servant, name })
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Gives it work; does not block.
    ///
    /// # Errors
    /// `EAGAIN` if it has too much to do, `EPIPE` or `ECONNRESET` if it is dead.
    pub fn send(&self, words: &[IoSlice<'_>], descriptors: &[RawFd]) -> Result<(), Errno> {
        sendmsg::<UnixAddr>(
            self.requests.as_raw_fd(),
            words,
            &[ControlMessage::ScmRights(descriptors)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map(|_| ())
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        // By its descriptor: if the agent has killed it, it may have been waited for, and its number given away.
        // SAFETY: numbers and a null pointer; the descriptor is open. The status goes nowhere.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                0_usize,
                0,
            );
            let mut status: libc::siginfo_t = std::mem::zeroed();
            let pidfd = self.pidfd.as_raw_fd().cast_unsigned();
            while libc::waitid(libc::P_PIDFD, pidfd, &raw mut status, libc::WEXITED) < 0
                && Errno::last() == Errno::EINTR
            {}
        }
    }
}

/// The process: its exit status.
fn become_servant(requests: RawFd, post: Post<'_>) -> i32 {
    let prepared = prepare(requests, post);
    let errno = prepared.err().unwrap_or(0);
    let workers: Vec<_> = (0..if errno == 0 { post.workers } else { 0 })
        .map_while(|_| {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || (post.serve)(requests))
                .ok()
        })
        .collect();
    let errno = if errno == 0 && workers.is_empty() {
        libc::EAGAIN
    } else {
        errno
    };
    let ready = errno.to_ne_bytes();
    // SAFETY: the buffer is as long as it says.
    unsafe { libc::write(requests, ready.as_ptr().cast(), ready.len()) };
    for worker in workers {
        let _ = worker.join();
    }
    0
}

fn prepare(requests: RawFd, post: Post<'_>) -> Result<(), i32> {
    let identity = post.identity;
    close_all_but(requests, requests)?;
    // If the launcher dies, its kill or the next start's finds this process in the cgroup; one that is not there yet ends
    // with its socket.
    if let Some(cgroup) = post.cgroup {
        let moved = cgroup.add(nix::unistd::getpid());
        moved.map_err(|error| match error {
            LaunchError::Cgroup { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            _ => libc::EIO,
        })?;
    }
    // SAFETY: a NUL-terminated path and numbers; the descriptors are this process's own copies.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for standard in 0..3 {
            if null < 0 || libc::dup2(null, standard) < 0 {
                return Err(Errno::last_raw());
            }
        }
        if null > 2 {
            libc::close(null);
        }
        // Keys at the terminal are for the agent.
        libc::setsid();
    }
    let _ = SigSet::all().thread_block();
    drop_all(identity.uid, identity.gid, &identity.groups).map_err(|(_, errno)| errno)?;
    // The agent's user may neither trace it nor look into it. It does not outlive its launcher, whatever call it hangs in;
    // a change of user takes that back, so it comes last.
    // SAFETY: numbers only.
    unsafe {
        if libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) < 0
            || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) < 0
        {
            return Err(Errno::last_raw());
        }
    }
    Ok(())
}

/// A message for a servant, with what was handed over with it.
pub(super) struct Received<const N: usize> {
    /// Bytes of the message.
    pub length: usize,
    /// The descriptors; `None` if fewer came, because the limit of open files is reached.
    pub descriptors: Option<[OwnedFd; N]>,
}

/// The next message; `None` when the launcher is gone.
pub(super) fn receive<const N: usize>(requests: RawFd, message: &mut [u8]) -> Option<Received<N>> {
    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    use std::io::IoSliceMut;

    let mut space = nix::cmsg_space!([RawFd; 8]);
    loop {
        let mut pieces = [IoSliceMut::new(&mut *message)];
        let received = recvmsg::<UnixAddr>(
            requests,
            &mut pieces,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let received = match received {
            Ok(received) if received.bytes > 0 => received,
            Err(Errno::EINTR) => continue,
            _ => return None,
        };
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for control in received.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for fd in numbers {
                    // SAFETY: the kernel has just opened it for us.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        return Some(Received {
            length: received.bytes,
            descriptors: <[OwnedFd; N]>::try_from(descriptors).ok(),
        });
    }
}

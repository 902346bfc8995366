//! The connector: the one process that connects to unix sockets by path on behalf of the agent's.
//!
//! Between the judgement of a path and a connect by that path the agent can swap a link. The connector gets no
//! path: it gets the socket file that was judged, as an open descriptor, and connects to exactly that; or the abstract
//! name that was judged, which no other thread of the agent can write to. It runs as the agent's user in the agent's cgroup, so it can reach nothing that the agent could not.
//!
//! What the other end sees as its peer (`SO_PEERCRED`) has the agent's user and the connector's pid.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::thread;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recvmsg, sendmsg, socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use super::image::close_all_but;
use super::privilege::drop_all;
use super::{AgentCgroup, Identity, LaunchError};

/// Connects that can wait at a time for a server that does not accept.
const WORKERS: usize = 8;
/// The word that stands with the descriptors of a connect to a file.
const WORD: [u8; 1] = [1];
/// The word before an abstract name.
const NAMED: u8 = 2;
/// Longest abstract name, bytes, its NUL not counted (`sun_path`, linux/un.h).
const NAME_MAX: usize = 107;

/// What is connected to.
#[derive(Debug)]
pub enum Place {
    /// A socket file, open with `O_PATH`.
    File(OwnedFd),
    /// An abstract name, without the NUL before it.
    Abstract(Vec<u8>),
}

/// The connector's end in the launcher. Dropping it ends the process.
#[derive(Debug)]
pub struct Connector {
    pid: Pid,
    requests: OwnedFd,
}

/// A connect that is under way. Readable when it has ended.
#[derive(Debug)]
pub struct Connecting {
    reply: OwnedFd,
}

impl AsFd for Connecting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reply.as_fd()
    }
}

impl Connecting {
    /// Waits for the end.
    ///
    /// # Errors
    /// What `connect` said; `ECONNREFUSED` if the connector is dead.
    pub fn wait(self) -> Result<(), Errno> {
        let mut bytes = [0; 4];
        loop {
            match nix::unistd::read(&self.reply, &mut bytes) {
                Ok(4) => break,
                Err(Errno::EINTR) => {}
                _ => return Err(Errno::ECONNREFUSED),
            }
        }
        match i32::from_ne_bytes(bytes) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }
}

impl Connector {
    /// Makes the process. Call it before other threads are started: the process has threads of its own, and a
    /// lock that another thread held when it was forked would stay locked in it.
    ///
    /// # Errors
    /// When the kernel refuses the process or it cannot give up its privileges.
    pub fn start(identity: &Identity, cgroup: &AgentCgroup) -> Result<Self, LaunchError> {
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
                unsafe { libc::_exit(become_connector(served.as_raw_fd(), identity)) }
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
        // From here on dropping it ends the process.
        let connector = Self { pid, requests };
        cgroup.add(pid)?;
        let failed = |errno: Errno| LaunchError::Child {
            step: "starting the connector".to_owned(),
            source: errno.into(),
            mend: "run as root, and check the limits of processes (ulimit -u, pids.max)",
        };
        nix::unistd::write(&connector.requests, &WORD).map_err(failed)?;
        let mut ready = [0; 4];
        match nix::unistd::read(&connector.requests, &mut ready) {
            Ok(4) => match i32::from_ne_bytes(ready) {
                0 => Ok(connector),
                errno => Err(failed(Errno::from_raw(errno))),
            },
            Ok(_) => Err(failed(Errno::EPIPE)),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The process, which the kernel program lets through.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Connects the agent's `socket` to `place`, as the agent's user.
    ///
    /// Whether the user may search the directories on the way to a file is for whoever opened it to see to.
    ///
    /// # Errors
    /// What `connect` said; `ECONNREFUSED` if the connector is dead, `EAGAIN` if it has too much to do.
    pub fn connect(&self, socket: BorrowedFd<'_>, place: &Place) -> Result<(), Errno> {
        self.begin(socket, place)?.wait()
    }

    /// Begins to connect; does not block.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn begin(&self, socket: BorrowedFd<'_>, place: &Place) -> Result<Connecting, Errno> {
        let (reply, answer) = pipe2(OFlag::O_CLOEXEC)?;
        let mut descriptors = vec![answer.as_raw_fd(), socket.as_raw_fd()];
        let message = match place {
            Place::File(file) => {
                descriptors.push(file.as_raw_fd());
                WORD.to_vec()
            }
            Place::Abstract(name) => [&[NAMED], name.as_slice()].concat(),
        };
        let sent = sendmsg::<UnixAddr>(
            self.requests.as_raw_fd(),
            &[IoSlice::new(&message)],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Ok(_) => Ok(Connecting { reply }),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(Errno::ECONNREFUSED),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // It has not been reaped, so the pid is still its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        while waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }
}

/// The process: its exit status.
fn become_connector(requests: RawFd, identity: &Identity) -> i32 {
    let mut word = [0; 1];
    // SAFETY: the buffer is as long as it says.
    if unsafe { libc::read(requests, word.as_mut_ptr().cast(), 1) } != 1 {
        // The launcher is gone, or could not move this process.
        return 1;
    }
    let prepared = prepare(requests, identity);
    let errno = prepared.err().unwrap_or(0);
    let workers: Vec<_> = (0..if errno == 0 { WORKERS } else { 0 })
        .map_while(|_| {
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || serve(requests))
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

fn prepare(requests: RawFd, identity: &Identity) -> Result<(), i32> {
    close_all_but(requests, requests)?;
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
    // The agent's user may neither trace it nor look into it.
    // SAFETY: numbers only.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } < 0 {
        return Err(Errno::last_raw());
    }
    Ok(())
}

/// Connects until the launcher is gone.
fn serve(requests: RawFd) {
    let mut space = cmsg_space!([RawFd; 3]);
    let mut words = [0; NAME_MAX + 1];
    loop {
        let mut pieces = [IoSliceMut::new(&mut words)];
        let received = recvmsg::<UnixAddr>(
            requests,
            &mut pieces,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = match received {
            Ok(message) if message.bytes > 0 => message,
            Err(Errno::EINTR) => continue,
            _ => return,
        };
        let length = message.bytes;
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just opened them for us.
                descriptors.extend(
                    numbers
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        let mut descriptors = descriptors.into_iter();
        let mut place = None;
        // Fewer of them, when the limit of open files is reached: the launcher finds its reply closed.
        let (Some(answer), Some(socket)) = (descriptors.next(), descriptors.next()) else {
            continue;
        };
        let address = match (words[0], descriptors.next()) {
            (NAMED, None) => UnixAddr::new_abstract(&words[1..length]),
            (_, Some(file)) => address_of(&file).inspect(|_| place = Some(file)),
            (_, None) => continue,
        };
        let errno = address
            .and_then(|address| connect(socket.as_raw_fd(), &address))
            .err()
            .map_or(0, |errno| errno as i32);
        // The agent may wait for the other end to see its close: nothing of it stays here.
        drop((socket, place));
        let _ = nix::unistd::write(&answer, &errno.to_ne_bytes());
    }
}

/// The address of a socket file that is open with `O_PATH`, for as long as it is open.
fn address_of(file: &OwnedFd) -> Result<UnixAddr, Errno> {
    UnixAddr::new(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str())
}

#[cfg(test)]
#[path = "connector_tests.rs"]
mod tests;

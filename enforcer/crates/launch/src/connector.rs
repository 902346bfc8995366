//! The connector: the one process that connects to unix sockets by path on behalf of the agent's.
//!
//! Between the judgement of a path and a connect by that path the agent can swap a link. The connector gets no
//! path: it gets the socket file that was judged, as an open descriptor, and connects to exactly that; or the abstract
//! name that was judged, which no other thread of the agent can write to. It runs as the agent's user in the agent's cgroup,
//! so it can reach nothing that the agent could not.
//!
//! What the other end sees as its peer (`SO_PEERCRED`) has the agent's user and the connector's pid.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{UnixAddr, connect};
use nix::unistd::{Pid, pipe2};

use super::servant::{Beginning, Post, Servant, receive};
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
pub enum SocketPlace {
    /// A socket file, open with `O_PATH`.
    File(OwnedFd),
    /// An abstract name, without the NUL before it.
    Abstract(Vec<u8>),
}

/// The connector's end in the launcher. Dropping it ends the process.
#[derive(Debug)]
pub struct Connector(Servant);

/// A connector that does not serve yet. Dropping it ends the process.
#[derive(Debug)]
pub struct StartingConnector(Beginning);

impl StartingConnector {
    /// Waits until it serves.
    ///
    /// # Errors
    /// When it cannot be moved into the agent's cgroup, or cannot give up its privileges.
    pub fn serves(self) -> Result<Connector, LaunchError> {
        self.0.serves().map(Connector)
    }
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
        Self::prepare(identity, cgroup)?.serves()
    }

    /// Begins to start it; see [`Self::start`].
    ///
    /// # Errors
    /// When the process cannot be had.
    pub fn prepare(
        identity: &Identity,
        cgroup: &AgentCgroup,
    ) -> Result<StartingConnector, LaunchError> {
        Servant::begin(Post {
            identity,
            cgroup: Some(cgroup),
            workers: WORKERS,
            serve,
            name: "connector",
        })
        .map(StartingConnector)
    }

    /// The process, which the kernel program lets through.
    pub fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// Connects the agent's `socket` to `place`, as the agent's user.
    ///
    /// Whether the user may search the directories on the way to a file is for whoever opened it to see to.
    ///
    /// # Errors
    /// What `connect` said; `ECONNREFUSED` if the connector is dead, `EAGAIN` if it has too much to do.
    pub fn connect(&self, socket: BorrowedFd<'_>, place: &SocketPlace) -> Result<(), Errno> {
        self.begin(socket, place)?.wait()
    }

    /// Begins to connect; does not block.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn begin(&self, socket: BorrowedFd<'_>, place: &SocketPlace) -> Result<Connecting, Errno> {
        let (reply, answer) = pipe2(OFlag::O_CLOEXEC)?;
        // A name has no descriptor: the socket stands in its place.
        let (message, second) = match place {
            SocketPlace::File(file) => (WORD.to_vec(), file.as_raw_fd()),
            SocketPlace::Abstract(name) => {
                ([&[NAMED], name.as_slice()].concat(), socket.as_raw_fd())
            }
        };
        let descriptors = [socket.as_raw_fd(), second, answer.as_raw_fd()];
        match self.0.send(&[IoSlice::new(&message)], &descriptors) {
            Ok(()) => Ok(Connecting { reply }),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(Errno::ECONNREFUSED),
            Err(errno) => Err(errno),
        }
    }
}

/// Connects until the launcher is gone.
fn serve(requests: RawFd) {
    let mut words = [0; NAME_MAX + 1];
    while let Some(request) = receive::<3>(requests, &mut words) {
        // The launcher finds its reply closed.
        let Some([socket, place, answer]) = request.descriptors else {
            continue;
        };
        let address = if words[0] == NAMED {
            UnixAddr::new_abstract(&words[1..request.length])
        } else {
            address_of(&place)
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

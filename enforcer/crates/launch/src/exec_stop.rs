//! Processes that are held after their exec, before the first instruction of the new program.
//!
//! A call that waits in the kernel holds up more than its own process: who called `vfork(2)`, or reads the pipe by which
//! a child reports a failed exec, stands still until the exec is done, with all its timers. So such an exec is let
//! through and its process stopped in `PTRACE_EVENT_EXEC` (ptrace(2)): the parent goes on, the new program has not
//! run an instruction, and nobody but the tracer can let it run, which `SIGCONT` does for a plain stop.
//!
//! The tracer is a process of its own ([`serve`]): the launcher waits for whatever has ended of its children, and
//! `wait(2)` would give it the stops, too. When the tracer ends, however it does, the kernel kills what it holds
//! (`PTRACE_O_EXITKILL`).

mod tracer;

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair,
            sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

pub use tracer::serve;

/// The command of this program that is the tracer.
pub const COMMAND: &str = "exec-stop";

/// How long the tracer may take to answer, seconds; it does nothing that takes time.
const PATIENCE_S: i64 = 5;

/// What the tracer is told to do with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Stop it at its next exec. Answered with an errno, 0 for none.
    Stop,
    /// Let it run.
    Release,
    /// Kill it.
    Kill,
}

/// An order and the process that it is about, as they cross the socket.
type Message = [u8; 8];

impl Order {
    fn message(self, pid: u32) -> Message {
        let mut message = [0; 8];
        let number: u32 = match self {
            Self::Stop => 1,
            Self::Release => 2,
            Self::Kill => 3,
        };
        message[..4].copy_from_slice(&number.to_be_bytes());
        message[4..].copy_from_slice(&pid.to_be_bytes());
        message
    }

    fn read(message: Message) -> Option<(Self, u32)> {
        let (order, pid) = halves(message);
        let order = match order {
            1 => Self::Stop,
            2 => Self::Release,
            3 => Self::Kill,
            _ => return None,
        };
        Some((order, pid))
    }
}

/// The two numbers of a message.
fn halves(message: Message) -> (u32, u32) {
    let both = u64::from_be_bytes(message);
    ((both >> 32) as u32, both as u32)
}

/// The launcher's way to the tracer. It is started when it is first needed, and again if it has ended.
#[derive(Debug, Default)]
pub struct ExecStops(Mutex<Option<OwnedFd>>);

impl ExecStops {
    /// Has a process stopped when its next exec is done. One whose exec fails goes on.
    ///
    /// # Errors
    ///
    /// It is gone, somebody traces it already, or there is no tracer: then it is as it was.
    pub fn stop(&self, pid: u32) -> io::Result<()> {
        // Whoever panicked has left a whole descriptor, or none.
        let mut tracer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tracer.is_none() {
            *tracer = Some(start()?);
        }
        let Some(socket) = tracer.as_ref() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        match ask(socket, pid) {
            Ok(0) => Ok(()),
            Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
            // What it held is dead with it.
            Err(errno) => {
                *tracer = None;
                Err(errno.into())
            }
        }
    }

    /// Lets a process run: now, or when its exec is done.
    pub fn release(&self, pid: u32) {
        self.tell(Order::Release, pid);
    }

    /// Kills a process that is held or is to be.
    pub fn kill(&self, pid: u32) {
        self.tell(Order::Kill, pid);
    }

    fn tell(&self, order: Order, pid: u32) {
        let mut tracer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a tracer the process is dead already.
        if let Some(socket) = tracer.as_ref()
            && send_whole(socket, order.message(pid)).is_err()
        {
            *tracer = None;
        }
    }
}

fn send_whole(socket: &OwnedFd, message: Message) -> Result<(), Errno> {
    loop {
        match send(socket.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn ask(socket: &OwnedFd, pid: u32) -> Result<i32, Errno> {
    send_whole(socket, Order::Stop.message(pid))?;
    let mut answer: Message = [0; 8];
    loop {
        return match recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
            Ok(8) => {
                let (errno, answered) = halves(answer);
                if answered == pid {
                    Ok(errno.cast_signed())
                } else {
                    Err(Errno::EPROTO)
                }
            }
            Ok(_) => Err(Errno::EPIPE),
            Err(Errno::EINTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

/// Starts a tracer: this program once more, for it has a life of its own in which a copy of this process, with locks
/// that other threads hold, would be of no use.
fn start() -> io::Result<OwnedFd> {
    let (ours, its) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    setsockopt(
        &ours,
        sockopt::ReceiveTimeout,
        &TimeVal::seconds(PATIENCE_S),
    )?;
    Command::new("/proc/self/exe")
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::from(its))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Keys at the terminal are for the agent.
        .process_group(0)
        .spawn()?;
    Ok(ours)
}

#[cfg(test)]
#[path = "exec_stop_tests.rs"]
mod tests;

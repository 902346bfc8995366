//! The agent's first process while it runs: signals to it, stops, and its end.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::clone::Process;
use super::terminal::stop_self;
use super::{LaunchError, Received, Terminal};

/// How the agent's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl ExitStatus {
    /// The exit status that stands for it: the code, or 128 + the signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code.cast_unsigned() as u8,
            Self::Signal(signal) => (128 + signal).cast_unsigned() as u8,
        }
    }
}

/// Waits for what has ended of this process's children that it did not make: where a policy opens `clone3`, a process of
/// the agent's can make its launcher the parent of another (`CLONE_PARENT`). `first`, the agent's first process, is left.
/// `ended` hears of each before its number can be another process's; one that it refuses keeps it.
pub fn reap_strangers(first: Pid, ended: impl Fn(Pid) -> bool) {
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, peek)
        && let Some(pid) = status.pid()
        && pid != first
        && ended(pid)
    {
        // Those that are ours are ended by their descriptors, not by their numbers.
        if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            break;
        }
    }
}

/// The agent's first process while it runs. Dropping it leaves the process alone and restores the terminal.
#[derive(Debug)]
pub struct Child {
    process: Process,
    terminal: Terminal,
    own_group: bool,
    ended: Option<ExitStatus>,
}

impl Child {
    /// The process, let go. It leads a group of its own unless the terminal is shared.
    pub(super) fn new(process: Process, terminal: Terminal) -> Self {
        Self {
            own_group: terminal.separates_group(),
            process,
            terminal,
            ended: None,
        }
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Readable when the process has ended. It does not tell of stops: for these `SIGCHLD` is needed.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// For a signal that the launcher got: passes it on. After `SIGCHLD` call [`Self::on_change`].
    pub fn on_signal(&self, received: Received) {
        if self.ended.is_some() || received.signal == Signal::SIGCHLD {
            return;
        }
        if received.signal == Signal::SIGCONT {
            self.terminal.continued(self.process.pid);
        }
        // In a group of all, the terminal has sent it to all.
        if self.own_group || !received.by_kernel {
            self.send(received.signal);
        }
    }

    /// For `SIGCHLD` or a readable pidfd: takes note of what has become of the process; its exit status, if
    /// it has ended. When the process was stopped at a terminal, this stops the launcher as well and returns
    /// when both have been continued.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn on_change(&mut self) -> Result<Option<ExitStatus>, LaunchError> {
        while self.ended.is_none() {
            match self.wait_once(WaitPidFlag::WNOHANG)? {
                WaitStatus::StillAlive => break,
                status => self.note(status),
            }
        }
        Ok(self.ended)
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus, LaunchError> {
        loop {
            if let Some(ended) = self.ended {
                return Ok(ended);
            }
            let status = self.wait_once(WaitPidFlag::empty())?;
            self.note(status);
        }
    }

    fn wait_once(&self, flags: WaitPidFlag) -> Result<WaitStatus, LaunchError> {
        loop {
            match waitpid(self.process.pid, Some(flags | WaitPidFlag::WUNTRACED)) {
                Err(Errno::EINTR) => {}
                other => {
                    return other.map_err(LaunchError::system(
                        "waiting for the agent's process",
                        "start with SIGCHLD not ignored",
                    ));
                }
            }
        }
    }

    fn note(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(_, code) => self.ended = Some(ExitStatus::Code(code)),
            WaitStatus::Signaled(_, signal, _) => {
                self.ended = Some(ExitStatus::Signal(signal as i32));
            }
            // It has made us its tracer (`PTRACE_TRACEME`), and would stand still at each signal.
            WaitStatus::Stopped(pid, signal) if let_go(pid, signal) => {}
            WaitStatus::Stopped(..) if self.terminal.has_job_control() => {
                self.terminal.take_back();
                stop_self();
                self.terminal.give_to(self.process.pid);
                self.send(Signal::SIGCONT);
            }
            _ => {}
        }
        if self.ended.is_some() {
            self.terminal.restore();
        }
    }

    fn send(&self, signal: Signal) {
        let pid = self.process.pid;
        let target = if self.own_group {
            Pid::from_raw(-pid.as_raw())
        } else {
            pid
        };
        // It may be gone, or have become what we may not signal: neither needs an answer.
        let _ = kill(target, signal);
    }
}

/// Lets a process go on that is traced by us, with the signal that it stopped for; false if it is not.
fn let_go(pid: Pid, signal: Signal) -> bool {
    // What an exec gives to a tracer ends who has none.
    let signal = (signal != Signal::SIGTRAP).then_some(signal);
    ptrace::detach(pid, signal).is_ok()
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.terminal.restore();
        }
    }
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;

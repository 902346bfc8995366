//! Forking straight into a cgroup.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// A process that has been made and not yet waited for.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

impl Process {
    /// Kills it and waits for it.
    pub(super) fn end(&self) {
        // It has not been reaped, so the pid is still its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        while waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }
}

/// What [`clone_into`] returns, once in each process.
pub(super) enum Cloned {
    /// In the launcher: the new process, and whether it is in the cgroup already.
    Parent { process: Process, inside: bool },
    /// In the new process.
    Child,
}

/// `struct clone_args` of linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000; // linux/sched.h

/// Forks, straight into a cgroup where `clone3` is there; some container runtimes hide it.
pub(super) fn clone_into(cgroup: &OwnedFd) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP | u64::from(libc::CLONE_PIDFD.cast_unsigned()),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
        ..CloneArgs::default()
    };
    // SAFETY: the arguments are those of their structure and size. Without CLONE_VM the child goes on with a
    // copy of this stack; it only runs async-signal-safe code.
    let mut result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    let mut inside = true;
    if result < 0 && Errno::last() == Errno::ENOSYS {
        inside = false;
        let flags = libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: as above; the third argument is where the pidfd goes.
        result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    }
    match result {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent {
            process: Process {
                pid: Pid::from_raw(pid as libc::pid_t),
                // SAFETY: the kernel has just opened it for us.
                pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            },
            inside,
        }),
        _ => Err(Errno::last()),
    }
}

//! The agent's first process: spawned, waiting, let go, and watched until it ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setpgid};

use super::image::{
    FAILURE_BYTES, Failure, Image, STEP_CONFINE, STEP_DESCRIPTORS, STEP_DIRECTORY, STEP_EXEC,
    STEP_SECCOMP,
};
use super::privilege::{
    STEP_BOUNDING, STEP_CAPABILITIES, STEP_GID, STEP_GROUPS, STEP_NO_NEW_PRIVS, STEP_SECUREBITS,
    STEP_UID,
};
use super::terminal::stop_self;
use super::{AgentCgroup, Confinement, Identity, LaunchError, Received, Terminal};
use crate::seccomp::BpfProgram;

/// Everything about the process that is to be made.
#[derive(Debug)]
pub struct SpawnPlan<'a> {
    /// The program's path, from [`super::find_program`].
    pub program: PathBuf,
    /// The words of the command; the first is what the operator typed.
    pub argv: Vec<OsString>,
    /// The environment, from [`Identity::environment`].
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, absolute.
    pub directory: PathBuf,
    /// Who it runs as.
    pub identity: &'a Identity,
    /// Where it runs.
    pub cgroup: &'a AgentCgroup,
    /// Filters, loaded in this order.
    pub filters: Vec<BpfProgram>,
    /// Mounts for an agent with uid 0.
    pub confinement: Option<&'a Confinement>,
}

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

/// A process in the agent's cgroup that waits to be let go. Dropping it ends the process.
#[derive(Debug)]
pub struct Pending {
    // Taken by `go`.
    process: Option<Process>,
    go: File,
    status: File,
    program: PathBuf,
    directory: PathBuf,
    user: String,
    confined: Vec<String>,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Process {
    fn end(&self) {
        // It has not been reaped, so the pid is still its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        while waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }
}

/// Makes the process. It is in the cgroup from its first instruction and waits for [`Pending::go`].
///
/// # Errors
/// When a word holds a NUL byte or the kernel refuses the process.
pub fn spawn(plan: &SpawnPlan<'_>) -> Result<Pending, LaunchError> {
    let pipe = || {
        pipe2(OFlag::O_CLOEXEC).map_err(LaunchError::system(
            "pipe",
            "raise the limit of open files (ulimit -n)",
        ))
    };
    let image = Image::new(plan)?;
    let cgroup = plan.cgroup.open()?;
    let (go_read, go_write) = pipe()?;
    let (status_read, status_write) = pipe()?;
    // The child must not run a handler of ours, and stays without signals until it has become the agent.
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(LaunchError::system("sigmask", "please report it"))?;
    let cloned = clone_into(&cgroup).map(|cloned| {
        if let Cloned::Child = cloned {
            image.become_agent(go_read.as_raw_fd(), status_write.as_raw_fd());
        }
        cloned
    });
    let _ = before.thread_set_mask();
    let cloned = cloned.map_err(LaunchError::system(
        "clone3 into the agent's cgroup",
        "run as root, and check the limits of processes (ulimit -u, pids.max)",
    ))?;
    let process = match cloned {
        Cloned::Parent {
            process,
            inside: true,
        } => process,
        Cloned::Parent {
            process,
            inside: false,
        } => {
            if let Err(error) = plan.cgroup.add(process.pid) {
                process.end();
                return Err(error);
            }
            process
        }
        Cloned::Child => unreachable!("the child has become the agent"),
    };
    Ok(Pending {
        process: Some(process),
        go: go_write.into(),
        status: status_read.into(),
        program: plan.program.clone(),
        directory: plan.directory.clone(),
        user: plan.identity.display_name(),
        confined: plan
            .confinement
            .map(Confinement::descriptions)
            .unwrap_or_default(),
    })
}

enum Cloned {
    Parent { process: Process, inside: bool },
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
fn clone_into(cgroup: &OwnedFd) -> Result<Cloned, Errno> {
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

impl Pending {
    /// The process, as this process's pid namespace numbers it.
    pub fn pid(&self) -> Pid {
        // Present until `go`, which consumes self.
        self.process
            .as_ref()
            .map_or(Pid::from_raw(0), |process| process.pid)
    }

    /// Lets the process give up its privileges and start its program; gives it the terminal's foreground.
    /// Returns when the program has started.
    ///
    /// # Errors
    /// When a step before the program's first instruction fails; the process is gone then.
    pub fn go(mut self, terminal: Terminal) -> Result<Child, LaunchError> {
        let lost = |source| LaunchError::System {
            call: "talking to the agent's process",
            source,
            mend: "start the agent again",
        };
        let Some(process) = self.process.take() else {
            return Err(lost(io::Error::from_raw_os_error(libc::ESRCH)));
        };
        let own_group = terminal.separates_group();
        if own_group {
            // It has not executed anything, so this cannot be too late.
            if let Err(errno) = setpgid(process.pid, process.pid) {
                process.end();
                return Err(LaunchError::system("setpgid", "please report it")(errno));
            }
            terminal.give_to(process.pid);
        }
        let mut report = Vec::with_capacity(FAILURE_BYTES);
        let outcome = self
            .go
            .write_all(&[1])
            .and_then(|()| self.status.read_to_end(&mut report).map(|_| ()));
        // An empty report: the pipe was closed by exec.
        let error = match (outcome, <[u8; FAILURE_BYTES]>::try_from(report.as_slice())) {
            (Ok(()), Err(_)) if report.is_empty() => None,
            (Ok(()), Ok(bytes)) => Some(self.explain(Failure::from_bytes(bytes))),
            (Ok(()), Err(_)) => Some(lost(io::ErrorKind::InvalidData.into())),
            (Err(source), _) => Some(lost(source)),
        };
        if let Some(error) = error {
            process.end();
            terminal.restore();
            return Err(error);
        }
        Ok(Child {
            process,
            terminal,
            own_group,
            ended: None,
        })
    }

    fn explain(&self, failure: Failure) -> LaunchError {
        let source = io::Error::from_raw_os_error(failure.errno);
        let child = |step: &str, mend| LaunchError::Child {
            step: step.to_owned(),
            source: io::Error::from_raw_os_error(failure.errno),
            mend,
        };
        let as_root = "run as root";
        match failure.step {
            STEP_EXEC => LaunchError::NotExecutable {
                path: self.program.clone(),
                source,
                mend: exec_mend(failure.errno),
            },
            STEP_DIRECTORY => LaunchError::Directory {
                path: self.directory.clone(),
                user: self.user.clone(),
                source,
            },
            STEP_CONFINE => child(
                self.confined
                    .get(failure.detail as usize)
                    .map_or("new mount namespace", String::as_str),
                "run as root with CAP_SYS_ADMIN, or run the agent as another user (--user)",
            ),
            STEP_DESCRIPTORS => child("closing descriptors", "use Linux 5.9 or later"),
            STEP_BOUNDING => child("dropping the capability bounding set", as_root),
            STEP_SECUREBITS => child("setting the securebits", as_root),
            STEP_GROUPS => child("setting the supplementary groups", as_root),
            STEP_GID => child("setting the group id", as_root),
            STEP_UID => child("setting the user id", as_root),
            STEP_CAPABILITIES => child("clearing the capabilities", as_root),
            STEP_NO_NEW_PRIVS => child("setting no_new_privs", as_root),
            STEP_SECCOMP => child(
                "loading the seccomp filter",
                "use a kernel with CONFIG_SECCOMP_FILTER",
            ),
            _ => child("an unknown step", "please report it"),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.end();
        }
    }
}

fn exec_mend(errno: i32) -> &'static str {
    match errno {
        libc::ENOENT => "its interpreter (the #! line, or the ELF loader) is missing: install it",
        libc::ENOEXEC => {
            "it is no program of this machine; a script needs a first line such as #!/bin/sh"
        }
        libc::E2BIG => "the arguments and the environment are too long: shorten them",
        libc::EPERM => "a security policy of the host, or our own, refuses it: see the audit trail",
        _ => "give the agent's user the right to execute it and its interpreter",
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

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.terminal.restore();
        }
    }
}

/// The working directory in the form that [`SpawnPlan::directory`] takes.
///
/// # Errors
/// When it has been removed or cannot be read.
pub fn current_directory(identity: &Identity) -> Result<PathBuf, LaunchError> {
    std::env::current_dir().map_err(|source| LaunchError::Directory {
        path: Path::new(".").to_owned(),
        user: identity.display_name(),
        source,
    })
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod terminal_tests;

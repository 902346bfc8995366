//! The agent's first process: spawned, waiting, let go, and watched until it ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Pid, pipe2, setpgid};

use super::clone::{Cloned, Process, clone_into};
use super::image::{
    FAILURE_BYTES, Failure, Image, STEP_CONFINE, STEP_DESCRIPTORS, STEP_DIRECTORY, STEP_EXEC,
    STEP_IPC, STEP_LANDLOCK, STEP_LIMIT, STEP_LISTENING, STEP_NOTIFY, STEP_SECCOMP,
};
use super::privilege::{
    STEP_BOUNDING, STEP_CAPABILITIES, STEP_GID, STEP_GROUPS, STEP_KEYRING, STEP_NO_NEW_PRIVS,
    STEP_SECUREBITS, STEP_UID, errno,
};
use super::{AgentCgroup, Child, Confinement, Identity, LandlockDomain, LaunchError, Terminal};
use enforcer_seccomp::BpfProgram;

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
    /// The Landlock domain it is put into.
    pub domain: LandlockDomain,
    /// Filters, loaded in this order.
    pub filters: Vec<BpfProgram>,
    /// A filter that asks, loaded after them; [`Pending::listener`] gives its listener.
    pub notify: Option<BpfProgram>,
    /// The agent's limit of open files, where the launcher has raised its own.
    pub open_files: Option<OpenFiles>,
    /// Mounts for an agent with uid 0.
    pub confinement: Option<&'a Confinement>,
    /// Whether it gets shared memory, semaphores and message queues of its own (an IPC namespace).
    pub own_ipc: bool,
}

/// A limit of open files (`RLIMIT_NOFILE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// What is in force.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

impl OpenFiles {
    /// The calling process's limit.
    ///
    /// # Errors
    /// When the kernel does not say, which it does to everybody.
    pub fn present() -> Result<Self, LaunchError> {
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map(|(soft, hard)| Self { soft, hard })
            .map_err(LaunchError::system("getrlimit", "please report it"))
    }

    /// Raises the calling process's limit as far as it goes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn raise(self) -> Result<(), LaunchError> {
        let all = Self {
            soft: self.hard,
            ..self
        };
        all.apply().map_err(|errno| {
            LaunchError::system("setrlimit", "please report it")(nix::errno::Errno::from_raw(errno))
        })
    }

    /// Sets it for the calling process. Async-signal-safe.
    pub(super) fn apply(self) -> Result<(), i32> {
        let limit = libc::rlimit64 {
            rlim_cur: self.soft,
            rlim_max: self.hard,
        };
        // SAFETY: the kernel reads one structure of this type.
        let result = unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                libc::RLIMIT_NOFILE,
                &raw const limit,
                0_usize,
            )
        };
        if result < 0 { Err(errno()) } else { Ok(()) }
    }
}

/// How far the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for its first word.
    Privileged,
    /// Its filters are loaded; it waits for its second word.
    Listening,
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
    notify: bool,
    stage: Stage,
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
        notify: plan.notify.is_some(),
        stage: Stage::Privileged,
    })
}

fn lost(source: io::Error) -> LaunchError {
    LaunchError::System {
        call: "talking to the agent's process",
        source,
        mend: "start the agent again",
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

    /// Lets the process give up its privileges and load its filters; gives the listener of
    /// [`SpawnPlan::notify`], `None` if there is no such filter. The process then waits for [`Self::go`], whose
    /// exec is the first call that the listener has to answer: serve it from another thread.
    ///
    /// # Errors
    /// When a step fails; [`Self::go`] fails then too. The caller drops this, which ends the process.
    pub fn listener(&mut self) -> Result<Option<OwnedFd>, LaunchError> {
        let Some(process) = &self.process else {
            return Err(lost(io::Error::from_raw_os_error(libc::ESRCH)));
        };
        if !self.notify || self.stage == Stage::Listening {
            return Ok(None);
        }
        let mut report = [0; FAILURE_BYTES];
        self.go
            .write_all(&[1])
            .and_then(|()| self.status.read_exact(&mut report))
            .map_err(lost)?;
        let report = Failure::from_bytes(report);
        if report.step != STEP_LISTENING {
            return Err(self.explain(report));
        }
        // SAFETY: numbers only; the pidfd is open.
        let listener = unsafe {
            libc::syscall(
                libc::SYS_pidfd_getfd,
                process.pidfd.as_raw_fd(),
                report.detail,
                0,
            )
        };
        if listener < 0 {
            return Err(LaunchError::system(
                "pidfd_getfd of the seccomp listener",
                "run as root with CAP_SYS_PTRACE, and with kernel.yama.ptrace_scope below 3",
            )(nix::errno::Errno::last()));
        }
        self.stage = Stage::Listening;
        // SAFETY: the kernel has just opened it for us.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(listener as i32) }))
    }

    /// Lets the process give up its privileges, if it has not, and start its program; gives it the terminal's
    /// foreground. Returns when the program has started.
    ///
    /// # Errors
    /// When a step before the program's first instruction fails; the process is gone then. Where a filter asks
    /// and nobody has taken its listener, the exec fails with ENOSYS.
    pub fn go(mut self, terminal: Terminal) -> Result<Child, LaunchError> {
        // Nobody wants it: closed before the exec.
        drop(self.listener()?);
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
        Ok(Child::new(process, terminal))
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
            STEP_KEYRING => child(
                "leaving the launcher's session keyring",
                "raise the quota of keys (/proc/sys/kernel/keys)",
            ),
            STEP_NO_NEW_PRIVS => child("setting no_new_privs", as_root),
            STEP_SECCOMP => child(
                "loading the seccomp filter",
                "use a kernel with CONFIG_SECCOMP_FILTER",
            ),
            STEP_LIMIT => child(
                "setting the limit of open files",
                "run as root, and keep the limit within fs.nr_open",
            ),
            STEP_IPC => child(
                "new IPC namespace",
                "use a kernel with CONFIG_IPC_NS, or open `ipc` in the policy (syscalls.allow)",
            ),
            STEP_NOTIFY => child(
                "loading the seccomp filter that asks",
                "use Linux 5.19 or later with CONFIG_SECCOMP_FILTER",
            ),
            STEP_LANDLOCK => child(
                "entering the Landlock domain",
                "give the agent at most 15 Landlock domains around its launcher, or report it",
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
        libc::ENOSYS => "nobody answers its seccomp notifications: start the agent again",
        libc::EPERM => "a security policy of the host, or our own, refuses it: see the audit trail",
        _ => "give the agent's user the right to execute it and its interpreter",
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

//! A process that attempts one exec and one connect, for the start self-test.

use std::{
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    fcntl::OFlag,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork, pipe2},
};

use super::{AgentCgroup, LaunchError};

/// Exit status of a probe whose exec was refused with an errno.
const EXEC_REFUSED: i32 = 90;
/// The command of the probe: it exists on every system with a shell, and leaves with this status if it runs.
const COMMAND: [&std::ffi::CStr; 3] = [c"/bin/sh", c"-c", c"exit 91"];

/// What became of the attempts.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The exec was killed or refused.
    pub exec_denied: bool,
    /// What happened to it, in words.
    pub exec_outcome: String,
    /// The connect was refused with EPERM.
    pub connect_denied: bool,
    /// What happened to it, in words.
    pub connect_outcome: String,
}

impl Probe {
    /// Forks a process, moves it into `cgroup`, and has it connect to a closed port of the loopback device and
    /// then exec a shell.
    ///
    /// # Errors
    ///
    /// When no process can be made or moved.
    pub fn attempt(cgroup: &AgentCgroup) -> Result<Self, LaunchError> {
        let pipe = || {
            pipe2(OFlag::O_CLOEXEC).map_err(LaunchError::system(
                "pipe2",
                "raise the limit of open files",
            ))
        };
        let (wait, go) = pipe()?;
        let (report, answer) = pipe()?;
        // SAFETY: the child only makes system calls on memory that exists before the fork.
        let child = match unsafe { fork() } {
            Ok(ForkResult::Child) => act(&wait, &answer),
            Ok(ForkResult::Parent { child }) => child,
            Err(errno) => {
                return Err(LaunchError::system("fork", "raise the limit of processes")(
                    errno,
                ));
            }
        };
        drop((wait, answer));
        let moved = cgroup.add(child);
        if moved.is_ok() {
            let _ = nix::unistd::write(&go, &[1]);
        }
        drop(go);
        let mut errno = [0; 4];
        let answered = std::fs::File::from(report).read_exact(&mut errno);
        let status = ended(child);
        moved?;
        let connect_outcome = match answered {
            Ok(()) => io::Error::from_raw_os_error(i32::from_ne_bytes(errno)).to_string(),
            Err(error) => format!("the probe did not say: {error}"),
        };
        let (exec_denied, exec_outcome) = match status {
            Ok(WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)) => {
                (true, "killed".to_owned())
            }
            Ok(WaitStatus::Exited(_, EXEC_REFUSED)) => (true, "refused".to_owned()),
            other => (false, format!("{other:?}")),
        };
        Ok(Self {
            exec_denied,
            exec_outcome,
            connect_denied: answered_eperm(errno),
            connect_outcome,
        })
    }
}

fn answered_eperm(errno: [u8; 4]) -> bool {
    i32::from_ne_bytes(errno) == libc::EPERM
}

fn ended(child: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// The child: waits for the parent, connects, reports, execs.
fn act(wait: &OwnedFd, answer: &OwnedFd) -> ! {
    let mut byte = [0];
    if nix::unistd::read(wait, &mut byte) != Ok(1) {
        // SAFETY: ends the process without running anything of ours.
        unsafe { libc::_exit(1) }
    }
    let errno = connect_errno().to_ne_bytes();
    let _ = nix::unistd::write(answer, &errno);
    let argv = [
        COMMAND[0].as_ptr(),
        COMMAND[1].as_ptr(),
        COMMAND[2].as_ptr(),
        std::ptr::null(),
    ];
    let env = [std::ptr::null()];
    // SAFETY: both arrays end with a null pointer and live as long as the process.
    unsafe {
        libc::execve(COMMAND[0].as_ptr(), argv.as_ptr(), env.as_ptr());
        libc::_exit(EXEC_REFUSED)
    }
}

/// Errno of a connect to port 9 of the loopback device; 0 if it succeeded.
fn connect_errno() -> i32 {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 9u16.to_be(),
        sin_addr: libc::in_addr {
            s_addr: 0x7f00_0001u32.to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: plain system calls on an address that lives on the stack.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return io::Error::last_os_error().raw_os_error().unwrap_or(0);
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let result = libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        );
        if result == 0 {
            0
        } else {
            io::Error::last_os_error().raw_os_error().unwrap_or(0)
        }
    }
}

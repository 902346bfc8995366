//! A process that attempts one forbidden thing after another, as it is told, for the self-test.

use std::{
    fs,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::OFlag,
    sys::{
        signal::{Signal, kill},
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockname, listen, socket,
        },
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, pipe2},
};

use super::{LandlockDomain, LaunchError};

/// The command that is executed: it exists on every system with a shell, and leaves with this status if it runs.
const COMMAND: [&std::ffi::CStr; 3] = [c"/bin/sh", c"-c", c"exit 91"];
/// `discard`: nobody listens there, and nothing is lost if somebody does.
const PORT: u16 = 9;
/// UDP-Lite (RFC 3828): a protocol that no host rule can judge, for which nobody needs a privilege.
const UDP_LITE: i32 = 136;

/// Something that the probe can be told to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Act {
    /// A TCP connect to `127.0.0.1`.
    Connect4,
    /// A TCP connect to `::1`.
    Connect6,
    /// A datagram to `127.0.0.1`.
    Send4,
    /// A datagram to `::1`.
    Send6,
    /// A socket of a protocol that no host rule can judge.
    Socket,
    /// A connect to an abstract unix socket of ours.
    UnixStream,
    /// A datagram to an abstract unix socket of ours.
    UnixDatagram,
    /// To read of the process that started it what only a tracer may.
    Trace,
    /// A signal to that process, which ignores it.
    Signal,
    /// To go into the Landlock domain of an agent, for good.
    Landlock,
    /// An exec. Unless it is refused nothing can be attempted any more.
    Exec,
}

impl Act {
    const ALL: [Self; 11] = [
        Self::Connect4,
        Self::Connect6,
        Self::Send4,
        Self::Send6,
        Self::Socket,
        Self::UnixStream,
        Self::UnixDatagram,
        Self::Trace,
        Self::Signal,
        Self::Landlock,
        Self::Exec,
    ];

    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Connect4 => "a connect to an IPv4 address",
            Self::Connect6 => "a connect to an IPv6 address",
            Self::Send4 => "a datagram to an IPv4 address",
            Self::Send6 => "a datagram to an IPv6 address",
            Self::Socket => "a socket of a protocol that cannot be judged",
            Self::UnixStream => "a connect to a unix socket",
            Self::UnixDatagram => "a datagram to a unix socket",
            Self::Trace => "tracing a process outside",
            Self::Signal => "a signal to a process outside",
            Self::Landlock => "entering the Landlock domain",
            Self::Exec => "an exec",
        }
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It succeeded.
    Passed,
    /// It failed with this errno.
    Failed(i32),
    /// The process was killed by SIGKILL.
    Killed,
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed => f.write_str("it passed"),
            Self::Failed(errno) => io::Error::from_raw_os_error(*errno).fmt(f),
            Self::Killed => f.write_str("killed"),
        }
    }
}

/// The process. It ends when this is dropped.
#[derive(Debug)]
pub struct Probe {
    pid: Pid,
    orders: Option<OwnedFd>,
    answers: fs::File,
    ended: bool,
    /// What it reaches for; open as long as it lives.
    _ears: [OwnedFd; 2],
}

/// The addresses of the two sockets that it reaches for.
#[derive(Clone, Copy)]
struct Ears {
    stream: UnixAddr,
    datagram: UnixAddr,
}

impl Probe {
    /// Forks a process and moves it into the cgroup of this directory, where it waits for orders. `domain` is what it
    /// enters by [`Act::Landlock`].
    ///
    /// # Errors
    ///
    /// When no process or socket can be made, or the process cannot be moved.
    pub fn start(cgroup: &Path, domain: Option<&LandlockDomain>) -> Result<Self, LaunchError> {
        let files = "raise the limit of open files";
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(LaunchError::system("pipe2", files));
        let (stream, datagram) = ears().map_err(LaunchError::system("a unix socket", files))?;
        let named = |ear: &OwnedFd| {
            getsockname::<UnixAddr>(ear.as_raw_fd())
                .map_err(LaunchError::system("getsockname", files))
        };
        let targets = Ears {
            stream: named(&stream)?,
            datagram: named(&datagram)?,
        };
        let (wait, orders) = pipe()?;
        let (report, answer) = pipe()?;
        // SAFETY: the child only makes system calls on memory that exists before the fork.
        let pid = match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop((orders, report));
                obey(&wait, &answer, targets, domain)
            }
            Ok(ForkResult::Parent { child }) => child,
            Err(errno) => {
                return Err(LaunchError::system("fork", "raise the limit of processes")(
                    errno,
                ));
            }
        };
        let probe = Self {
            pid,
            orders: Some(orders),
            answers: fs::File::from(report),
            ended: false,
            _ears: [stream, datagram],
        };
        let file = cgroup.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(|source| LaunchError::Cgroup {
            path: file,
            step: "move a process in",
            source,
            mend: "run as root, on a host (or in a container) where the cgroup v2 root is writable",
        })?;
        Ok(probe)
    }

    /// Has it attempt something; what became of that. Also [`Attempt::Killed`] when it has been killed before.
    ///
    /// # Errors
    ///
    /// It ended otherwise.
    pub fn attempt(&mut self, act: Act) -> Result<Attempt, LaunchError> {
        if self.ended {
            return Ok(Attempt::Killed);
        }
        if let Some(orders) = &self.orders {
            let _ = nix::unistd::write(orders, &[act as u8]);
        }
        let mut errno = [0; 4];
        if self.answers.read_exact(&mut errno).is_ok() {
            return Ok(match i32::from_ne_bytes(errno) {
                0 => Attempt::Passed,
                errno => Attempt::Failed(errno),
            });
        }
        match self.end() {
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => Ok(Attempt::Killed),
            Ok(WaitStatus::Exited(_, 91)) => Ok(Attempt::Passed),
            other => Err(LaunchError::Probe(format!("{other:?}"))),
        }
    }

    fn end(&mut self) -> nix::Result<WaitStatus> {
        self.ended = true;
        self.orders = None;
        loop {
            match waitpid(self.pid, None) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.ended {
            // Its orders end, too; but who was forked meanwhile may have the pipe as well.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.end();
        }
    }
}

/// A listener and a receiver, each under an abstract name that the kernel chooses.
fn ears() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ear = |kind| {
        let ear = socket(AddressFamily::Unix, kind, flags, None)?;
        bind(ear.as_raw_fd(), &UnixAddr::new_unnamed())?;
        Ok(ear)
    };
    let stream = ear(SockType::Stream)?;
    listen(&stream.as_fd(), Backlog::new(1)?)?;
    Ok((stream, ear(SockType::Datagram)?))
}

/// The child: carries out one order after the other. Makes system calls only.
fn obey(wait: &OwnedFd, answer: &OwnedFd, ears: Ears, domain: Option<&LandlockDomain>) -> ! {
    let mut order = [0];
    while nix::unistd::read(wait, &mut order) == Ok(1) {
        let act = Act::ALL.into_iter().find(|act| *act as u8 == order[0]);
        let errno = act.map_or(libc::ENOSYS, |act| carry_out(act, ears, domain));
        let _ = nix::unistd::write(answer, &errno.to_ne_bytes());
    }
    // SAFETY: ends the process without running anything of ours.
    unsafe { libc::_exit(0) }
}

/// The errno of an attempt; 0 if it succeeded.
fn carry_out(act: Act, ears: Ears, domain: Option<&LandlockDomain>) -> i32 {
    match act {
        Act::Connect4 => reach(&v4(), libc::SOCK_STREAM),
        Act::Connect6 => reach(&v6(), libc::SOCK_STREAM),
        Act::Send4 => reach(&v4(), libc::SOCK_DGRAM),
        Act::Send6 => reach(&v6(), libc::SOCK_DGRAM),
        Act::Socket => match own_socket(libc::AF_INET, libc::SOCK_DGRAM, UDP_LITE) {
            Ok(_) => 0,
            Err(errno) => errno,
        },
        Act::UnixStream => reach(&unix(&ears.stream), libc::SOCK_STREAM),
        Act::UnixDatagram => reach(&unix(&ears.datagram), libc::SOCK_DGRAM),
        Act::Trace => {
            let (mut head, mut length) = (0_usize, 0_usize);
            // SAFETY: two words of ours; asking for another process' takes PTRACE_MODE_READ (kernel/futex).
            errno_of(unsafe {
                libc::syscall(
                    libc::SYS_get_robust_list,
                    libc::getppid(),
                    &raw mut head,
                    &raw mut length,
                )
            })
        }
        // What a process does at SIGURG, unless it says otherwise, is nothing.
        // SAFETY: numbers only.
        Act::Signal => errno_of(unsafe { libc::kill(libc::getppid(), libc::SIGURG) }.into()),
        Act::Landlock => {
            // SAFETY: numbers only.
            let confined =
                errno_of(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into());
            match (confined, domain) {
                (0, Some(domain)) => domain.enter().err().unwrap_or(0),
                (0, None) => libc::ENOSYS,
                (errno, _) => errno,
            }
        }
        Act::Exec => {
            let argv = [
                COMMAND[0].as_ptr(),
                COMMAND[1].as_ptr(),
                COMMAND[2].as_ptr(),
                std::ptr::null(),
            ];
            let environment = [std::ptr::null()];
            // SAFETY: both arrays end with a null pointer and live as long as the process.
            errno_of(
                unsafe { libc::execve(COMMAND[0].as_ptr(), argv.as_ptr(), environment.as_ptr()) }
                    .into(),
            )
        }
    }
}

fn errno_of(result: libc::c_long) -> i32 {
    if result >= 0 {
        return 0;
    }
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A socket's address and its length in bytes.
type Address = (libc::sockaddr_storage, libc::socklen_t);

fn address<T>(filled: &T) -> Address {
    // SAFETY: plain data, for which zeros are valid; every kind of address fits into it.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: as above; the two do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(filled).cast::<u8>(),
            (&raw mut storage).cast::<u8>(),
            size_of::<T>(),
        );
    }
    (storage, size_of::<T>() as libc::socklen_t)
}

fn v4() -> Address {
    address(&libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: PORT.to_be(),
        sin_addr: libc::in_addr {
            s_addr: 0x7f00_0001u32.to_be(),
        },
        sin_zero: [0; 8],
    })
}

fn v6() -> Address {
    address(&libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as u16,
        sin6_port: PORT.to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr {
            s6_addr: 1u128.to_be_bytes(),
        },
        sin6_scope_id: 0,
    })
}

fn unix(target: &UnixAddr) -> Address {
    use nix::sys::socket::SockaddrLike;
    // SAFETY: the address is a whole `sockaddr_un`.
    let (storage, _) = address(unsafe { &*target.as_ptr().cast::<libc::sockaddr_un>() });
    (storage, target.len())
}

fn own_socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, i32> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: numbers only.
    let socket = unsafe { libc::socket(family, kind | flags, protocol) };
    if socket < 0 {
        return Err(errno_of(socket.into()));
    }
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Connects to an address, or sends a byte to it from a socket that is not connected; the errno.
fn reach((storage, length): &Address, kind: i32) -> i32 {
    let socket = match own_socket(storage.ss_family.into(), kind, 0) {
        Ok(socket) => socket,
        Err(errno) => return errno,
    };
    let to = (&raw const *storage).cast();
    // SAFETY: plain system calls on an address and a byte that live on the stack.
    errno_of(unsafe {
        if kind == libc::SOCK_STREAM {
            libc::connect(socket.as_raw_fd(), to, *length).into()
        } else {
            libc::sendto(socket.as_raw_fd(), c"x".as_ptr().cast(), 1, 0, to, *length)
                as libc::c_long
        }
    })
}

//! Descriptors of a stopped process, and of the process itself.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A descriptor of the process `pid` itself (a pidfd): readable when it has ended.
///
/// # Errors
/// When it is gone, or descriptors are exhausted.
pub fn process(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    // SAFETY: numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// A duplicate of the process's descriptor `number`.
///
/// # Errors
/// When it is gone or has no such descriptor.
pub fn descriptor(process: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the pidfd is open.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// Whether calls on a descriptor return rather than wait.
pub fn is_non_blocking(descriptor: &OwnedFd) -> bool {
    fcntl(descriptor, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
}

/// The protocol number of a socket.
///
/// # Errors
/// When it is no socket.
pub fn protocol(socket: &OwnedFd) -> io::Result<u16> {
    let mut protocol: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one integer, as long as the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PROTOCOL,
            (&raw mut protocol).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    u16::try_from(protocol).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The process at the other end of a connected unix socket (a pidfd): who made the listener listen.
///
/// # Errors
/// When there is none any more, or the kernel does not tell (before Linux 6.5).
pub fn peer_process(socket: &OwnedFd) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77; // asm-generic/socket.h
    let mut process: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one integer, as long as the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut process).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    owned(process.into())
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_process_and_its_sockets() {
        let this = process(std::process::id()).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let of = |number| protocol(&descriptor(&this, number).unwrap()).unwrap();
        assert_eq!(of(tcp.as_raw_fd()), 6);
        assert_eq!(of(udp.as_raw_fd()), 17);
        assert!(descriptor(&this, -1).is_err());
        assert!(protocol(&this).is_err());
        assert!(process(u32::MAX).is_err());
    }
}

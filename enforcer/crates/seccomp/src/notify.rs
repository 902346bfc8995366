//! The listener: stopped system calls, and the answers to them.
//!
//! `seccomp_unotify(2)` describes the calls, linux/seccomp.h the structures.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Why a listener cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A call on the listener failed.
    #[error("seccomp listener: {call}: {source}; please report it")]
    Call {
        /// The call.
        call: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel's structures are larger than what is known.
    #[error(
        "seccomp listener: the kernel's notification has {0} bytes, more than any known; use a newer enforcer"
    )]
    Size(usize),
}

fn failed(call: &'static str) -> NotifyError {
    NotifyError::Call {
        call,
        source: io::Error::last_os_error(),
    }
}

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Stands for this one stopped call.
    pub id: u64,
    /// The thread that is stopped, as this process's pid namespace numbers it; 0 if it has no number here.
    pub tid: u32,
    /// What it called.
    pub call: NotifiedCall,
}

/// The call, its arguments still as the caller's registers had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifiedCall {
    /// `execve` or `execveat`.
    Exec(ExecCall),
    /// `connect`, or `sendto` with an address.
    Connect(ConnectCall),
    /// Any other call: one that is refused, and is to be written down.
    Other(OtherCall),
}

/// A call as `struct seccomp_data` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherCall {
    /// Its number on this architecture.
    pub number: i32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Arguments of an exec. The pointers are addresses in the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecCall {
    /// Where a relative path starts; `AT_FDCWD` for `execve`.
    pub dirfd: i32,
    /// Pointer to the path.
    pub path: u64,
    /// Pointer to the pointers to the arguments; 0 for none.
    pub argv: u64,
    /// Flags of `execveat`.
    pub flags: i32,
}

/// Arguments of a connect. The pointer is an address in the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectCall {
    /// The socket's descriptor in the caller.
    pub socket: i32,
    /// Pointer to the address.
    pub address: u64,
    /// Length of the address, bytes, as given.
    pub length: u32,
    /// It is a `sendto`.
    pub datagram: bool,
}

/// Flag of `execveat`: nothing is executed, it is only asked whether it could be (linux/fcntl.h, Linux 6.14).
pub const AT_EXECVE_CHECK: i32 = 0x1_0000;

impl ExecCall {
    /// Whether it only asks.
    pub fn is_check(&self) -> bool {
        self.flags & AT_EXECVE_CHECK != 0
    }
}

impl NotifiedCall {
    fn from_data(data: &libc::seccomp_data) -> Self {
        let [first, second, third, _, fifth, sixth] = data.args;
        // The kernel takes descriptors and flags as 32-bit numbers.
        match i64::from(data.nr) {
            libc::SYS_execve => Self::Exec(ExecCall {
                dirfd: libc::AT_FDCWD,
                path: first,
                argv: second,
                flags: 0,
            }),
            libc::SYS_execveat => Self::Exec(ExecCall {
                dirfd: (first as u32).cast_signed(),
                path: second,
                argv: third,
                flags: (fifth as u32).cast_signed(),
            }),
            libc::SYS_connect => Self::Connect(ConnectCall {
                socket: (first as u32).cast_signed(),
                address: second,
                length: third as u32,
                datagram: false,
            }),
            libc::SYS_sendto => Self::Connect(ConnectCall {
                socket: (first as u32).cast_signed(),
                address: fifth,
                length: sixth as u32,
                datagram: true,
            }),
            _ => Self::Other(OtherCall {
                number: data.nr,
                arguments: data.args,
            }),
        }
    }
}

// asm-generic/ioctl.h: direction, size, type `!`, number. libc has those of one C library only.
const fn ioctl(direction: u32, number: u32, size: usize) -> libc::Ioctl {
    (direction << 30 | (size as u32) << 16 | (b'!' as u32) << 8 | number) as libc::Ioctl
}
const WRITE: u32 = 1;
const READ_WRITE: u32 = 3;
const RECV: libc::Ioctl = ioctl(READ_WRITE, 0, size_of::<libc::seccomp_notif>());
const SEND: libc::Ioctl = ioctl(READ_WRITE, 1, size_of::<libc::seccomp_notif_resp>());
// Kernels before 5.10 had the wrong direction here; later ones take both.
const ID_VALID: libc::Ioctl = ioctl(WRITE, 2, size_of::<u64>());
const SET_FLAGS: libc::Ioctl = ioctl(WRITE, 4, size_of::<u64>());

const SYNC_WAKE_UP: libc::c_ulong = 1; // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6

/// Room for a notification of this kernel or one with more fields, 8-byte words.
const NOTIFICATION_WORDS: usize = 32;
/// Room for an answer, 8-byte words.
const ANSWER_WORDS: usize = 16;

/// The supervisor's end of a notification filter. One thread receives; any thread may answer.
#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Listener {
    /// Takes over the descriptor that loading the filter gave.
    ///
    /// # Errors
    /// [`NotifyError::Size`] on a kernel whose structures are unknown.
    pub fn new(descriptor: OwnedFd) -> Result<Self, NotifyError> {
        let mut sizes = libc::seccomp_notif_sizes {
            seccomp_notif: 0,
            seccomp_notif_resp: 0,
            seccomp_data: 0,
        };
        // SAFETY: the kernel fills a structure of this type.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_NOTIF_SIZES,
                0,
                &raw mut sizes,
            )
        };
        if result < 0 {
            return Err(failed("SECCOMP_GET_NOTIF_SIZES"));
        }
        for (size, words) in [
            (sizes.seccomp_notif, NOTIFICATION_WORDS),
            (sizes.seccomp_notif_resp, ANSWER_WORDS),
        ] {
            if usize::from(size) > words * size_of::<u64>() {
                return Err(NotifyError::Size(size.into()));
            }
        }
        Ok(Self { descriptor })
    }

    /// Waits for the next stopped call; `None` when no process has the filter any more.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do to a listener in order.
    pub fn recv(&self) -> Result<Option<Notification>, NotifyError> {
        loop {
            // The call that receives does not return on every kernel when the last process is gone.
            let mut poll = libc::pollfd {
                fd: self.descriptor.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one structure, which outlives the call.
            if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
                match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => continue,
                    _ => return Err(failed("poll")),
                }
            }
            if poll.revents & libc::POLLIN == 0 {
                return Ok(None);
            }
            // The kernel wants zeros, as many as its own structure has.
            let mut room = [0_u64; NOTIFICATION_WORDS];
            // SAFETY: the room is at least as large as the kernel's structure, which `new` has checked.
            if unsafe { libc::ioctl(self.descriptor.as_raw_fd(), RECV, room.as_mut_ptr()) } < 0 {
                match io::Error::last_os_error().raw_os_error() {
                    // The caller was killed, or a signal took it out of its call, between the two.
                    Some(libc::ENOENT | libc::EINTR) => continue,
                    _ => return Err(failed("SECCOMP_IOCTL_NOTIF_RECV")),
                }
            }
            // SAFETY: the kernel has filled the structure, whose fields are plain numbers; the room is aligned
            // for it and larger.
            let notification = unsafe { room.as_ptr().cast::<libc::seccomp_notif>().read() };
            return Ok(Some(Notification {
                id: notification.id,
                tid: notification.pid,
                call: NotifiedCall::from_data(&notification.data),
            }));
        }
    }

    /// Lets the call go on. The kernel reads its arguments afresh, so this is never the last word about them.
    /// False if the caller is gone.
    ///
    /// # Errors
    /// When the kernel refuses: the id has an answer already.
    pub fn allow(&self, id: u64) -> Result<bool, NotifyError> {
        self.answer(libc::seccomp_notif_resp {
            id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        })
    }

    /// Fails the call with an errno, a positive number. False if the caller is gone.
    ///
    /// # Errors
    /// When the kernel refuses: the id has an answer already.
    pub fn refuse(&self, id: u64, errno: i32) -> Result<bool, NotifyError> {
        self.answer(libc::seccomp_notif_resp {
            id,
            val: 0,
            error: -errno.abs(),
            flags: 0,
        })
    }

    /// Ends the call with a result, as if it had been done. False if the caller is gone.
    ///
    /// # Errors
    /// When the kernel refuses: the id has an answer already.
    pub fn finish(&self, id: u64, value: i64) -> Result<bool, NotifyError> {
        self.answer(libc::seccomp_notif_resp {
            id,
            val: value,
            error: 0,
            flags: 0,
        })
    }

    fn answer(&self, answer: libc::seccomp_notif_resp) -> Result<bool, NotifyError> {
        let mut room = [0_u64; ANSWER_WORDS];
        // SAFETY: the room is larger than the structure, and aligned for it.
        unsafe {
            room.as_mut_ptr()
                .cast::<libc::seccomp_notif_resp>()
                .write(answer);
        };
        loop {
            // SAFETY: the room is at least as large as the kernel's structure.
            if unsafe { libc::ioctl(self.descriptor.as_raw_fd(), SEND, room.as_mut_ptr()) } >= 0 {
                return Ok(true);
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOENT) => return Ok(false),
                Some(libc::EINTR) => {}
                _ => return Err(failed("SECCOMP_IOCTL_NOTIF_SEND")),
            }
        }
    }

    /// Whether the call still waits for its answer. Only while it does is its thread's number its own: what was
    /// read by that number is to be believed, recorded or shown after this has said yes. An answer needs no such
    /// question: it goes to the id.
    pub fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one number.
        unsafe { libc::ioctl(self.descriptor.as_raw_fd(), ID_VALID, &raw const id) == 0 }
    }

    /// Has the kernel hand the processor from the caller to the supervisor and back, which is right where one
    /// thread does both. Tells whether the kernel can (Linux 6.6).
    pub fn set_sync_wake_up(&self) -> bool {
        // SAFETY: the flags are passed as a number.
        unsafe { libc::ioctl(self.descriptor.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) == 0 }
    }
}

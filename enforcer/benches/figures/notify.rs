//! A supervisor by seccomp user notification: the way of sandboxes without kernel programs.
//!
//! The filter sits on one thread (and on what it starts); the process's first thread answers. Path and argv are
//! read from the caller's memory, and the call continues: what a judge would do, without the judging.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::mpsc,
};

use anyhow::{Context, bail};

const fn jump(value: u32, on_equal: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: on_equal,
        jf: 0,
        k: value,
    }
}

const fn plain(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    }
}

/// Notifies of `execve` and `execveat`, allows everything else. The number is the first field of the data.
const FILTER: [libc::sock_filter; 5] = [
    plain(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
    jump(libc::SYS_execve as u32, 2),
    jump(libc::SYS_execveat as u32, 1),
    plain(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    plain(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF),
];

/// Puts the filter on the calling thread and gives its listener.
fn install() -> anyhow::Result<OwnedFd> {
    let mut filter = FILTER;
    let program = libc::sock_fprog {
        len: FILTER.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its filter outlive the call; the kernel copies them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("seccomp");
    }
    // SAFETY: a descriptor of ours that nobody else closes.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

/// Runs `work` on a thread whose execs this one is asked about.
///
/// # Errors
///
/// The filter is refused, or the work fails.
pub fn supervise(work: fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (give, take) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let listener = install()?;
        give.send(listener).ok().context("the supervisor is gone")?;
        let result = work();
        // The supervisor waits in the kernel; the process ends with the work.
        std::process::exit(i32::from(result.is_err()));
        #[allow(unreachable_code, reason = "gives the closure its type")]
        Ok::<(), anyhow::Error>(())
    });
    let Ok(listener) = take.recv() else {
        return match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("the worker panicked"),
        };
    };
    loop {
        answer(&listener)?;
    }
}

fn answer(listener: &OwnedFd) -> anyhow::Result<()> {
    let mut request = MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the kernel wants a zeroed structure of this type and fills it.
    let received = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            request.as_mut_ptr(),
        )
    };
    if received != 0 {
        let error = std::io::Error::last_os_error();
        // The caller was killed meanwhile.
        if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) {
            return Ok(());
        }
        return Err(error).context("SECCOMP_IOCTL_NOTIF_RECV");
    }
    // SAFETY: filled by the kernel.
    let request = unsafe { request.assume_init() };
    let (path, argv) = if i64::from(request.data.nr) == libc::SYS_execve {
        (request.data.args[0], request.data.args[1])
    } else {
        (request.data.args[1], request.data.args[2])
    };
    std::hint::black_box(command_line(request.pid, path, argv));
    let mut response = libc::seccomp_notif_resp {
        id: request.id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: both are structures that the calls read; the id is the one received.
    unsafe {
        let alive = libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const request.id,
        );
        if alive == 0 {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw mut response,
            );
        }
    }
    Ok(())
}

/// Path and arguments of another process, as a judge would read them before the exec.
pub fn command_line(pid: u32, path: u64, argv: u64) -> Vec<Vec<u8>> {
    let mut words = vec![string(pid, path)];
    let mut pointers = [0u8; 8 * 64];
    let read = read(pid, argv, &mut pointers);
    for pointer in pointers[..read].as_chunks::<8>().0 {
        match u64::from_ne_bytes(*pointer) {
            0 => break,
            address => words.push(string(pid, address)),
        }
    }
    words
}

fn string(pid: u32, address: u64) -> Vec<u8> {
    let mut bytes = [0u8; 256];
    let read = read(pid, address, &mut bytes);
    bytes[..read]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec()
}

/// Reads up to the end of the page if the next one is not there; the bytes read.
fn read(pid: u32, address: u64, into: &mut [u8]) -> usize {
    let page = 4096 - usize::try_from(address & 4095).unwrap_or(0);
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let pieces = [
        libc::iovec {
            iov_base: address as *mut libc::c_void,
            iov_len: into.len().min(page),
        },
        libc::iovec {
            iov_base: (address + page as u64) as *mut libc::c_void,
            iov_len: into.len().saturating_sub(page),
        },
    ];
    // SAFETY: the local piece is ours; remote addresses are checked by the kernel.
    let read = unsafe {
        libc::process_vm_readv(
            pid.cast_signed(),
            &raw const local,
            1,
            pieces.as_ptr(),
            2,
            0,
        )
    };
    usize::try_from(read).unwrap_or(0)
}

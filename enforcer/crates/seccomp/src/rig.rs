//! For tests: a thread whose calls are asked about, and whoever answers.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use super::{Listener, Notified, SyscallGroups};

/// Says so when the test cannot run.
pub(super) fn may_run(name: &str) -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: {name}: needs root");
    }
    root
}

/// Puts the filter on the calling thread, with the flags that an agent's process has.
fn install(calls: Notified) -> Listener {
    // What the tests themselves do is not refused.
    let groups = SyscallGroups::shipped().unwrap();
    let all: Vec<String> = groups.names().map(str::to_owned).collect();
    let program = groups.filter_with_listener(&all, calls).unwrap();
    let described = libc::sock_fprog {
        len: program.instructions().len() as u16,
        filter: program.instructions().as_ptr().cast_mut(),
    };
    // SAFETY: the program outlives the call; the kernel copies it.
    let fd = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            &raw const described,
        )
    };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a descriptor of ours that nobody else closes.
    Listener::new(unsafe { OwnedFd::from_raw_fd(fd as i32) }).unwrap()
}

/// Runs `work` on a thread of its own under the filter, and `serve` with its listener on this one.
pub(super) fn supervised<W: Send, S>(
    calls: Notified,
    work: impl FnOnce() -> W + Send,
    serve: impl FnOnce(Listener) -> S,
) -> (W, S) {
    let (give, take) = mpsc::channel();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            give.send(install(calls)).unwrap();
            work()
        });
        let served = serve(take.recv().unwrap());
        (worker.join().unwrap(), served)
    })
}

pub(super) const EXEC: Notified = Notified {
    exec: true,
    connect: false,
    sendto: false,
};

/// `execve` with any pointers; the errno, or 0 if the supervisor said that it is done.
pub(super) fn execve(path: u64, argv: u64) -> i32 {
    // SAFETY: whatever the pointers are, the kernel checks them; the call is never let go on.
    let result = unsafe { libc::syscall(libc::SYS_execve, path, argv, 0_usize) };
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap()
    } else {
        i32::try_from(result).unwrap()
    }
}

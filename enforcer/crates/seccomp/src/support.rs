//! What the running kernel gives a supervisor, found by holding a call of a thread of our own.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use super::{Listener, Notified, SyscallGroups};

/// What a kernel gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// A call was held and answered; else why not.
    pub listener: Result<(), String>,
    /// Only a fatal signal takes a call away from the supervisor that has it in hand (Linux 5.19).
    pub wait_killable: bool,
    /// The kernel hands the processor from the caller to the supervisor and back (Linux 6.6).
    pub sync_wake_up: bool,
}

impl Support {
    /// Tries it, on threads that end with the filters they have put on themselves.
    pub fn probe() -> Self {
        let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        if let Ok(sync_wake_up) = attempt(killable) {
            return Self {
                listener: Ok(()),
                wait_killable: true,
                sync_wake_up,
            };
        }
        let without = attempt(0);
        Self {
            wait_killable: false,
            sync_wake_up: without.as_ref().is_ok_and(|sync| *sync),
            listener: without.map(|_| ()),
        }
    }
}

/// Holds one call of another thread and answers it; whether `SYNC_WAKE_UP` could be had.
fn attempt(flags: libc::c_ulong) -> Result<bool, String> {
    let (give, take) = mpsc::channel();
    thread::scope(|scope| {
        let caller = thread::Builder::new()
            .name("held".to_owned())
            .spawn_scoped(scope, move || {
                let installed = install(flags);
                let held = installed.is_ok();
                // The listener must not stay in the hand of the thread that is held.
                let _ = give.send(installed);
                held.then(call)
            })
            .map_err(|error| format!("no thread: {error}"))?;
        let listener = take
            .recv()
            .map_err(|error| error.to_string())?
            .and_then(|descriptor| Listener::new(descriptor).map_err(|error| error.to_string()))?;
        let sync_wake_up = listener.set_sync_wake_up();
        let failed = |error: super::NotifyError| error.to_string();
        let held = listener.recv().map_err(failed)?;
        let held = held.ok_or("the call was not held")?;
        listener.refuse(held.id, libc::EXFULL).map_err(failed)?;
        match caller.join() {
            Ok(Some(libc::EXFULL)) => Ok(sync_wake_up),
            answered => Err(format!("the call was answered otherwise: {answered:?}")),
        }
    })
}

/// A connect that is held; its errno. Where it is not, there is no such descriptor.
fn call() -> i32 {
    // SAFETY: without a socket the kernel reads nothing from the null pointer.
    let result = unsafe { libc::syscall(libc::SYS_connect, -1, std::ptr::null::<u8>(), 0) };
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

/// Puts a filter on the calling thread that holds its connects and refuses nothing.
fn install(flags: libc::c_ulong) -> Result<OwnedFd, String> {
    let table = SyscallGroups::shipped().map_err(|error| error.to_string())?;
    let calls = Notified {
        connect: true,
        ..Notified::default()
    };
    let all: Vec<String> = table.names().map(str::to_owned).collect();
    let filter = table
        .filter_with_listener(&all, calls)
        .map_err(|error| error.to_string())?;
    let program = libc::sock_fprog {
        len: filter.instructions().len() as libc::c_ushort,
        filter: filter.instructions().as_ptr().cast_mut(),
    };
    // SAFETY: numbers, and a structure that describes instructions which outlive the call; the kernel copies them.
    let descriptor = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 {
            return Err(format!(
                "PR_SET_NO_NEW_PRIVS: {}",
                io::Error::last_os_error()
            ));
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | flags,
            &raw const program,
        )
    };
    if descriptor < 0 {
        return Err(format!(
            "SECCOMP_FILTER_FLAG_NEW_LISTENER: {}",
            io::Error::last_os_error()
        ));
    }
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_held_and_this_process_stays_as_it_is() {
        let support = Support::probe();
        assert_eq!(support.listener, Ok(()));
        assert!(support.wait_killable, "Linux 5.19 has it");
        // SAFETY: a number only.
        let confined = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) };
        assert_eq!(confined, 0);
        assert_eq!(call(), libc::EBADF);
        let nonsense = attempt(1 << 30).unwrap_err();
        assert!(nonsense.contains("NEW_LISTENER"), "{nonsense}");
    }
}

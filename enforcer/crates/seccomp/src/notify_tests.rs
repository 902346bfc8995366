//! The listener with real callers.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::rig::{EXEC, execve, may_run, supervised};
use super::{Listener, Notified, NotifiedCall};

fn next(listener: &Listener) -> super::Notification {
    listener.recv().unwrap().unwrap()
}

#[test]
fn a_call_is_allowed_refused_or_ended() {
    if !may_run("answers") {
        return;
    }
    let path = c"/no/such/program".as_ptr() as u64;
    let (results, ()) = supervised(
        EXEC,
        || [execve(path, 0), execve(path, 0), execve(path, 0)],
        |listener| {
            let first = next(&listener);
            assert!(
                matches!(first.call, NotifiedCall::Exec(call) if call.path == path && call.argv == 0)
            );
            assert!(listener.is_valid(first.id));
            assert!(listener.allow(first.id).unwrap());
            let second = next(&listener);
            assert!(!listener.is_valid(first.id));
            assert!(!listener.allow(first.id).unwrap());
            assert!(listener.refuse(second.id, libc::EPERM).unwrap());
            let third = next(&listener);
            assert!(listener.finish(third.id, 7).unwrap());
            assert_eq!(listener.recv().unwrap(), None);
        },
    );
    assert_eq!(results, [libc::ENOENT, libc::EPERM, 7]);
}

#[test]
fn arguments_of_every_call_are_told_apart() {
    if !may_run("calls") {
        return;
    }
    let all = Notified {
        exec: true,
        connect: true,
        sendto: true,
    };
    // SAFETY: the calls are never let go on, but for the one that has no address.
    let work = || unsafe {
        libc::syscall(libc::SYS_execveat, -5_i32, 11, 12, 13, 0x1000);
        libc::syscall(libc::SYS_connect, 3 | 1_u64 << 32, 21, 22);
        libc::syscall(libc::SYS_sendto, -1, 30, 0, 0, 0, 0);
        libc::syscall(libc::SYS_sendto, 4, 30, 0, 0, 31, 32);
    };
    let ((), calls) = supervised(all, work, |listener| {
        let mut calls = Vec::new();
        while let Some(stopped) = listener.recv().unwrap() {
            calls.push(stopped.call);
            listener.refuse(stopped.id, libc::EPERM).unwrap();
        }
        calls
    });
    assert_eq!(
        calls,
        [
            NotifiedCall::Exec(super::ExecCall {
                dirfd: -5,
                path: 11,
                argv: 12,
                flags: 0x1000
            }),
            NotifiedCall::Connect(super::ConnectCall {
                socket: 3,
                address: 21,
                length: 22,
                datagram: false
            }),
            NotifiedCall::Connect(super::ConnectCall {
                socket: 4,
                address: 31,
                length: 32,
                datagram: true
            }),
        ]
    );
}

#[test]
fn without_a_listener_nothing_is_executed() {
    if !may_run("closed") {
        return;
    }
    let path = c"/bin/true".as_ptr() as u64;
    let (before, ()) = supervised(EXEC, || execve(path, 0), drop);
    assert_eq!(before, libc::ENOSYS);
    // While the call is stopped.
    let (held, ()) = supervised(
        EXEC,
        || execve(path, 0),
        |listener| {
            next(&listener);
        },
    );
    assert_eq!(held, libc::ENOSYS);
}

#[test]
fn a_signal_does_not_take_a_held_call_away() {
    static THREAD: AtomicI32 = AtomicI32::new(0);
    static CAUGHT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn catch(_: i32) {
        CAUGHT.fetch_add(1, Ordering::SeqCst);
    }
    if !may_run("signals") {
        return;
    }
    let work = || {
        // SAFETY: the handler only adds to a number. Without SA_RESTART it would end the call.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = catch as *const () as usize;
            libc::sigaction(
                libc::SIGRTMIN() + 3,
                &raw const action,
                std::ptr::null_mut(),
            );
            THREAD.store(libc::gettid(), Ordering::SeqCst);
        }
        execve(c"/bin/true".as_ptr() as u64, 0)
    };
    let (result, ()) = supervised(EXEC, work, |listener| {
        let held = next(&listener);
        let tid = THREAD.load(Ordering::SeqCst);
        assert_eq!(held.tid, tid.unsigned_abs());
        for _ in 0..20 {
            // SAFETY: numbers only; the thread is one of ours and waits.
            let sent = unsafe {
                libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGRTMIN() + 3)
            };
            assert_eq!(sent, 0);
            std::thread::sleep(Duration::from_millis(2));
            assert!(listener.is_valid(held.id));
        }
        assert_eq!(CAUGHT.load(Ordering::SeqCst), 0);
        assert!(listener.finish(held.id, 9).unwrap());
        assert_eq!(listener.recv().unwrap(), None);
    });
    assert_eq!(result, 9);
    assert_eq!(CAUGHT.load(Ordering::SeqCst), 20);
}

#[test]
fn a_caller_that_is_killed_leaves_an_id_without_a_caller() {
    if !may_run("dying") {
        return;
    }
    let work = || Command::new("/bin/true").arg("x").status();
    let (status, ()) = supervised(EXEC, work, |listener| {
        let held = next(&listener);
        let NotifiedCall::Exec(call) = held.call else {
            panic!("{held:?}")
        };
        // SAFETY: numbers only; it is a child of ours that waits for our answer.
        unsafe { libc::kill(held.tid.cast_signed(), libc::SIGKILL) };
        let deadline = Instant::now() + Duration::from_secs(10);
        while listener.is_valid(held.id) {
            assert!(Instant::now() < deadline);
        }
        assert!(!listener.allow(held.id).unwrap());
        assert!(!listener.refuse(held.id, 1).unwrap());
        // The standard library's child shares our memory, so it may still be readable; it may not hang or panic.
        let _ = super::target::exec_text(held.tid, &call);
        assert_eq!(listener.recv().unwrap(), None);
    });
    // Whether the standard library calls that an error or a status is its own affair; it did not succeed.
    assert!(!status.is_ok_and(|status| status.success()));
}

#[test]
fn many_callers_each_get_their_own_answer() {
    if !may_run("many") {
        return;
    }
    let work = || {
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..16_u64)
                .map(|number| scope.spawn(move || (number, execve(1000 + number, 0))))
                .collect();
            callers
                .into_iter()
                .map(|caller| caller.join().unwrap())
                .collect::<Vec<_>>()
        })
    };
    let (answers, synchronous) = supervised(EXEC, work, |listener| {
        let synchronous = listener.set_sync_wake_up();
        let mut held = Vec::new();
        // All of them wait at once, and are answered from the last to the first.
        for _ in 0..16 {
            held.push(next(&listener));
        }
        while let Some(stopped) = held.pop() {
            let NotifiedCall::Exec(call) = stopped.call else {
                panic!("{stopped:?}")
            };
            let number = i64::try_from(call.path).unwrap() - 1000;
            assert!(listener.finish(stopped.id, number).unwrap());
        }
        synchronous
    });
    for (number, answer) in answers {
        assert_eq!(number, u64::try_from(answer).unwrap());
    }
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_string_lossy().into_owned();
    let mut parts = release.split('.').map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) {
        assert_eq!(synchronous, (major, minor) >= (6, 6), "{release}");
    }
}

#[test]
fn a_descriptor_that_is_no_listener_is_an_error() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let listener = Listener::new(file.into()).unwrap();
    let error = listener.allow(1).unwrap_err();
    assert!(error.to_string().contains("NOTIF_SEND"), "{error}");
    assert!(!listener.set_sync_wake_up() && !listener.is_valid(1));
    assert!(listener.recv().is_err());
    assert_eq!(
        io::Error::last_os_error().raw_os_error(),
        Some(libc::ENOTTY)
    );
}

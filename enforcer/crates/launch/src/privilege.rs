//! Giving up privilege: for good in the agent's process, for one question in a thread of the launcher.
//!
//! The functions that run after fork use raw system calls only: the C library's `setresuid` and its kin
//! try to change all threads of the process, and the list of threads that the child has is its parent's.

use std::thread;

use super::{Identity, LaunchError};

const CAPABILITY_VERSION_3: u32 = 0x2008_0522; // linux/capability.h
const HIGHEST_CAPABILITY: libc::c_ulong = 63; // two words of 32 bits

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1; // linux/keyctl.h

// linux/securebits.h: uid 0 gives no capabilities on exec, none are kept over a change of uid, no ambient
// ones are raised; and each of these for ever.
const NOROOT: libc::c_ulong = 1 | 1 << 1;
const KEEP_CAPS_LOCKED: libc::c_ulong = 1 << 5;
const NO_AMBIENT_RAISE: libc::c_ulong = 1 << 6 | 1 << 7;
const SECURE_BITS: libc::c_ulong = NOROOT | KEEP_CAPS_LOCKED | NO_AMBIENT_RAISE;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn checked(result: libc::c_long) -> Result<libc::c_long, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// The calling thread's errno. Safe after fork.
pub(super) fn errno() -> i32 {
    // SAFETY: the location is always valid for the calling thread.
    unsafe { *libc::__errno_location() }
}

/// A step of [`drop_all`], for messages.
pub(super) type Step = u32;
/// Dropping the capability bounding set.
pub(super) const STEP_BOUNDING: Step = 1;
/// Setting the securebits.
pub(super) const STEP_SECUREBITS: Step = 2;
/// Setting the supplementary groups.
pub(super) const STEP_GROUPS: Step = 3;
/// Setting the group ids.
pub(super) const STEP_GID: Step = 4;
/// Setting the user ids.
pub(super) const STEP_UID: Step = 5;
/// Clearing the capability sets.
pub(super) const STEP_CAPABILITIES: Step = 6;
/// Setting `no_new_privs`.
pub(super) const STEP_NO_NEW_PRIVS: Step = 7;
/// Leaving the launcher's session keyring.
pub(super) const STEP_KEYRING: Step = 13;

/// Makes the calling process the agent's user without any privilege, for good. Async-signal-safe.
///
/// # Errors
/// The step that failed and its errno.
pub(super) fn drop_all(uid: u32, gid: u32, groups: &[u32]) -> Result<(), (Step, i32)> {
    // SAFETY: no arguments.
    let launcher = unsafe { libc::geteuid() };
    let at = |step: Step| move |errno: i32| (step, errno);
    for capability in 0..=HIGHEST_CAPABILITY {
        // SAFETY: the call takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match checked(result.into()) {
            // Past the last capability of this kernel.
            Err(libc::EINVAL) if capability > 0 => break,
            other => other.map_err(at(STEP_BOUNDING))?,
        };
    }
    // SAFETY: as above.
    let result = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0) };
    checked(result.into()).map_err(at(STEP_SECUREBITS))?;
    // SAFETY: the pointer and the length are those of one slice of 32-bit ids.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    checked(result).map_err(at(STEP_GROUPS))?;
    // SAFETY: numbers only.
    checked(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map_err(at(STEP_GID))?;
    // SAFETY: numbers only.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map_err(at(STEP_UID))?;
    // The session keyring is the launcher's, and who possesses a keyring can use its keys, whatever the uid.
    if uid != launcher {
        // SAFETY: numbers and a null pointer, which asks for a new keyring without a name.
        let result =
            unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0_usize) };
        match checked(result) {
            // A kernel without keys, or a container that keeps them from everybody.
            Ok(_) | Err(libc::ENOSYS | libc::EPERM) => {}
            Err(errno) => return Err((STEP_KEYRING, errno)),
        }
    }
    // Clearing the permitted and inheritable sets empties the ambient one too (capabilities(7)).
    clear_capabilities(true).map_err(at(STEP_CAPABILITIES))?;
    // SAFETY: numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    checked(result.into()).map_err(at(STEP_NO_NEW_PRIVS))?;
    Ok(())
}

/// Clears the calling thread's effective capabilities, and all the other sets if `all`.
fn clear_capabilities(all: bool) -> Result<(), i32> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut words = [CapabilityWord {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    if !all {
        // SAFETY: header and the two words of version 3 are valid for the call's writes.
        let result =
            unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
        checked(result)?;
        for word in &mut words {
            word.effective = 0;
        }
    }
    // SAFETY: header and the two words of version 3 are valid for the call's reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    checked(result).map(|_| ())
}

/// Asks the file system a question with the agent's eyes: on a thread of its own, whose file system
/// identity is the agent's and which has no effective capability. Credentials belong to threads in Linux, so
/// the rest of the process keeps its own.
///
/// # Errors
/// When the thread cannot be had or cannot take the identity.
pub(super) fn with_eyes_of<T: Send>(
    identity: &Identity,
    question: impl FnOnce() -> T + Send,
) -> Result<T, LaunchError> {
    let failed = |call: &'static str, errno: i32| LaunchError::System {
        call,
        source: std::io::Error::from_raw_os_error(errno),
        mend: "run as root",
    };
    thread::scope(|scope| {
        thread::Builder::new()
            .name("eyes".to_owned())
            .spawn_scoped(scope, || {
                take_file_system_identity(identity).map_err(|errno| failed("setfsuid", errno))?;
                Ok(question())
            })
            .map_err(|source| LaunchError::System {
                call: "thread",
                source,
                mend: "raise the limit of processes (ulimit -u)",
            })?
            .join()
            .map_err(|_| failed("thread", libc::EIO))?
    })
}

/// Gives the calling thread the agent's file system identity and no effective capability. Its real and saved
/// user stay what they are: else the agent could send this very thread signals.
pub(super) fn take_file_system_identity(identity: &Identity) -> Result<(), i32> {
    // SAFETY: numbers only; without an effect for -1, the call gives the present id.
    let uid = unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) };
    // SAFETY: numbers only.
    let gid = unsafe { libc::syscall(libc::SYS_setfsgid, u32::MAX) };
    let groups = &identity.groups;
    // Who is this user already and has no privilege is not able, and has no need, to set groups.
    if uid != i64::from(identity.uid) || gid != i64::from(identity.gid) || uid == 0 {
        // SAFETY: the pointer and the length are those of one vector of 32-bit ids.
        checked(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
        // SAFETY: numbers only. These two report no error, so the result is read back.
        let now = unsafe {
            libc::syscall(libc::SYS_setfsgid, identity.gid);
            libc::syscall(libc::SYS_setfsuid, identity.uid);
            (
                libc::syscall(libc::SYS_setfsuid, u32::MAX),
                libc::syscall(libc::SYS_setfsgid, u32::MAX),
            )
        };
        if now != (i64::from(identity.uid), i64::from(identity.gid)) {
            return Err(libc::EPERM);
        }
    }
    clear_capabilities(false)
}

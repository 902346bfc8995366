//! From fork to exec: what runs in the agent's process before its program does.
//!
//! The launcher may have threads, so this code must not allocate, lock or panic: everything is prepared in
//! [`Image::new`], and [`Image::become_agent`] makes system calls.

use std::ffi::{CString, OsStr};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use super::confine::Confinement;
use super::landlock::LandlockDomain;
use super::privilege::{self, Step, errno};
use super::{LaunchError, OpenFiles, SpawnPlan};
use enforcer_seccomp::BpfProgram;

/// Closing descriptors.
pub(super) const STEP_DESCRIPTORS: Step = 8;
/// The mounts of a root agent; the detail is the operation's index.
pub(super) const STEP_CONFINE: Step = 9;
/// Entering the working directory.
pub(super) const STEP_DIRECTORY: Step = 10;
/// Loading a seccomp filter.
pub(super) const STEP_SECCOMP: Step = 11;
/// Starting the program.
pub(super) const STEP_EXEC: Step = 12;
// 13 is privilege.rs's.
/// Setting the limit of open files.
pub(super) const STEP_LIMIT: Step = 14;
/// Loading the filter that asks.
pub(super) const STEP_NOTIFY: Step = 15;
/// No failure: the listener is there, and the detail is its descriptor. The child waits to be let go again.
pub(super) const STEP_LISTENING: Step = 16;

/// Entering the Landlock domain.
pub(super) const STEP_LANDLOCK: Step = 20;

/// Leaving the machine's shared memory, semaphores and message queues.
pub(super) const STEP_IPC: Step = 21;

/// Size of a [`Failure`] on its pipe, bytes.
pub(super) const FAILURE_BYTES: usize = 12;

/// What the child reports when it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// One of the `STEP_` constants.
    pub step: Step,
    /// What the step says more.
    pub detail: u32,
    /// The errno.
    pub errno: i32,
}

impl Failure {
    fn to_bytes(self) -> [u8; FAILURE_BYTES] {
        let mut bytes = [0; FAILURE_BYTES];
        let parts = [self.step, self.detail, self.errno.cast_unsigned()];
        for (to, from) in bytes.chunks_exact_mut(4).zip(parts) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    }

    /// Says it to the launcher; a pipe takes so few bytes whole.
    fn write(self, status: RawFd) {
        let bytes = self.to_bytes();
        // SAFETY: the buffer is as long as it says.
        unsafe { libc::write(status, bytes.as_ptr().cast(), bytes.len()) };
    }

    /// Reads what the child wrote.
    pub(super) fn from_bytes(bytes: [u8; FAILURE_BYTES]) -> Self {
        let mut parts = [0; 3];
        for (to, from) in parts.iter_mut().zip(bytes.chunks_exact(4)) {
            *to = from.try_into().map_or(0, u32::from_ne_bytes);
        }
        let [step, detail, errno] = parts;
        Self {
            step,
            detail,
            errno: errno.cast_signed(),
        }
    }
}

/// Everything the child needs, in the form in which system calls take it.
pub(super) struct Image<'a> {
    program: CString,
    directory: CString,
    /// Null-terminated; points into `_words`.
    argv: Vec<*const libc::c_char>,
    /// Null-terminated; points into `_words`.
    envp: Vec<*const libc::c_char>,
    _words: Vec<CString>,
    uid: u32,
    gid: u32,
    groups: &'a [u32],
    domain: &'a LandlockDomain,
    filters: &'a [BpfProgram],
    notify: Option<&'a BpfProgram>,
    open_files: Option<OpenFiles>,
    confinement: Option<&'a Confinement>,
    own_ipc: bool,
}

impl<'a> Image<'a> {
    pub(super) fn new(plan: &'a SpawnPlan<'_>) -> Result<Self, LaunchError> {
        let mut words = Vec::with_capacity(plan.argv.len() + plan.env.len());
        let mut argv = Vec::with_capacity(plan.argv.len() + 1);
        for (index, word) in plan.argv.iter().enumerate() {
            let word = c_string(word, || format!("word {index} of the command"))?;
            // The pointer is to the heap and stays when the CString moves.
            argv.push(word.as_ptr());
            words.push(word);
        }
        argv.push(ptr::null());
        let mut envp = Vec::with_capacity(plan.env.len() + 1);
        for (name, value) in &plan.env {
            let mut entry = name.clone();
            entry.push("=");
            entry.push(value);
            let word = c_string(&entry, || {
                format!("the environment variable {}", name.to_string_lossy())
            })?;
            envp.push(word.as_ptr());
            words.push(word);
        }
        envp.push(ptr::null());
        Ok(Self {
            program: c_string(plan.program.as_os_str(), || "the program's path".to_owned())?,
            directory: c_string(plan.directory.as_os_str(), || {
                "the working directory".to_owned()
            })?,
            argv,
            envp,
            _words: words,
            uid: plan.identity.uid,
            gid: plan.identity.gid,
            groups: &plan.identity.groups,
            domain: &plan.domain,
            filters: &plan.filters,
            notify: plan.notify.as_ref(),
            open_files: plan.open_files,
            confinement: plan.confinement,
            own_ipc: plan.own_ipc,
        })
    }

    /// Waits for the word at `go`, then becomes the agent; reports a failure at `status`. Call it in a child
    /// that has just been forked, with every signal blocked.
    pub(super) fn become_agent(&self, go: RawFd, status: RawFd) -> ! {
        let failure = match self.prepare_and_exec(go, status) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        failure.write(status);
        // SAFETY: _exit runs no code of the parent's.
        unsafe { libc::_exit(126) }
    }

    fn prepare_and_exec(
        &self,
        go: RawFd,
        status: RawFd,
    ) -> Result<std::convert::Infallible, Failure> {
        let failed = |step| {
            move |errno| Failure {
                step,
                detail: 0,
                errno,
            }
        };
        // First of all: copies of the launcher's descriptors (its own pipes, maps, other agents' pipes) go.
        close_all_but(go, status).map_err(failed(STEP_DESCRIPTORS))?;
        wait_for_go(go);
        if let Some(confinement) = self.confinement {
            confinement.enter().map_err(|(index, errno)| Failure {
                step: STEP_CONFINE,
                detail: index as u32,
                errno,
            })?;
        }
        // SAFETY: numbers only.
        if self.own_ipc && unsafe { libc::unshare(libc::CLONE_NEWIPC) } < 0 {
            return Err(failed(STEP_IPC)(errno()));
        }
        if let Some(limit) = self.open_files {
            limit.apply().map_err(failed(STEP_LIMIT))?;
        }
        privilege::drop_all(self.uid, self.gid, self.groups).map_err(|(step, errno)| Failure {
            step,
            detail: 0,
            errno,
        })?;
        // As the agent's user, and by its path: the old one may lie under a mount made above.
        // SAFETY: the path is NUL-terminated.
        if unsafe { libc::chdir(self.directory.as_ptr()) } < 0 {
            return Err(failed(STEP_DIRECTORY)(errno()));
        }
        reset_signals();
        self.domain.enter().map_err(failed(STEP_LANDLOCK))?;
        for filter in self.filters {
            load(filter, 0).map_err(failed(STEP_SECCOMP))?;
        }
        if let Some(filter) = self.notify {
            listen(filter, go, status).map_err(failed(STEP_NOTIFY))?;
        }
        unblock_signals();
        // SAFETY: program is NUL-terminated, argv and envp are null-terminated arrays of such strings.
        unsafe {
            libc::execve(
                self.program.as_ptr(),
                self.argv.as_ptr(),
                self.envp.as_ptr(),
            );
        }
        Err(failed(STEP_EXEC)(errno()))
    }
}

fn c_string(word: &OsStr, what: impl Fn() -> String) -> Result<CString, LaunchError> {
    CString::new(word.as_bytes()).map_err(|_| LaunchError::Nul { what: what() })
}

/// Closes everything above 2 but two descriptors, which may be the same.
pub(super) fn close_all_but(one: RawFd, other: RawFd) -> Result<(), i32> {
    let (low, high) = if one < other {
        (one, other)
    } else {
        (other, one)
    };
    for (from, to) in [(3, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if from > to {
            continue;
        }
        // SAFETY: numbers only; the table of descriptors is this process's own copy.
        if unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } < 0 {
            return Err(errno());
        }
    }
    Ok(())
}

/// Returns when the launcher says go. When the launcher is gone instead, so is the reason to live.
fn wait_for_go(go: RawFd) {
    let mut word = [0_u8; 1];
    loop {
        // SAFETY: the buffer is as long as it says.
        match unsafe { libc::read(go, word.as_mut_ptr().cast(), 1) } {
            1 => return,
            -1 if errno() == libc::EINTR => {}
            // SAFETY: _exit runs no code of the parent's.
            _ => unsafe { libc::_exit(126) },
        }
    }
}

/// Handlers of the launcher go. What was ignored stays ignored, as `nohup` means it, except SIGPIPE, which
/// Rust's runtime ignores, and SIGXFSZ, which this program ignores: others rely on both.
fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: all-zero is a valid sigaction: the default action, no flags, an empty mask. A number
        // that cannot be changed gives an error, which does not matter here.
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            let mut present = default;
            if libc::sigaction(signal, ptr::null(), &raw mut present) == 0
                && (present.sa_sigaction != libc::SIG_IGN
                    || [libc::SIGPIPE, libc::SIGXFSZ].contains(&signal))
            {
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}

fn unblock_signals() {
    // SAFETY: an all-zero set is the empty set.
    unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut());
    }
}

/// Loads the filter that asks, and waits until the launcher has taken its listener.
fn listen(filter: &BpfProgram, go: RawFd, status: RawFd) -> Result<(), i32> {
    // Once the supervisor has a call in hand, only a fatal signal takes it away: else a timer of the agent's
    // would cancel every exec that is held.
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let listener = load(filter, flags)? as RawFd;
    Failure {
        step: STEP_LISTENING,
        detail: listener.cast_unsigned(),
        errno: 0,
    }
    .write(status);
    wait_for_go(go);
    // Not left to the exec: a listener in the hand of its own caller would stay open while that exec waits
    // for a supervisor that has died.
    // SAFETY: the descriptor is ours alone.
    unsafe { libc::close(listener) };
    Ok(())
}

fn load(filter: &BpfProgram, flags: libc::c_ulong) -> Result<libc::c_long, i32> {
    let instructions = filter.instructions();
    let program = libc::sock_fprog {
        len: instructions.len() as libc::c_ushort,
        // The kernel only reads it.
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: program describes the slice of instructions, which lives on.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if result < 0 { Err(errno()) } else { Ok(result) }
}

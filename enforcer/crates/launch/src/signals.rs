//! Signals that the launcher receives, as readable events.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::LaunchError;

/// What the launcher takes as events: what it passes on, and `SIGCHLD`.
const TAKEN: [Signal; 10] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGCHLD,
];

/// `si_code` of a signal that the kernel itself sent, such as the terminal's (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// Whether the kernel sent it (a key at the terminal, a hang-up), so that the whole foreground process
    /// group has it already.
    pub by_kernel: bool,
}

/// Signals of this thread, blocked and readable at a descriptor. Dropping it unblocks them.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals in the calling thread. Call it before other threads are started: they inherit it.
    ///
    /// # Errors
    /// When the kernel refuses a descriptor.
    pub fn block() -> Result<Self, LaunchError> {
        let failed = LaunchError::system("signalfd", "raise the limit of open files (ulimit -n)");
        // An ignored SIGCHLD, inherited, would have the kernel throw the exit status away.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(Signal::SIGCHLD, &default) }.map_err(&failed)?;
        let taken = TAKEN.into_iter().collect::<SigSet>();
        let before = taken
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(&failed)?;
        match SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) {
            Ok(descriptor) => Ok(Self { descriptor, before }),
            Err(errno) => {
                let _ = before.thread_set_mask();
                Err(failed(errno))
            }
        }
    }

    /// Readable when a signal is there.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The next signal, if one is there. Does not block.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub fn next(&self) -> Result<Option<Received>, LaunchError> {
        let read = self
            .descriptor
            .read_signal()
            .map_err(LaunchError::system("reading a signal", "please report it"))?;
        Ok(read.and_then(|info| {
            let signal = Signal::try_from(info.ssi_signo.cast_signed()).ok()?;
            Some(Received {
                signal,
                by_kernel: info.ssi_code == SI_KERNEL,
            })
        }))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the call has none with a valid mask.
        let _ = self.before.thread_set_mask();
    }
}

/// Makes a write behind the limit of a file's size an error (`EFBIG`) instead of the end of this program: whoever sets
/// that limit shall not end a hook before it has answered. The agent's command gets the signal back.
pub fn outlive_file_size_limit() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler runs.
    let _ = unsafe { sigaction(Signal::SIGXFSZ, &ignore) };
}

//! The terminal: who has its foreground, and its settings.
//!
//! With the terminal on standard input the agent gets a process group of its own and the foreground, as a
//! shell gives it to a job: Ctrl-C and Ctrl-Z then reach the agent, and an interactive shell in it can do
//! job control. In a pipeline (standard input is no terminal) the agent stays in the launcher's group, which
//! is that of the whole pipeline, so that the terminal's keys reach all of it as they would without us.

use std::cell::Cell;
use std::fs::File;
use std::io::{IsTerminal, stdin};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// How the launcher stands to its controlling terminal.
#[derive(Debug)]
enum Attachment {
    /// There is none.
    None,
    /// It is standard input: the agent gets its foreground.
    Input(OwnedFd),
    /// It is there, and standard input is something else.
    Elsewhere,
}

/// The controlling terminal, as it was at the start.
#[derive(Debug)]
pub struct Terminal {
    standing: Attachment,
    settings: Option<Termios>,
    given: Cell<bool>,
}

impl Terminal {
    /// Looks at standard input and the controlling terminal.
    pub fn detect() -> Self {
        let standing = input().map_or_else(
            || match File::options().read(true).open("/dev/tty") {
                Ok(_) => Attachment::Elsewhere,
                Err(_) => Attachment::None,
            },
            Attachment::Input,
        );
        let settings = match &standing {
            Attachment::Input(tty) => tcgetattr(tty).ok(),
            _ => None,
        };
        Self {
            standing,
            settings,
            given: Cell::new(false),
        }
    }

    /// Without a terminal: for services and tests.
    pub fn none() -> Self {
        Self {
            standing: Attachment::None,
            settings: None,
            given: Cell::new(false),
        }
    }

    /// Whether the agent gets a process group of its own.
    pub fn separates_group(&self) -> bool {
        !matches!(self.standing, Attachment::Elsewhere)
    }

    /// Whether a stopped agent stops the launcher too: somebody at a terminal can continue it.
    pub(super) fn has_job_control(&self) -> bool {
        !matches!(self.standing, Attachment::None)
    }

    /// Gives the foreground to a process group, if it is ours to give.
    pub(super) fn give_to(&self, group: Pid) {
        if let Attachment::Input(tty) = &self.standing
            && tcgetpgrp(tty) == Ok(getpgrp())
            && set_foreground(tty, group)
        {
            self.given.set(true);
        }
    }

    /// The launcher was continued: whoever did it has decided about the foreground.
    pub(super) fn continued(&self, group: Pid) {
        if let Attachment::Input(tty) = &self.standing
            && tcgetpgrp(tty) != Ok(group)
        {
            self.given.set(false);
            self.give_to(group);
        }
    }

    /// Takes the foreground back, if it was given.
    pub(super) fn take_back(&self) {
        if let Attachment::Input(tty) = &self.standing
            && self.given.replace(false)
        {
            set_foreground(tty, getpgrp());
        }
    }

    /// Takes the foreground back and puts the settings back to what they were at the start.
    pub(super) fn restore(&self) {
        self.take_back();
        if let (Attachment::Input(tty), Some(settings)) = (&self.standing, &self.settings)
            && tcgetpgrp(tty) == Ok(getpgrp())
        {
            // The terminal may be gone by now; there is nothing to put back then.
            let _ = tcsetattr(tty, SetArg::TCSADRAIN, settings);
        }
    }
}

/// Stops the launcher as Ctrl-Z would. Returns when it is continued; at once where nobody could continue it
/// (its process group is orphaned: the kernel then drops the signal, and not `SIGSTOP`).
pub(super) fn stop_self() {
    let stop = SigSet::from(Signal::SIGTSTP);
    let blocked = SigSet::thread_get_mask().is_ok_and(|mask| mask.contains(Signal::SIGTSTP));
    let _ = raise(Signal::SIGTSTP);
    if blocked {
        // Delivered here.
        let _ = stop.thread_unblock();
        let _ = stop.thread_block();
    }
}

/// Standard input, if it is the controlling terminal.
fn input() -> Option<OwnedFd> {
    let input = stdin();
    if !input.is_terminal() {
        return None;
    }
    // Refused on a terminal that is not the controlling one.
    tcgetpgrp(&input).ok()?;
    input.as_fd().try_clone_to_owned().ok()
}

fn set_foreground(tty: &OwnedFd, group: Pid) -> bool {
    // A group in the background that sets the foreground gets SIGTTOU, unless it is blocked.
    let noise = SigSet::from(Signal::SIGTTOU);
    let before = noise.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    let done = tcsetpgrp(tty, group).is_ok();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    done
}

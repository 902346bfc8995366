//! The process that traces: it stops others at their exec and holds them until it is told what is to become of them.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        ptrace::{self, Options},
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        socket::{MsgFlags, recv, send},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Message, Order};

/// Milliseconds between looks at what has been sent to the held processes, and how many more for each of them: many that
/// stand still must not keep a processor busy.
const LOOK_MS: usize = 200;
const LOOK_EACH_MS: usize = 2;

/// Signals that end no process that has just executed a program, by their numbers: it handles none.
const HARMLESS: [Signal; 8] = [
    Signal::SIGCHLD,
    Signal::SIGCONT,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// A process that is traced.
#[derive(Clone, Copy, Debug, Default)]
struct Traced {
    /// Its exec is done, and it stands still.
    stopped: bool,
    /// It may run when its exec is done.
    released: bool,
}

/// Takes orders from a socket (`SOCK_SEQPACKET`) until its other end is closed; what is held then dies with this process.
///
/// # Errors
///
/// Signals cannot be waited for, or the socket fails.
pub fn serve(orders: BorrowedFd<'_>) -> io::Result<()> {
    let ended = SigSet::from(Signal::SIGCHLD);
    ended.thread_block()?;
    let changed = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut traced: HashMap<Pid, Traced> = HashMap::new();
    let mut looked = Instant::now();
    loop {
        let mut wanted = [
            PollFd::new(orders, PollFlags::POLLIN),
            PollFd::new(changed.as_fd(), PollFlags::POLLIN),
        ];
        let pause = LOOK_MS + LOOK_EACH_MS * traced.len();
        let timeout = if traced.is_empty() {
            PollTimeout::NONE
        } else {
            PollTimeout::from(u16::try_from(pause).unwrap_or(u16::MAX))
        };
        match poll(&mut wanted, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // One signal stands for any number of changes.
        while let Ok(Some(_)) = changed.read_signal() {}
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))
            && status != WaitStatus::StillAlive
        {
            note(&mut traced, status);
        }
        if looked.elapsed().as_millis() >= pause as u128 {
            looked = Instant::now();
            for (pid, _) in traced.iter().filter(|(_, one)| one.stopped) {
                // Not one instruction is run to die of a signal.
                if is_to_die(*pid) {
                    let _ = kill(*pid, Signal::SIGKILL);
                }
            }
        }
        if !take_orders(orders, &mut traced)? {
            return Ok(());
        }
    }
}

/// Takes what orders there are. False when nobody gives any more.
fn take_orders(orders: BorrowedFd<'_>, traced: &mut HashMap<Pid, Traced>) -> io::Result<bool> {
    let mut message: Message = [0; 8];
    loop {
        match recv(orders.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(8) => {}
            Ok(_) => return Ok(false),
            Err(Errno::EAGAIN) => return Ok(true),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let Some((order, number)) = Order::read(message) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Ok(raw) = i32::try_from(number) else {
            continue;
        };
        let pid = Pid::from_raw(raw);
        match order {
            Order::Stop => {
                let errno = match seize(pid) {
                    Ok(()) => {
                        traced.insert(pid, Traced::default());
                        0
                    }
                    Err(errno) => errno as u32,
                };
                let mut answer = message;
                answer[..4].copy_from_slice(&errno.to_be_bytes());
                send(orders.as_raw_fd(), &answer, MsgFlags::MSG_NOSIGNAL)?;
            }
            // Only what is traced: the number is its own until it has been waited for here.
            Order::Release => match traced.get_mut(&pid) {
                Some(one) if one.stopped => let_go(traced, pid, None),
                Some(one) => one.released = true,
                None => {}
            },
            Order::Kill => {
                if traced.contains_key(&pid) {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
        }
    }
}

/// Traces a process that waits in a system call. It stops when its exec is done, or else when the call has failed.
fn seize(pid: Pid) -> Result<(), Errno> {
    ptrace::seize(
        pid,
        Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL,
    )?;
    ptrace::interrupt(pid)
}

/// What has become of a traced process.
fn note(traced: &mut HashMap<Pid, Traced>, status: WaitStatus) {
    match status {
        WaitStatus::PtraceEvent(pid, _, event) if event == libc::PTRACE_EVENT_EXEC => {
            let one = traced.entry(pid).or_default();
            if one.released {
                let_go(traced, pid, None);
            } else {
                one.stopped = true;
            }
        }
        // The exec has failed: that is its caller's affair.
        WaitStatus::PtraceEvent(pid, ..) => let_go(traced, pid, None),
        WaitStatus::Stopped(pid, signal) => let_go(traced, pid, Some(signal)),
        WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
            traced.remove(&pid);
        }
        _ => {}
    }
}

fn let_go(traced: &mut HashMap<Pid, Traced>, pid: Pid, signal: Option<Signal>) {
    traced.remove(&pid);
    // It may have been killed meanwhile.
    let _ = ptrace::detach(pid, signal);
}

/// Whether a signal waits for a process that would end it.
fn is_to_die(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| has_deadly(&status))
}

/// Whether a `/proc/PID/status` tells of a signal that is neither blocked nor ignored and ends who has no handler.
pub(super) fn has_deadly(status: &str) -> bool {
    let set = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .unwrap_or(0)
    };
    let harmless = HARMLESS
        .iter()
        .fold(0_u64, |set, signal| set | 1 << (*signal as u32 - 1));
    (set("SigPnd:") | set("ShdPnd:")) & !set("SigBlk:") & !set("SigIgn:") & !harmless != 0
}

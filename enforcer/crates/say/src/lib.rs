//! What a command of ours says on standard error.
//!
//! An agent shares this descriptor with its launcher: it can fill the pipe, stop the terminal, set `O_NONBLOCK` on it for
//! both. Nothing of that may end or hold up what is said here: a line that cannot be written in time is dropped. So
//! `eprintln!` has no place in this crate, which panics where it cannot write, and waits for ever where it must not.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    fmt, fs,
    io::{self, IsTerminal, LineWriter, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// How long anyone waits for a line to be written.
const PATIENCE: Duration = Duration::from_millis(500);
/// Lines that wait at a time.
const QUEUE: usize = 256;
/// What a pipe that is writable takes at once (`PIPE_BUF`).
const PIECE: usize = 4096;

/// The thread that writes, once there is one.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// Says a line on standard error, as `eprintln!` does, and never fails.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {
        $crate::line(format_args!($($words)*))
    };
}

/// An error and its causes in one line. Many of our messages hold the cause already, before the mend: a cause that has been
/// told is not told again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

/// Whether the standard error of a process is the same file as ours: what is said there is read here.
pub fn is_ours(pid: u32) -> bool {
    let file = |path: String| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!(
        (file(format!("/proc/{pid}/fd/2")), file("/proc/self/fd/2".to_owned())),
        (Ok(its), Ok(ours)) if its == ours
    )
}

/// A line as it is said in the midst of what an agent shows: on a terminal, which the agent may have set to anything, from
/// the first column on, and with a bell.
pub fn aside(line: &str) -> String {
    if io::stderr().is_terminal() {
        format!("\r\x1b[K{line}\x07\r")
    } else {
        line.to_owned()
    }
}

struct Writer {
    queue: SyncSender<Vec<u8>>,
    /// Lines that were put into the queue, and that have left it.
    asked: AtomicU64,
    done: AtomicU64,
}

/// Has a thread of its own write from now on: nobody hangs in a write that an agent has made hang. Before, and where the
/// thread cannot be had, whoever says something writes it.
pub fn from_a_thread() {
    let (queue, lines) = sync_channel::<Vec<u8>>(QUEUE);
    let spawned = thread::Builder::new()
        .name("say".to_owned())
        .stack_size(64 << 10)
        .spawn(move || {
            for line in lines {
                write(io::stderr().as_fd(), &line, None);
                if let Some(writer) = WRITER.get() {
                    writer.done.fetch_add(1, Ordering::Release);
                }
            }
        });
    if spawned.is_ok() {
        // Set once: a second thread would end with its queue.
        let _ = WRITER.set(Writer {
            queue,
            asked: AtomicU64::new(0),
            done: AtomicU64::new(0),
        });
    }
}

/// Says a line: see `say!`.
pub fn line(words: fmt::Arguments<'_>) {
    let mut text = words.to_string().into_bytes();
    text.push(b'\n');
    let Some(writer) = WRITER.get() else {
        write(io::stderr().as_fd(), &text, Some(PATIENCE));
        return;
    };
    let behind = writer.asked.load(Ordering::Acquire) > writer.done.load(Ordering::Acquire);
    if writer.queue.try_send(text).is_err() {
        return;
    }
    let mine = writer.asked.fetch_add(1, Ordering::AcqRel) + 1;
    // Lines stand in order with what the agent prints, unless the thread hangs already.
    if !behind {
        written(writer, mine);
    }
}

/// Waits for what was said, for a moment: the process is about to end.
pub fn finish() {
    if let Some(writer) = WRITER.get() {
        written(writer, writer.asked.load(Ordering::Acquire));
    }
}

fn written(writer: &Writer, number: u64) {
    let until = Instant::now() + PATIENCE;
    while writer.done.load(Ordering::Acquire) < number && Instant::now() < until {
        thread::sleep(Duration::from_micros(50));
    }
}

/// Writes what can be written; waits as long as this for room, for ever without a limit.
fn write(to: BorrowedFd<'_>, bytes: &[u8], patience: Option<Duration>) {
    let until = patience.map(|patience| Instant::now() + patience);
    let mut left = bytes;
    while !left.is_empty() {
        let wait = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
        });
        let mut ready = [PollFd::new(to, PollFlags::POLLOUT)];
        match poll(&mut ready, wait) {
            Err(Errno::EINTR) => continue,
            Ok(1) => {}
            // No room in time, or no such descriptor.
            _ => return,
        }
        match nix::unistd::write(to, &left[..left.len().min(PIECE)]) {
            Ok(written) => left = &left[written..],
            // Another writer was quicker.
            Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(1)),
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        if until.is_some_and(|until| Instant::now() > until) {
            return;
        }
    }
}

/// Standard output, a line at a time.
pub fn out() -> LineWriter<Stream> {
    LineWriter::new(Stream::Output)
}

/// Standard error, a line at a time, for what is the command's output rather than said on the way.
pub fn err() -> LineWriter<Stream> {
    LineWriter::new(Stream::Error)
}

/// A standard stream as a writer that waits where the descriptor does not block (`O_NONBLOCK`).
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Stream {
    fn write_once(self, bytes: &[u8]) -> nix::Result<usize> {
        match self {
            Self::Output => nix::unistd::write(io::stdout().as_fd(), bytes),
            Self::Error => nix::unistd::write(io::stderr().as_fd(), bytes),
        }
    }

    fn wait(self) -> nix::Result<i32> {
        let (output, error) = (io::stdout(), io::stderr());
        let stream = match self {
            Self::Output => output.as_fd(),
            Self::Error => error.as_fd(),
        };
        poll(
            &mut [PollFd::new(stream, PollFlags::POLLOUT)],
            PollTimeout::NONE,
        )
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.write_once(bytes) {
                Err(Errno::EAGAIN) => match self.wait() {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                },
                Err(errno) => return Err(errno.into()),
                Ok(written) => return Ok(written),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

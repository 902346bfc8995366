//! A worker's race: a thread rewrites an argument while a child that shares the memory executes with it.

use std::{
    ffi::CString,
    fs::OpenOptions,
    os::fd::{AsRawFd, RawFd},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, bail};

/// The two texts, of one length.
const TEXTS: [&[u8]; 2] = [b"good", b"evil"];

/// What the child needs.
struct Start {
    output: RawFd,
    argv: [*const libc::c_char; 3],
    environment: [*const libc::c_char; 1],
}

/// The child: it shares its parent's memory, where the other thread goes on writing.
extern "C" fn start(of: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent waits (vfork) and keeps what this points to; plain system calls follow.
    unsafe {
        let of = &*of.cast::<Start>();
        libc::dup2(of.output, 1);
        libc::execve(of.argv[0], of.argv.as_ptr(), of.environment.as_ptr());
        libc::_exit(126)
    }
}

/// Runs `echo` that often with a word that changes; how often each word was printed, how many execs were refused and
/// how many children were killed.
///
/// # Errors
///
/// The marks' file cannot be used, or no child can be started.
pub fn swap(tries: u32, marks: &str) -> anyhow::Result<Vec<u64>> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(marks)
        .context(marks.to_owned())?;
    let program = CString::new("/bin/echo")?;
    let mut word = *b"good\0";
    let place = word.as_mut_ptr() as usize;
    let mut of = Start {
        output: file.as_raw_fd(),
        argv: [program.as_ptr(), word.as_ptr().cast(), ptr::null()],
        environment: [ptr::null()],
    };
    let stop = AtomicBool::new(false);
    let (refused, killed) = thread::scope(|scope| -> anyhow::Result<(u64, u64)> {
        let writer = scope.spawn(|| rewrite(place, &stop));
        let counts = attempts(tries, &mut of);
        stop.store(true, Ordering::Relaxed);
        if writer.join().is_err() {
            bail!("the writer panicked");
        }
        counts
    })?;
    let printed = std::fs::read(marks)?;
    let count = |text: &[u8]| {
        printed
            .split(|byte| *byte == b'\n')
            .filter(|line| *line == text)
            .count() as u64
    };
    let [good, other] = TEXTS.map(count);
    Ok(vec![good, other, refused, killed])
}

fn attempts(tries: u32, of: &mut Start) -> anyhow::Result<(u64, u64)> {
    let mut stack = vec![0u8; 1 << 18];
    let (mut refused, mut killed) = (0, 0);
    for _ in 0..tries {
        let mut status = 0;
        // SAFETY: the child has a stack of its own, and this thread waits until it has executed or ended.
        let waited = unsafe {
            let top = stack.as_mut_ptr().add(stack.len()).cast();
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let pid = libc::clone(start, top, flags, ptr::from_mut(of).cast());
            pid > 0 && libc::waitpid(pid, &raw mut status, 0) == pid
        };
        if !waited {
            return Err(std::io::Error::last_os_error()).context("clone or waitpid");
        }
        if libc::WIFSIGNALED(status) {
            killed += 1;
        } else if libc::WEXITSTATUS(status) == 126 {
            refused += 1;
        }
    }
    Ok((refused, killed))
}

/// Writes one text and then the other, with pauses long enough for a whole judgement now and then.
fn rewrite(place: usize, stop: &AtomicBool) {
    let place = place as *mut u8;
    let mut round = 0usize;
    while !stop.load(Ordering::Relaxed) {
        for (index, byte) in TEXTS[round & 1].iter().enumerate() {
            // SAFETY: the word outlives this thread, and has as many bytes as each text.
            unsafe { place.add(index).write_volatile(*byte) };
        }
        round += 1;
        for _ in 0..(round * 7919 % 50_021) {
            std::hint::spin_loop();
        }
    }
}

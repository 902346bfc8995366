//! A supervisor by ptrace: the oldest way.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    ptr,
};

use anyhow::{Context, bail};

use enforcer_seccomp::{ExecCall, target::exec_text};

/// Starts a worker below this process and follows it and everything it starts until it ends. With `calls` each of
/// them stops at every system call, and path and argv are read before an exec; without, after it.
///
/// # Errors
///
/// The worker cannot be traced.
pub fn follow(calls: bool) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--worker", "plain"])
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit());
    // SAFETY: one system call, which may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    let worker = command
        .spawn()
        .context("the traced worker cannot be started")?;
    let worker = worker.id().cast_signed();
    let mut status = 0;
    // SAFETY: waits for our child; its exec stops it.
    if unsafe { libc::waitpid(worker, &raw mut status, 0) } != worker {
        return Err(std::io::Error::last_os_error()).context("waitpid");
    }
    let options = libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_EXITKILL;
    // SAFETY: the worker is stopped and ours.
    if unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, worker, 0, options) } != 0 {
        return Err(std::io::Error::last_os_error()).context("PTRACE_SETOPTIONS");
    }
    let go_on = if calls {
        libc::PTRACE_SYSCALL
    } else {
        libc::PTRACE_CONT
    };
    let mut task = worker;
    let mut signal = 0;
    loop {
        // SAFETY: the task is stopped and ours; one that was killed meanwhile is an error that does not matter.
        unsafe { libc::ptrace(go_on, task, 0, signal) };
        // SAFETY: waits for any task of ours.
        task = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if task < 0 {
            bail!("waitpid: {}", std::io::Error::last_os_error());
        }
        signal = 0;
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if task == worker {
                return Ok(());
            }
            continue;
        }
        let stop = libc::WSTOPSIG(status);
        let event = status >> 16;
        if stop == libc::SIGTRAP | 0x80 {
            before_exec(task);
        } else if event == libc::PTRACE_EVENT_EXEC {
            std::hint::black_box(std::fs::read(format!("/proc/{task}/cmdline")).ok());
        } else if event == 0 && stop != libc::SIGTRAP && stop != libc::SIGSTOP {
            signal = stop;
        }
    }
}

/// Reads path and argv if the task stands before an exec.
fn before_exec(task: i32) {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    // SAFETY: the kernel fills a structure of this type for a task that is stopped and ours.
    let got = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGS,
            task,
            ptr::null_mut::<libc::c_void>(),
            registers.as_mut_ptr(),
        )
    };
    if got != 0 {
        return;
    }
    // SAFETY: filled by the kernel.
    let registers = unsafe { registers.assume_init() };
    let entering = registers.rax.cast_signed() == -i64::from(libc::ENOSYS);
    if entering && registers.orig_rax.cast_signed() == libc::SYS_execve {
        let call = ExecCall {
            dirfd: libc::AT_FDCWD,
            path: registers.rdi,
            argv: registers.rsi,
            flags: 0,
        };
        std::hint::black_box(exec_text(task.cast_unsigned(), &call).ok());
    }
}

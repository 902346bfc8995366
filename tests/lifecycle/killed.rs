//! A launcher that is killed between any two of its steps: nothing runs ungoverned, nothing stays, the next start is whole.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use enforcer_tests::{Session, left_over, open, patience, root};
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::launch::{Launch, launch};

/// Points at which it is killed, spread over its steps.
const POINTS: usize = 40;
/// What makes or changes something that others see.
const STEPS: [i64; 16] = [
    libc::SYS_bpf,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_flock,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_fork,
    libc::SYS_openat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_sendmsg,
    libc::SYS_bind,
];

/// Runs the launch, and kills it when its main thread is about to make the step of this number; its steps if it was not.
fn run(launch: &mut Launch, marker: &Path, kill_at: Option<usize>) -> usize {
    let command: &mut Command = &mut launch.command;
    command
        .args(["-q", "--", "touch"])
        .arg(marker)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: one plain system call.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    #[expect(
        clippy::zombie_processes,
        reason = "waited for by its number, as a tracer"
    )]
    let child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    assert!(matches!(
        waitpid(pid, None).unwrap(),
        WaitStatus::Stopped(_, Signal::SIGTRAP)
    ));
    ptrace::setoptions(
        pid,
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL,
    )
    .unwrap();
    let mut steps = 0;
    let mut signal = None;
    let mut enters = true;
    loop {
        ptrace::syscall(pid, signal.take()).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => {
                if enters && STEPS.contains(&ptrace::getregs(pid).unwrap().orig_rax.cast_signed()) {
                    if kill_at == Some(steps) {
                        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
                        assert!(matches!(
                            waitpid(pid, None).unwrap(),
                            WaitStatus::Signaled(_, Signal::SIGKILL, _)
                        ));
                        return steps;
                    }
                    steps += 1;
                }
                enters = !enters;
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(_, code) => {
                assert_eq!(code, 0);
                return steps;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn at_any_step_leaves_nothing_half_governed() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let marker = session.work().join("marker");
    let mut whole = launch(&session);
    let steps = run(&mut whole, &marker, None);
    assert!(marker.exists() && left_over(&whole.agent).is_empty());
    assert!(steps > 2 * POINTS, "{steps}");
    for point in 0..POINTS {
        let _ = fs::remove_file(&marker);
        let mut killed = launch(&session);
        let step = point * steps / POINTS;
        run(&mut killed, &marker, Some(step));
        // What waited behind it is gone with it; what it let go is governed, and ends by itself.
        let deadline = std::time::Instant::now() + patience();
        loop {
            let next = launch(&session).run(&["true"]);
            assert_eq!(next.status.code(), Some(0), "after step {step}: {next:?}");
            if left_over(&killed.agent).is_empty() {
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "after step {step}: {:?}",
                left_over(&killed.agent)
            );
        }
        if marker.exists() {
            // It was let go, so the kernel judged it, and whoever came next has written that down.
            let trail = fs::read_to_string(&killed.trail).unwrap();
            assert!(trail.contains("touch"), "after step {step}: {trail}");
        }
    }
}

//! Files by which the kernel is told to run programs of somebody's choice, or that are the machine's memory and input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

use std::{collections::BTreeSet, fs::OpenOptions};

use enforcer_tests::{Session, open, root};

/// What the kernel starts programs by, outside every cgroup, or hangs the machine by.
const SETTINGS: [&str; 10] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/kernel/randomize_va_space",
    "/sys/kernel/uevent_helper",
    "/proc/sysrq-trigger",
    "/sys/power/state",
];

/// The machine's memory, its input, what is traced of everybody.
const DEVICES: [&str; 7] = [
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/proc/kcore",
    "/dev/uinput",
    "/sys/kernel/debug/tracing/kprobe_events",
    "/sys/kernel/tracing/kprobe_events",
];

/// Which of the files the agent can open; a redirection to what is not there would make it.
fn opened(session: &Session, files: &[&str], how: &str) -> BTreeSet<String> {
    let script = files
        .iter()
        .map(|file| format!("test -e {file} && (: {how}{file}) 2>/dev/null && echo {file}\n"))
        .collect::<String>();
    let ended = session.sh(&format!("{script}echo end"));
    let text = ended.text();
    assert!(text.trim().ends_with("end"), "{}", ended.stderr);
    text.lines()
        .filter(|line| *line != "end")
        .map(str::to_owned)
        .collect()
}

/// Those that root outside the agent can open for writing; nothing is written.
fn possible(files: &[&str]) -> usize {
    files
        .iter()
        .filter(|file| OpenOptions::new().append(true).open(file).is_ok())
        .count()
}

#[test]
fn nothing_that_the_kernel_acts_upon_can_be_written() {
    if !root() {
        return;
    }
    assert!(possible(&SETTINGS) >= 3, "hardly one of them is here");
    for session in [Session::new(&open()), Session::new(&open()).as_root()] {
        let open = opened(&session, &SETTINGS, ">>");
        assert!(open.is_empty(), "as uid {}: {open:?}", session.uid());
    }
}

#[test]
fn the_machines_memory_and_input_are_closed() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    for how in [">>", "<"] {
        let open = opened(&session, &DEVICES, how);
        assert!(open.is_empty(), "{how}: {open:?}");
    }
    // The owner of the files still lacks the capability.
    let session = Session::new(&open()).as_root();
    let open = opened(&session, &DEVICES, ">>");
    assert!(
        open.iter().all(|file| file == "/dev/uinput"),
        "as root: {open:?}"
    );
}

#[test]
fn no_release_agent_can_be_set() {
    if !root() {
        return;
    }
    for session in [Session::new(&open()), Session::new(&open()).as_root()] {
        let ended = session.sh(
            "for f in $(find /sys/fs/cgroup -name release_agent 2>/dev/null); do (: >>$f) 2>/dev/null && echo $f; done; \
             mkdir c; mount -t cgroup -o memory none c 2>/dev/null && echo mounted; echo end",
        );
        assert_eq!(ended.text().trim(), "end", "{}", ended.stderr);
    }
}

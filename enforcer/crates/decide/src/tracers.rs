//! Programs that live by system calls which are refused: under every policy that does not give them back, or under one
//! that denies what is given.

use super::suggest;
use enforcer_policy::{
    Policy,
    model::{Form, GroupChoice},
};

/// Groups of system calls (`policies/built-in/syscall-groups.json`), and well-known programs that need them.
const NEED: [(&str, &[&str]); 5] = [
    (
        "ptrace",
        &[
            "strace",
            "ltrace",
            "gdb",
            "gdbserver",
            "gcore",
            "lldb",
            "lldb-server",
            "rr",
            "reptyr",
            "gdb-multiarch",
            "dlv",
            "py-spy",
            "uftrace",
        ],
    ),
    ("bpf", &["bpftrace", "bpftool"]),
    ("perf", &["perf"]),
    (
        "namespaces",
        &[
            "bwrap",
            "unshare",
            "nsenter",
            "firejail",
            "rootlesskit",
            "podman",
            "buildah",
            "newuidmap",
        ],
    ),
    (
        "mount",
        &[
            "mount",
            "umount",
            "chroot",
            "fusermount",
            "fusermount3",
            "sshfs",
        ],
    ),
];

/// Given wherever processes outside the agent are out of reach.
const GIVEN: [&str; 1] = ["ptrace"];

/// The groups that a program needs and the policy does not give.
pub fn refused(policy: &Policy, program: &[u8]) -> Vec<&'static str> {
    let syscalls = &policy.syscalls;
    let open = |group: &str| {
        let named = |choices: &[GroupChoice]| choices.iter().any(|choice| choice.name == group);
        named(&syscalls.allow) || GIVEN.contains(&group) && !named(&syscalls.deny)
    };
    NEED.iter()
        .filter(|(group, programs)| {
            programs.iter().any(|name| name.as_bytes() == program) && !open(group)
        })
        .map(|(group, _)| *group)
        .collect()
}

/// What there is to know of a program whose calls of these groups will be refused under a policy of this form.
pub fn note(program: &str, group: &str, form: Form) -> String {
    let back = suggest::in_form(form, "`syscalls.allow` gives them back");
    format!(
        "{program} needs system calls of the group `{group}`, which are refused: it may start and then fail; {back}"
    )
}

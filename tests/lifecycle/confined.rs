//! What the tree sees of the places that govern it, as an ordinary user and as root.

use std::fs;

use enforcer_tests::{Session, agent_user, cgroups, open, root};

use crate::launch::{bare, text};

/// Tries to read, list or change each place; prints `open NAME` for each that lets it.
const PRY: &str = r#"
try() { name=$1; shift; if ( "$@" ) >/dev/null 2>&1; then echo "open $name"; fi; }
lists() { test -n "$(ls -A "$1" 2>/dev/null)"; }
holds() { test -n "$(head -c1 "$1" 2>/dev/null)"; }
writes() { echo x >>"$1"; }
try cgroup-write writes "$CGROUPS/cgroup.procs"
try cgroup-make mkdir "$CGROUPS/escape-$$"
try cgroup-root-write sh -c "echo $$ >$CGROUPS/../cgroup.procs"
try cgroup-root-make mkdir "$CGROUPS/../escape-$$"
try bpf-list lists /sys/fs/bpf
try bpf-make mkdir /sys/fs/bpf/escape
try state-list lists /run/enforcer
try trail-read holds "$TRAIL"
try trail-remove rm -f "$TRAIL"
try trail-move mv "$TRAIL" "$TRAIL.moved"
try policy-write writes "$POLICY"
try sysctl-write writes /proc/sys/kernel/hostname
try sysrq-write writes /proc/sysrq-trigger
try unmount umount /sys/fs/bpf
try unmount-user unshare -rm umount /sys/fs/bpf
try setns nsenter -t 1 -m true
echo pried
"#;

fn pried(session: &Session, user: u32) -> (String, String) {
    let mut launch = bare(session, &session.policy());
    let trail = launch.trail.clone();
    launch
        .command
        .args(["--user", &user.to_string()])
        .env("CGROUPS", cgroups())
        .env("POLICY", session.policy())
        .env("TRAIL", &trail);
    let output = launch.run(&["sh", "-c", PRY]);
    assert!(
        fs::metadata(&trail).unwrap().len() > 1000,
        "the trail is whole"
    );
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_ordinary_user_reaches_none_of_them() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let (said, told) = pried(&session, agent_user().0);
    assert_eq!(said, "pried\n", "{told}");
    assert!(!told.contains("weaker: the agent has uid 0"), "{told}");
}

#[test]
fn root_reaches_none_of_them_and_is_told_what_is_weaker() {
    if !root() {
        return;
    }
    let session = Session::new(&open());
    let (said, told) = pried(&session, 0);
    assert_eq!(said, "pried\n", "{told}");
    assert!(told.contains("weaker: the agent has uid 0"), "{told}");
    assert!(told.contains("--user"), "the mend: {told}");
}

//! What the tree sees of the places that govern it, as an ordinary user and as root.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use enforcer_tests::{Session, agent_user, cgroups, loosening, open, root};
use serde_json::{Value, json};

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

/// Tries to change a policy in `$P` and its rule sets, now and for whoever reads them later, in every way; prints `done NAME`
/// for each that worked.
const REWRITE: &str = r#"
try() { name=$1; shift; if ( "$@" ) >/dev/null 2>&1; then echo "done $name"; fi; }
appends() { echo " " >>"$1"; }
mkdir -p mine/rules
echo "{}" >mine/policy.json; echo "{}" >mine/rules/own.json; echo "{}" >other
for file in policy.json rules/own.json; do
    ln -s "$P/$file" "link"
    for path in "$P/$file" "/proc/self/root$P/$file" "/proc/self/cwd/../site/policies/$file" \
                "../site/policies/$file" link; do
        try "append $path" appends "$path"
        try "truncate $path" truncate -s 0 "$path"
        try "chmod $path" chmod 666 "$path"
        try "chown $path" chown 0:65534 "$path"
        try "touch $path" touch "$path"
        try "append by its descriptor $path" sh -c "exec 3<$path; echo >>/proc/self/fd/3"
        try "hard link $path" ln -L "$path" "second"
        [ "$path" != link ] || continue
        try "rename $path" mv -f "$path" "$path.was"
        try "replace $path" mv -f other "$path"
        try "unlink $path" rm -f "$path"
        try "bind over $path" mount --bind other "$path"
        try "remount $path" mount -o remount,rw,bind "$path"
        try "unmount $path" umount -l "$path"
    done
    rm link
done
try "new file" cp other "$P/rules/git.json"
try "new directory" mkdir "$P/rules/new"
try "new link" ln -s "$PWD/other" "$P/rules/git.json"
for directory in "$P/rules" "$P" "${P%/*}"; do
    try "rename $directory" mv "$directory" "$directory.was"
    try "remove $directory" rmdir "$directory"
    try "exchange $directory" python3 -c "import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(libc.syscall(316, -100, b'mine', -100, b'$directory', 2) != 0)"
    try "bind over $directory" mount --bind mine "$directory"
    try "remount $directory" mount -o remount,rw,bind "$directory"
    try "unmount $directory" umount -l "$directory"
done
try "chmod rules" chmod 777 "$P/rules"
try "remove rules" rm -rf "$P/rules"
try "by the launcher" sh -c "echo >>/proc/$PPID/root$P/rules/own.json"
try "by init" sh -c "echo >>/proc/1/root$P/rules/own.json"
echo tried
"#;

/// The same in a user namespace of its own, where it may mount: what it sees there is its own affair.
const REWRITE_IN_A_NAMESPACE: &str = r#"
cat >inside.py <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
BIND, RECURSIVE, REMOUNT, MOVE, DETACH = 4096, 16384, 32, 8192, 2
P = os.environ["P"]
def mount(source, target, flags):
    return libc.mount(source.encode(), target.encode(), None, flags, None) == 0
def attempt(what, *words):
    try:
        what(*words)
    except OSError:
        pass
def append(file):
    with open(file, "r+") as opened:
        opened.seek(0, 2)
        opened.write(" ")
for directory in "mine", "under":
    os.mkdir(directory)
# Here, for an exec would take the capabilities away that this gives.
libc.unshare(0x10020000)
print("may" if mount("mine", "mine", BIND) else ctypes.get_errno())
places = [P + "/rules", P + "/policy.json", P, os.path.dirname(P)]
for at in places:
    libc.umount2(at.encode(), DETACH)
    mount("none", at, REMOUNT)
    mount("none", at, REMOUNT | BIND)
    mount(at, "under", MOVE)
    attempt(os.rename, at, at + ".was")
for at in places + ["/"]:
    for flags in BIND, BIND | RECURSIVE:
        if mount(at, "under", flags):
            for file in ["own.json", "policy.json", "rules/own.json", "policies/policy.json",
                         "policies/rules/own.json", P + "/policy.json", P + "/rules/own.json"]:
                attempt(append, "under/" + file)
            libc.umount2(b"under", DETACH)
for file in P + "/rules/own.json", P + "/policy.json":
    attempt(append, file)
    attempt(os.unlink, file)
END
python3 inside.py
echo tried
"#;

/// Group, mode, time and inode of all below a directory, and what the files hold.
fn whole(directory: &Path) -> Vec<(String, [u64; 3], i64, String)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mut text = String::new();
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        } else {
            text = fs::read_to_string(&path).unwrap();
        }
        let numbers = [
            metadata.gid().into(),
            metadata.mode().into(),
            metadata.ino(),
        ];
        found.push((path.display().to_string(), numbers, metadata.mtime(), text));
    }
    found.sort();
    found
}

/// Has an agent with uid 0 attack its policy, which lies with a rule set in directories of root's.
fn attacked(policy: &Value, script: &str) -> String {
    let session = Session::new(&open()).as_root();
    let site = session.directory().join("site");
    let policies = site.join("policies");
    fs::create_dir_all(policies.join("rules")).unwrap();
    let mut policy = policy.clone();
    policy["include"] = json!(["own"]);
    policy["breaker"] = json!({"denials": 1_000_000});
    let rules = json!({"version": "2", "exec": {"rules": [
        {"id": "no-env", "decision": "deny", "argv": {"program": "env"}}]}});
    for (name, text) in [("policy.json", &policy), ("rules/own.json", &rules)] {
        let file = policies.join(name);
        fs::write(&file, text.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let before = whole(&site);
    let mut launch = bare(&session, &policies.join("policy.json"));
    launch.command.args(["--user", "0"]).env("P", &policies);
    let script = format!("/usr/bin/env; echo $?\n{script}");
    let output = launch.run(&["sh", "-c", &script]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(whole(&site), before, "{out}{err}");
    let entries = fs::read_dir(session.directory()).unwrap();
    let beside = entries
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("site")
        })
        .count();
    assert_eq!(beside, 1, "{out}{err}");
    eprintln!("{err}");
    out
}

#[test]
fn root_changes_neither_its_policy_nor_its_rule_sets() {
    if !root() {
        return;
    }
    assert_eq!(attacked(&open(), REWRITE), "126\ntried\n");
    let loosened = loosening(open(), &["namespaces", "mount"]);
    let said = attacked(&loosened, REWRITE_IN_A_NAMESPACE);
    assert_eq!(said, "126\nmay\ntried\n");
}

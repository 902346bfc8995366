use super::*;
use crate::ExitStatus;
use crate::rig::{PATIENCE, Rig};

#[test]
fn all_descendants_are_in_the_cgroup() {
    let Some(rig) = Rig::new("member", "nobody") else {
        return;
    };
    let line = format!("0::/enforcer/{}\n", rig.cgroup.name());
    let out = rig.sh("cat /proc/$$/cgroup; (setsid cat /proc/self/cgroup)");
    assert_eq!(out.matches(&line).count(), 2, "{out}");
    assert_eq!(rig.cgroup.level(), 2);
    // The inode number is what the kernel calls the cgroup's id: the file handle holds that.
    assert_eq!(rig.cgroup.id(), file_handle(rig.cgroup.path()));
    let all = CgroupRoot::find().unwrap().list_existing().unwrap();
    assert!(
        all.iter()
            .any(|other| other.id() == rig.cgroup.id() && other.level() == 2)
    );
}

fn file_handle(path: &Path) -> u64 {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    let mut handle = Handle {
        bytes: 8,
        kind: 0,
        id: [0; 8],
    };
    let mut mount = 0;
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the handle has room for the eight bytes that it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    u64::from_ne_bytes(handle.id)
}

/// Twelve lines of processes, each of which forks, leaves its session and ends, for ever.
const BOMB: &str = "use POSIX; for (1..12) { next if fork; while (1) { my $p = fork; next unless defined $p; \
     exit if $p; setsid(); } } open F, '>', 'ready'; print F \"1\\n\"; close F; sleep 1000";

#[test]
fn without_the_kernels_switch_a_tree_is_killed_too() {
    let Some(rig) = Rig::new("slow-kill", "nobody") else {
        return;
    };
    let mut child = rig.start(&["/usr/bin/perl", "-e", BOMB]);
    rig.wait_for("ready");
    rig.cgroup.kill_by("no-such-file", PATIENCE).unwrap();
    assert!(rig.cgroup.is_empty().unwrap());
    assert_eq!(child.wait().unwrap(), ExitStatus::Signal(9));
}

#[test]
fn a_tree_that_forks_all_the_time_is_killed_whole() {
    let Some(rig) = Rig::new("bomb", "nobody") else {
        return;
    };
    let mut child = rig.start(&["/usr/bin/perl", "-e", BOMB]);
    rig.wait_for("ready");
    // A child cgroup with a process of its own.
    let sub = rig.cgroup.path().join("sub");
    fs::create_dir_all(sub.join("deeper")).unwrap();
    let mut sleeper = rig.start(&["sleep", "1000"]);
    fs::write(sub.join("deeper/cgroup.procs"), sleeper.pid().to_string()).unwrap();
    assert!(rig.cgroup.procs().unwrap().contains(&sleeper.pid()));
    assert!(!rig.cgroup.is_empty().unwrap());
    assert!(rig.cgroup.remove().is_err());

    rig.cgroup.kill_all(PATIENCE).unwrap();
    assert!(rig.cgroup.is_empty().unwrap());
    assert_eq!(child.wait().unwrap(), ExitStatus::Signal(9));
    assert_eq!(sleeper.wait().unwrap(), ExitStatus::Signal(9));
    assert_eq!(rig.cgroup.procs().unwrap(), []);
    rig.cgroup.remove().unwrap();
    assert!(!rig.cgroup.path().exists());
    // All of it again, on what is gone: no error.
    rig.cgroup.kill_all(PATIENCE).unwrap();
    rig.cgroup.remove().unwrap();
}

#[test]
fn a_cgroup_is_made_once_and_belongs_to_root() {
    let Some(rig) = Rig::new("once", "nobody") else {
        return;
    };
    let root = CgroupRoot::find().unwrap();
    let error = AgentCgroup::create(&root, rig.cgroup.name()).unwrap_err();
    assert!(error.to_string().contains("may still run"), "{error}");
    assert!(matches!(
        AgentCgroup::create(&root, "../x"),
        Err(LaunchError::BadCgroupId(_))
    ));
    let out = rig.sh(&format!(
        "cd {}; echo $$ > ../../cgroup.procs || echo refused; mkdir sub || echo refused; \
         echo $$ > cgroup.procs || echo refused",
        rig.cgroup.path().display()
    ));
    assert_eq!(out.matches("refused").count(), 3, "{out}");
    // Either answer is one: what counts is that the limit is what it says.
    if let crate::PidsLimit::Set(max) = rig.cgroup.limit_pids(77) {
        let file = fs::read_to_string(rig.cgroup.path().join("pids.max")).unwrap();
        assert_eq!((max, file.trim()), (77, "77"));
    }
}

const HYBRID: &str = "proc /proc proc rw 0 0\n\
    tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
    cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
    cgroup2 /mnt/my\\040groups cgroup2 rw 0 0\n\
    cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

#[test]
fn the_usual_mount_comes_first() {
    assert_eq!(
        v2_mounts(HYBRID),
        [
            Path::new("/sys/fs/cgroup/unified"),
            Path::new("/mnt/my groups")
        ]
    );
    assert_eq!(
        v2_mounts("none /x cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0"),
        [Path::new("/sys/fs/cgroup"), Path::new("/x")]
    );
    assert!(v2_mounts("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ngarbage\n\n").is_empty());
}

#[test]
fn ids_are_plain_names() {
    for good in ["a", "run-12.x_Y", &"a".repeat(64)] {
        assert!(valid_id(good), "{good}");
    }
    for bad in [
        "",
        ".",
        "..",
        "-x",
        "a/b",
        "cgroup.procs",
        "a b",
        "é",
        &"a".repeat(65),
    ] {
        assert!(!valid_id(bad), "{bad}");
    }
}

#[test]
fn the_agent_of_a_cgroup() {
    let of = |text: &str| agent_of(text);
    assert_eq!(of("0::/enforcer/a-1-b\n").as_deref(), Some("a-1-b"));
    let deeper = of("5:memory:/x\n0::/enforcer/a/b (deleted)\n");
    assert_eq!(deeper.as_deref(), Some("a"));
    assert_eq!(of("0::/user.slice/enforcer2/a\n"), None);
    assert_eq!(of("0::/enforcer\n"), None);
    assert_eq!(of("1:cpu:/enforcer/a\n"), None);
}

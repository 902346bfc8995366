//! The mounts of an agent that has uid 0.
//!
//! Such an agent has no capabilities, but it owns the files of the cgroup file systems, of `/proc/sys` and of
//! `/sys`, and its policy. It gets a mount namespace of its own in which these are read-only or covered. It cannot undo
//! that: unmounting needs a capability, and in a user namespace that it makes, these mounts are locked.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::LaunchError;
use super::cgroup::mount_points;
use super::privilege::errno;

/// Read-only for the agent where they exist: settings of the kernel, and the switch that reboots the host.
const READ_ONLY: [&str; 6] = [
    "/sys",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
];

/// One mount, prepared so that nothing is allocated after fork.
#[derive(Debug)]
enum Operation {
    /// Binds a directory on itself: what is mounted cannot be renamed or removed. All in it is as it was.
    Hold(CString),
    /// Binds a path on itself and makes it and all mounts below read-only.
    ReadOnly(CString),
    /// Covers a directory with an empty read-only one.
    CoverDirectory(CString),
    /// Covers a file with the null device.
    CoverFile(CString),
}

/// The mounts of one agent.
#[derive(Debug)]
pub struct Confinement {
    operations: Vec<Operation>,
}

impl Confinement {
    /// Plans the mounts: the cgroup file systems, `/sys/fs/bpf` and `hide` are covered, `read_only` and the
    /// kernel's settings are made read-only. The directories above `read_only` stay where they are: else the agent could
    /// rename one, and put another with other files into its place for whoever comes later.
    ///
    /// # Errors
    /// When a path of `hide` or `read_only` is missing, or `hide` would cover the directory the agent works in.
    pub fn plan(
        hide: &[PathBuf],
        read_only: &[PathBuf],
        directory: &Path,
    ) -> Result<Self, LaunchError> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(|source| LaunchError::System {
                call: "reading /proc/self/mounts",
                source,
                mend: "mount /proc",
            })?;
        let mut operations = Vec::new();
        for path in READ_ONLY.iter().map(Path::new).filter(|path| path.exists()) {
            operations.push(Operation::ReadOnly(c_path(path)?));
        }
        let read_only = read_only
            .iter()
            .map(|path| resolved(path))
            .collect::<Result<Vec<_>, _>>()?;
        for path in above(&read_only) {
            operations.push(Operation::Hold(c_path(path)?));
        }
        for path in &read_only {
            operations.push(Operation::ReadOnly(c_path(path)?));
        }
        let mut covered = kernel_places(&mounts);
        for path in hide {
            let path = resolved(path)?;
            if directory.starts_with(&path) {
                return Err(LaunchError::Confine {
                    path,
                    reason: "it must be hidden from an agent with uid 0, and the agent works in it"
                        .to_owned(),
                    mend: "start from another directory, or keep the audit trail elsewhere (--audit)",
                });
            }
            covered.push(path);
        }
        for path in outermost(covered) {
            let name = c_path(&path)?;
            operations.push(if path.is_dir() {
                Operation::CoverDirectory(name)
            } else {
                Operation::CoverFile(name)
            });
        }
        Ok(Self { operations })
    }

    /// What each operation does, for messages.
    pub(super) fn descriptions(&self) -> Vec<String> {
        self.operations
            .iter()
            .map(|operation| match operation {
                Operation::Hold(path) => format!("mount of {} on itself", path.to_string_lossy()),
                Operation::ReadOnly(path) => {
                    format!("read-only mount of {}", path.to_string_lossy())
                }
                Operation::CoverDirectory(path) | Operation::CoverFile(path) => {
                    format!("cover over {}", path.to_string_lossy())
                }
            })
            .collect()
    }

    /// Moves the calling process into a mount namespace of its own and makes the mounts. Async-signal-safe.
    ///
    /// # Errors
    /// The index of the operation that failed (`usize::MAX` for the namespace) and its errno.
    pub(super) fn enter(&self) -> Result<(), (usize, i32)> {
        let whole = |errno| (usize::MAX, errno);
        // SAFETY: numbers only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map_err(whole)?;
        // Nothing mounted here shows outside, and nothing mounted outside later shows here.
        mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE, None).map_err(whole)?;
        for (index, operation) in self.operations.iter().enumerate() {
            operation.run().map_err(|errno| (index, errno))?;
        }
        Ok(())
    }
}

impl Operation {
    fn run(&self) -> Result<(), i32> {
        match self {
            Self::Hold(path) => bind_on_itself(path),
            Self::ReadOnly(path) => {
                bind_on_itself(path)?;
                make_read_only(path)
            }
            Self::CoverDirectory(path) => {
                let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
                mount(
                    c"none",
                    path,
                    Some(c"tmpfs"),
                    flags,
                    Some(c"size=4k,mode=0555"),
                )
            }
            Self::CoverFile(path) => mount(c"/dev/null", path, None, libc::MS_BIND, None),
        }
    }
}

/// With all that is mounted below.
fn bind_on_itself(path: &std::ffi::CStr) -> Result<(), i32> {
    mount(path, path, None, libc::MS_BIND | libc::MS_REC, None)
}

fn mount(
    source: &std::ffi::CStr,
    target: &std::ffi::CStr,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
    data: Option<&std::ffi::CStr>,
) -> Result<(), i32> {
    let pointer =
        |text: Option<&std::ffi::CStr>| text.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: every pointer is null or a NUL-terminated string that outlives the call.
    checked(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(data).cast(),
        )
    })
}

/// Makes the mount at `path` and all below it read-only, whatever their other flags are.
fn make_read_only(path: &std::ffi::CStr) -> Result<(), i32> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is NUL-terminated; the structure is the kernel's own and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn checked(result: libc::c_int) -> Result<(), i32> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// Where the kernel shows cgroups and pinned eBPF objects.
fn kernel_places(mounts: &str) -> Vec<PathBuf> {
    let mut places = mount_points(mounts, |kind| matches!(kind, "cgroup" | "cgroup2" | "bpf"));
    // On a hybrid host the mount points lie below this one.
    places.push(PathBuf::from("/sys/fs/cgroup"));
    places.push(PathBuf::from("/sys/fs/bpf"));
    places.retain(|path| path.is_dir());
    places
}

/// The directories above these paths, each once, the outermost first; not the root, which stays where it is.
fn above(paths: &[PathBuf]) -> BTreeSet<&Path> {
    paths
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|path| path.parent().is_some())
        .collect()
}

/// Leaves out each path that lies below another one.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        // Sorted by components: what is below a path comes right after it.
        if !kept.last().is_some_and(|last| path.starts_with(last)) {
            kept.push(path);
        }
    }
    kept
}

fn resolved(path: &Path) -> Result<PathBuf, LaunchError> {
    fs::canonicalize(path).map_err(|source| LaunchError::Confine {
        path: path.to_owned(),
        reason: format!("it must be kept from an agent with uid 0 and cannot be found: {source}"),
        mend: "create it, or name another place",
    })
}

fn c_path(path: &Path) -> Result<CString, LaunchError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| LaunchError::Nul {
        what: path.display().to_string(),
    })
}

#[cfg(test)]
#[path = "confine_tests.rs"]
mod tests;

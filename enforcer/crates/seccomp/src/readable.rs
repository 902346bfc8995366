//! Which files the supervisor opens to see what they are, with rights that the agent does not have.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::walk;

const AT_EMPTY_PATH: libc::c_int = 0x1000; // linux/fcntl.h
const AT_EACCESS: libc::c_int = 0x200; // linux/fcntl.h
const FUSE: i64 = 0x6573_5546; // linux/magic.h

/// File systems where to open or to read a file can be an order to the kernel, or takes something away (`/proc/kmsg`);
/// linux/magic.h.
const OF_THE_KERNEL: [i64; 20] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinux
    0x4341_5d53, // smackfs
    0x4249_4e4d, // binfmt_misc
    0x1980_0202, // mqueue
    0x1cd1,      // devpts
    0x6165_676c, // pstore
    0x6e73_6673, // nsfs
    0x5049_4446, // pidfs
    0x0765_5821, // resctrl
    0x6573_5543, // fusectl
];

/// Whether the caller, as it sees just now, may execute a file that is open with `O_PATH`.
///
/// # Errors
/// `EACCES` if it may not.
pub(super) fn executable(file: &OwnedFd) -> io::Result<()> {
    // SAFETY: an empty NUL-terminated path and numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::X_OK,
            AT_EMPTY_PATH | AT_EACCESS,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether a file lies on a file system that keeps files, and not on one whose files are the kernel's or a server's.
pub(super) fn ordinary(file: &OwnedFd) -> io::Result<bool> {
    // SAFETY: an all-zero structure of plain numbers is valid; the kernel fills it.
    let kind = unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(file.as_raw_fd(), &raw mut fs) < 0 {
            return Err(io::Error::last_os_error());
        }
        fs.f_type
    };
    if kind == FUSE {
        // A virtual machine's root can be one of these: the host answers, and no process.
        return Ok(kind_of_mount(walk::stat(file)?.st_dev).as_deref() == Some("virtiofs"));
    }
    Ok(!OF_THE_KERNEL.contains(&kind))
}

/// The type of the file system with this device number, if it is mounted here.
fn kind_of_mount(device: u64) -> Option<String> {
    let wanted = format!("{}:{}", libc::major(device), libc::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (before.split(' ').nth(2)? == wanted)
            .then(|| after.split(' ').next().unwrap_or_default().to_owned())
    })
}

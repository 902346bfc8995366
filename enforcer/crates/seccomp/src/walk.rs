//! Opening a path as a stopped thread would: from its root and its working directory, with its user's rights, and as
//! itself where the path leads through `/proc/self`.
//!
//! The magic links of `/proc` lead into what another process has open. They are followed for processes of the agent
//! only: of all others the kernel would want what the agent does not have (`ptrace_may_access`).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::eyes::Eyes;
use super::target;

// linux/openat2.h
const NO_XDEV: u64 = 0x01;
const NO_MAGICLINKS: u64 = 0x02;
const IN_ROOT: u64 = 0x10;

const STATX_MNT_ID: u32 = 0x1000; // linux/stat.h
const PROC_SUPER_MAGIC: i64 = 0x9fa0; // linux/magic.h
const PROC_ROOT_INODE: u64 = 1; // linux/proc_ns.h
const MAX_LINKS: u32 = 40; // MAXSYMLINKS, linux/namei.h

/// Which directory a process has for its root: inode, device, and the mount, which another mount namespace does
/// not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    inode: u64,
    device: (u32, u32),
    mount: u64,
}

impl Root {
    /// Of this process.
    pub(super) fn ours() -> io::Result<Self> {
        Self::at(c"/")
    }

    fn of(tid: u32) -> io::Result<Self> {
        Self::at(&c_string(format!("/proc/{tid}/root"))?)
    }

    fn at(path: &std::ffi::CStr) -> io::Result<Self> {
        // SAFETY: an all-zero structure of plain numbers is valid; the path is NUL-terminated.
        let (result, stat) = unsafe {
            let mut stat: libc::statx = std::mem::zeroed();
            let mask = libc::STATX_INO | STATX_MNT_ID;
            let result = libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, mask, &raw mut stat);
            (result, stat)
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            inode: stat.stx_ino,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            mount: stat.stx_mnt_id,
        })
    }
}

fn c_string(text: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::ENOENT))
}

/// `openat2` with `O_PATH`: nothing is opened for reading, so nothing blocks and no device is woken.
fn openat2(from: RawFd, path: &CString, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero structure of plain numbers is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_PATH | libc::O_CLOEXEC | flags).cast_unsigned());
    how.resolve = resolve;
    // SAFETY: the path is NUL-terminated, the structure has the size that is given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            from,
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A file of a thread's in `/proc`, followed.
fn through_proc(tid: u32, name: &str) -> io::Result<OwnedFd> {
    let path = c_string(format!("/proc/{tid}/{name}"))?;
    openat2(libc::AT_FDCWD, &path, 0, 0)
}

/// A thread's working directory.
pub(super) fn directory(tid: u32) -> io::Result<OwnedFd> {
    through_proc(tid, "cwd")
}

/// A path in another process: where it starts and how it is followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup<'a> {
    pub tid: u32,
    /// Where a relative path starts: a descriptor of the thread's, or `AT_FDCWD`.
    pub dirfd: i32,
    pub path: &'a [u8],
    /// The last component may not be a symbolic link.
    pub no_follow: bool,
    /// An empty path stands for the descriptor.
    pub empty: bool,
}

/// Where a thread's `/` is.
#[derive(Debug)]
pub(super) enum View {
    /// Where ours is.
    Shared,
    /// Elsewhere.
    Own(OwnedFd),
}

impl View {
    /// Looks at a thread. This costs more than all the rest of a lookup: the kernel makes `/proc/TID` for it, and
    /// takes that away when the thread ends.
    pub(super) fn of(tid: u32, ours: Root) -> io::Result<Self> {
        if Root::of(tid)? == ours {
            Ok(Self::Shared)
        } else {
            through_proc(tid, "root").map(Self::Own)
        }
    }
}

/// Opens a path with `O_PATH` as the thread would see it, if its user may.
pub(super) fn open(lookup: &Lookup<'_>, view: &View, eyes: &Eyes) -> io::Result<OwnedFd> {
    let Lookup { tid, dirfd, .. } = *lookup;
    // The thread's own, which needs no rights.
    let base = || match dirfd {
        libc::AT_FDCWD => through_proc(tid, "cwd"),
        dirfd => through_proc(tid, &format!("fd/{dirfd}"))
            .map_err(|_| io::Error::from_raw_os_error(libc::EBADF)),
    };
    if lookup.path.is_empty() {
        return if lookup.empty {
            base()
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        };
    }
    let path = c_string(lookup.path)?;
    let flags = if lookup.no_follow {
        libc::O_NOFOLLOW
    } else {
        0
    };
    let absolute = lookup.path.first() == Some(&b'/');
    // `/proc/self` would be this process. What can be started below it lies behind a magic link, so a path that
    // meets none is right.
    let look = |from, resolve| eyes.look(|| openat2(from, &path, flags, resolve))?;
    let quick = match (absolute, view) {
        (true, View::Shared) => look(libc::AT_FDCWD, NO_MAGICLINKS),
        (true, View::Own(root)) => look(root.as_raw_fd(), IN_ROOT | NO_MAGICLINKS),
        (false, View::Shared) => look(base()?.as_raw_fd(), NO_MAGICLINKS),
        (false, View::Own(_)) => Err(io::Error::from_raw_os_error(libc::ELOOP)),
    };
    match quick.as_ref().map_err(io::Error::raw_os_error) {
        Err(Some(libc::ELOOP | libc::EAGAIN | libc::EXDEV)) => {}
        // Below another process's `/proc/self` this one's threads are not found.
        Err(Some(libc::ENOENT)) if names_self(lookup.path) => {}
        _ => return quick,
    }
    let root = match view {
        View::Shared => openat2(libc::AT_FDCWD, &c_string("/")?, libc::O_DIRECTORY, 0)?,
        View::Own(root) => root.try_clone()?,
    };
    let start = if absolute { root.try_clone()? } else { base()? };
    walk(lookup, &root, start, eyes)
}

/// Whether a part of the path is `self` or `thread-self`.
fn names_self(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .any(|part| part == b"self" || part == b"thread-self")
}

/// Component by component.
fn walk(lookup: &Lookup<'_>, root: &OwnedFd, start: OwnedFd, eyes: &Eyes) -> io::Result<OwnedFd> {
    let step = |from: &OwnedFd, name: &CString, flags, resolve| {
        eyes.look(|| openat2(from.as_raw_fd(), name, flags, resolve))?
    };
    let mut here = start;
    let mut links = 0;
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    let push = |ahead: &mut Vec<Vec<u8>>, path: &[u8]| {
        let parts = path.split(|byte| *byte == b'/').rev();
        ahead.extend(
            parts
                .filter(|part| !part.is_empty() && *part != b".")
                .map(<[u8]>::to_vec),
        );
    };
    push(&mut ahead, lookup.path);
    while let Some(name) = ahead.pop() {
        if name == b".." {
            if place(&here)? != place(root)? {
                here = step(&here, &c_string("..")?, libc::O_DIRECTORY, 0)?;
            }
            continue;
        }
        let component = c_string(name.clone())?;
        let next = step(&here, &component, libc::O_NOFOLLOW, 0)?;
        if stat(&next)?.st_mode & libc::S_IFMT != libc::S_IFLNK {
            here = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS || (lookup.no_follow && ahead.is_empty()) {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if on_proc(&next)? {
            if stat(&here)?.st_ino == PROC_ROOT_INODE && (name == b"self" || name == b"thread-self")
            {
                let tgid = target::who(lookup.tid)?.tgid;
                if name == b"self" {
                    push(&mut ahead, tgid.to_string().as_bytes());
                } else {
                    push(&mut ahead, format!("{tgid}/task/{}", lookup.tid).as_bytes());
                }
                continue;
            }
            // Ordinary links of `/proc` have a text; the magic ones are followed by the kernel only.
            let magic = step(&here, &component, 0, NO_MAGICLINKS)
                .is_err_and(|error| error.raw_os_error() == Some(libc::ELOOP));
            if magic {
                here = through_magic(&here, &component, lookup.tid, eyes)?;
                continue;
            }
        }
        let text = read_link(&next)?;
        if text.first() == Some(&b'/') {
            here = root.try_clone()?;
        }
        push(&mut ahead, &text);
    }
    Ok(here)
}

/// Follows a magic link in a directory of `/proc`, if the process that it shows is the agent's.
///
/// The directory stays the process's own: when that has ended it leads nowhere, whoever has its number then.
fn through_magic(
    directory: &OwnedFd,
    name: &CString,
    tid: u32,
    eyes: &Eyes,
) -> io::Result<OwnedFd> {
    let refused = || io::Error::from_raw_os_error(libc::EACCES);
    if !on_proc(directory)? || !eyes.is_agents(&cgroups_of(directory).map_err(|_| refused())?) {
        return Err(refused());
    }
    let followed = eyes.look(|| openat2(directory.as_raw_fd(), name, 0, 0))?;
    match followed.as_ref().map_err(io::Error::raw_os_error) {
        // A process may look at itself, also where its user may not, because its program cannot be read.
        Err(Some(libc::EACCES | libc::EPERM)) if is_of(directory, tid)? => {
            openat2(directory.as_raw_fd(), name, 0, 0)
        }
        _ => followed,
    }
}

/// The text of the `cgroup` file of the process or thread whose directory in `/proc`, or whose `fd` or the like
/// below that, this is.
fn cgroups_of(directory: &OwnedFd) -> io::Result<String> {
    let mut failed = io::Error::from_raw_os_error(libc::ENOENT);
    for name in ["cgroup", "../cgroup"] {
        // Nothing that is mounted over it.
        let opened = openat2(
            directory.as_raw_fd(),
            &c_string(name)?,
            libc::O_NOFOLLOW,
            NO_XDEV | NO_MAGICLINKS,
        );
        match opened {
            Ok(file) if stat(&file)?.st_mode & libc::S_IFMT == libc::S_IFREG => {
                return fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd()));
            }
            Ok(_) => {}
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Whether a directory of `/proc` is the process's of this thread, or one right below that.
fn is_of(directory: &OwnedFd, tid: u32) -> io::Result<bool> {
    let process = target::who(tid)?.tgid;
    let own = openat2(
        libc::AT_FDCWD,
        &c_string(format!("/proc/{process}"))?,
        libc::O_DIRECTORY,
        0,
    )?;
    let own = stat(&own)?;
    let same = |stat: &libc::stat| (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino);
    if same(&stat(directory)?) {
        return Ok(true);
    }
    let above = openat2(
        directory.as_raw_fd(),
        &c_string("..")?,
        libc::O_DIRECTORY,
        NO_XDEV,
    )?;
    Ok(same(&stat(&above)?))
}

/// What tells one directory of one mount from every other.
fn place(fd: &OwnedFd) -> io::Result<Root> {
    Root::at(&c_string(format!("/proc/self/fd/{}", fd.as_raw_fd()))?)
}

fn on_proc(fd: &OwnedFd) -> io::Result<bool> {
    // SAFETY: an all-zero structure of plain numbers is valid; the kernel fills it.
    unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(fd.as_raw_fd(), &raw mut fs) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(fs.f_type == PROC_SUPER_MAGIC)
    }
}

/// `fstat`, which works on an `O_PATH` descriptor.
pub(super) fn stat(fd: &impl AsRawFd) -> io::Result<libc::stat> {
    // SAFETY: an all-zero structure of plain numbers is valid; the kernel fills it.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd.as_raw_fd(), &raw mut stat) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat)
    }
}

/// The text of a symbolic link that is open with `O_PATH | O_NOFOLLOW`.
fn read_link(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    read_link_at(fd.as_raw_fd(), c"")
}

/// The path by which an open file is known, as the kernel writes it.
pub(super) fn name_of(fd: &impl AsRawFd) -> io::Result<Vec<u8>> {
    let path = c_string(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    read_link_at(libc::AT_FDCWD, &path)
}

fn read_link_at(from: RawFd, path: &std::ffi::CStr) -> io::Result<Vec<u8>> {
    let mut text = Vec::<u8>::with_capacity(libc::PATH_MAX as usize);
    // SAFETY: the kernel writes at most the room that is there, and says how much.
    unsafe {
        let length = libc::readlinkat(
            from,
            path.as_ptr(),
            text.as_mut_ptr().cast(),
            text.capacity(),
        );
        let Ok(length) = usize::try_from(length) else {
            return Err(io::Error::last_os_error());
        };
        text.set_len(length);
    }
    Ok(text)
}

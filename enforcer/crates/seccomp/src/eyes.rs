//! Looking at the file system as the agent would: with its user's rights, no capability, and no way through the
//! directories of other processes.

use std::fs;
use std::io;

/// A user's file system identity, and which processes are of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eyes {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The agent's cgroup, as `/proc/PID/cgroup` names it behind `0::`.
    pub cgroup: String,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522; // linux/capability.h

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// Effective, permitted and inheritable, 32 capabilities each.
type CapabilityWord = [u32; 3];

/// The capability sets of the calling thread.
fn capabilities() -> io::Result<[CapabilityWord; 2]> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut words = [[0; 3]; 2];
    // SAFETY: header and the two words of version 3 are valid for the call's writes.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(words)
}

fn set_capabilities(words: &[CapabilityWord; 2]) -> io::Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    // SAFETY: header and the two words of version 3 are valid for the call's reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Present ids and capabilities of the calling thread, put back when dropped.
struct Before {
    uid: libc::c_long,
    gid: libc::c_long,
    groups: Vec<u32>,
    capabilities: [CapabilityWord; 2],
}

impl Before {
    fn read() -> io::Result<Self> {
        let capabilities = capabilities()?;
        // SAFETY: without an effect for -1, the two give the present ids; the groups are written into room for
        // as many as there are.
        unsafe {
            let count = libc::syscall(libc::SYS_getgroups, 0, 0_usize);
            let mut groups = vec![0_u32; usize::try_from(count).unwrap_or(0)];
            let count = libc::syscall(libc::SYS_getgroups, groups.len(), groups.as_mut_ptr());
            groups.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
            Ok(Self {
                uid: libc::syscall(libc::SYS_setfsuid, -1),
                gid: libc::syscall(libc::SYS_setfsgid, -1),
                groups,
                capabilities,
            })
        }
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        // First: what the rest needs. The permitted ones were never given up, so it is not refused.
        let _ = set_capabilities(&self.capabilities);
        // SAFETY: numbers, and one vector's pointer and length. The real user is still root, to whom none of the
        // three is refused.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, self.uid);
            libc::syscall(libc::SYS_setfsgid, self.gid);
            libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr());
        }
        // Another file system user takes some of them away.
        let _ = set_capabilities(&self.capabilities);
    }
}

impl Eyes {
    /// Those of the calling thread, to which its own cgroup is the agent's.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn own() -> io::Result<Self> {
        let before = Before::read()?;
        let cgroups = fs::read_to_string("/proc/thread-self/cgroup")?;
        let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
        let number = |id| u32::try_from(id).map_err(io::Error::other);
        Ok(Self {
            uid: number(before.uid)?,
            gid: number(before.gid)?,
            groups: before.groups.clone(),
            cgroup: cgroup.unwrap_or("/").trim_end_matches('/').to_owned(),
        })
    }

    /// Asks a question. Only the calling thread changes, only for its length, and only in what the file system
    /// looks at: the user may not send it signals. Raw system calls, for the C library changes all threads.
    pub(super) fn look<T>(&self, question: impl FnOnce() -> T) -> io::Result<T> {
        let before = Before::read()?;
        let ids = (i64::from(self.uid), i64::from(self.gid));
        // SAFETY: numbers, and one vector's pointer and length.
        let taken = (before.uid, before.gid) == ids && before.groups == self.groups
            || unsafe {
                let groups =
                    libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr());
                libc::syscall(libc::SYS_setfsgid, self.gid);
                libc::syscall(libc::SYS_setfsuid, self.uid);
                groups == 0
                    && libc::syscall(libc::SYS_setfsuid, -1) == ids.0
                    && libc::syscall(libc::SYS_setfsgid, -1) == ids.1
            };
        if !taken {
            drop(before);
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        // Last: another user still reads what `CAP_SYS_PTRACE` gives, and root everything.
        let bare = before
            .capabilities
            .map(|[_, permitted, inheritable]| [0, permitted, inheritable]);
        let answer = set_capabilities(&bare).map(|()| question());
        drop(before);
        answer
    }

    /// Whether a text of `/proc/PID/cgroup` is that of a process of the agent.
    pub(super) fn is_agents(&self, cgroups: &str) -> bool {
        cgroups
            .lines()
            .filter_map(|line| line.strip_prefix("0::"))
            .filter_map(|path| path.strip_prefix(self.cgroup.as_str()))
            .any(|below| below.is_empty() || below.starts_with('/'))
    }

    /// Whether a process is of the agent now. Its number says nothing of the next process that has it.
    pub fn is_agents_process(&self, pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| self.is_agents(&text))
    }
}

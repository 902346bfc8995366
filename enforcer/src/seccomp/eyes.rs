//! Looking at the file system with the agent's rights, for one question.

use std::io;

/// A user's file system identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eyes {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Present ids of the calling thread, put back when dropped.
struct Before {
    uid: libc::c_long,
    gid: libc::c_long,
    groups: Vec<u32>,
}

impl Drop for Before {
    fn drop(&mut self) {
        // SAFETY: numbers, and one vector's pointer and length. The real user is still root, to whom none of the
        // three is refused.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, self.uid);
            libc::syscall(libc::SYS_setfsgid, self.gid);
            libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr());
        }
    }
}

impl Eyes {
    /// Asks a question. Only the calling thread changes, only for its length, and only in what the file system
    /// looks at: the user may not send it signals. Raw system calls, for the C library changes all threads.
    pub(super) fn look<T>(&self, question: impl FnOnce() -> T) -> io::Result<T> {
        // SAFETY: without an effect for -1, the two give the present ids; the groups are written into room for
        // as many as there are.
        let before = unsafe {
            let count = libc::syscall(libc::SYS_getgroups, 0, 0_usize);
            let mut groups = vec![0_u32; usize::try_from(count).unwrap_or(0)];
            let count = libc::syscall(libc::SYS_getgroups, groups.len(), groups.as_mut_ptr());
            groups.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
            Before {
                uid: libc::syscall(libc::SYS_setfsuid, -1),
                gid: libc::syscall(libc::SYS_setfsgid, -1),
                groups,
            }
        };
        // SAFETY: numbers, and one vector's pointer and length.
        let taken = unsafe {
            let groups =
                libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr());
            libc::syscall(libc::SYS_setfsgid, self.gid);
            // Last: with it the thread loses what lets it read everything.
            libc::syscall(libc::SYS_setfsuid, self.uid);
            groups == 0
                && libc::syscall(libc::SYS_setfsgid, -1) == i64::from(self.gid)
                && libc::syscall(libc::SYS_setfsuid, -1) == i64::from(self.uid)
        };
        if !taken {
            drop(before);
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        let answer = question();
        drop(before);
        Ok(answer)
    }
}

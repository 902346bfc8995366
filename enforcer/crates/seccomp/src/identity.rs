//! Which file it is, exactly: what the kernel can compare when the file is executed, and a digest for people.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use sha2::{Digest, Sha256};

use super::resolve::{TICK, age};
use super::walk;
use enforcer_decide::approval::FileIdentity;

/// Largest file that is digested, bytes.
pub const LARGEST: u64 = 1 << 30;
/// How often a file is read anew when it changed meanwhile.
const ATTEMPTS: u32 = 3;
const BUFFER: usize = 1 << 16;
const F_SETSIG: libc::c_int = 10; // asm-generic/fcntl.h

/// Why nobody can vouch for a file.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is too large.
    #[error("{0} bytes are more than the {LARGEST} that are digested for an approval")]
    TooLarge(u64),
    /// It is no regular file.
    #[error("it is no regular file")]
    NotRegular,
    /// Someone has it open for writing.
    #[error("a process has it open for writing; close it there")]
    OpenForWriting,
    /// It changes while it is read.
    #[error("it changes while it is read; wait until it is whole")]
    Changing,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Opens for reading what is open with `O_PATH`: the same inode, whatever its path leads to by now.
pub(super) fn reopen(file: &OwnedFd) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Reads the file and says which it is. The result holds for as long as inode, device, time of change and size
/// are the same.
pub(super) fn identify(file: &OwnedFd) -> Result<FileIdentity, IdentityError> {
    if walk::stat(file)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(IdentityError::NotRegular);
    }
    let mut open = reopen(file)?;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            open = reopen(file)?;
        }
        let before = walk::stat(&open)?;
        let size = u64::try_from(before.st_size).unwrap_or(u64::MAX);
        if size > LARGEST {
            return Err(IdentityError::TooLarge(size));
        }
        // A later change within the same tick would carry the same stamp.
        if let Some(rest) = age(&before).and_then(|age| TICK.checked_sub(age)) {
            thread::sleep(rest);
        }
        // Writing through a mapping changes the stamp only once; so nobody may have one.
        refuse_writers(&open)?;
        let sha256 = digest(&mut open, size)?;
        let after = walk::stat(&open)?;
        if state(&before) == state(&after) {
            return Ok(FileIdentity {
                path: walk::name_of(&open)?,
                device: after.st_dev,
                inode: after.st_ino,
                changed: (
                    after.st_ctime,
                    u32::try_from(after.st_ctime_nsec).unwrap_or(0),
                ),
                size,
                sha256,
            });
        }
    }
    Err(IdentityError::Changing)
}

fn state(stat: &libc::stat) -> (u64, u64, i64, i64, i64) {
    (
        stat.st_dev,
        stat.st_ino,
        stat.st_ctime,
        stat.st_ctime_nsec,
        stat.st_size,
    )
}

fn digest(file: &mut File, size: u64) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    // One byte more than there should be: a file that grows is found by its size afterwards.
    let mut bounded = file.take(size + 1);
    loop {
        match bounded.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A lease for reading can only be had on a file that nobody has open for writing (`fcntl(2)`). It is taken and
/// given back; some file systems have no leases, and there the exec itself refuses a file that is being written.
fn refuse_writers(file: &File) -> Result<(), IdentityError> {
    let fd = file.as_raw_fd();
    // Who breaks the lease in this moment has us sent a signal: one that does nothing, not SIGIO, which ends
    // the process.
    // SAFETY: numbers only, on a descriptor of our own.
    let (taken, errno) = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        let taken = libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0;
        let errno = io::Error::last_os_error().raw_os_error();
        if taken {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
        }
        (taken, errno)
    };
    if !taken && errno == Some(libc::EAGAIN) {
        return Err(IdentityError::OpenForWriting);
    }
    Ok(())
}

//! What a stopped thread wants, read from its memory and from `/proc`.
//!
//! The caller and everything that shares its memory can change it while it is read, and the thread can die and
//! its number be given to another: believe nothing before [`super::Listener::is_valid`] has said yes afterwards,
//! and nothing as the last word.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use super::notify::{ConnectCall, ExecCall};
use enforcer_decide::approval::Parent;

/// Longest path, bytes, with its NUL (`PATH_MAX`, linux/limits.h).
const PATH_MAX: usize = 4096;
/// Longest argument, bytes, with its NUL (`MAX_ARG_STRLEN`, linux/binfmts.h: 32 pages).
const ARGUMENT_PAGES: usize = 32;
/// Most bytes of arguments and of pointers to them (fs/exec.c: three quarters of `_STK_LIM`).
const ARGUMENTS_MAX: usize = 6 << 20;
/// Size of a pointer in the caller: foreign ABIs are killed.
const POINTER: u64 = 8;
/// Pages that are read by one call and kept until the next; bounds the memory.
const WINDOW: usize = 256;
/// Longest socket address, bytes (`struct __kernel_sockaddr_storage`).
const ADDRESS_MAX: u32 = 128;

/// Why a caller could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The caller is gone.
    #[error("the caller is gone")]
    Gone,
    /// A pointer leads nowhere.
    #[error("address {0:#x} cannot be read")]
    Fault(u64),
    /// The arguments are longer than the kernel takes.
    #[error("the arguments are longer than the kernel takes")]
    TooLong,
    /// The path is longer than the kernel takes.
    #[error("the path is longer than the kernel takes")]
    PathTooLong,
    /// The address of a socket has a length that the kernel does not take.
    #[error("a socket address of {0} bytes is none")]
    AddressLength(u32),
    /// The kernel does not let us read.
    #[error("the caller's memory: {0}; run as root with CAP_SYS_PTRACE")]
    System(io::Error),
}

impl ReadError {
    /// What the kernel itself answers to such arguments; `EPERM` where it is our own failure.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Gone => libc::ESRCH,
            Self::Fault(_) => libc::EFAULT,
            Self::TooLong => libc::E2BIG,
            Self::PathTooLong => libc::ENAMETOOLONG,
            Self::AddressLength(_) => libc::EINVAL,
            Self::System(_) => libc::EPERM,
        }
    }
}

/// What an exec asks for, as the kernel would read it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecText {
    /// The path, as the caller gave it.
    pub path: Vec<u8>,
    /// The arguments; one empty word if there are none, as the kernel has it (since 5.18).
    pub argv: Vec<Vec<u8>>,
}

/// Reads path and arguments of an exec. A short command takes two system calls.
///
/// # Errors
/// [`ReadError`]; its errno is what the kernel would say.
pub fn exec_text(tid: u32, call: &ExecCall) -> Result<ExecText, ReadError> {
    let mut memory = Memory::new(tid);
    memory.want(call.path);
    memory.want(call.argv);
    memory.fetch()?;
    let path = memory
        .string(call.path, PATH_MAX)?
        .ok_or(ReadError::PathTooLong)?;
    let mut argv = Vec::new();
    let mut total = path.len();
    let longest = ARGUMENT_PAGES * memory.page as usize;
    let mut next = call.argv;
    // A null pointer is an empty list here, as for the kernel.
    let mut ended = call.argv == 0;
    while !ended {
        // As many pointers as their page holds, and as the window can hold the pages they point into.
        let mut pointers = Vec::new();
        let mut room = WINDOW / 2;
        while room > 0 && !ended {
            let pointer = memory.pointer(next)?;
            next = next.wrapping_add(POINTER);
            ended = pointer == 0;
            if !ended {
                pointers.push(pointer);
                room -= 1;
            }
            if next.is_multiple_of(memory.page) {
                break;
            }
        }
        for pointer in &pointers {
            memory.want(*pointer);
        }
        if !ended {
            memory.want(next);
        }
        memory.fetch()?;
        for pointer in pointers {
            let word = memory.string(pointer, longest)?.ok_or(ReadError::TooLong)?;
            total += word.len() + 1 + POINTER as usize;
            if total > ARGUMENTS_MAX {
                return Err(ReadError::TooLong);
            }
            argv.push(word);
        }
    }
    if argv.is_empty() {
        argv.push(Vec::new());
    }
    Ok(ExecText { path, argv })
}

/// Reads the address of a connect: `struct sockaddr` of the length that the caller gave.
///
/// # Errors
/// [`ReadError`]; its errno is what the kernel would say.
pub fn socket_address(tid: u32, call: &ConnectCall) -> Result<Vec<u8>, ReadError> {
    // The kernel takes the length as a signed number.
    if call.length > ADDRESS_MAX {
        return Err(ReadError::AddressLength(call.length));
    }
    let mut memory = Memory::new(tid);
    memory.bytes(call.address, call.length as usize)
}

/// A page that has been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// It lies at this place in the text.
    At(usize),
    /// It cannot be read.
    Missing,
}

/// Pages of another process's memory, as they were when they were fetched.
struct Memory {
    tid: libc::pid_t,
    page: u64,
    /// Page addresses that the next fetch reads.
    wanted: Vec<u64>,
    /// Page addresses that are there, each with what is known of it.
    present: Vec<(u64, Page)>,
    text: Vec<u8>,
}

impl Memory {
    fn new(tid: u32) -> Self {
        // SAFETY: a number in, a number out.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Self {
            tid: tid.cast_signed(),
            page: u64::try_from(page).unwrap_or(4096),
            wanted: Vec::with_capacity(8),
            present: Vec::with_capacity(8),
            text: Vec::new(),
        }
    }

    fn page_of(&self, address: u64) -> u64 {
        address & !(self.page - 1)
    }

    fn want(&mut self, address: u64) {
        let page = self.page_of(address);
        if address != 0 && self.find(page).is_none() && !self.wanted.contains(&page) {
            self.wanted.push(page);
        }
    }

    /// The page, if it has been fetched.
    fn find(&self, page: u64) -> Option<Page> {
        let found = self.present.iter().rev().find(|(at, _)| *at == page);
        found.map(|(_, place)| *place)
    }

    /// Fetches the wanted pages, in one call unless one of them cannot be read.
    fn fetch(&mut self) -> Result<(), ReadError> {
        if self.present.len() + self.wanted.len() > WINDOW {
            self.present.clear();
            self.text.clear();
        }
        let page = self.page as usize;
        let mut wanted = std::mem::take(&mut self.wanted);
        let mut rest = wanted.as_slice();
        while let [first, behind @ ..] = rest {
            let start = self.text.len();
            self.text.reserve(rest.len() * page);
            let local = libc::iovec {
                iov_base: self.text.spare_capacity_mut().as_mut_ptr().cast(),
                iov_len: rest.len() * page,
            };
            // Each within one page, so that what cannot be read cuts exactly there.
            let pieces: Vec<libc::iovec> = rest
                .iter()
                .map(|address| libc::iovec {
                    iov_base: *address as *mut libc::c_void,
                    iov_len: page,
                })
                .collect();
            // SAFETY: the local piece is the spare room that was reserved; remote addresses are checked by the
            // kernel. There are at most WINDOW pieces, which is below UIO_MAXIOV.
            let read = unsafe {
                libc::process_vm_readv(
                    self.tid,
                    &raw const local,
                    1,
                    pieces.as_ptr(),
                    pieces.len() as libc::c_ulong,
                    0,
                )
            };
            let whole = match usize::try_from(read) {
                Ok(read) => read / page,
                Err(_) => match io::Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::EFAULT) => 0,
                    error if error.raw_os_error() == Some(libc::ESRCH) => {
                        return Err(ReadError::Gone);
                    }
                    error => return Err(ReadError::System(error)),
                },
            };
            // SAFETY: the kernel has written so many bytes behind the length.
            unsafe { self.text.set_len(start + whole * page) };
            for (index, address) in rest.iter().take(whole).enumerate() {
                self.present
                    .push((*address, Page::At(start + index * page)));
            }
            if whole == 0 {
                self.present.push((*first, Page::Missing));
                rest = behind;
            } else {
                rest = &rest[whole..];
            }
        }
        wanted.clear();
        self.wanted = wanted;
        Ok(())
    }

    /// From an address to the end of its page.
    fn tail(&mut self, address: u64) -> Result<&[u8], ReadError> {
        let page = self.page_of(address);
        if self.find(page).is_none() {
            self.want(address);
            self.fetch()?;
        }
        let Some(Page::At(place)) = self.find(page) else {
            return Err(ReadError::Fault(address));
        };
        let from = place + (address - page) as usize;
        Ok(&self.text[from..place + self.page as usize])
    }

    /// Some bytes, across pages.
    fn bytes(&mut self, address: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = address
                .checked_add(bytes.len() as u64)
                .ok_or(ReadError::Fault(u64::MAX))?;
            let tail = self.tail(at)?;
            bytes.extend_from_slice(&tail[..tail.len().min(length - bytes.len())]);
        }
        Ok(bytes)
    }

    /// The number at an address, which may cross a page.
    fn pointer(&mut self, address: u64) -> Result<u64, ReadError> {
        let tail = self.tail(address)?;
        if let Some(bytes) = tail.first_chunk() {
            return Ok(u64::from_ne_bytes(*bytes));
        }
        let bytes = self.bytes(address, POINTER as usize)?;
        let bytes = bytes.try_into().map_err(|_| ReadError::Fault(address))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// A string; `None` if it is not ended within `limit` bytes.
    fn string(&mut self, address: u64, limit: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let mut string = Vec::new();
        let mut at = address;
        loop {
            let tail = self.tail(at)?;
            let read = tail.len() as u64;
            let end = tail.iter().position(|byte| *byte == 0);
            string.extend_from_slice(&tail[..end.unwrap_or(tail.len())]);
            if string.len() >= limit {
                return Ok(None);
            }
            if end.is_some() {
                return Ok(Some(string));
            }
            at = at.checked_add(read).ok_or(ReadError::Fault(u64::MAX))?;
            // A long one: several pages by one call. What lies behind its end costs nothing but the reading.
            if string.len() > self.page as usize && self.find(at).is_none() {
                let left = (limit - string.len()).div_ceil(self.page as usize);
                for page in 0..left.min(ARGUMENT_PAGES) as u64 {
                    self.want(at.saturating_add(page * self.page));
                }
                self.fetch()?;
            }
        }
    }
}

/// Who a thread belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadOwner {
    /// Its process.
    pub tgid: u32,
    /// The parent process.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
}

/// Reads who a thread belongs to.
///
/// # Errors
/// When it is gone.
pub fn who(tid: u32) -> io::Result<ThreadOwner> {
    // The lines that are wanted stand in the first few hundred bytes; the name before them is escaped.
    let mut head = [0; 1024];
    let read = fs::File::open(format!("/proc/{tid}/status"))?.read(&mut head)?;
    let field = |name: &str| {
        head[..read]
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(name.as_bytes()))
            .and_then(|value| std::str::from_utf8(value).ok()?.split_whitespace().next())
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    Ok(ThreadOwner {
        tgid: field("Tgid:")?,
        ppid: field("PPid:")?,
        uid: field("Uid:")?,
    })
}

/// Name of the file that a process executes. For people to read: nothing is decided by it.
///
/// # Errors
/// When it is gone.
pub fn program(pid: u32) -> io::Result<Vec<u8>> {
    let path = fs::read_link(format!("/proc/{pid}/exe"))?;
    let path = path.as_os_str().as_bytes();
    // So the kernel marks a file that is gone.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = path.rsplit(|byte| *byte == b'/').next();
    Ok(name.unwrap_or_default().to_vec())
}

/// Ancestors that are shown to a person.
const ANCESTORS: usize = 16;

/// The ancestors of a process below this one, nearest first, at most sixteen. What has been handed to init is
/// its child. For people to read: nothing is decided by it.
pub fn ancestors(pid: u32) -> Vec<Parent> {
    let mut parents = Vec::new();
    let mut next = who(pid).map(|who| who.ppid);
    while let Ok(pid) = next
        && pid > 1
        && pid != std::process::id()
        && parents.len() < ANCESTORS
        && let Ok(command) = command_line(pid)
    {
        parents.push(Parent { pid, command });
        next = who(pid).map(|who| who.ppid);
    }
    parents
}

/// Longest command line that [`command_line`] gives, bytes.
const COMMAND_LINE_MAX: u64 = 4096;

/// A process's command line for people, words joined by spaces, at most 4096 bytes; its name in brackets if it
/// has none.
///
/// # Errors
/// When it is gone.
pub fn command_line(pid: u32) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline"))?
        .take(COMMAND_LINE_MAX)
        .read_to_end(&mut bytes)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.is_empty() {
        let name = fs::read(format!("/proc/{pid}/comm"))?;
        return Ok(format!("[{}]", String::from_utf8_lossy(name.trim_ascii())));
    }
    for byte in &mut bytes {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;

//! `bpf(2)`, for what aya has no call for, and for maps that are shared with other processes: they are opened by their
//! pins, and used by several threads at once.
//!
//! Source of the numbers and structures: the kernel's `include/uapi/linux/bpf.h`, as `aya-obj` has it.

use std::{
    ffi::CString,
    io,
    marker::PhantomData,
    mem::{self, MaybeUninit},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
    thread::{self, Builder},
};

use aya::{
    Pod,
    maps::{Map, MapData},
};
use aya_obj::generated::{
    BPF_F_ALLOW_MULTI, bpf_attr, bpf_cmd, bpf_link_info, bpf_map_info, bpf_map_type, bpf_prog_info,
};

use super::KernelError;

/// Calls `bpf(2)` and takes what it gives.
pub(super) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the attributes are a whole `bpf_attr`; what it points at lives in the callers' frames.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// [`bpf`] for commands that give a descriptor.
pub(super) fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(bpf(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: the command gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// No attributes yet.
pub(super) fn attributes() -> bpf_attr {
    // SAFETY: a union of plain data, for which zeros are valid and mean "not given".
    unsafe { mem::zeroed() }
}

/// A descriptor as the attributes have it.
pub(super) fn number(fd: &impl AsFd) -> u32 {
    // Descriptors are never negative.
    fd.as_fd().as_raw_fd().unsigned_abs()
}

/// Pins a map, a program or a link, so that it outlives our descriptor.
pub(super) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = attributes();
    attr.__bindgen_anon_4.bpf_fd = number(&object);
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens what is pinned.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = attributes();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf_fd(bpf_cmd::BPF_OBJ_GET, &mut attr)
}

/// What the kernel says of a map, a program or a link.
///
/// # Safety
///
/// `T` is the kernel's structure for this kind of object.
unsafe fn info<T: Copy>(object: impl AsFd) -> io::Result<T> {
    // SAFETY: plain data, for which zeros are valid.
    let mut info: T = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut attr = attributes();
    attr.info.bpf_fd = number(&object);
    attr.info.info = ptr::from_mut(&mut info) as u64;
    attr.info.info_len = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// What the kernel says of a program.
pub(super) fn program_info(program: impl AsFd) -> io::Result<bpf_prog_info> {
    // SAFETY: the structure for programs; of another kind of object the kernel fills in less of it.
    unsafe { info(program) }
}

/// The program that a link attaches.
pub(super) fn linked_program(link: impl AsFd) -> io::Result<u32> {
    // SAFETY: the structure for links.
    unsafe { info::<bpf_link_info>(link) }.map(|info| info.prog_id)
}

/// What the kernel says of a map.
pub(super) fn map_info(map: impl AsFd) -> io::Result<bpf_map_info> {
    // SAFETY: the structure for maps.
    unsafe { info(map) }
}

/// Attaches a program to a cgroup, for as long as the link is held or pinned.
pub(super) fn link(
    program: impl AsFd,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = attributes();
    attr.link_create.__bindgen_anon_1.prog_fd = number(&program);
    attr.link_create.__bindgen_anon_2.target_fd = number(&cgroup);
    attr.link_create.attach_type = attach_type;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches a program to a cgroup beside others, for as long as there are processes in it, or sockets that were made there.
pub(super) fn attach(
    program: impl AsFd,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let mut attr = attributes();
    attr.__bindgen_anon_5.__bindgen_anon_1.target_fd = number(&cgroup);
    attr.__bindgen_anon_5.attach_bpf_fd = number(&program);
    attr.__bindgen_anon_5.attach_type = attach_type;
    attr.__bindgen_anon_5.attach_flags = BPF_F_ALLOW_MULTI;
    bpf(bpf_cmd::BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// The descriptor of a map of any kind that our programs use.
pub(super) fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    let data: &MapData = match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data)
        | Map::PerCpuArray(data)
        | Map::PerfEventArray(data)
        | Map::Unsupported(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd())
}

/// A map with these keys and values.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    /// Its name in the object.
    pub name: &'static str,
    pub fd: OwnedFd,
    what: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// A map that is open; one of another shape is refused.
    pub fn new(name: &'static str, fd: OwnedFd) -> Result<Self, KernelError> {
        let info = map_info(&fd).map_err(|error| KernelError::map(name, error))?;
        let sizes = (info.key_size as usize, info.value_size as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(KernelError::map(
                name,
                format!(
                    "keys and values of {} and {} bytes, not {} and {}: of another build",
                    sizes.0,
                    sizes.1,
                    size_of::<K>(),
                    size_of::<V>()
                ),
            ));
        }
        Ok(Self {
            name,
            fd,
            what: PhantomData,
        })
    }

    fn element(&self, command: bpf_cmd, key: &K, value: u64) -> io::Result<()> {
        let mut attr = attributes();
        attr.__bindgen_anon_2.map_fd = number(&self.fd);
        attr.__bindgen_anon_2.key = ptr::from_ref(key) as u64;
        attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
        bpf(command, &mut attr).map(drop)
    }

    fn fail(&self, error: &io::Error) -> KernelError {
        KernelError::map(self.name, error)
    }

    /// The value of a key; `None` if there is none.
    pub fn get(&self, key: &K) -> Result<Option<V>, KernelError> {
        let mut value = MaybeUninit::<V>::zeroed();
        let place = value.as_mut_ptr() as u64;
        match self.element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, key, place) {
            // SAFETY: filled by the kernel; plain data.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Sets the value of a key.
    pub fn set(&self, key: &K, value: &V) -> Result<(), KernelError> {
        self.element(
            bpf_cmd::BPF_MAP_UPDATE_ELEM,
            key,
            ptr::from_ref(value) as u64,
        )
        .map_err(|error| self.fail(&error))
    }

    /// Takes a key out; whether it was there.
    pub fn remove(&self, key: &K) -> Result<bool, KernelError> {
        match self.element(bpf_cmd::BPF_MAP_DELETE_ELEM, key, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// The keys that are there. Of a map that changes meanwhile some may be missing.
    pub fn keys(&self) -> Vec<K> {
        let mut keys: Vec<K> = Vec::new();
        loop {
            let mut next = MaybeUninit::<K>::zeroed();
            let mut attr = attributes();
            attr.__bindgen_anon_2.map_fd = number(&self.fd);
            attr.__bindgen_anon_2.key = keys.last().map_or(0, |key| ptr::from_ref(key) as u64);
            attr.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
            if bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr).is_err() {
                return keys;
            }
            // SAFETY: filled by the kernel; plain data.
            keys.push(unsafe { next.assume_init() });
        }
    }
}

/// An array of maps. Each change of it waits until no program uses what was there before
/// (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c), some milliseconds; on older kernels such as 6.1 each look at it, too.
pub(super) type Maps = Table<u32, u32>;

impl Maps {
    /// The map at an index; `None` if there is none.
    pub fn inner(&self, at: u32) -> Result<Option<OwnedFd>, KernelError> {
        let Some(id) = self.get(&at)? else {
            return Ok(None);
        };
        let mut attr = attributes();
        attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id;
        bpf_fd(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr)
            .map(Some)
            .map_err(|error| self.fail(&error))
    }
}

/// A change of an array of maps.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub maps: &'a Maps,
    pub at: u32,
    /// What is put there; `None`: what is there goes.
    pub to: Option<BorrowedFd<'a>>,
}

impl Change<'_> {
    fn make(&self) -> Result<(), KernelError> {
        match self.to {
            Some(map) => self.maps.set(&self.at, &number(&map)),
            None => self.maps.remove(&self.at).map(drop),
        }
    }

    /// Makes changes, all at once: the kernel lets them wait together.
    pub fn make_all(changes: &[Self]) -> Result<(), KernelError> {
        let Some((last, others)) = changes.split_last() else {
            return Ok(());
        };
        thread::scope(|scope| {
            let others: Vec<_> = others
                .iter()
                .map(|change| {
                    let thread = Builder::new().spawn_scoped(scope, || change.make());
                    (change, thread)
                })
                .collect();
            let mut all = last.make();
            for (change, thread) in others {
                all = all.and(match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|_| {
                        Err(KernelError::map(change.maps.name, "a thread panicked"))
                    }),
                    // No thread is to be had: one after the other.
                    Err(_) => change.make(),
                });
            }
            all
        })
    }
}

/// A map that is put into an array of maps, or read by user space alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub kind: bpf_map_type,
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub entries: u32,
    pub flags: u32,
}

impl Shape {
    /// Makes it.
    pub fn create(self, name: &'static str) -> Result<OwnedFd, KernelError> {
        let mut attr = attributes();
        let size = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        attr.__bindgen_anon_1.map_type = self.kind as u32;
        attr.__bindgen_anon_1.key_size = size(self.key_bytes);
        attr.__bindgen_anon_1.value_size = size(self.value_bytes);
        attr.__bindgen_anon_1.max_entries = self.entries;
        attr.__bindgen_anon_1.map_flags = self.flags;
        // SAFETY: the part of the union that `BPF_MAP_CREATE` reads; all of it is plain data.
        let room = unsafe { &mut attr.__bindgen_anon_1.map_name };
        for (to, byte) in room.iter_mut().zip(name.bytes().take(15)) {
            *to = byte.cast_signed();
        }
        bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr).map_err(|error| KernelError::map(name, error))
    }
}

//! The cgroup's hooks for unix sockets (Linux 6.7 and later), which aya does not know: their programs are taken out of
//! the object, loaded and attached with `bpf(2)` itself.
//!
//! Source of the numbers and structures: the kernel's `include/uapi/linux/bpf.h`, as `aya-obj` has it.

use std::{
    collections::HashSet,
    ffi::CString,
    io, mem,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{
    Object,
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_info, bpf_prog_type},
};
use enforcer_common::load::Offsets;

use super::{
    KernelError,
    object::{OBJECT, chain, last_lines},
};

/// The programs and what they attach to.
const PROGRAMS: [(&str, bpf_attach_type); 2] = [
    ("unix_connect", bpf_attach_type::BPF_CGROUP_UNIX_CONNECT),
    ("unix_sendmsg", bpf_attach_type::BPF_CGROUP_UNIX_SENDMSG),
];

/// Bytes for the verifier's log.
const LOG_BYTES: usize = 1 << 22;

/// A loaded program.
#[derive(Debug)]
pub struct UnixProgram {
    /// Its name.
    pub name: &'static str,
    fd: OwnedFd,
    attach_type: bpf_attach_type,
}

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
fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(bpf(command, attr)?).map_err(io::Error::other)?;
    // SAFETY: the command gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// No attributes yet.
pub(super) fn attributes() -> bpf_attr {
    // SAFETY: a union of plain data, for which zeros are valid and mean "not given".
    unsafe { mem::zeroed() }
}

/// The data of a map of any kind that our programs use.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data)
        | Map::PerCpuArray(data)
        | Map::PerfEventArray(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}

fn refused(program: &'static str, reason: impl std::fmt::Display) -> KernelError {
    KernelError::Program {
        program,
        reason: reason.to_string(),
    }
}

/// Loads the programs, over the maps of `ebpf`. `None` where the kernel has no such hooks.
///
/// # Errors
///
/// The kernel has the hooks and refuses a program.
pub fn load(ebpf: &Ebpf, offsets: &Offsets) -> Result<Option<Vec<UnixProgram>>, KernelError> {
    let name = PROGRAMS[0].0;
    if offsets.sock_address_length == 0 {
        return Ok(None);
    }
    let fail = |error: &dyn std::error::Error| refused(name, chain(error));
    let mut object = Object::parse(OBJECT).map_err(|error| fail(&error))?;
    let features = aya::features();
    let btf_bytes = match features.btf() {
        Some(btf) => object
            .fixup_and_sanitize_btf(btf)
            .map_err(|error| fail(&error))?
            .map(aya_obj::btf::Btf::to_bytes),
        None => None,
    }
    .ok_or(KernelError::MalformedBtf)?;
    let types = load_types(&btf_bytes).map_err(|error| fail(&error))?;
    // Only ours are needed; the rest stay as they are.
    object
        .programs
        .retain(|name, _| PROGRAMS.iter().any(|(ours, _)| ours == name));
    let maps = object.maps.clone();
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object
        .relocate_maps(
            maps.iter().filter_map(|(name, map)| {
                let fd = data(ebpf.map(name)?)?.fd().as_fd().as_raw_fd();
                Some((name.as_str(), fd, map))
            }),
            &text,
        )
        .map_err(|error| fail(&error))?;
    object.relocate_calls(&text).map_err(|error| fail(&error))?;
    object.sanitize_functions(features);
    let mut loaded = Vec::new();
    for (name, attach_type) in PROGRAMS {
        match load_one(&object, name, attach_type, types.as_fd()) {
            Ok(fd) => loaded.push(UnixProgram {
                name,
                fd,
                attach_type,
            }),
            // The kernel does not know the kind of hook, and says so before the verifier looks.
            Err((error, log))
                if error.raw_os_error() == Some(libc::EINVAL) && log.trim().is_empty() =>
            {
                return Ok(None);
            }
            Err((error, log)) => return Err(refused(name, last_lines(&error, &log))),
        }
    }
    Ok(Some(loaded))
}

/// Gives the kernel the types of our programs: callbacks are checked by them.
fn load_types(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = attributes();
    let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    attr.__bindgen_anon_7.btf = bytes.as_ptr() as u64;
    attr.__bindgen_anon_7.btf_size = size;
    bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr)
}

/// Loads one program; an error comes with the verifier's log.
fn load_one(
    object: &Object,
    name: &'static str,
    attach_type: bpf_attach_type,
    types: BorrowedFd<'_>,
) -> Result<OwnedFd, (io::Error, String)> {
    let absent = || {
        let error = io::Error::new(io::ErrorKind::NotFound, "it is not in the object");
        (error, String::new())
    };
    let program = object.programs.get(name).ok_or_else(absent)?;
    let function = object
        .functions
        .get(&program.function_key())
        .ok_or_else(absent)?;
    let too_large = |error| (io::Error::other(error), String::new());
    let functions = function.func_info.func_info_bytes();
    let mut attr = attributes();
    // SAFETY: the part of the union that `BPF_PROG_LOAD` reads; all of it is plain data.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32;
    load.expected_attach_type = attach_type as u32;
    load.insns = function.instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(function.instructions.len()).map_err(too_large)?;
    load.license = program.license.as_ptr() as u64;
    load.prog_btf_fd = u32::try_from(types.as_raw_fd()).map_err(too_large)?;
    load.func_info = functions.as_ptr() as u64;
    load.func_info_cnt = function.func_info.num_info;
    load.func_info_rec_size = u32::try_from(function.func_info_rec_size).map_err(too_large)?;
    for (to, byte) in load.prog_name.iter_mut().zip(name.bytes().take(15)) {
        *to = byte.cast_signed();
    }
    let first = match bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    // Once more for the reason.
    let mut log = vec![0_u8; LOG_BYTES];
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.log_level = 1;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = LOG_BYTES as u32;
    if let Ok(fd) = bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        return Ok(fd);
    }
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    Err((first, String::from_utf8_lossy(&log[..end]).into_owned()))
}

impl UnixProgram {
    /// How many instructions the verifier walked, if the kernel says so.
    pub fn verified_instructions(&self) -> Option<u32> {
        // SAFETY: plain data, for which zeros are valid.
        let mut info: bpf_prog_info = unsafe { mem::zeroed() };
        let mut attr = attributes();
        // SAFETY: the part of the union that `BPF_OBJ_GET_INFO_BY_FD` reads.
        let get = unsafe { &mut attr.info };
        get.bpf_fd = u32::try_from(self.fd.as_raw_fd()).ok()?;
        get.info = ptr::from_mut(&mut info) as u64;
        get.info_len = u32::try_from(size_of_val(&info)).ok()?;
        bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).ok()?;
        Some(info.verified_insns)
    }

    /// Attaches the program to a cgroup, for as long as the link is held or pinned.
    ///
    /// # Errors
    ///
    /// The kernel refuses the link.
    pub fn attach(&self, cgroup: BorrowedFd<'_>) -> Result<OwnedFd, KernelError> {
        let number = |fd: RawFd| u32::try_from(fd).map_err(|error| refused(self.name, error));
        let mut attr = attributes();
        attr.link_create.__bindgen_anon_1.prog_fd = number(self.fd.as_raw_fd())?;
        attr.link_create.__bindgen_anon_2.target_fd = number(cgroup.as_raw_fd())?;
        attr.link_create.attach_type = self.attach_type as u32;
        bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr).map_err(|error| refused(self.name, error))
    }
}

/// Pins a link, so that it outlives our descriptor.
///
/// # Errors
///
/// The kernel refuses the pin.
pub fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = attributes();
    attr.__bindgen_anon_4.bpf_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

//! The cgroup's hooks for unix sockets (Linux 6.7 and later), which aya does not know: their programs are taken out of
//! the object, loaded and attached with `bpf(2)` itself.
//!
//! Source of the numbers and structures: the kernel's `include/uapi/linux/bpf.h`, as `aya-obj` has it.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use aya::Ebpf;
use aya_obj::{
    Object,
    generated::{bpf_attach_type, bpf_cmd, bpf_prog_type},
};
use enforcer_common::load::Offsets;

use super::{
    KernelError,
    attach::CgroupProgram,
    object::{OBJECT, chain, last_lines},
    sys::{attributes, bpf_fd, map_fd, program_info},
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
                let fd = map_fd(ebpf.map(name)?)?.as_raw_fd();
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
            Ok(fd) => loaded.push(UnixProgram { name, fd }),
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
        program_info(&self.fd).ok().map(|info| info.verified_insns)
    }

    /// A copy for agents' cgroups.
    pub(super) fn for_cgroups(&self) -> Result<CgroupProgram, KernelError> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|error| refused(self.name, error))?;
        CgroupProgram::new(self.name, fd).ok_or_else(|| refused(self.name, "it is unknown"))
    }
}

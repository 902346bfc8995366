//! Offsets of kernel structures' fields, from the running kernel's BTF.
//!
//! Source of the format: the kernel's `Documentation/bpf/btf.rst`. Only structures are read, each found by
//! name; members of anonymous structures and unions inside count as the outer structure's own.

use std::{collections::HashMap, path::Path};

use enforcer_common::load::Offsets;

use super::KernelError;

/// Where the kernel shows its own types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_INT: u32 = 1;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// The parts of a BTF blob that field look-ups need.
struct Blob<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    /// Byte offset of each type id in `types`.
    at: Vec<u32>,
    /// Named structures.
    structs: HashMap<&'a [u8], u32>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Blob<'a> {
    fn parse(blob: &'a [u8], wanted: &[&str]) -> Option<Self> {
        if blob.get(..2)? != [0x9f, 0xeb] {
            return None;
        }
        let header = word(blob, 4)? as usize;
        let types_at = header + word(blob, 8)? as usize;
        let types = blob.get(types_at..types_at + word(blob, 12)? as usize)?;
        let strings_at = header + word(blob, 16)? as usize;
        let strings = blob.get(strings_at..strings_at + word(blob, 20)? as usize)?;
        let mut parsed = Self {
            strings,
            types,
            at: vec![0],
            structs: HashMap::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let info = word(types, at + 4)?;
            let count = (info & 0xffff) as usize;
            let kind = info >> 24 & 0x1f;
            if kind == KIND_STRUCT {
                let name = parsed.name(word(types, at)?)?;
                if wanted.iter().any(|wanted| wanted.as_bytes() == name) {
                    parsed
                        .structs
                        .entry(name)
                        .or_insert(u32::try_from(parsed.at.len()).ok()?);
                }
            }
            parsed.at.push(u32::try_from(at).ok()?);
            at += 12
                + match kind {
                    KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                    KIND_ARRAY => 12,
                    KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
                    KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
                    _ => 0,
                };
        }
        Some(parsed)
    }

    fn name(&self, at: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(at as usize..)?;
        rest.split(|byte| *byte == 0).next()
    }

    /// Kind, member count and position of a type, modifiers and typedefs taken off.
    fn resolve(&self, mut id: u32) -> Option<(u32, usize, usize)> {
        loop {
            let at = *self.at.get(id as usize)? as usize;
            let info = word(self.types, at + 4)?;
            let kind = info >> 24 & 0x1f;
            match kind {
                // typedef, volatile, const, restrict, type tag
                8 | 9 | 10 | 11 | 18 => id = word(self.types, at + 8)?,
                _ => return Some((kind, (info & 0xffff) as usize, at)),
            }
        }
    }

    /// Bit offset of a member, and its type.
    fn member(&self, id: u32, wanted: &[u8]) -> Option<(u32, u32)> {
        let (kind, count, at) = self.resolve(id)?;
        if kind != KIND_STRUCT && kind != KIND_UNION {
            return None;
        }
        let bitfields = word(self.types, at + 4)? >> 31 == 1;
        for index in 0..count {
            let member = at + 12 + 12 * index;
            let name = self.name(word(self.types, member)?)?;
            let inner = word(self.types, member + 4)?;
            let raw = word(self.types, member + 8)?;
            let offset = if bitfields { raw & 0x00ff_ffff } else { raw };
            if name == wanted {
                return Some((offset, inner));
            }
            if name.is_empty()
                && let Some((nested, inner)) = self.member(inner, wanted)
            {
                return Some((offset + nested, inner));
            }
        }
        None
    }

    /// Byte offset of `path` (fields joined by dots) in the structure `name`.
    fn offset(&self, name: &str, path: &str) -> Result<u32, KernelError> {
        let missing = || KernelError::MissingField {
            structure: name.to_owned(),
            field: path.to_owned(),
        };
        let mut id = *self.structs.get(name.as_bytes()).ok_or_else(missing)?;
        let mut bits = 0;
        for field in path.split('.') {
            let (offset, inner) = self.member(id, field.as_bytes()).ok_or_else(missing)?;
            bits += offset;
            id = inner;
        }
        Ok(bits / 8)
    }
}

impl Blob<'_> {
    /// The offset of the first of `paths` that the structure has: kernels have given the field several names.
    fn first_of(&self, name: &str, paths: &[&str]) -> Result<u32, KernelError> {
        let mut result = Err(KernelError::MissingField {
            structure: name.to_owned(),
            field: String::new(),
        });
        for path in paths {
            result = self.offset(name, path);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// The offset of a field; 0 if this kernel has none.
    fn optional(&self, name: &str, path: &str) -> u32 {
        self.offset(name, path).unwrap_or(0)
    }
}

/// Reads the offsets of the running kernel.
///
/// # Errors
///
/// The kernel shows no BTF, it cannot be read, or a structure lacks a field that the programs need.
pub fn running_kernel() -> Result<Offsets, KernelError> {
    from_file(Path::new(VMLINUX))
}

/// Reads the offsets out of a BTF file.
///
/// # Errors
///
/// As [`running_kernel`].
pub fn from_file(path: &Path) -> Result<Offsets, KernelError> {
    let blob = std::fs::read(path).map_err(|error| KernelError::NoBtf {
        path: path.to_owned(),
        error,
    })?;
    from_blob(&blob)
}

fn from_blob(blob: &[u8]) -> Result<Offsets, KernelError> {
    let types = Blob::parse(
        blob,
        &[
            "task_struct",
            "mm_struct",
            "linux_binprm",
            "file",
            "dentry",
            "inode",
            "fs_struct",
            "nsproxy",
            "mnt_namespace",
            "vfsmount",
            "mount",
            "css_set",
            "cgroup",
            "kernfs_node",
            "socket",
            "sock",
            "pt_regs",
            "super_block",
            "cred",
            "sock_cgroup_data",
            "unix_sock",
            "unix_address",
            "bpf_sock_addr_kern",
        ],
    )
    .ok_or(KernelError::MalformedBtf)?;
    Ok(Offsets {
        task_tgid: types.offset("task_struct", "tgid")?,
        task_real_parent: types.offset("task_struct", "real_parent")?,
        task_mm: types.offset("task_struct", "mm")?,
        task_fs: types.offset("task_struct", "fs")?,
        fs_root: types.offset("fs_struct", "root.dentry")?,
        fs_root_mount: types.offset("fs_struct", "root.mnt")?,
        task_nsproxy: types.offset("task_struct", "nsproxy")?,
        task_cgroups: types.offset("task_struct", "cgroups")?,
        mm_arg_start: types.offset("mm_struct", "arg_start")?,
        mm_arg_end: types.offset("mm_struct", "arg_end")?,
        mm_exe_file: types.offset("mm_struct", "exe_file")?,
        bprm_file: types.offset("linux_binprm", "file")?,
        bprm_filename: types.offset("linux_binprm", "filename")?,
        bprm_interp: types.offset("linux_binprm", "interp")?,
        bprm_head: types.offset("linux_binprm", "buf")?,
        bprm_argc: types.offset("linux_binprm", "argc")?,
        file_dentry: types.offset("file", "f_path.dentry")?,
        file_mount: types.offset("file", "f_path.mnt")?,
        file_inode: types.offset("file", "f_inode")?,
        dentry_name: types.offset("dentry", "d_name.name")?,
        dentry_name_length: types.offset("dentry", "d_name.len")?,
        dentry_parent: types.offset("dentry", "d_parent")?,
        vfsmount_root: types.offset("vfsmount", "mnt_root")?,
        mount_vfsmount: types.offset("mount", "mnt")?,
        mount_parent: types.offset("mount", "mnt_parent")?,
        mount_point: types.offset("mount", "mnt_mountpoint")?,
        inode_mode: types.offset("inode", "i_mode")?,
        inode_uid: types.offset("inode", "i_uid")?,
        inode_gid: types.offset("inode", "i_gid")?,
        inode_nlink: types.offset("inode", "i_nlink")?,
        nsproxy_mnt_ns: types.offset("nsproxy", "mnt_ns")?,
        mnt_ns_inum: types.offset("mnt_namespace", "ns.inum")?,
        css_set_dfl_cgrp: types.offset("css_set", "dfl_cgrp")?,
        cgroup_level: types.offset("cgroup", "level")?,
        cgroup_ancestors: types.offset("cgroup", "ancestors")?,
        cgroup_kn: types.offset("cgroup", "kn")?,
        kernfs_id: types.offset("kernfs_node", "id")?,
        socket_sk: types.offset("socket", "sk")?,
        sock_protocol: types.offset("sock", "sk_protocol")?,
        sock_type: types.offset("sock", "sk_type")?,
        regs_syscall: types.offset("pt_regs", "orig_ax")?,
        regs_second: types.offset("pt_regs", "si")?,
        regs_third: types.offset("pt_regs", "dx")?,
        inode_number: types.offset("inode", "i_ino")?,
        inode_superblock: types.offset("inode", "i_sb")?,
        inode_size: types.offset("inode", "i_size")?,
        inode_changed_s: types.first_of(
            "inode",
            &["i_ctime_sec", "__i_ctime.tv_sec", "i_ctime.tv_sec"],
        )?,
        inode_changed_ns: types.first_of(
            "inode",
            &["i_ctime_nsec", "__i_ctime.tv_nsec", "i_ctime.tv_nsec"],
        )?,
        superblock_device: types.offset("super_block", "s_dev")?,
        fs_pwd: types.offset("fs_struct", "pwd.dentry")?,
        dentry_inode: types.offset("dentry", "d_inode")?,
        task_cred: types.offset("task_struct", "cred")?,
        cred_uid: types.offset("cred", "uid")?,
        unix_address: types.offset("unix_sock", "addr")?,
        unix_peer: types.offset("unix_sock", "peer")?,
        unix_address_length: types.offset("unix_address", "len")?,
        unix_address_name: types.offset("unix_address", "name")?,
        sock_uid: types.offset("sock", "sk_uid")?,
        sock_cgroup: types.offset("sock", "sk_cgrp_data.cgroup")?,
        // Younger than the oldest kernel: the programs that need them are not loaded there.
        sock_address_sock: types.optional("bpf_sock_addr_kern", "sk"),
        sock_address_user: types.optional("bpf_sock_addr_kern", "uaddr"),
        sock_address_length: types.optional("bpf_sock_addr_kern", "uaddrlen"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_an_error() {
        for blob in [
            &b""[..],
            b"\x9f\xeb",
            b"no btf at all, but long enough for a header",
        ] {
            assert!(matches!(from_blob(blob), Err(KernelError::MalformedBtf)));
        }
    }

    #[test]
    fn a_missing_file_names_itself() {
        let error = from_file(Path::new("/nonexistent/btf")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/btf"), "{error}");
    }
}

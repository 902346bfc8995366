//! What user space tells the kernel programs at load: read-only constants that the verifier sees.

/// How deep judgements nest on one CPU: LSM programs can be preempted by one another. The scratch map has
/// this many elements for each CPU.
pub const SCRATCH_LEVELS: u32 = 4;

/// Offsets of the kernel structures' fields, in bytes, from the running kernel's BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.real_parent`
    pub task_real_parent: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.fs`
    pub task_fs: u32,
    /// `fs_struct.root.dentry`
    pub fs_root: u32,
    /// `fs_struct.root.mnt`
    pub fs_root_mount: u32,
    /// `task_struct.nsproxy`
    pub task_nsproxy: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `mm_struct.arg_start`
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`
    pub mm_arg_end: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `linux_binprm.file`
    pub bprm_file: u32,
    /// `linux_binprm.filename`
    pub bprm_filename: u32,
    /// `linux_binprm.interp`
    pub bprm_interp: u32,
    /// `linux_binprm.buf`, the first bytes of the file
    pub bprm_head: u32,
    /// `linux_binprm.argc`
    pub bprm_argc: u32,
    /// `file.f_path.dentry`
    pub file_dentry: u32,
    /// `file.f_path.mnt`
    pub file_mount: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `dentry.d_name.name`
    pub dentry_name: u32,
    /// `dentry.d_name.len`
    pub dentry_name_length: u32,
    /// `dentry.d_parent`
    pub dentry_parent: u32,
    /// `vfsmount.mnt_root`
    pub vfsmount_root: u32,
    /// `mount.mnt`
    pub mount_vfsmount: u32,
    /// `mount.mnt_parent`
    pub mount_parent: u32,
    /// `mount.mnt_mountpoint`
    pub mount_point: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// `inode.i_uid`
    pub inode_uid: u32,
    /// `inode.i_gid`
    pub inode_gid: u32,
    /// `inode.i_nlink`
    pub inode_nlink: u32,
    /// `nsproxy.mnt_ns`
    pub nsproxy_mnt_ns: u32,
    /// `mnt_namespace.ns.inum`
    pub mnt_ns_inum: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.level`
    pub cgroup_level: u32,
    /// `cgroup.ancestors`
    pub cgroup_ancestors: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kernfs_id: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.sk_type`
    pub sock_type: u32,
    /// `pt_regs.orig_ax`, the system call's number
    pub regs_syscall: u32,
    /// `pt_regs.si`, its second argument
    pub regs_second: u32,
    /// `pt_regs.dx`, its third argument
    pub regs_third: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_sb`
    pub inode_superblock: u32,
    /// `inode.i_size`
    pub inode_size: u32,
    /// `inode.i_ctime_sec`; `i_ctime.tv_sec` or `__i_ctime.tv_sec` in older kernels
    pub inode_changed_s: u32,
    /// `inode.i_ctime_nsec`; `i_ctime.tv_nsec` or `__i_ctime.tv_nsec` in older kernels
    pub inode_changed_ns: u32,
    /// `super_block.s_dev`
    pub superblock_device: u32,
    /// `fs_struct.pwd.dentry`
    pub fs_pwd: u32,
    /// `dentry.d_inode`
    pub dentry_inode: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `unix_sock.addr`
    pub unix_address: u32,
    /// `unix_sock.peer`
    pub unix_peer: u32,
    /// `unix_address.len`
    pub unix_address_length: u32,
    /// `unix_address.name`
    pub unix_address_name: u32,
    /// `sock.sk_uid`
    pub sock_uid: u32,
    /// `sock.sk_cgrp_data.cgroup`
    pub sock_cgroup: u32,
    /// `bpf_sock_addr_kern.sk`
    pub sock_address_sock: u32,
    /// `bpf_sock_addr_kern.uaddr`
    pub sock_address_user: u32,
    /// `bpf_sock_addr_kern.uaddrlen`; 0 where the kernel has no cgroup hooks for unix sockets
    pub sock_address_length: u32,
}

/// What the programs are told at load, besides offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LoadSettings {
    /// Depth of the agents' cgroups below the root of the v2 hierarchy.
    pub agent_level: u32,
}

impl Offsets {
    /// The placeholder that the loader replaces.
    pub const ZERO: Self = Self {
        task_tgid: 0,
        task_real_parent: 0,
        task_mm: 0,
        task_fs: 0,
        fs_root: 0,
        fs_root_mount: 0,
        task_nsproxy: 0,
        task_cgroups: 0,
        mm_arg_start: 0,
        mm_arg_end: 0,
        mm_exe_file: 0,
        bprm_file: 0,
        bprm_filename: 0,
        bprm_interp: 0,
        bprm_head: 0,
        bprm_argc: 0,
        file_dentry: 0,
        file_mount: 0,
        file_inode: 0,
        dentry_name: 0,
        dentry_name_length: 0,
        dentry_parent: 0,
        vfsmount_root: 0,
        mount_vfsmount: 0,
        mount_parent: 0,
        mount_point: 0,
        inode_mode: 0,
        inode_uid: 0,
        inode_gid: 0,
        inode_nlink: 0,
        nsproxy_mnt_ns: 0,
        mnt_ns_inum: 0,
        css_set_dfl_cgrp: 0,
        cgroup_level: 0,
        cgroup_ancestors: 0,
        cgroup_kn: 0,
        kernfs_id: 0,
        socket_sk: 0,
        sock_protocol: 0,
        sock_type: 0,
        regs_syscall: 0,
        regs_second: 0,
        regs_third: 0,
        inode_number: 0,
        inode_superblock: 0,
        inode_size: 0,
        inode_changed_s: 0,
        inode_changed_ns: 0,
        superblock_device: 0,
        fs_pwd: 0,
        dentry_inode: 0,
        task_cred: 0,
        cred_uid: 0,
        unix_address: 0,
        unix_peer: 0,
        unix_address_length: 0,
        unix_address_name: 0,
        sock_uid: 0,
        sock_cgroup: 0,
        sock_address_sock: 0,
        sock_address_user: 0,
        sock_address_length: 0,
    };
}

impl LoadSettings {
    /// The placeholder that the loader replaces.
    pub const ZERO: Self = Self { agent_level: 0 };
}

const _: () = assert!(size_of::<Offsets>() == 4 * 62);
const _: () = assert!(size_of::<LoadSettings>() == 4);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, integers only, no padding (sizes asserted above).
    unsafe impl aya::Pod for super::Offsets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::LoadSettings {}
}

//! From an open file up to the root: its path with links followed, and whether the agent's user could change what lies
//! there.
//!
//! As the kernel's `prepend_path` (fs/d_path.c) does it, but without its locks: a directory that is renamed meanwhile
//! can give a path that never was. Only who may rename it can bring that about, and they can rename it before, too.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use enforcer_common::seat::{self, AGENT_GROUPS, NO_USER};

use crate::{
    maps::{PROFILES, offset},
    scan::masked,
    scratch::{PATH_BYTES, RESOLVED_END, Scratch},
    task::{self, read_kernel, read_kernel_or_zero},
    words,
};

/// Still on the way: too deep, if it stays so.
const CLIMB_GOING: u32 = 0;
/// At the root.
pub const CLIMB_DONE: u32 = 1;
/// At the top of a tree that is not below the root: the file has no path.
pub const CLIMB_NOWHERE: u32 = 2;
/// Something could not be read, or does not fit.
pub const CLIMB_FAILED: u32 = 3;

/// Steps at most: components of the longest path, and mounts between them.
const STEPS: u32 = PATH_BYTES as u32 / 2 + 64;

const TYPE_MASK: u16 = 0o170_000;
const DIRECTORY: u16 = 0o040_000;
const STICKY: u16 = 0o1000;
const GROUP_WRITES: u16 = 0o020;
const OTHERS_WRITE: u16 = 0o002;

/// Climbs from the file to the root. Afterwards `climb_state` says what came of it, the path ends at [`RESOLVED_END`] and
/// begins at `climb_at`, and `changeable` is set if the agent's user can change the file or a directory on the way.
/// With `home` other than 0 the root is the current process's. 0 if there is no memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn climb(scratch: *mut Scratch, seat: u32, file: u64, home: u32) -> u32 {
    if scratch.is_null() {
        return 0;
    }
    let Some(profile) = PROFILES.get_ptr(seat::slot(seat)) else {
        return 0;
    };
    let mut place = scratch;
    // SAFETY: claimed scratch memory.
    unsafe {
        words::copy(profile, ptr::addr_of_mut!((*scratch).profile));
        let mount = read_kernel_or_zero::<u64>(file + offset!(file_mount));
        (*scratch).climb_dentry = read_kernel_or_zero::<u64>(file + offset!(file_dentry));
        (*scratch).climb_mount = mount.wrapping_sub(offset!(mount_vfsmount));
        (*scratch).climb_root = 0;
        (*scratch).climb_root_mount = 0;
        if home != 0 {
            // Where a path begins for whoever wrote the policy.
            let fs = read_kernel_or_zero::<u64>(task::current_address() + offset!(task_fs));
            (*scratch).climb_root = read_kernel_or_zero::<u64>(fs + offset!(fs_root));
            (*scratch).climb_root_mount = read_kernel_or_zero::<u64>(fs + offset!(fs_root_mount));
        }
        (*scratch).climb_at = RESOLVED_END;
        (*scratch).climb_state = CLIMB_GOING;
        (*scratch).climb_crossed = 0;
        (*scratch).changeable = 0;
        bpf_loop(
            STEPS,
            step as *mut c_void,
            ptr::from_mut(&mut place).cast(),
            0,
        );
    }
    1
}

extern "C" fn step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: the context is the address of the working memory, which is claimed.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let dentry = (*scratch).climb_dentry;
        let mount = (*scratch).climb_mount;
        if dentry == 0 {
            (*scratch).climb_state = CLIMB_FAILED;
            return 1;
        }
        // What a mount lies on is covered by it.
        if (*scratch).climb_crossed == 0 {
            look(scratch, dentry);
        }
        (*scratch).climb_crossed = 0;
        if dentry == (*scratch).climb_root
            && mount + offset!(mount_vfsmount) == (*scratch).climb_root_mount
        {
            (*scratch).climb_state = CLIMB_DONE;
            return 1;
        }
        let top =
            read_kernel_or_zero::<u64>(mount + offset!(mount_vfsmount) + offset!(vfsmount_root));
        if dentry == top {
            let above = read_kernel_or_zero::<u64>(mount + offset!(mount_parent));
            if above == mount {
                (*scratch).climb_state = CLIMB_DONE;
                return 1;
            }
            (*scratch).climb_dentry = read_kernel_or_zero::<u64>(mount + offset!(mount_point));
            (*scratch).climb_mount = above;
            (*scratch).climb_crossed = 1;
            return 0;
        }
        let parent = read_kernel_or_zero::<u64>(dentry + offset!(dentry_parent));
        if parent == dentry {
            (*scratch).climb_state = CLIMB_NOWHERE;
            return 1;
        }
        let length = read_kernel_or_zero::<u32>(dentry + offset!(dentry_name_length));
        let name = read_kernel_or_zero::<u64>(dentry + offset!(dentry_name));
        let end = (*scratch).climb_at;
        if length == 0 || length > 255 || length + 1 > end {
            (*scratch).climb_state = CLIMB_FAILED;
            return 1;
        }
        let at = masked(scratch, end - length, PATH_BYTES as u32 - 1);
        let length = masked(scratch, length, 255);
        let bytes = ptr::addr_of_mut!((*scratch).resolved).cast::<u8>();
        let read =
            bpf_probe_read_kernel(bytes.add(at as usize).cast(), length, name as *const c_void);
        if read != 0 {
            (*scratch).climb_state = CLIMB_FAILED;
            return 1;
        }
        let at = masked(scratch, at.wrapping_sub(1), PATH_BYTES as u32 - 1);
        *bytes.add(at as usize) = b'/';
        (*scratch).climb_at = at;
        (*scratch).climb_dentry = parent;
    }
    0
}

/// Notes whether the agent's user can change what lies at `dentry`: as who owns it, or by the bits of its mode. In a
/// sticky directory only who owns an entry can change it. Root owns everything, so of uid 0 only what everybody can change
/// is noted.
#[inline(always)]
fn look(scratch: *mut Scratch, dentry: u64) {
    // SAFETY: claimed scratch memory.
    let user = unsafe { (*scratch).profile.user };
    if user == NO_USER {
        return;
    }
    let inode = read_kernel_or_zero::<u64>(dentry + offset!(dentry_inode));
    let Some(mode) = read_kernel::<u16>(inode + offset!(inode_mode)) else {
        // SAFETY: claimed scratch memory.
        unsafe { (*scratch).changeable = 1 };
        return;
    };
    let owner = read_kernel_or_zero::<u32>(inode + offset!(inode_uid));
    let sticky = mode & STICKY != 0 && mode & TYPE_MASK == DIRECTORY;
    let mut can = user != 0 && owner == user;
    if !sticky {
        can |= mode & OTHERS_WRITE != 0;
        if user != 0 && mode & GROUP_WRITES != 0 {
            let group = read_kernel_or_zero::<u32>(inode + offset!(inode_gid));
            can |= is_own_group(scratch, group);
        }
    }
    if can {
        // SAFETY: claimed scratch memory.
        unsafe { (*scratch).changeable = 1 };
    }
}

/// Whether the agent's user is in a group. Without a branch for each of its groups: the verifier would follow all ways through
/// them, at each step of the climb.
#[inline(always)]
fn is_own_group(scratch: *const Scratch, group: u32) -> bool {
    // SAFETY: claimed scratch memory.
    let profile = unsafe { &(*scratch).profile };
    if profile.group_count > AGENT_GROUPS as u32 {
        return true;
    }
    let mut own = 0;
    let mut at = 0;
    while at < AGENT_GROUPS {
        // Places that hold no group hold a number that none has.
        let differs = profile.groups[at] ^ group;
        // The highest bit is set for zero alone.
        own |= differs.wrapping_sub(1) & !differs;
        at += 1;
    }
    own >> 31 != 0
}

//! Readers of kernel structures, by the offsets of the running kernel.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_task, bpf_get_current_task_btf,
        bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
        bpf_probe_read_user_str,
    },
};

use enforcer_common::{event::PROGRAM_MAX, seat::SlotState};

use crate::maps::{AGENTS, Marked, constant, mark_of, offset, seat_of, settings};

/// Reads a plain value at a kernel address.
#[inline(always)]
pub fn read_kernel<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the source; the destination is ours.
    let result = unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    // SAFETY: filled by the helper.
    (result == 0).then(|| unsafe { value.assume_init() })
}

/// Reads a plain number, or bytes, at a kernel address: zeros if they cannot be read, which the helper fills in. There is
/// one way out of it, where the verifier would follow [`read_kernel`]'s two through all that comes after.
#[inline(always)]
pub fn read_kernel_or_zero<T: Number>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the source; the destination is ours, and filled in either case.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
        value.assume_init()
    }
}

/// The same value, of which the verifier knows nothing any more: neither what it is, nor on which way it came to be.
#[inline(always)]
pub fn forgotten<T: Number>(value: T) -> T {
    read_kernel_or_zero(ptr::addr_of!(value) as u64)
}

/// What a global function gave, of which the compiler knows nothing: the verifier does not look into it again, and wants to
/// see for itself that a result is in its bounds.
#[inline(always)]
pub fn unproven(given: u32) -> u32 {
    // SAFETY: a number on the stack.
    unsafe { ptr::read_volatile(ptr::addr_of!(given)) }
}

/// What zeros are a value of.
pub trait Number: Copy {}

impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for [u8; 16] {}

/// Reads a plain value at a user address of the current process.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the source; the destination is ours.
    let result = unsafe {
        bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    // SAFETY: filled by the helper.
    (result == 0).then(|| unsafe { value.assume_init() })
}

/// Reads a NUL-terminated string of the current process: its length with the NUL, or a negative errno. A longer
/// one is cut.
#[inline(always)]
pub fn read_user_str(target: *mut c_void, size: u32, address: u64) -> i64 {
    // SAFETY: the helper checks the source; callers own `size` bytes at `target`.
    let read = unsafe { bpf_probe_read_user_str(target, size, address as *const c_void) };
    // For an empty string kernels such as 6.1 and 6.12 say 0 (`strncpy_from_user_nofault` counts the NUL only
    // behind other bytes), newer ones 1.
    if read == 0 { 1 } else { read }
}

/// The slot of the current task by its cgroup: the agent's own, or one below it.
#[inline(always)]
pub fn slot_by_cgroup() -> Option<u32> {
    let level = constant(&settings().agent_level) as i32;
    // SAFETY: a plain helper call.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
    if id == 0 {
        return None;
    }
    // SAFETY: entries are only ever added and removed as a whole.
    unsafe { AGENTS.get(id) }.copied()
}

/// The current task, as the verifier trusts it.
#[inline(always)]
pub fn current() -> *mut task_struct {
    // SAFETY: a plain helper call.
    unsafe { bpf_get_current_task_btf() }
}

/// Where the current task belongs.
#[derive(Clone, Copy)]
pub enum Membership {
    /// To no agent.
    Outside,
    /// To the agent of this seat.
    Inside(u32),
    /// It carries the mark of the agent of this seat, but its cgroup is another.
    Escaped(u32),
    /// It carries the mark of an agent that is gone.
    Orphaned,
}

/// The current task's agent: by cgroup, else by mark.
#[inline(always)]
pub fn membership() -> Membership {
    if let Some(slot) = slot_by_cgroup() {
        return match seat_of(slot) {
            Some(seat) => Membership::Inside(seat),
            None => Membership::Orphaned,
        };
    }
    match mark_of(current()) {
        Marked::No => Membership::Outside,
        Marked::Gone => Membership::Orphaned,
        Marked::Of(slot) => match seat_of(slot) {
            Some(seat) => Membership::Escaped(seat),
            None => Membership::Orphaned,
        },
    }
}

/// Address of the current task, for reads.
#[inline(always)]
pub fn current_address() -> u64 {
    // SAFETY: a plain helper call.
    unsafe { bpf_get_current_task() }
}

/// Process id of a task's parent; 0 if it cannot be read.
#[inline(always)]
pub fn parent_pid(task: u64) -> u32 {
    read_kernel::<u64>(task + offset!(task_real_parent))
        .and_then(|parent| read_kernel::<u32>(parent + offset!(task_tgid)))
        .unwrap_or(0)
}

/// Puts the name of the file that a task executes, with a NUL, at `target`: nothing but NULs for a task without one.
///
/// # Safety
///
/// `target` points at [`PROGRAM_MAX`] bytes of the caller's.
#[inline(always)]
pub unsafe fn program_of(task: u64, target: *mut u8) {
    // What cannot be read is 0, and nothing can be read there.
    let mm = read_kernel_or_zero::<u64>(task + offset!(task_mm));
    let file = read_kernel_or_zero::<u64>(mm + offset!(mm_exe_file));
    let dentry = read_kernel_or_zero::<u64>(file + offset!(file_dentry));
    let name = read_kernel_or_zero::<u64>(dentry + offset!(dentry_name));
    // SAFETY: by contract; the helper checks the source, and fills the target with zeros where it fails.
    unsafe {
        bpf_probe_read_kernel_str(target.cast(), PROGRAM_MAX as u32, name as *const c_void);
    }
}

/// The file tree that a task sees: its mount namespace and its root directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// Inode number of the mount namespace.
    pub mount_namespace: u32,
    /// Address of the root directory.
    pub root: u64,
}

/// The tree of a task; zeros for what cannot be read.
#[inline(always)]
pub fn tree_of(task: u64) -> Tree {
    Tree {
        mount_namespace: read_kernel::<u64>(task + offset!(task_nsproxy))
            .and_then(|nsproxy| read_kernel::<u64>(nsproxy + offset!(nsproxy_mnt_ns)))
            .and_then(|namespace| read_kernel::<u32>(namespace + offset!(mnt_ns_inum)))
            .unwrap_or(0),
        root: read_kernel::<u64>(task + offset!(task_fs))
            .and_then(|fs| read_kernel::<u64>(fs + offset!(fs_root)))
            .unwrap_or(0),
    }
}

/// Whether the current task sees the file tree that the agent was started in. Before it was, every tree is.
#[inline(always)]
pub fn in_home_tree(state: *mut SlotState) -> bool {
    // SAFETY: fields of a map value, written once.
    let home = unsafe {
        Tree {
            mount_namespace: (*state).mount_namespace,
            root: (*state).root,
        }
    };
    home.root == 0 || tree_of(current_address()) == home
}

/// Keeps the current task's file tree as the agent's.
#[inline(always)]
pub fn set_home_tree(state: *mut SlotState) {
    let tree = tree_of(current_address());
    // SAFETY: fields of a map value; only the operator's exec comes here, once.
    unsafe {
        (*state).mount_namespace = tree.mount_namespace;
        (*state).root = tree.root;
    }
}

/// The slot that a task's default-hierarchy cgroup belongs to.
#[inline(always)]
pub fn slot_of_task_cgroup(task: u64) -> Option<u32> {
    let css_set = read_kernel::<u64>(task + offset!(task_cgroups))?;
    slot_of_cgroup(read_kernel::<u64>(css_set + offset!(css_set_dfl_cgrp))?)
}

/// The slot that a cgroup of the default hierarchy belongs to.
#[inline(always)]
pub fn slot_of_cgroup(cgroup: u64) -> Option<u32> {
    let wanted = constant(&settings().agent_level);
    let level = read_kernel::<u32>(cgroup + offset!(cgroup_level))?;
    if level < wanted {
        return None;
    }
    let ancestor = read_kernel::<u64>(cgroup + offset!(cgroup_ancestors) + 8 * u64::from(wanted))?;
    let node = read_kernel::<u64>(ancestor + offset!(cgroup_kn))?;
    let id = read_kernel::<u64>(node + offset!(kernfs_id))?;
    // SAFETY: entries are only ever added and removed as a whole.
    unsafe { AGENTS.get(id) }.copied()
}

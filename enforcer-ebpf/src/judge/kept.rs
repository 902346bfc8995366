//! What a script is called, kept from the judgement of its own file for those of its interpreter.
//!
//! The kernel looks at a script first and then at what runs it; from then on nothing leads back to the script but the name
//! that the caller gave. `bprm_check_security` runs for each file, so where LSM programs run, the second judgement knows the
//! script's own path. Another exec of the same thread begins with a file of its own, so what is kept is never an earlier one's.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, task_struct},
    helpers::generated::{bpf_probe_read_kernel, bpf_task_storage_delete, bpf_task_storage_get},
    macros::btf_map,
};

use crate::{
    judge::climb::{CLIMB_DONE, climb},
    maps::{TaskStorage, offset},
    scan::masked,
    scratch::{PATH_BYTES, RESOLVED_END, Scratch},
    task::{self, read_kernel, read_kernel_or_zero},
};

/// The script that each task is about to run.
#[btf_map]
static SCRIPTS: TaskStorage<Kept> = TaskStorage::new();

/// A script's path, links followed.
#[repr(C)]
struct Kept {
    /// Bytes of the path; all ones if there is a script and its path cannot be read.
    len: u32,
    /// Whether the agent's user can change it.
    changeable: u32,
    path: [u8; PATH_BYTES],
}

/// Stands for a path that cannot be read.
const UNREADABLE: u32 = u32::MAX;
/// What a script begins with (`#!`), as the kernel has it in memory.
const MARK: u16 = u16::from_le_bytes(*b"#!");

#[inline(always)]
fn map() -> *mut c_void {
    ptr::from_ref(&SCRIPTS).cast_mut().cast()
}

/// Keeps the script that an exec begins with. False if there is one and no room for it.
#[inline(always)]
pub fn keep(bprm: u64, scratch: *mut Scratch, seat: u32, home: bool) -> bool {
    let filename = read_kernel_or_zero::<u64>(bprm + offset!(bprm_filename));
    let interp = read_kernel_or_zero::<u64>(bprm + offset!(bprm_interp));
    if filename != interp {
        // A later file: what runs the script.
        return true;
    }
    let task = task::current();
    if read_kernel::<u16>(bprm + offset!(bprm_head)) != Some(MARK) {
        // SAFETY: a plain helper call on the current task.
        unsafe { bpf_task_storage_delete(map(), task.cast()) };
        return true;
    }
    climb(
        scratch,
        seat,
        read_kernel_or_zero::<u64>(bprm + offset!(bprm_file)),
        u32::from(home),
    );
    // SAFETY: the current task is a trusted pointer; a value that is not null is the task's own; lengths are masked.
    unsafe {
        let kept = storage(task, BPF_LOCAL_STORAGE_GET_F_CREATE as u64);
        if kept.is_null() {
            return false;
        }
        (*kept).changeable = ptr::read_volatile(ptr::addr_of!((*scratch).changeable));
        (*kept).len = UNREADABLE;
        if ptr::read_volatile(ptr::addr_of!((*scratch).climb_state)) == CLIMB_DONE {
            let at = masked(
                scratch,
                ptr::read_volatile(ptr::addr_of!((*scratch).climb_at)),
                PATH_BYTES as u32 - 1,
            );
            let len = masked(
                scratch,
                RESOLVED_END.wrapping_sub(at),
                PATH_BYTES as u32 - 1,
            );
            let from = ptr::addr_of!((*scratch).resolved) as u64 + u64::from(at);
            let to = ptr::addr_of_mut!((*kept).path);
            if bpf_probe_read_kernel(to.cast(), len, from as *const c_void) == 0 {
                (*kept).len = len;
            }
        } else {
            let inode = read_kernel_or_zero::<u64>(
                read_kernel_or_zero::<u64>(bprm + offset!(bprm_file)) + offset!(file_inode),
            );
            if read_kernel::<u32>(inode + offset!(inode_nlink)) == Some(0) {
                // It has no name in the file system, and was judged as what has none.
                (*kept).len = 0;
            }
        }
    }
    true
}

/// Takes what was kept into working memory, for a judgement of what runs the script.
#[inline(always)]
pub fn take(scratch: *mut Scratch) {
    // SAFETY: as in `keep`.
    unsafe {
        (*scratch).own_len = 0;
        (*scratch).own_changeable = 0;
        let kept = storage(task::current(), 0);
        if kept.is_null() {
            return;
        }
        (*scratch).own_len = (*kept).len;
        (*scratch).own_changeable = (*kept).changeable;
        bpf_probe_read_kernel(
            ptr::addr_of_mut!((*scratch).own_path).cast(),
            PATH_BYTES as u32,
            ptr::addr_of!((*kept).path).cast(),
        );
    }
}

/// What is kept of a task; null for nothing.
///
/// # Safety
///
/// The task is a trusted pointer.
#[inline(always)]
unsafe fn storage(task: *mut task_struct, flags: u64) -> *mut Kept {
    // SAFETY: by contract; without an initial value a new one is zeros.
    unsafe { bpf_task_storage_get(map(), task.cast(), ptr::null_mut(), flags) }.cast()
}

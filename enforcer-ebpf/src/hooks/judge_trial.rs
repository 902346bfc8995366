//! The judgement of an exec that nobody makes: for tests, which hold millions of them against user space.
//!
//! Never attached. `BPF_PROG_TEST_RUN` calls it with the addresses of what an exec would be in the memory of the caller;
//! the structures that [`judge_exec`] reads are put together in working memory. From there on the code is that of
//! `exec_committed`: forms, names, groups, the walk over user memory. Not tried by it: the tracepoint itself and where
//! the kernel keeps the arguments.

use core::{ffi::c_void, ptr};

use aya_ebpf::programs::RawTracePointContext;

use crate::{
    judge::facts::{Facts, judge_exec},
    maps::{offset, seat_of, slot_state},
    scratch::{PATH_BYTES, Scratch, claim_scratch, release_scratch},
    task::read_user_str,
};

/// Room for one structure, bytes; all offsets that are used lie below it.
const STRUCTURE: usize = 1 << 10;
/// Where the structures and texts lie in the working memory.
const FILE: usize = STRUCTURE;
const DENTRY: usize = 2 * STRUCTURE;
const INODE: usize = 3 * STRUCTURE;
/// Directories, the nearest first, and behind them the root.
const PARENT: usize = 4 * STRUCTURE;
const FILENAME: usize = 6 * STRUCTURE;
const INTERP: usize = FILENAME + PATH_BYTES;
const NAME: usize = INTERP + PATH_BYTES;
/// Names of the directories: the last of the room.
const ABOVE: usize = NAME + 256;

/// Arguments: slot, path, interpreter (0 for none), the file's own name, its links, first and end of the argument
/// area, the names of two directories above the file (empty for none), whether it lies in a tree. The result has the
/// decision in its lowest byte, then the cause, then in two bytes the rank; all ones if there was nothing to judge with.
///
/// Not by aya's macro, which drops the result.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn judge_trial(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let Some(scratch) = claim_scratch() else {
        return -1;
    };
    let result = judge(&ctx, scratch);
    release_scratch(scratch);
    result
}

#[inline(always)]
fn judge(ctx: &RawTracePointContext, scratch: *mut Scratch) -> i32 {
    let Some(seat) = seat_of(ctx.arg::<u64>(0) as u32) else {
        return -1;
    };
    let Some(state) = slot_state(seat) else {
        return -1;
    };
    // SAFETY: claimed scratch memory; all places lie in the room for gathered arguments.
    let bprm = unsafe {
        (*scratch).from_kernel = 0;
        (*scratch).own_len = 0;
        (*scratch).own_changeable = 0;
        let room = ptr::addr_of_mut!((*scratch).gather).cast::<u8>();
        let filename = room.add(FILENAME);
        let interp = room.add(INTERP);
        let name = room.add(NAME);
        if !read(filename, PATH_BYTES as u32, ctx.arg(1)) || !read(name, 256, ctx.arg(3)) {
            return -1;
        }
        let script = ctx.arg::<u64>(2);
        if script != 0 && !read(interp, PATH_BYTES as u32, script) {
            return -1;
        }
        let runs = if script != 0 { interp } else { filename };
        put(room, 0, offset!(bprm_filename), filename as u64);
        put(room, 0, offset!(bprm_interp), runs as u64);
        put(room, 0, offset!(bprm_file), room.add(FILE) as u64);
        put(room, FILE, offset!(file_dentry), room.add(DENTRY) as u64);
        put(room, FILE, offset!(file_inode), room.add(INODE) as u64);
        put(room, DENTRY, offset!(dentry_name), name as u64);
        if !tree(ctx, room, name) {
            return -1;
        }
        let links = room.add(INODE + (offset!(inode_nlink) as usize & (STRUCTURE - 4)));
        ptr::write_volatile(links.cast::<u32>(), ctx.arg::<u64>(4) as u32);
        room as u64
    };
    let facts = Facts {
        bprm,
        args: ctx.arg(5),
        args_end: ctx.arg(6),
    };
    let judgement = judge_exec(&facts, seat, state, scratch);
    (judgement.decision & 0xff | (judgement.cause & 0xff) << 8 | judgement.rank << 16) as i32
}

/// Puts the file into a tree: two directories at most, and the root, or the file is the top of a tree itself.
///
/// # Safety
///
/// As [`put`]; `name` is the file's own.
#[inline(always)]
unsafe fn tree(ctx: &RawTracePointContext, room: *mut u8, name: *mut u8) -> bool {
    // SAFETY: by contract; all places lie in the room for gathered arguments.
    unsafe {
        set_length(room, DENTRY, name);
        let mount = room.add(INODE + STRUCTURE / 2) as u64;
        put(
            room,
            FILE,
            offset!(file_mount),
            mount + offset!(mount_vfsmount),
        );
        put(room, INODE + STRUCTURE / 2, offset!(mount_parent), mount);
        let mut below = DENTRY;
        let mut at = 0;
        while at < 2 {
            let text = room.add(ABOVE + at * 256);
            if !read(text, 256, ctx.arg(7 + at)) {
                return false;
            }
            if *text != 0 {
                let here = PARENT + at * (STRUCTURE / 2);
                put(room, here, offset!(dentry_name), text as u64);
                set_length(room, here, text);
                put(room, below, offset!(dentry_parent), room.add(here) as u64);
                below = here;
            }
            at += 1;
        }
        let root = PARENT + STRUCTURE;
        let top = if ctx.arg::<u64>(9) == 0 {
            // Its own parent, and not a mount's root.
            room.add(below) as u64
        } else {
            room.add(root) as u64
        };
        put(room, below, offset!(dentry_parent), top);
        put(
            room,
            INODE + STRUCTURE / 2,
            offset!(mount_vfsmount) + offset!(vfsmount_root),
            room.add(root) as u64,
        );
    }
    true
}

/// Sets the length of a name.
///
/// # Safety
///
/// As [`put`].
#[inline(always)]
unsafe fn set_length(room: *mut u8, structure: usize, name: *mut u8) {
    // SAFETY: by contract; 256 bytes belong to the name.
    unsafe {
        let mut length = 0u32;
        while length < 255 && *name.add(length as usize) != 0 {
            length += 1;
        }
        let place =
            room.add(structure + (offset!(dentry_name_length) as usize & (STRUCTURE / 2 - 4)));
        ptr::write_volatile(place.cast::<u32>(), length);
    }
}

/// Reads a string of the caller.
///
/// # Safety
///
/// `size` bytes belong to `target`.
#[inline(always)]
unsafe fn read(target: *mut u8, size: u32, address: u64) -> bool {
    read_user_str(target.cast(), size, address) > 0
}

/// Sets a pointer of the structure at `structure`.
///
/// # Safety
///
/// `room` is the working memory for gathered arguments.
#[inline(always)]
unsafe fn put(room: *mut u8, structure: usize, offset: u64, value: u64) {
    // SAFETY: the offset is masked; kernel structures keep pointers aligned.
    unsafe {
        let place = room.add(structure + (offset as usize & (STRUCTURE - 8)));
        ptr::write_volatile(place.cast::<u64>(), value);
    }
}

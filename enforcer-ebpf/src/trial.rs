//! The judgement of an exec that nobody makes: for tests, which hold millions of them against user space.
//!
//! Never attached. `BPF_PROG_TEST_RUN` calls it with the addresses of what an exec would be in the memory of the caller;
//! the structures that [`judge_exec`] reads are put together in working memory. From there on the code is that of
//! `exec_committed`: forms, names, groups, the walk over user memory. Not tried by it: the tracepoint itself and where
//! the kernel keeps the arguments.

use core::{ffi::c_void, ptr};

use aya_ebpf::{helpers::generated::bpf_probe_read_user_str, programs::RawTracePointContext};

use crate::{
    event::slot_state,
    facts::{Facts, judge_exec},
    maps::{PATH_BYTES, Scratch, claim_scratch, offset, release_scratch},
};

/// Room for one structure, bytes; all offsets that are used lie below it.
const STRUCTURE: usize = 1 << 10;
/// Where the structures and texts lie in the working memory.
const FILE: usize = STRUCTURE;
const DENTRY: usize = 2 * STRUCTURE;
const INODE: usize = 3 * STRUCTURE;
const FILENAME: usize = 4 * STRUCTURE;
const INTERP: usize = FILENAME + PATH_BYTES;
const NAME: usize = INTERP + PATH_BYTES;

/// Arguments: slot, path, interpreter (0 for none), the file's own name, its links, first and end of the argument
/// area. The result has the decision in its lowest byte, then the cause, then in two bytes the rank; all ones if there
/// was nothing to judge with.
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
    let slot = ctx.arg::<u64>(0) as u32;
    let Some(state) = slot_state(slot) else {
        return -1;
    };
    // SAFETY: claimed scratch memory; all places lie in the room for gathered arguments.
    let bprm = unsafe {
        (*scratch).from_kernel = 0;
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
        let links = room.add(INODE + (offset!(inode_nlink) as usize & (STRUCTURE - 4)));
        ptr::write_volatile(links.cast::<u32>(), ctx.arg::<u64>(4) as u32);
        room as u64
    };
    let facts = Facts {
        bprm,
        args: ctx.arg(5),
        args_end: ctx.arg(6),
    };
    let judgement = judge_exec(&facts, slot, state, scratch);
    (judgement.decision & 0xff | (judgement.cause & 0xff) << 8 | judgement.rank << 16) as i32
}

/// Reads a string of the caller.
///
/// # Safety
///
/// `size` bytes belong to `target`.
#[inline(always)]
unsafe fn read(target: *mut u8, size: u32, address: u64) -> bool {
    // SAFETY: by contract.
    unsafe { bpf_probe_read_user_str(target.cast(), size, address as *const _) > 0 }
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

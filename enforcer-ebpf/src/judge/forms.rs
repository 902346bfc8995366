//! The ways to look at an exec, put together: names and paths of its program, its script, the file behind its links,
//! `argv[0]`.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};

use crate::{
    judge::{
        climb::{CLIMB_DONE, CLIMB_NOWHERE},
        walk::{Judge, add_form},
    },
    scan::{base_start, masked, text_is_path},
    scratch::{
        CHUNK_BYTES, FORM_DOT_SLASH, FORM_FIRST, FORM_PATH, FORM_TRUSTED, Form, GATHER_BYTES,
        KIND_SCRIPT, KIND_TRUSTED, KIND_WINDING, PATH_BYTES, RESOLVED_END, Scratch,
    },
    task::read_user_str,
};

/// Looks for the script's own name among the arguments that the kernel put before the caller's.
pub extern "C" fn find_script(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the frame that called `bpf_loop`.
    unsafe {
        let scratch = (*judge).scratch;
        let at = (*scratch).search_at;
        if at >= (*scratch).search_end {
            return 1;
        }
        let text = ptr::addr_of_mut!((*scratch).text).cast::<c_void>();
        let read = if (*scratch).from_kernel != 0 {
            bpf_probe_read_kernel_str(text, CHUNK_BYTES as u32, at as *const c_void)
        } else {
            read_user_str(text, CHUNK_BYTES as u32, at)
        };
        if read <= 0 || read >= CHUNK_BYTES as i64 {
            return 1;
        }
        let next = at + read as u64;
        if read as u32 == (*scratch).path_len + 1 && text_is_path(scratch) {
            (*scratch).search_found = next;
            return 1;
        }
        // A word before the script's name: an option of the interpreter, or a script in between.
        let args_len = ((*scratch).search_end - next) as u32;
        if index < 4 && next < (*scratch).search_end {
            let start = base_start(
                scratch,
                ptr::addr_of!((*scratch).text),
                (read - 1) as u32 & (CHUNK_BYTES as u32 - 1),
            );
            let name_len = (read as u32 - 1).wrapping_sub(start);
            if name_len <= 255
                && let Some(name) = keep_name(scratch, index, start, name_len)
            {
                add_form(
                    scratch,
                    Form {
                        name,
                        args: next - 1,
                        args_len,
                        name_len,
                        flags: 0,
                        base: 0,
                    },
                );
            }
        }
        (*scratch).search_at = next;
    }
    0
}

/// Keeps a word's base name where the forms can point at it; its address, if it could be read.
#[inline(always)]
fn keep_name(scratch: *mut Scratch, index: u32, start: u32, name_len: u32) -> Option<u64> {
    let index = masked(scratch, index, 3);
    let start = masked(scratch, start, CHUNK_BYTES as u32 - 1);
    let name_len = masked(scratch, name_len, 255);
    // SAFETY: all three are masked; the room lies behind the gathered arguments, four names of 256 bytes.
    unsafe {
        let room = ptr::addr_of_mut!((*scratch).gather)
            .cast::<u8>()
            .add(GATHER_BYTES + ((index as usize) << 8));
        let source = ptr::addr_of!((*scratch).text)
            .cast::<u8>()
            .add(start as usize);
        (bpf_probe_read_kernel(room.cast(), name_len, source.cast()) == 0).then_some(room as u64)
    }
}

/// The forms of the path as given: the one that allow rules see, and the base name.
#[inline(always)]
pub fn add_path_forms(scratch: *mut Scratch, path_len: u32, base: u32, args: u64, args_len: u32) {
    // SAFETY: address of a field of a map value.
    let path = unsafe { ptr::addr_of!((*scratch).path) } as u64;
    let base_form = Form {
        name: path + u64::from(base),
        args,
        args_len,
        name_len: path_len.wrapping_sub(base),
        flags: 0,
        base: 0,
    };
    // SAFETY: reads the first bytes of a map value.
    let dotted = base == 0 && unsafe { (*scratch).path[0] } != b'.';
    if Scratch::is(scratch, KIND_TRUSTED) {
        add_form(
            scratch,
            Form {
                flags: FORM_FIRST | FORM_TRUSTED,
                ..base_form
            },
        );
    } else {
        let first = if Scratch::is(scratch, KIND_WINDING) {
            0
        } else {
            FORM_FIRST
        };
        add_form(
            scratch,
            Form {
                name: path,
                args,
                args_len,
                name_len: path_len,
                flags: if dotted {
                    first | FORM_DOT_SLASH
                } else {
                    first
                },
                base: 0,
            },
        );
        add_form(scratch, base_form);
    }
}

/// The interpreter's forms of a script: its path and its base name.
#[inline(always)]
fn add_interp_forms(scratch: *mut Scratch, interp: u64, args: u64, args_len: u32) {
    // SAFETY: map value; the read is bounded by the array.
    unsafe {
        let read = bpf_probe_read_kernel_str(
            ptr::addr_of_mut!((*scratch).interp).cast(),
            PATH_BYTES as u32,
            interp as *const c_void,
        );
        if read <= 0 {
            (*scratch).unreadable = 1;
            return;
        }
        let len = (read - 1) as u32 & (PATH_BYTES as u32 - 1);
        let base = base_start(scratch, ptr::addr_of!((*scratch).interp), len);
        let address = ptr::addr_of!((*scratch).interp) as u64;
        add_form(
            scratch,
            Form {
                name: address + u64::from(base),
                args,
                args_len,
                name_len: len.wrapping_sub(base),
                flags: 0,
                base: 0,
            },
        );
        add_form(
            scratch,
            Form {
                name: address,
                args,
                args_len,
                name_len: len,
                flags: 0,
                base: 0,
            },
        );
    }
}

/// Adds a form of a name. A path's base name is the form `name_form`.
#[inline(always)]
fn add_named(scratch: *mut Scratch, name: u64, name_len: u32, flags: u32, args: (u64, u32)) {
    // SAFETY: claimed scratch memory.
    let base = unsafe { ptr::read_volatile(ptr::addr_of!((*scratch).name_form)) };
    add_form(
        scratch,
        Form {
            name,
            args: args.0,
            args_len: args.1,
            name_len,
            flags,
            base,
        },
    );
}

/// Kinds of further forms.
pub const FURTHER: u32 = 5;

/// Adds the further forms of one kind. A callback: what the verifier learns in one kind it does not carry into the next.
pub extern "C" fn add_further(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the frame that called `bpf_loop`; its pointers are map values.
    unsafe {
        let scratch = (*judge).scratch;
        match index {
            0 => {
                if Scratch::is(scratch, KIND_SCRIPT) {
                    let (args, args_len) = rest(scratch);
                    add_interp_forms(scratch, (*scratch).scan, args, args_len);
                }
            }
            1 => add_file_forms(scratch),
            2 => add_argv0_forms(scratch),
            3 => add_script_forms(scratch),
            _ => add_given_form(scratch),
        }
    }
    0
}

/// The arguments behind `argv[0]`.
#[inline(always)]
fn rest(scratch: *mut Scratch) -> (u64, u32) {
    // SAFETY: claimed scratch memory.
    unsafe { ((*scratch).rest, (*scratch).rest_len) }
}

/// The arguments that the caller gave: of a script those behind its name.
#[inline(always)]
fn first_args(scratch: *mut Scratch) -> (u64, u32) {
    // SAFETY: claimed scratch memory.
    unsafe { ((*scratch).first_args, (*scratch).first_args_len) }
}

/// The forms of the file that runs: its own name, and its path with links followed.
#[inline(always)]
fn add_file_forms(scratch: *mut Scratch) {
    // SAFETY: claimed scratch memory.
    unsafe {
        (*scratch).name_form = (*scratch).form_count;
        let name = ptr::addr_of!((*scratch).exe_name) as u64;
        add_named(scratch, name, (*scratch).exe_len, 0, rest(scratch));
        // A file without a name in the file system has no path either.
        if (*scratch).links == 0 {
            return;
        }
        let state = ptr::read_volatile(ptr::addr_of!((*scratch).climb_state));
        if state == CLIMB_DONE {
            let at = ptr::read_volatile(ptr::addr_of!((*scratch).climb_at));
            let path = ptr::addr_of!((*scratch).resolved) as u64 + u64::from(at);
            let len = RESOLVED_END.wrapping_sub(at);
            add_named(scratch, path, len, FORM_PATH, rest(scratch));
        } else if state != CLIMB_NOWHERE {
            (*scratch).unreadable = 1;
        }
    }
}

/// The forms of the script itself, where its own path is known: its name and that path.
#[inline(always)]
fn add_script_forms(scratch: *mut Scratch) {
    // SAFETY: claimed scratch memory.
    unsafe {
        let len = ptr::read_volatile(ptr::addr_of!((*scratch).own_len));
        if len == 0 || !Scratch::is(scratch, KIND_SCRIPT) {
            return;
        }
        if len >= PATH_BYTES as u32 {
            (*scratch).unreadable = 1;
            return;
        }
        let base = base_start(scratch, ptr::addr_of!((*scratch).own_path), len);
        let path = ptr::addr_of!((*scratch).own_path) as u64;
        let args = first_args(scratch);
        add_named(
            scratch,
            path + u64::from(base),
            len.wrapping_sub(base),
            0,
            args,
        );
        add_named(scratch, path, len, 0, args);
    }
}

/// The forms of `argv[0]`, where it is short enough for a name: its base name, and all of it where that is a path.
#[inline(always)]
fn add_argv0_forms(scratch: *mut Scratch) {
    // SAFETY: claimed scratch memory.
    unsafe {
        let len = ptr::read_volatile(ptr::addr_of!((*scratch).argv0_len));
        if len > 255 {
            return;
        }
        let base = base_start(scratch, ptr::addr_of!((*scratch).argv0), len);
        let name_len = len.wrapping_sub(base);
        let name = ptr::addr_of!((*scratch).argv0) as u64;
        if name_len > 0 && name_len <= 255 {
            (*scratch).name_form = (*scratch).form_count;
            add_named(scratch, name + u64::from(base), name_len, 0, rest(scratch));
            if base != 0 {
                add_named(scratch, name, len, FORM_PATH, rest(scratch));
            }
        }
    }
}

/// The path as given, of a program whose first form is its base name.
#[inline(always)]
fn add_given_form(scratch: *mut Scratch) {
    if !Scratch::is(scratch, KIND_TRUSTED) {
        return;
    }
    // SAFETY: claimed scratch memory.
    unsafe {
        (*scratch).name_form = (*scratch).first_form;
        let path = ptr::addr_of!((*scratch).path) as u64;
        add_named(
            scratch,
            path,
            (*scratch).path_len,
            FORM_PATH,
            first_args(scratch),
        );
    }
}

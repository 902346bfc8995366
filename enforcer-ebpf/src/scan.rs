//! Looking through strings, and values that the compiler and the verifier must not know too much of.

use core::{ffi::c_void, mem::offset_of, ptr};

use aya_ebpf::helpers::generated::bpf_loop;

use crate::{
    judge::walk::{CHUNKS_MAX, Judge},
    scratch::{CHUNK_BYTES, PATH_BYTES, Scratch},
    task::read_user_str,
};

/// What the search for a base name works on, on the stack of the frame that runs it.
#[repr(C)]
struct Search {
    scratch: *mut Scratch,
    bytes: *const u8,
    len: u32,
    reserved: u32,
}

extern "C" fn find_base(index: u32, context: *mut c_void) -> i64 {
    let search = context.cast::<Search>();
    // SAFETY: `search` lies on the stack of the frame that called `bpf_loop`; its pointers are map values, and at
    // least `PATH_BYTES` of scratch memory follow `bytes`.
    unsafe {
        let len = (*search).len;
        if index >= len {
            return 1;
        }
        let at = len - 1 - index;
        if *(*search).bytes.add(at as usize & (PATH_BYTES - 1)) != b'/' {
            return 0;
        }
        (*(*search).scratch).base = at + 1;
    }
    1
}

/// Where the base name of `bytes[..len]` starts. Looks at the last 256 bytes: no longer name exists. A callback,
/// because the verifier would walk every round of a loop, at each place that it stands in.
#[inline(always)]
pub fn base_start<const SIZE: usize>(
    scratch: *mut Scratch,
    bytes: *const [u8; SIZE],
    len: u32,
) -> u32 {
    let mut search = Search {
        scratch,
        bytes: bytes.cast(),
        len,
        reserved: 0,
    };
    // SAFETY: the scratch memory is claimed. Through it the verifier forgets which round the search ended in.
    unsafe {
        ptr::write_volatile(ptr::addr_of_mut!((*scratch).base), 0);
        bpf_loop(
            256,
            find_base as *mut c_void,
            ptr::from_mut(&mut search).cast(),
            0,
        );
        ptr::read_volatile(ptr::addr_of!((*scratch).base))
    }
}

/// A value below a bound that is all ones. The verifier keeps a mask, but older ones lose a comparison that
/// the compiler makes on a copy; and the compiler must not know that the mask changes nothing.
#[inline(always)]
pub fn masked(scratch: *mut Scratch, value: u32, mask: u32) -> u32 {
    // SAFETY: the scratch memory is claimed.
    unsafe { launder(ptr::addr_of_mut!((*scratch).base), value) & mask }
}

/// Passes a value through memory that neither the compiler nor the verifier looks into.
///
/// # Safety
///
/// `place` is a field of claimed scratch memory.
#[inline(always)]
pub unsafe fn launder(place: *mut u32, value: u32) -> u32 {
    // SAFETY: by contract.
    unsafe {
        ptr::write_volatile(place, value);
        ptr::read_volatile(place)
    }
}

extern "C" fn find_end(_index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame.
    unsafe {
        let scratch = (*judge).scratch;
        let target = ptr::addr_of_mut!((*scratch).text).cast::<c_void>();
        let read = read_user_str(target, CHUNK_BYTES as u32, (*scratch).scan);
        if read <= 0 {
            (*scratch).unreadable = 1;
            return 1;
        }
        if read < CHUNK_BYTES as i64 {
            (*scratch).scan_len += read as u64;
            return 1;
        }
        // Cut: the helper puts a NUL where the next byte would have been.
        (*scratch).scan_len += CHUNK_BYTES as u64 - 1;
        (*scratch).scan += CHUNK_BYTES as u64 - 1;
    }
    0
}

/// Length of the user string at `address`, its NUL included; 0 if it cannot be read.
#[inline(always)]
pub fn user_string_len(judge: *mut Judge, address: u64) -> u64 {
    // SAFETY: as in `walk_text`.
    unsafe {
        let scratch = (*judge).scratch;
        (*scratch).scan = address;
        (*scratch).scan_len = 0;
        bpf_loop(CHUNKS_MAX, find_end as *mut c_void, judge.cast(), 0);
        if (*scratch).unreadable != 0 {
            return 0;
        }
        (*scratch).scan_len
    }
}

/// A comparison of the text with the path, on the stack of the frame that runs it.
#[repr(C)]
struct Comparison {
    scratch: *mut Scratch,
    len: u32,
    differs: u32,
}

/// Bytes of a path that are compared, all ones.
const COMPARED: u32 = 255;

extern "C" fn compare_word(index: u32, context: *mut c_void) -> i64 {
    let comparison = context.cast::<Comparison>();
    // SAFETY: `comparison` lies on the stack of the frame that called `bpf_loop`; its pointer is a map value, of which both
    // arrays are longer than the index can be, and aligned (below).
    unsafe {
        let len = (*comparison).len;
        let done = index * 8;
        if done >= len {
            return 1;
        }
        let at = masked((*comparison).scratch, index, COMPARED / 8) as usize;
        let scratch = (*comparison).scratch;
        let differing = ptr::read(ptr::addr_of!((*scratch).text).cast::<u64>().add(at))
            ^ ptr::read(ptr::addr_of!((*scratch).path).cast::<u64>().add(at));
        let left = len - done;
        // The lower bytes are the first ones.
        let wanted = if left < 8 {
            (1 << (8 * left)) - 1
        } else {
            u64::MAX
        };
        if differing & wanted == 0 {
            return 0;
        }
        (*comparison).differs = 1;
    }
    1
}

const _: () = assert!(
    offset_of!(Scratch, text).is_multiple_of(8) && offset_of!(Scratch, path).is_multiple_of(8)
);

/// Whether `text[..len]` starts with the first 255 bytes of `path`.
#[inline(always)]
pub fn text_is_path(scratch: *mut Scratch) -> bool {
    // SAFETY: claimed scratch memory; the context lives for the call.
    unsafe {
        let mut comparison = Comparison {
            scratch,
            len: (*scratch).path_len.min(COMPARED),
            differs: 0,
        };
        bpf_loop(
            COMPARED.div_ceil(8),
            compare_word as *mut c_void,
            ptr::from_mut(&mut comparison).cast(),
            0,
        );
        comparison.differs == 0
    }
}

//! The judgement of one exec: its forms, each over the groups that its name leads to.
//!
//! Loops of unknown length are `bpf_loop` callbacks, so that the verifier looks at each body once and the
//! whole argument area can be walked, however long.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str,
};
use enforcer_common::{
    rule::{
        HEAD_GROUPS, HEAD_NAME_MAX, HeadKey, PATH_DESCRIPTOR, PATH_TRUSTED, PolicyHeader,
        RANK_TRANSPARENT, SHARED_GROUPS,
    },
    table::{Cursor, Group, GroupRef, Segment, hash_start, hash_step, word},
};

use crate::maps::{
    CHUNK_BYTES, FORM_DOT_SLASH, FORM_FIRST, FORM_TRUSTED, FORMS, Form, HEADS, JOBS,
    PATH_BYTES, Scratch, TABLES, TEXT_BYTES,
};

/// Bytes that one callback walks; the verifier unrolls this many.
const BLOCK: u32 = 32;
/// Longest argument area, in chunks: the kernel gives arguments and environment 6 MiB.
const CHUNKS_MAX: u32 = (6 << 20) / CHUNK_BYTES as u32 + 2;

/// What a judgement needs, on the stack of its first frame; callbacks only read it.
#[repr(C)]
pub struct Judge {
    /// Working memory.
    pub scratch: *mut Scratch,
    /// The slot's policy.
    pub header: *const PolicyHeader,
    /// The slot.
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
}

/// One group on its way over the text, on the stack of the frame that walks it.
#[repr(C)]
struct Walk {
    scratch: *mut Scratch,
    segment: *const Segment,
    group: Group,
    cursor: Cursor,
    at: u32,
    end: u32,
}

extern "C" fn walk_block(_index: u32, context: *mut c_void) -> i64 {
    let walk = context.cast::<Walk>();
    // SAFETY: `walk` lies on the stack of the frame that called `bpf_loop`; its pointers are map values.
    unsafe {
        let text = ptr::addr_of!((*(*walk).scratch).text).cast::<u8>();
        let segment = &*(*walk).segment;
        let group = (*walk).group;
        let mut cursor = (*walk).cursor;
        let mut at = (*walk).at;
        let end = (*walk).end;
        let mut step = 0;
        while step < BLOCK && at < end && cursor.state != 0 {
            let byte = *text.add(at as usize & (TEXT_BYTES - 1));
            group.step(segment, &mut cursor, byte);
            at += 1;
            step += 1;
        }
        (*walk).cursor = cursor;
        (*walk).at = at;
        i64::from(at >= end || cursor.state == 0)
    }
}

/// Runs one group over `text[at..end]`.
#[inline(always)]
fn walk_text(
    scratch: *mut Scratch,
    segment: *const Segment,
    group: Group,
    cursor: Cursor,
    at: u32,
    end: u32,
) -> Cursor {
    let mut walk = Walk {
        scratch,
        segment,
        group,
        cursor,
        at,
        end,
    };
    if at < end && cursor.state != 0 {
        // SAFETY: the callback has the signature that the helper expects and only touches `walk`.
        unsafe {
            bpf_loop(
                (end - at) / BLOCK + 1,
                walk_block as *mut c_void,
                ptr::from_mut(&mut walk).cast(),
                0,
            );
        }
    }
    walk.cursor
}

extern "C" fn run_job(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values.
    unsafe {
        let scratch = (*judge).scratch;
        if index >= (*scratch).job_count || index >= JOBS as u32 {
            return 1;
        }
        let job = ptr::addr_of_mut!((*scratch).jobs[index as usize]);
        let Some(segment) = TABLES.get_ptr((*job).segment) else {
            (*scratch).unreadable = 1;
            return 1;
        };
        let start = (*job).start;
        (*job).start = 0;
        let end = (*scratch).text_end;
        let cursor = walk_text(scratch, segment, (*job).group, (*job).cursor, start, end);
        (*job).cursor = cursor;
    }
    0
}

/// Runs all jobs over the text.
#[inline(always)]
fn run_jobs(judge: *mut Judge) {
    // SAFETY: as in `walk_text`.
    unsafe {
        bpf_loop(
            (*(*judge).scratch).job_count,
            run_job as *mut c_void,
            judge.cast(),
            0,
        );
    }
}

/// Copies `bytes` of the arguments into the text at `to`.
#[inline(always)]
fn read_args(scratch: *mut Scratch, to: u32, address: u64, bytes: u32) -> bool {
    if bytes > CHUNK_BYTES as u32 || to > PATH_BYTES as u32 {
        return false;
    }
    // SAFETY: `to + bytes` stays inside `text`, whose size is the sum of both limits.
    unsafe {
        let target = ptr::addr_of_mut!((*scratch).text)
            .cast::<u8>()
            .add(to as usize)
            .cast::<c_void>();
        let source = address as *const c_void;
        let result = if (*scratch).from_kernel != 0 {
            bpf_probe_read_kernel(target, bytes, source)
        } else {
            bpf_probe_read_user(target, bytes, source)
        };
        result == 0
    }
}

/// The place of the arguments of the form that is being judged, on the stack of its frame.
#[repr(C)]
struct Pieces {
    judge: *mut Judge,
    args: u64,
    args_len: u32,
    head_len: u32,
}

extern "C" fn walk_piece(index: u32, context: *mut c_void) -> i64 {
    let pieces = context.cast::<Pieces>();
    // SAFETY: `pieces` lies on the stack of the frame that called `bpf_loop`.
    unsafe {
        let judge = (*pieces).judge;
        let scratch = (*judge).scratch;
        let to = if index == 0 { (*pieces).head_len } else { 0 };
        let done = index * CHUNK_BYTES as u32;
        let left = (*pieces).args_len.wrapping_sub(done);
        if (*pieces).args_len < done {
            return 1;
        }
        let bytes = if left > CHUNK_BYTES as u32 {
            CHUNK_BYTES as u32
        } else {
            left
        };
        if bytes > 0 && !read_args(scratch, to, (*pieces).args + u64::from(done), bytes) {
            (*scratch).unreadable = 1;
            return 1;
        }
        (*scratch).text_end = to + bytes;
        run_jobs(judge);
        i64::from(left <= CHUNK_BYTES as u32)
    }
}

/// Puts a group into the next free job.
#[inline(always)]
fn add_job(judge: *mut Judge, reference: GroupRef, start: u32) {
    // SAFETY: map values; the index is checked.
    unsafe {
        let scratch = (*judge).scratch;
        let index = (*scratch).job_count;
        if index >= JOBS as u32 {
            (*scratch).unreadable = 1;
            return;
        }
        let base = (*(*judge).header).first_segment;
        let segment = base + reference.segment;
        let Some(words) = TABLES.get(segment) else {
            (*scratch).unreadable = 1;
            return;
        };
        let (group, cursor) = Group::read(words, reference.at);
        let job = ptr::addr_of_mut!((*scratch).jobs[index as usize]);
        (*job).segment = segment;
        (*job).ranks_segment = base + reference.ranks_segment;
        (*job).ranks_at = reference.ranks_at;
        (*job).start = start;
        (*job).group = group;
        (*job).cursor = cursor;
        (*scratch).job_count = index + 1;
    }
}

#[repr(C)]
struct Ranks {
    judge: *mut Judge,
    own: u32,
    shared: u32,
}

extern "C" fn finish_job(index: u32, context: *mut c_void) -> i64 {
    let ranks = context.cast::<Ranks>();
    // SAFETY: `ranks` lies on the stack of the frame that called `bpf_loop`; the rest are map values.
    unsafe {
        let scratch = (*(*ranks).judge).scratch;
        if index >= (*scratch).job_count || index >= JOBS as u32 {
            return 1;
        }
        let job = ptr::addr_of_mut!((*scratch).jobs[index as usize]);
        let Some(segment) = TABLES.get((*job).segment) else {
            return 1;
        };
        let mut cursor = (*job).cursor;
        if cursor.state != 0 {
            (*job).group.finish(segment, &mut cursor);
        }
        if cursor.accept == 0 {
            return 0;
        }
        let Some(segment) = TABLES.get((*job).ranks_segment) else {
            (*scratch).unreadable = 1;
            return 1;
        };
        let rank = u32::from(word(segment, (*job).ranks_at + cursor.accept - 1));
        if index < (*scratch).own_count {
            if rank > (*ranks).own {
                (*ranks).own = rank;
            }
        } else if rank > (*ranks).shared {
            (*ranks).shared = rank;
        }
    }
    0
}

extern "C" fn judge_form(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values.
    unsafe {
        let scratch = (*judge).scratch;
        if index >= (*scratch).form_count || index >= FORMS as u32 {
            return 1;
        }
        let form = ptr::addr_of!((*scratch).forms[index as usize]);
        let flags = (*form).flags;
        let mut head_len = (*form).name_len;
        if head_len >= PATH_BYTES as u32 - 2 {
            (*scratch).unreadable = 1;
            return 1;
        }
        let text = ptr::addr_of_mut!((*scratch).text).cast::<u8>();
        let skip = if flags & FORM_DOT_SLASH != 0 {
            *text = b'.';
            *text.add(1) = b'/';
            2
        } else {
            0
        };
        if bpf_probe_read_kernel(
            text.add(skip).cast(),
            head_len,
            (*form).name as *const c_void,
        ) != 0
        {
            (*scratch).unreadable = 1;
            return 1;
        }
        head_len += skip as u32;

        // The name that leads to groups of its own ends at the first space.
        let seed = (*(*judge).header).seed;
        let mut hash = hash_start(seed);
        let mut name_len = 0u32;
        let mut found = 0u32;
        while name_len < HEAD_NAME_MAX as u32 {
            if name_len >= head_len {
                found = 1;
                break;
            }
            let byte = *text.add(name_len as usize & 0x1ff);
            if byte == b' ' {
                found = 2;
                break;
            }
            hash = hash_step(hash, byte);
            name_len += 1;
        }
        if name_len == head_len {
            found = 1;
        }
        if found == 1 {
            // The same name with the same arguments needs no second look. Hashes are keyed, so nobody can
            // make two names look the same.
            let mark = hash ^ (*form).args.rotate_left(17);
            if flags & FORM_FIRST == 0 {
                let mut earlier = 0;
                while earlier < FORMS {
                    if earlier as u32 >= index {
                        break;
                    }
                    if (*scratch).seen[earlier] == mark {
                        return 0;
                    }
                    earlier += 1;
                }
            }
            (*scratch).seen[index as usize] = mark;
        } else {
            (*scratch).seen[index as usize] = 0;
        }

        (*scratch).job_count = 0;
        if found != 0 {
            let key = HeadKey {
                hash,
                slot: (*judge).slot,
                reserved: 0,
            };
            if let Some(head) = HEADS.get(&key) {
                let mut group = 0;
                while group < HEAD_GROUPS {
                    if group as u32 >= head.count {
                        break;
                    }
                    add_job(judge, head.groups[group], name_len);
                    group += 1;
                }
            }
        }
        (*scratch).own_count = (*scratch).job_count;
        let shared = ptr::addr_of!((*(*judge).header).shared);
        let mut group = 0;
        while group < SHARED_GROUPS {
            if group as u32 >= (*(*judge).header).shared_count {
                break;
            }
            add_job(judge, (*shared)[group], 0);
            group += 1;
        }

        let mut pieces = Pieces {
            judge,
            args: (*form).args,
            args_len: (*form).args_len,
            head_len,
        };
        bpf_loop(
            CHUNKS_MAX,
            walk_piece as *mut c_void,
            ptr::from_mut(&mut pieces).cast(),
            0,
        );
        let mut ranks = Ranks {
            judge,
            own: 0,
            shared: 0,
        };
        bpf_loop(
            (*scratch).job_count,
            finish_job as *mut c_void,
            ptr::from_mut(&mut ranks).cast(),
            0,
        );
        let own = ptr::read_volatile(ptr::addr_of!(ranks.own));
        let shared = ptr::read_volatile(ptr::addr_of!(ranks.shared));
        let rank = if own == RANK_TRANSPARENT || own > shared {
            own
        } else {
            shared
        };
        if rank >= (*(*judge).header).ask_from && rank > (*scratch).strict_rank {
            (*scratch).strict_rank = rank;
        }
        if flags & FORM_FIRST != 0 && (found == 1 || flags & FORM_TRUSTED != 0 || name_len >= HEAD_NAME_MAX as u32) {
            (*scratch).first_rank = rank;
        }
        // Nothing is stricter than a denial.
        i64::from((*scratch).strict_rank >= (*(*judge).header).deny_from)
    }
}

/// Judges all forms in the scratch memory; afterwards `strict_rank` and `first_rank` say what matched.
#[inline(always)]
pub fn judge_forms(judge: *mut Judge) {
    // SAFETY: as in `walk_text`.
    unsafe {
        (*(*judge).scratch).strict_rank = 0;
        (*(*judge).scratch).first_rank = 0;
        bpf_loop(
            (*(*judge).scratch).form_count,
            judge_form as *mut c_void,
            judge.cast(),
            0,
        );
    }
}

/// Adds a form; too many is a defect that denies.
#[inline(always)]
pub fn add_form(scratch: *mut Scratch, form: Form) {
    // SAFETY: a map value; the index is checked.
    unsafe {
        let index = (*scratch).form_count;
        if index >= FORMS as u32 {
            (*scratch).unreadable = 1;
            return;
        }
        (*scratch).forms[index as usize] = form;
        (*scratch).form_count = index + 1;
    }
}

/// What the path group says of a path.
#[derive(Clone, Copy)]
pub struct PathKind {
    /// The executable lies in a trusted directory.
    pub trusted: bool,
    /// It is named through a file descriptor.
    pub descriptor: bool,
}

/// Runs the path group over `path`.
#[inline(always)]
pub fn classify_path(judge: *mut Judge) -> PathKind {
    // SAFETY: map values.
    unsafe {
        let scratch = (*judge).scratch;
        let path_len = (*scratch).path_len;
        (*scratch).job_count = 0;
        add_job(judge, (*(*judge).header).path, 0);
        let source = ptr::addr_of!((*scratch).path);
        let target = ptr::addr_of_mut!((*scratch).text).cast::<u8>();
        if path_len < PATH_BYTES as u32 {
            bpf_probe_read_kernel(target.cast(), path_len, source.cast());
        }
        (*scratch).text_end = path_len;
        run_jobs(judge);
        let job = ptr::addr_of!((*scratch).jobs[0]);
        let mut accept = 0;
        if let Some(segment) = TABLES.get((*job).segment) {
            let mut cursor = (*job).cursor;
            if cursor.state != 0 {
                (*job).group.finish(segment, &mut cursor);
            }
            accept = cursor.accept;
        }
        PathKind {
            trusted: accept == PATH_TRUSTED,
            descriptor: accept == PATH_DESCRIPTOR,
        }
    }
}

/// Where the base name of `bytes[..len]` starts. Looks at the last 256 bytes: no longer name exists.
#[inline(always)]
pub fn base_start<const SIZE: usize>(bytes: *const [u8; SIZE], len: u32) -> u32 {
    let mut back = 1u32;
    while back <= 256 {
        if back > len {
            return 0;
        }
        let at = len - back;
        // SAFETY: masked into the array, whose size is a power of two.
        if unsafe { *bytes.cast::<u8>().add(at as usize & (SIZE - 1)) } == b'/' {
            return at + 1;
        }
        back += 1;
    }
    0
}

extern "C" fn find_end(_index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame.
    unsafe {
        let scratch = (*judge).scratch;
        let target = ptr::addr_of_mut!((*scratch).text).cast::<c_void>();
        let read = bpf_probe_read_user_str(
            target,
            CHUNK_BYTES as u32,
            (*scratch).scan as *const c_void,
        );
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

/// Whether `text[..len]` starts with the first 255 bytes of `path`.
#[inline(always)]
pub fn text_is_path(scratch: *mut Scratch) -> bool {
    let mut at = 0usize;
    // SAFETY: both arrays are longer than the bound.
    unsafe {
        let len = (*scratch).path_len;
        while at < 255 {
            if at as u32 >= len {
                break;
            }
            if (*scratch).text[at] != (*scratch).path[at] {
                return false;
            }
            at += 1;
        }
    }
    true
}

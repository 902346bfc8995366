//! The judgement of one exec: its forms, each over the groups that its name leads to.
//!
//! Loops of unknown length are `bpf_loop` callbacks, so that the verifier looks at each body once and the
//! whole argument area can be walked, however long. What is judged as a whole is a global function (`no_mangle`): the
//! verifier walks it once, whatever is known where it is called.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user};
use enforcer_common::{
    rule::{
        HEAD_GROUPS, HEAD_NAME_MAX, PATH_DESCRIPTOR, PATH_TRUSTED, PATH_WINDING, PolicyHeader,
        RANK_TRANSPARENT, SHARED_GROUPS,
    },
    seat,
    table::{Group, GroupRef, Segment, hash_start, hash_step, word},
};

use crate::maps::{POLICIES, TABLES, head};
use crate::scan::masked;
use crate::scratch::{
    CHUNK_BYTES, FORM_DOT_SLASH, FORM_FIRST, FORM_PATH, FORM_TRUSTED, FORMS, Form, JOBS,
    KIND_DESCRIPTOR, KIND_TRUSTED, KIND_WINDING, PATH_BYTES, Scratch, TEXT_BYTES,
};
use crate::words;

/// A segment of the tables that decide.
#[inline(always)]
fn segment_of(seat: u32, at: u32) -> Option<*const Segment> {
    TABLES.get(seat::generation(seat))?.get_ptr(at)
}

/// Bytes that one callback walks; the verifier unrolls this many.
const BLOCK: u32 = 32;
/// Bytes of arguments walked at once: all ones, so that it is a mask too.
const PIECE_BYTES: u32 = CHUNK_BYTES as u32 - 1;
/// Longest argument area, in chunks: the kernel gives arguments and environment 6 MiB.
pub const CHUNKS_MAX: u32 = (6 << 20) / PIECE_BYTES + 3;

/// What a judgement needs, on the stack of its first frame; callbacks only read it.
#[repr(C)]
pub struct Judge {
    /// Working memory.
    pub scratch: *mut Scratch,
    /// The policy.
    pub header: *const PolicyHeader,
    /// Whose judgement it is.
    pub seat: u32,
    /// Zero.
    pub reserved: u32,
}

impl Judge {
    /// For a judgement by the policy of `seat`; none if there is no such seat, or no memory.
    #[inline(always)]
    pub fn new(scratch: *mut Scratch, seat: u32) -> Option<Self> {
        if scratch.is_null() {
            return None;
        }
        Some(Self {
            scratch,
            header: POLICIES.get_ptr(seat::generation(seat))?,
            seat,
            reserved: 0,
        })
    }
}

/// What the innermost loop needs, on the stack of the frame that runs it. Everything that changes lies in
/// scratch memory: the verifier follows values on the stack from round to round, but not those.
#[repr(C)]
struct Walk {
    scratch: *mut Scratch,
    segment: *const Segment,
}

extern "C" fn walk_block(_index: u32, context: *mut c_void) -> i64 {
    let walk = context.cast::<Walk>();
    // SAFETY: `walk` lies on the stack of the frame that called `bpf_loop`; its pointers are map values.
    unsafe {
        let scratch = (*walk).scratch;
        let text = ptr::addr_of!((*scratch).text).cast::<u8>();
        let group = (*scratch).walk.group;
        let mut cursor = (*scratch).walk.cursor;
        let end = (*scratch).text_end;
        let at = group.run::<BLOCK>(
            &*(*walk).segment,
            &mut cursor,
            |at| *text.add(at as usize & (TEXT_BYTES - 1)),
            (*scratch).walk.start,
            end,
        );
        (*scratch).walk.cursor = cursor;
        (*scratch).walk.start = at;
        i64::from(at >= end || cursor.state == 0)
    }
}

/// What the loop over the jobs needs.
#[repr(C)]
struct Run {
    scratch: *mut Scratch,
    seat: u32,
    reserved: u32,
}

extern "C" fn run_job(index: u32, context: *mut c_void) -> i64 {
    let run = context.cast::<Run>();
    // SAFETY: `run` lies on the stack of the frame that called `bpf_loop`; its pointer is a map value.
    unsafe {
        let scratch = (*run).scratch;
        if index >= (*scratch).job_count || index >= JOBS as u32 {
            return 1;
        }
        let job = ptr::addr_of_mut!((*scratch).jobs[index as usize]);
        let Some(segment) = segment_of((*run).seat, (*job).segment) else {
            (*scratch).unreadable = 1;
            return 1;
        };
        let at = (*job).start;
        let end = (*scratch).text_end;
        if at < end && (*job).cursor.state != 0 {
            (*scratch).walk = *job;
            let mut walk = Walk { scratch, segment };
            bpf_loop(
                // An accepting state ends a block early: at worst every byte does.
                end - at,
                walk_block as *mut c_void,
                ptr::from_mut(&mut walk).cast(),
                0,
            );
            (*job).cursor = (*scratch).walk.cursor;
        }
        (*job).start = 0;
    }
    0
}

/// Runs all jobs over the text. A global function: each text is walked by the same code, and the verifier walks that once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn run_jobs(scratch: *mut Scratch, seat: u32) -> u32 {
    if scratch.is_null() {
        return 0;
    }
    let mut run = Run {
        scratch,
        seat,
        reserved: 0,
    };
    // SAFETY: claimed scratch memory; the context lives for the call.
    unsafe {
        bpf_loop(
            (*scratch).job_count,
            run_job as *mut c_void,
            ptr::from_mut(&mut run).cast(),
            0,
        );
    }
    1
}

/// Copies `bytes` of the arguments into the text at `to`.
#[inline(always)]
fn read_args(scratch: *mut Scratch, to: u32, address: u64, bytes: u32) -> bool {
    // SAFETY: both lengths are masked, and `text` is as large as both limits together.
    unsafe {
        let to = masked(scratch, to, PATH_BYTES as u32 - 1);
        let bytes = masked(scratch, bytes, PIECE_BYTES);
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

extern "C" fn walk_piece(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values.
    unsafe {
        let scratch = (*judge).scratch;
        let to = if index == 0 { (*scratch).head_len } else { 0 };
        let left = (*scratch).args_left;
        // Of what is data to shared groups these see the head alone; only the name's own groups go on.
        let alone = index == 0 && (*scratch).bare != 0;
        let bytes = if alone { 0 } else { left.min(PIECE_BYTES) };
        let from = (*scratch).args_at;
        if bytes > 0 && !read_args(scratch, to, from, bytes) {
            (*scratch).unreadable = 1;
            return 1;
        }
        (*scratch).args_at = from + u64::from(bytes);
        (*scratch).args_left = left - bytes;
        (*scratch).text_end = to + bytes;
        run_jobs(scratch, (*judge).seat);
        if alone {
            (*scratch).job_count = (*scratch).own_count;
        }
        i64::from(left == bytes)
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
        let Some(words) = segment_of((*judge).seat, reference.segment) else {
            (*scratch).unreadable = 1;
            return;
        };
        let (group, cursor) = Group::read(&*words, reference.at);
        let job = ptr::addr_of_mut!((*scratch).jobs[index as usize]);
        (*job).segment = reference.segment;
        (*job).ranks_segment = reference.ranks_segment;
        (*job).ranks_at = reference.ranks_at;
        (*job).start = start;
        (*job).group = group;
        (*job).cursor = cursor;
        (*scratch).job_count = index + 1;
    }
}

extern "C" fn finish_job(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values.
    unsafe {
        let scratch = (*judge).scratch;
        if index >= (*scratch).job_count || index >= JOBS as u32 {
            return 1;
        }
        let job = ptr::addr_of_mut!((*scratch).jobs[index as usize]);
        let Some(segment) = segment_of((*judge).seat, (*job).segment) else {
            return 1;
        };
        let mut cursor = (*job).cursor;
        if cursor.state != 0 {
            (*job).group.finish(&*segment, &mut cursor);
        }
        if cursor.accept == 0 {
            return 0;
        }
        let Some(segment) = segment_of((*judge).seat, (*job).ranks_segment) else {
            (*scratch).unreadable = 1;
            return 1;
        };
        let rank = u32::from(word(&*segment, (*job).ranks_at + cursor.accept - 1));
        if index < (*scratch).own_count {
            if rank > (*scratch).own_rank {
                (*scratch).own_rank = rank;
            }
        } else if rank > (*scratch).shared_rank {
            (*scratch).shared_rank = rank;
        }
    }
    0
}

/// The name reaches to the end of the head.
const NAME_WHOLE: u32 = 0;
/// The name ends at a space.
const NAME_SPACE: u32 = 1;
/// The name is too long to have groups of its own.
const NAME_LONG: u32 = 2;

/// Bytes of a name that one callback hashes.
const NAME_BLOCK: u32 = 8;
/// Blocks of the longest name, and of one byte more.
const NAME_BLOCKS: u32 = (HEAD_NAME_MAX as u32 + 1) / NAME_BLOCK;
const _: () = assert!(NAME_BLOCKS * NAME_BLOCK == HEAD_NAME_MAX as u32 + 1);

extern "C" fn hash_block(_index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values. The index is masked below the
    // text's size.
    unsafe {
        let scratch = (*judge).scratch;
        let text = ptr::addr_of!((*scratch).text).cast::<u8>();
        let head_len = (*scratch).head_len;
        let mut hash = (*scratch).name_hash;
        let mut at = (*scratch).name_len;
        let mut end = NAME_LONG;
        let mut step = 0;
        while step < NAME_BLOCK {
            if at >= head_len {
                end = NAME_WHOLE;
                break;
            }
            let byte = *text.add(at as usize & (TEXT_BYTES - 1));
            if byte == b' ' {
                end = NAME_SPACE;
                break;
            }
            hash = hash_step(hash, byte);
            at += 1;
            step += 1;
        }
        (*scratch).name_hash = hash;
        (*scratch).name_len = at;
        (*scratch).name_end = end;
        i64::from(end != NAME_LONG)
    }
}

/// Hashes the head's name: up to its first space. What it finds lies in scratch memory, so that the verifier does not
/// follow each length on its own.
#[inline(always)]
unsafe fn hash_name(judge: *mut Judge) {
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values.
    unsafe {
        let scratch = (*judge).scratch;
        (*scratch).name_hash = hash_start((*(*judge).header).seed);
        (*scratch).name_len = 0;
        (*scratch).name_end = NAME_LONG;
        bpf_loop(NAME_BLOCKS, hash_block as *mut c_void, judge.cast(), 0);
    }
}

/// A search for an earlier form, on the stack of the frame that runs it.
#[repr(C)]
struct Before {
    scratch: *mut Scratch,
    mark: u64,
    index: u32,
    reserved: u32,
}

extern "C" fn look_at_form(index: u32, context: *mut c_void) -> i64 {
    let before = context.cast::<Before>();
    // SAFETY: `before` lies on the stack of the frame that called `bpf_loop`; its pointer is a map value.
    unsafe {
        if index >= (*before).index || index >= FORMS as u32 {
            return 1;
        }
        let scratch = (*before).scratch;
        if (*scratch).seen[index as usize] != (*before).mark {
            return 0;
        }
        (*scratch).earlier = index;
    }
    1
}

/// Looks for a form before `index` that had this mark: `earlier` is it, or `FORMS`.
#[inline(always)]
unsafe fn look_before(scratch: *mut Scratch, index: u32, mark: u64) {
    let mut before = Before {
        scratch,
        mark,
        index,
        reserved: 0,
    };
    // SAFETY: the scratch memory is claimed; the context lives for the call.
    unsafe {
        (*scratch).earlier = FORMS as u32;
        bpf_loop(
            FORMS as u32,
            look_at_form as *mut c_void,
            ptr::from_mut(&mut before).cast(),
            0,
        );
    }
}

/// Where the highest rank of a form's own groups is kept. The index is masked again: older verifiers forget its bound
/// where it was put by meanwhile.
#[inline(always)]
unsafe fn own_place(scratch: *mut Scratch, form: u32) -> *mut u32 {
    let form = masked(scratch, form, FORMS as u32 - 1);
    // SAFETY: the scratch memory is claimed; the index is masked.
    unsafe {
        ptr::addr_of_mut!((*scratch).own_of)
            .cast::<u32>()
            .add(form as usize)
    }
}

/// Highest rank of the own groups of a form that was judged; 0 for one that was not.
#[inline(always)]
unsafe fn own_rank_of(scratch: *mut Scratch, form: u32) -> u32 {
    // SAFETY: as in `own_place`.
    unsafe { ptr::read_volatile(own_place(scratch, form)) }
}

/// Keeps the highest rank of a form's own groups.
#[inline(always)]
unsafe fn keep_own_rank(scratch: *mut Scratch, form: u32, rank: u32) {
    // SAFETY: as in `own_place`.
    unsafe { ptr::write_volatile(own_place(scratch, form), rank) };
}

extern "C" fn prepare_job(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values.
    unsafe {
        let scratch = (*judge).scratch;
        let own = (*scratch).own_count;
        if index < own {
            if index >= HEAD_GROUPS as u32 {
                return 1;
            }
            let reference = (*scratch).own_groups[index as usize];
            let start = (*scratch).name_len;
            add_job(judge, reference, start);
        } else {
            let shared = index - own;
            if shared >= SHARED_GROUPS as u32 {
                return 1;
            }
            let groups = ptr::addr_of!((*(*judge).header).shared).cast::<GroupRef>();
            add_job(judge, *groups.add(shared as usize), 0);
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
        head_len = masked(scratch, head_len, PATH_BYTES as u32 - 1);
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

        (*scratch).head_len = head_len;
        hash_name(judge);
        let hash = ptr::read_volatile(ptr::addr_of!((*scratch).name_hash));
        let found = ptr::read_volatile(ptr::addr_of!((*scratch).name_end));
        let mut mark = 0;
        if found == NAME_WHOLE {
            // The same name with the same arguments needs no second look. Hashes are keyed, so nobody can
            // make two names look the same.
            mark = hash ^ (*form).args.rotate_left(17);
        }
        // Also where the form is left out: what an earlier judgement left there would hide another form.
        (*scratch).seen[index as usize] = mark;
        keep_own_rank(scratch, index, 0);
        if mark != 0 && flags & FORM_FIRST == 0 {
            look_before(scratch, index, mark);
            let earlier = ptr::read_volatile(ptr::addr_of!((*scratch).earlier));
            if earlier < FORMS as u32 {
                keep_own_rank(scratch, index, own_rank_of(scratch, earlier));
                return 0;
            }
        }
        // What a transparent program is told to run is data, whichever way the program is named.
        let bare = flags & FORM_PATH != 0 && own_rank_of(scratch, (*form).base) == RANK_TRANSPARENT;
        ptr::write_volatile(ptr::addr_of_mut!((*scratch).bare), u32::from(bare));

        (*scratch).job_count = 0;
        (*scratch).own_count = 0;
        if found != NAME_LONG
            && let Some(head) = head((*judge).seat, hash)
        {
            words::copy(
                ptr::addr_of!((*head).groups),
                ptr::addr_of_mut!((*scratch).own_groups),
            );
            (*scratch).own_count = (*head).count.min(HEAD_GROUPS as u32);
        }
        bpf_loop(
            (*scratch).own_count + (*(*judge).header).shared_count,
            prepare_job as *mut c_void,
            judge.cast(),
            0,
        );

        (*scratch).args_at = (*form).args;
        (*scratch).args_left = (*form).args_len;
        if (*scratch).bare != 0 && (*scratch).own_count == 0 {
            (*scratch).args_left = 0;
        }
        (*scratch).own_rank = 0;
        (*scratch).shared_rank = 0;
        (*scratch).all_jobs = (*scratch).job_count;
        bpf_loop(CHUNKS_MAX, walk_piece as *mut c_void, judge.cast(), 0);
        (*scratch).job_count = (*scratch).all_jobs;
        if (*scratch).args_left != 0 {
            // What was not walked was not judged.
            (*scratch).unreadable = 1;
            return 1;
        }
        bpf_loop(
            (*scratch).job_count,
            finish_job as *mut c_void,
            judge.cast(),
            0,
        );
        let own = (*scratch).own_rank;
        let shared = (*scratch).shared_rank;
        keep_own_rank(scratch, index, own);
        let rank = if own == RANK_TRANSPARENT || own > shared {
            own
        } else {
            shared
        };
        if rank >= (*(*judge).header).ask_from && rank > (*scratch).strict_rank {
            (*scratch).strict_rank = rank;
        }
        // A space in an untrusted program's path could pass for the end of an allowed name.
        if flags & FORM_FIRST != 0 && (found != NAME_SPACE || flags & FORM_TRUSTED != 0) {
            (*scratch).first_rank = rank;
        }
        // Nothing is stricter than a denial.
        i64::from((*scratch).strict_rank >= (*(*judge).header).deny_from)
    }
}

/// Judges all forms in the scratch memory; afterwards `strict_rank` and `first_rank` say what matched. 0 if nothing was
/// judged.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_forms(scratch: *mut Scratch, seat: u32) -> u32 {
    let Some(mut judge) = Judge::new(scratch, seat) else {
        return 0;
    };
    // SAFETY: as in `walk_text`.
    unsafe {
        (*scratch).strict_rank = 0;
        (*scratch).first_rank = 0;
        bpf_loop(
            (*scratch).form_count,
            judge_form as *mut c_void,
            ptr::from_mut(&mut judge).cast(),
            0,
        );
    }
    1
}

extern "C" fn prepare_name_job(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values.
    unsafe {
        if index >= (*(*judge).header).unix.count || index >= HEAD_GROUPS as u32 {
            return 1;
        }
        let groups = ptr::addr_of!((*(*judge).header).unix.groups).cast::<GroupRef>();
        add_job(judge, *groups.add(index as usize), 0);
    }
    0
}

/// Runs the groups for names of unix sockets over the first `len` bytes of the text; the highest rank that matches.
/// What could not be judged is noted as unreadable.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_name(scratch: *mut Scratch, seat: u32, len: u32) -> u32 {
    let Some(mut judge) = Judge::new(scratch, seat) else {
        return 0;
    };
    let judge = ptr::from_mut(&mut judge);
    // SAFETY: as in `walk_text`.
    unsafe {
        (*scratch).job_count = 0;
        (*scratch).own_rank = 0;
        (*scratch).text_end = len;
        bpf_loop(
            HEAD_GROUPS as u32,
            prepare_name_job as *mut c_void,
            judge.cast(),
            0,
        );
        run_jobs(scratch, (*judge).seat);
        let jobs = (*scratch).job_count;
        (*scratch).own_count = jobs;
        bpf_loop(jobs, finish_job as *mut c_void, judge.cast(), 0);
        ptr::read_volatile(ptr::addr_of!((*scratch).own_rank))
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

/// Runs the path group over `path`, and gives the `KIND_` bits.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn classify_path(scratch: *mut Scratch, seat: u32) -> u32 {
    let Some(mut judge) = Judge::new(scratch, seat) else {
        return 0;
    };
    let judge = ptr::from_mut(&mut judge);
    // SAFETY: map values.
    unsafe {
        let path_len = masked(scratch, (*scratch).path_len, PATH_BYTES as u32 - 1);
        (*scratch).job_count = 0;
        add_job(judge, (*(*judge).header).path, 0);
        let source = ptr::addr_of!((*scratch).path);
        let target = ptr::addr_of_mut!((*scratch).text).cast::<u8>();
        bpf_probe_read_kernel(target.cast(), path_len, source.cast());
        (*scratch).text_end = path_len;
        run_jobs(scratch, (*judge).seat);
        let job = ptr::addr_of!((*scratch).jobs[0]);
        let Some(segment) = segment_of((*judge).seat, (*job).segment) else {
            (*scratch).unreadable = 1;
            return 0;
        };
        let mut cursor = (*job).cursor;
        if cursor.state != 0 {
            (*job).group.finish(&*segment, &mut cursor);
        }
        match cursor.accept {
            PATH_WINDING => KIND_WINDING,
            PATH_TRUSTED => KIND_TRUSTED,
            PATH_DESCRIPTOR => KIND_DESCRIPTOR,
            _ => 0,
        }
    }
}

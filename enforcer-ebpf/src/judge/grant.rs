//! Grants: execs and connects that a person approved.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user};
use enforcer_common::{
    grant::{ConnectGrantKey, ExecGrantKey, Sip, text_head, text_last},
    seat,
};

use crate::{
    event::{now, pid},
    judge::{net::Aim, walk::Judge},
    maps::{CONNECT_GRANTS, GRANTS, offset},
    scan::masked,
    scratch::{KIND_SCRIPT, PATH_BYTES, Scratch},
    task::{current_address, read_kernel},
    words,
};

/// Bytes of arguments that are hashed at once: whole words, and no longer than a mask that is all ones.
const PIECE_BYTES: u32 = 2048;
/// The longest argument area in such pieces: the kernel gives arguments and environment 6 MiB.
const PIECES_MAX: u32 = (6 << 20) / PIECE_BYTES + 2;
/// Newer kernels keep a flag in the highest bit of a change time's nanoseconds (`I_CTIME_QUERIED`).
const NANOSECONDS: u32 = (1 << 30) - 1;

extern "C" fn hash_word(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: `judge` lies on the stack of the first frame; its pointers are map values. The index is masked below
    // the size of `text`.
    unsafe {
        let scratch = (*judge).scratch;
        if index >= (*scratch).hash_words {
            return 1;
        }
        let text = ptr::addr_of!((*scratch).text).cast::<u64>();
        let word = ptr::read(text.add(index as usize & (PATH_BYTES / 8 - 1)));
        let mut sip = (*scratch).sip;
        sip.word(word);
        (*scratch).sip = sip;
    }
    0
}

extern "C" fn hash_piece(_index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: as in `hash_word`; lengths are masked.
    unsafe {
        let scratch = (*judge).scratch;
        let left = (*scratch).hash_left;
        if left == 0 {
            return 1;
        }
        let bytes = masked(scratch, left.min(PIECE_BYTES), 2 * PIECE_BYTES - 1);
        let text = ptr::addr_of_mut!((*scratch).text).cast::<u8>();
        // The last word is filled up with zeros.
        ptr::write(text.add((bytes & !7) as usize).cast::<u64>(), 0);
        let source = (*scratch).hash_at as *const c_void;
        let result = if (*scratch).hash_kernel != 0 {
            bpf_probe_read_kernel(text.cast(), bytes, source)
        } else {
            bpf_probe_read_user(text.cast(), bytes, source)
        };
        if result != 0 {
            (*scratch).unreadable = 1;
            return 1;
        }
        (*scratch).hash_at += u64::from(bytes);
        (*scratch).hash_left = left - bytes;
        (*scratch).hash_words = (bytes + 7) >> 3;
        bpf_loop(PIECE_BYTES / 8, hash_word as *mut c_void, judge.cast(), 0);
    }
    0
}

/// Adds `bytes` from `address` to the hash.
#[inline(always)]
unsafe fn hash_bytes(judge: *mut Judge, address: u64, bytes: u32, kernel: u32) {
    // SAFETY: as in `hash_word`.
    unsafe {
        let scratch = (*judge).scratch;
        (*scratch).hash_at = address;
        (*scratch).hash_left = bytes;
        (*scratch).hash_kernel = kernel;
        bpf_loop(PIECES_MAX, hash_piece as *mut c_void, judge.cast(), 0);
        if (*scratch).hash_left != 0 {
            (*scratch).unreadable = 1;
        }
    }
}

/// Looks for a grant: first for the form that the exec has, in the second round as a script's.
extern "C" fn find_grant(index: u32, context: *mut c_void) -> i64 {
    let judge = context.cast::<Judge>();
    // SAFETY: as in `hash_word`.
    unsafe {
        let scratch = (*judge).scratch;
        let script = index != 0 || (*scratch).hash_script != 0;
        let path_len = (*scratch).path_len;
        // A script's arguments start behind the separator, a program's with `argv[0]`; both end with a NUL.
        let (args, args_len) = if script {
            ((*scratch).first_args + 1, (*scratch).first_args_len)
        } else {
            ((*scratch).area, (*scratch).event.tail.argv_bytes)
        };
        (*scratch).unreadable = 0;
        (*scratch).sip = Sip::new((*scratch).profile.grant_key);
        let mut sip = (*scratch).sip;
        sip.word(text_head(path_len, args_len, script));
        (*scratch).sip = sip;
        hash_bytes(judge, ptr::addr_of!((*scratch).path) as u64, path_len, 1);
        hash_bytes(judge, args, args_len, (*scratch).from_kernel);
        if (*scratch).unreadable != 0 {
            return 1;
        }
        let sip = (*scratch).sip;
        (*scratch).grant_key = ExecGrantKey {
            hash: sip.finish(text_last(path_len, args_len)),
            slot: seat::slot((*judge).seat),
            pid: pid(),
        };
        let Some(grant) = GRANTS.get((*scratch).grant_key) else {
            return 0;
        };
        words::copy(ptr::from_ref(grant), ptr::addr_of_mut!((*scratch).grant));
        (*scratch).hash_found = 1;
    }
    1
}

/// Whether a file is the one that the grant in the scratch memory names.
#[inline(always)]
unsafe fn is_file(scratch: *mut Scratch) -> bool {
    // SAFETY: claimed scratch memory.
    let (inode, grant) = unsafe { ((*scratch).own_inode, &(*scratch).grant) };
    read_kernel::<u64>(inode + offset!(inode_size)) == Some(grant.size)
        && read_kernel::<i64>(inode + offset!(inode_changed_s)) == Some(grant.changed_s)
        && read_kernel::<u32>(inode + offset!(inode_changed_ns)).map(|ns| ns & NANOSECONDS)
            == Some(grant.changed_ns)
        && is_inode(inode, grant.inode, grant.device)
}

/// Whether an inode has this number, on this device unless that is 0.
#[inline(always)]
fn is_inode(inode: u64, number: u64, device: u32) -> bool {
    read_kernel::<u64>(inode + offset!(inode_number)) == Some(number)
        && (device == 0
            || read_kernel::<u64>(inode + offset!(inode_superblock))
                .and_then(|superblock| read_kernel::<u32>(superblock + offset!(superblock_device)))
                == Some(device))
}

/// The working directory's inode.
#[inline(always)]
fn working_directory() -> Option<u64> {
    let fs = read_kernel::<u64>(current_address() + offset!(task_fs))?;
    let dentry = read_kernel::<u64>(fs + offset!(fs_pwd))?;
    read_kernel::<u64>(dentry + offset!(dentry_inode))
}

/// Whether the exec that was judged last in this scratch memory has a grant; its number goes into the event. With
/// `consume` the grant is used up: of several that come at once, one gets it.
#[inline(always)]
pub fn exec_granted(scratch: *mut Scratch, seat: u32, consume: bool) -> bool {
    find_exec_grant(scratch, seat, u32::from(consume)) != 0
}

/// See [`exec_granted`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_exec_grant(scratch: *mut Scratch, seat: u32, consume: u32) -> u32 {
    let Some(mut judge) = Judge::new(scratch, seat) else {
        return 0;
    };
    let consume = consume != 0;
    // SAFETY: claimed scratch memory.
    unsafe {
        let script = Scratch::is(scratch, KIND_SCRIPT);
        if script && (*scratch).search_found == 0 {
            return 0;
        }
        // Before the interpreter takes over, a script looks like any program.
        let forms = if script || consume { 1 } else { 2 };
        (*scratch).hash_script = u32::from(script);
        (*scratch).hash_found = 0;
        bpf_loop(
            forms,
            find_grant as *mut c_void,
            ptr::from_mut(&mut judge).cast(),
            0,
        );
        if ptr::read_volatile(ptr::addr_of!((*scratch).hash_found)) == 0
            || now() >= (*scratch).grant.expires_ns
        {
            return 0;
        }
        // Behind the interpreter the file is the interpreter's. The script's was looked at before.
        if !script && !is_file(scratch) {
            return 0;
        }
        let grant = &(*scratch).grant;
        let Some(directory) = working_directory() else {
            return 0;
        };
        if !is_inode(directory, grant.cwd_inode, grant.cwd_device) {
            return 0;
        }
        if consume && GRANTS.remove((*scratch).grant_key).is_err() {
            return 0;
        }
        (*scratch).approval = grant.request;
    }
    1
}

/// The number of the request by which this connect was approved; 0 if none was. With `consume` the grant is used up.
#[inline(always)]
pub fn connect_granted(aim: &Aim, consume: u32) -> u64 {
    granted_to(aim, consume)
}

/// See [`connect_granted`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn granted_to(aim: *const Aim, consume: u32) -> u64 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return 0;
    };
    let key = ConnectGrantKey {
        address: aim.address,
        slot: seat::slot(aim.seat),
        pid: pid(),
        protocol: aim.protocol,
        port: aim.port,
    };
    // SAFETY: entries are only ever added and removed as a whole.
    let Some(grant) = (unsafe { CONNECT_GRANTS.get(key) }).copied() else {
        return 0;
    };
    if now() >= grant.expires_ns || (consume != 0 && CONNECT_GRANTS.remove(key).is_err()) {
        return 0;
    }
    grant.request
}

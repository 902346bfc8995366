//! Whether an exec is the launcher's own hook, or a shell that is told to start it and nothing else.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user};
use enforcer_common::{
    own::{self, Own, TEXT_MAX},
    seat,
};

use crate::{
    judge::walk::Judge,
    maps::{OWN, offset},
    scan::masked,
    scratch::{KIND_SCRIPT, KIND_TRUSTED, Scratch},
    task::{read_kernel_or_zero, read_user},
};

/// What an exec is looked at for, on the stack of the frame that looks.
#[repr(C)]
struct Look {
    judge: *mut Judge,
    own: *const Own,
    /// Bytes of the text.
    len: u32,
    /// Whether a byte did not fit.
    differs: u32,
}

extern "C" fn look_at(index: u32, context: *mut c_void) -> i64 {
    let look = context.cast::<Look>();
    // SAFETY: `look` lies on the stack of the frame that called `bpf_loop`; its pointers are map values.
    unsafe {
        if index >= (*look).len {
            return 1;
        }
        let scratch = (*(*look).judge).scratch;
        let at = masked(scratch, index, TEXT_MAX);
        let byte = *ptr::addr_of!((*scratch).text).cast::<u8>().add(at as usize);
        if own::fits(&*(*look).own, index, byte) {
            return 0;
        }
        (*look).differs = 1;
    }
    1
}

/// Whether an exec is the launcher's own: kept in the scratch memory, which holds the executable's inode and own name, and
/// where the arguments are: from the NUL before the first one on, to the last NUL, which is not counted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_own(scratch: *mut Scratch, seat: u32) -> u32 {
    let Some(mut judge) = Judge::new(scratch, seat) else {
        return 0;
    };
    // SAFETY: map values; every length is masked.
    unsafe { look_into(&mut judge) };
    1
}

/// # Safety
///
/// As [`note_own`] says.
#[inline(always)]
unsafe fn look_into(judge: &mut Judge) {
    let scratch = judge.scratch;
    // SAFETY: map values; every length is masked.
    unsafe {
        let inode = (*scratch).own_inode;
        let args = (*scratch).rest;
        let args_len = (*scratch).rest_len;
        let name_len = (*scratch).exe_len;
        ptr::write_volatile(ptr::addr_of_mut!((*scratch).own), 0);
        let Some(own) = OWN.get_ptr(seat::slot(judge.seat)) else {
            return;
        };
        if (*own).inode == 0 || Scratch::is(scratch, KIND_SCRIPT) {
            return;
        }
        let kernel = (*scratch).from_kernel != 0;
        let head = if kernel {
            read_kernel_or_zero::<u64>(args)
        } else {
            // Behind a short argument area lies the environment.
            read_user::<u64>(args).unwrap_or(0)
        };
        if is_executable(own, inode) {
            if own::is_hook(head, args_len) {
                ptr::write_volatile(ptr::addr_of_mut!((*scratch).own), 1);
            }
            return;
        }
        let start = own::text_at(head);
        if start == 0 || !Scratch::is(scratch, KIND_TRUSTED) || !has_shell_name(scratch, name_len) {
            return;
        }
        let len = args_len.wrapping_sub(start);
        if len < (*own).call_len || len > TEXT_MAX || len == (*own).call_len + 1 {
            return;
        }
        let text = ptr::addr_of_mut!((*scratch).text).cast::<c_void>();
        let room = masked(scratch, len, TEXT_MAX);
        let source = (args + u64::from(start)) as *const c_void;
        let read = if kernel {
            bpf_probe_read_kernel(text, room, source)
        } else {
            bpf_probe_read_user(text, room, source)
        };
        if read != 0 {
            return;
        }
        let mut look = Look {
            judge,
            own,
            len,
            differs: 0,
        };
        bpf_loop(
            TEXT_MAX,
            look_at as *mut c_void,
            ptr::from_mut(&mut look).cast(),
            0,
        );
        ptr::write_volatile(
            ptr::addr_of_mut!((*scratch).own),
            u32::from(look.differs == 0),
        );
    }
}

/// Whether the exec in the scratch memory is the launcher's own.
#[inline(always)]
pub fn is_own(scratch: *mut Scratch) -> bool {
    // SAFETY: claimed scratch memory. Read from memory each time, so that the verifier knows nothing of it.
    unsafe { ptr::read_volatile(ptr::addr_of!((*scratch).own)) != 0 }
}

/// # Safety
///
/// `own` is a map value.
#[inline(always)]
unsafe fn is_executable(own: *const Own, inode: u64) -> bool {
    let number = read_kernel_or_zero::<u64>(inode + offset!(inode_number));
    let superblock = read_kernel_or_zero::<u64>(inode + offset!(inode_superblock));
    let device = read_kernel_or_zero::<u32>(superblock + offset!(superblock_device));
    // SAFETY: by contract.
    unsafe { number == (*own).inode && device == (*own).device }
}

#[inline(always)]
fn has_shell_name(scratch: *mut Scratch, name_len: u32) -> bool {
    if name_len == 0 || name_len >= 8 {
        return false;
    }
    // SAFETY: reads the first bytes of a map value.
    let head = unsafe { ptr::read_unaligned(ptr::addr_of!((*scratch).exe_name).cast::<u64>()) };
    own::is_shell(head & ((1 << (8 * name_len)) - 1))
}

extern "C" fn look_at_name(index: u32, context: *mut c_void) -> i64 {
    let look = context.cast::<Look>();
    // SAFETY: as in `look_at`; the name has room for 128 bytes, the socket's for 112.
    unsafe {
        if index >= (*look).len {
            return 1;
        }
        let scratch = (*(*look).judge).scratch;
        let at = masked(scratch, index, 127) as usize;
        let byte = *ptr::addr_of!((*scratch).unix.name).cast::<u8>().add(at);
        let own = (*look).own;
        if at < own::SOCKET_MAX && (*own).socket[at] == byte {
            return 0;
        }
        (*look).differs = 1;
    }
    1
}

/// Whether the name in the scratch memory's event is that of the launcher's socket, which hooks report to.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_launchers_socket(scratch: *mut Scratch, seat: u32, name_len: u32) -> u32 {
    let (Some(mut judge), Some(own)) = (Judge::new(scratch, seat), OWN.get_ptr(seat::slot(seat)))
    else {
        return 0;
    };
    // SAFETY: a map value.
    if unsafe { (*own).socket_len == 0 || (*own).socket_len != name_len } {
        return 0;
    }
    let mut look = Look {
        judge: &raw mut judge,
        own,
        len: name_len,
        differs: 0,
    };
    // SAFETY: the context lives for the call.
    unsafe {
        bpf_loop(
            own::SOCKET_MAX as u32,
            look_at_name as *mut c_void,
            ptr::from_mut(&mut look).cast(),
            0,
        );
    }
    u32::from(look.differs == 0)
}

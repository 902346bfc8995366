//! The arguments of an exec that is about to be made, gathered from the caller's own memory, where another thread may still
//! change them.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_loop, bpf_probe_read_kernel_str, bpf_task_pt_regs},
};

use crate::{
    judge::facts::Facts,
    maps::offset,
    scratch::{CHUNK_BYTES, GATHER_BYTES, Scratch},
    task::{self, read_kernel, read_user, read_user_str},
};

const NR_EXECVE: u64 = 59;
const NR_EXECVEAT: u64 = 322;

/// Most arguments that are gathered; more are left to the stage behind.
const GATHER_ARGS: u32 = 4096;

#[repr(C)]
struct Gather {
    scratch: *mut Scratch,
    script: u64,
}

extern "C" fn gather_argument(index: u32, context: *mut c_void) -> i64 {
    let gather = context.cast::<Gather>();
    // SAFETY: `gather` lies on the stack of the frame that called `bpf_loop`; the rest are map values.
    unsafe {
        let scratch = (*gather).scratch;
        let address = (*scratch).argv + 8 * u64::from(index);
        let Some(string) = read_user::<u64>(address) else {
            return 1;
        };
        let at = (*scratch).gathered;
        if at >= GATHER_BYTES as u32 {
            return 1;
        }
        let mut read = 1;
        let target = ptr::addr_of_mut!((*scratch).gather)
            .cast::<u8>()
            .add(at as usize);
        if string != 0 {
            read = read_user_str(target.cast(), CHUNK_BYTES as u32, string);
        } else {
            // The end: what was gathered is whole.
            (*scratch).overflow = 0;
            if index != 0 {
                return 1;
            }
            // An empty argv: the kernel makes up an empty argv[0].
            *target = 0;
        }
        if read <= 0 || read >= CHUNK_BYTES as i64 {
            return 1;
        }
        let mut at = at + read as u32;
        if index == 0 && (*gather).script != 0 {
            // The kernel puts the script's path behind the interpreter.
            if at >= GATHER_BYTES as u32 {
                return 1;
            }
            let target = ptr::addr_of_mut!((*scratch).gather)
                .cast::<u8>()
                .add(at as usize);
            let read = bpf_probe_read_kernel_str(
                target.cast(),
                CHUNK_BYTES as u32,
                (*gather).script as *const c_void,
            );
            if read <= 0 || read >= CHUNK_BYTES as i64 {
                return 1;
            }
            at += read as u32;
        }
        (*scratch).gathered = at;
        i64::from(string == 0)
    }
}

/// Copies the caller's arguments; `None` when they are too long or not where x86-64 callers put them.
#[inline(always)]
pub fn gather(bprm: u64, scratch: *mut Scratch) -> Option<Facts> {
    // SAFETY: the current task is a trusted pointer.
    let regs = unsafe { bpf_task_pt_regs(task::current().cast::<task_struct>()) } as u64;
    let syscall = read_kernel::<u64>(regs + offset!(regs_syscall))?;
    let argv = match syscall {
        NR_EXECVE => read_kernel::<u64>(regs + offset!(regs_second))?,
        NR_EXECVEAT => read_kernel::<u64>(regs + offset!(regs_third))?,
        _ => return None,
    };
    let filename = read_kernel::<u64>(bprm + offset!(bprm_filename))?;
    let interp = read_kernel::<u64>(bprm + offset!(bprm_interp))?;
    // SAFETY: claimed scratch memory.
    unsafe {
        (*scratch).argv = argv;
        (*scratch).gathered = 0;
        // Until the end of the array has been seen.
        (*scratch).overflow = 1;
        (*scratch).from_kernel = 1;
        let mut gather = Gather {
            scratch,
            script: if interp == filename { 0 } else { filename },
        };
        if argv == 0 {
            // NULL argv: an empty argv[0].
            (*scratch).gather[0] = 0;
            (*scratch).gathered = 1;
            (*scratch).overflow = 0;
        } else {
            bpf_loop(
                GATHER_ARGS,
                gather_argument as *mut c_void,
                ptr::from_mut(&mut gather).cast(),
                0,
            );
        }
        if (*scratch).overflow != 0 || (*scratch).gathered == 0 {
            return None;
        }
        // As a plain number: older verifiers do not let a pointer be added to.
        let place = ptr::addr_of_mut!((*scratch).scan);
        ptr::write_volatile(place, ptr::addr_of!((*scratch).gather) as u64);
        let start = ptr::read_volatile(place);
        Some(Facts {
            bprm,
            args: start,
            args_end: start + u64::from((*scratch).gathered),
        })
    }
}

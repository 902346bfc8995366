//! The first judgement, where the kernel loads LSM programs: a clean errno before anything is committed.
//!
//! The arguments are read from the caller's own memory, where another thread may still change them. That is
//! why an allowance here is never the last word: `sched_process_exec` judges what really became of it.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_loop, bpf_probe_read_kernel_str, bpf_task_pt_regs},
    macros::lsm,
    programs::LsmContext,
};
use enforcer_common::{
    event::{
        CAUSE_APPROVED, CAUSE_FAMILY, CAUSE_UNREADABLE, KIND_CONNECT, STAGE_LSM, VERDICT_ERRNO,
    },
    rule::{ASK, DENY},
};

use crate::{
    event::{count, is_operator, now, pid},
    exec::{program, record},
    facts::{Facts, Judgement, judge_exec},
    grant::{connect_granted, exec_granted},
    kept,
    limits::{
        BROKEN, Kind, Rates, admits, arguments_of, count_denial, within_complexity, within_rates,
    },
    maps::{kills, observed, offset, slot_state},
    net::{self, Aim},
    scratch::{CHUNK_BYTES, GATHER_BYTES, Scratch, claim_scratch, release_scratch},
    task::{
        self, Membership, read_kernel, read_kernel_or_zero, read_user, read_user_str, unproven,
    },
};

const EPERM: i32 = 1;
const NR_EXECVE: u64 = 59;
const NR_EXECVEAT: u64 = 322;

const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;

/// Most arguments that are gathered; more are left to the stage behind.
const GATHER_ARGS: u32 = 4096;

#[lsm(hook = "bprm_check_security")]
pub fn exec_check(ctx: LsmContext) -> i32 {
    let bprm = ctx.arg::<*const c_void>(0) as u64;
    let earlier: i32 = ctx.arg(1);
    if earlier != 0 {
        return earlier;
    }
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => return -EPERM,
    };
    let start = now();
    let Some(state) = slot_state(seat) else {
        return -EPERM;
    };
    let Some(scratch) = claim_scratch() else {
        // The stage behind has memory of its own and denies if it finds none.
        return 0;
    };
    let kept = kept::keep(bprm, scratch, seat, task::in_home_tree(state));
    // What is only observed is recorded by the stage behind, and what is to be killed is killed there.
    if is_operator(state, pid()) || observed(seat) || kills(seat) {
        release_scratch(scratch);
        return 0;
    }
    kept::take(scratch);
    let mut result = 0;
    if !kept {
        // Without the script's name the stage behind would judge less than there is.
        result = -EPERM;
    }
    let arguments = arguments_of(bprm);
    if let Some(facts) = gather(bprm, scratch) {
        let mut judgement = judge_exec(&facts, seat, state, scratch).forgotten();
        let limited = judgement.is_limited();
        if !limited {
            // The hook always starts.
        } else if !admits(state, seat) {
            judgement = BROKEN;
        } else if judgement.decision == ASK && exec_granted(scratch, seat, false) {
            // The grant is left for the stage behind, and for the interpreters still to come.
            judgement.cause = CAUSE_APPROVED;
        }
        if limited && judgement.permits() {
            // SAFETY: claimed scratch memory.
            let argv_bytes = unsafe { (*scratch).event.tail.argv_bytes };
            judgement = within_complexity(judgement, seat, arguments, argv_bytes);
        }
        if limited && judgement.permits() {
            judgement = within_rates(judgement, seat, Kind::Exec, Rates::Look);
        }
        if !judgement.permits() && judgement.cause != CAUSE_UNREADABLE {
            let tripped = count_denial(seat, judgement.cause, program(scratch));
            record(
                scratch,
                seat,
                judgement,
                VERDICT_ERRNO,
                STAGE_LSM,
                start,
                tripped,
            );
            // SAFETY: a field of a map value.
            count(unsafe { ptr::addr_of_mut!((*state).exec_denied) });
            result = -EPERM;
        }
    }
    release_scratch(scratch);
    result
}

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
fn gather(bprm: u64, scratch: *mut Scratch) -> Option<Facts> {
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

#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let socket = ctx.arg::<*const c_void>(0) as u64;
    let address = ctx.arg::<*const c_void>(1) as u64;
    let earlier: i32 = ctx.arg(3);
    if earlier != 0 {
        return earlier;
    }
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => return -EPERM,
    };
    if observed(seat) {
        return 0;
    }
    let start = now();
    let Some(family) = read_kernel::<u16>(address) else {
        return -EPERM;
    };
    let sock = read_kernel_or_zero::<u64>(socket + offset!(socket_sk));
    let protocol = u32::from(read_kernel_or_zero::<u16>(sock + offset!(sock_protocol)));
    let socket_type = u32::from(read_kernel_or_zero::<u16>(sock + offset!(sock_type)));
    let (judged, port) = match family {
        AF_UNSPEC | AF_UNIX | AF_NETLINK => return 0,
        AF_INET => {
            let (Some(port), Some(ip)) = (
                read_kernel::<u16>(address + 2),
                read_kernel::<u32>(address + 4),
            ) else {
                return -EPERM;
            };
            (net::v4_address(ip), u16::from_be(port))
        }
        AF_INET6 => {
            let (Some(port), Some(words)) = (
                read_kernel::<u16>(address + 2),
                read_kernel::<[u32; 4]>(address + 8),
            ) else {
                return -EPERM;
            };
            (net::v6_address(words), u16::from_be(port))
        }
        _ => ([0; 16], 0),
    };
    let aim = Aim {
        address: judged,
        seat,
        port: u32::from(port),
        protocol,
        family: u32::from(family),
        socket_type,
        reserved: 0,
    };
    if unproven(refuses(&aim, start)) == 0 {
        0
    } else {
        -EPERM
    }
}

/// Whether a connect is refused before the cgroup's program sees it, if that does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refuses(aim: *const Aim, start: u64) -> u32 {
    // SAFETY: null, or an `Aim` of the caller's.
    let Some(aim) = (unsafe { aim.as_ref() }) else {
        return 1;
    };
    let mut judgement = if aim.family == u32::from(AF_INET) || aim.family == u32::from(AF_INET6) {
        net::weigh(aim)
    } else {
        Judgement {
            decision: DENY,
            cause: CAUSE_FAMILY,
            rank: 0,
        }
    };
    let Some(state) = slot_state(aim.seat) else {
        return 1;
    };
    if judgement.cause == CAUSE_FAMILY {
        // Refused whatever the breaker and the policy say.
    } else if !admits(state, aim.seat) {
        judgement = BROKEN;
    } else if judgement.decision == ASK && connect_granted(aim, 0) != 0 {
        // The cgroup program uses the grant up. (It does not run for a socket from outside the cgroup: that grant
        // lasts until it expires.)
        judgement.cause = CAUSE_APPROVED;
    }
    if judgement.permits() {
        judgement = within_rates(judgement, aim.seat, Kind::Connect, Rates::Look);
    }
    if judgement.permits() {
        // The cgroup program behind this one takes from the rates and records the allowance.
        return 0;
    }
    net::record(aim, KIND_CONNECT, judgement, 0, STAGE_LSM, start);
    1
}

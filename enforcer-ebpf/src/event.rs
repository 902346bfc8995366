//! Common parts of writing events.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns, bpf_ringbuf_output,
};
use enforcer_common::{
    event::Header,
    seat::{self, SlotState},
};

use crate::{
    atomic,
    judge::facts::Judgement,
    maps::{EVENTS, offset},
    task::{self, read_kernel_or_zero},
};

/// Writes a field of a header. Volatile: of zeros the compiler would make a call of a function that goes byte by byte.
macro_rules! put {
    ($header:expr, $field:ident: $value:expr) => {
        ptr::write_volatile(ptr::addr_of_mut!((*$header).$field), $value)
    };
}

/// Now, on the clock that events carry, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a plain helper call.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The current process id. Read from the task: programs on packets have no helper for it.
#[inline(always)]
pub fn pid() -> u32 {
    pid_of(task::current_address())
}

/// The process id of a task; 0 if it cannot be read.
#[inline(always)]
fn pid_of(task: u64) -> u32 {
    read_kernel_or_zero(task + offset!(task_tgid))
}

/// Who acts.
#[derive(Clone, Copy)]
pub enum Actor {
    /// The current task.
    Current,
    /// The process of another task, at this address; the user and cgroup are the current task's.
    Other(u64),
    /// Whoever sent the packet of this cgroup: the current task, or nobody that is known.
    Sender { cgroup: u64, known: bool },
}

impl Actor {
    /// # Safety
    ///
    /// `header` is valid to write.
    #[inline(always)]
    unsafe fn write(self, header: *mut Header) {
        // SAFETY: by contract; plain helper calls. Each is written as it comes: the stack has no room for all of them.
        unsafe {
            match self {
                Self::Current | Self::Other(_) => {
                    let (pid, task) = match self {
                        Self::Other(task) => (pid_of(task), task),
                        _ => (pid(), task::current_address()),
                    };
                    put!(header, pid: pid);
                    put!(header, ppid: task::parent_pid(task));
                    put!(header, uid: bpf_get_current_uid_gid() as u32);
                    put!(header, cgroup: bpf_get_current_cgroup_id());
                }
                // Programs on packets have no helpers for it.
                Self::Sender { cgroup, known } => {
                    put!(header, cgroup: cgroup);
                    let task = if known { task::current_address() } else { 0 };
                    // Of no task everything is 0.
                    put!(header, pid: pid_of(task));
                    put!(header, ppid: task::parent_pid(task));
                    let cred = read_kernel_or_zero::<u64>(task + offset!(task_cred));
                    put!(header, uid: read_kernel_or_zero::<u32>(cred + offset!(cred_uid)));
                }
            }
        }
    }
}

/// What an event tells.
pub struct Told {
    /// A `KIND_` constant.
    pub kind: u32,
    /// A `STAGE_` constant.
    pub stage: u32,
    /// A `VERDICT_` constant.
    pub verdict: u32,
    /// What was judged.
    pub judgement: Judgement,
    /// When the judgement began, if it took time.
    pub start: Option<u64>,
    /// Number of the approved request; 0 none.
    pub approval: u64,
    /// Denials in a row, if this one opened the breaker; else 0.
    pub tripped: u64,
    /// `FLAG_` bits.
    pub flags: u32,
}

/// Writes the header of an event: all of it, and takes the next number for it.
///
/// # Safety
///
/// `header` is valid to write.
#[inline(always)]
pub unsafe fn write_header(
    header: *mut Header,
    seat: u32,
    state: *mut SlotState,
    actor: Actor,
    told: &Told,
) {
    // SAFETY: by contract.
    unsafe {
        put!(header, kind: told.kind);
        put!(header, seat: seat);
        put!(header, decision: told.judgement.decision);
        put!(header, verdict: told.verdict);
        put!(header, stage: told.stage);
        put!(header, cause: told.judgement.cause);
        put!(header, rank: told.judgement.rank);
        put!(header, flags: told.flags);
        put!(header, approval: told.approval);
        put!(header, tripped: told.tripped);
        actor.write(header);
        let end = now();
        put!(header, boottime_ns: end);
        put!(header, latency_ns: told.start.map_or(0, |start| (end - start) as u32));
        put!(header, seq: next_seq(state));
    }
}

/// Adds one to a counter of a slot; several CPUs may.
#[inline(always)]
pub fn count(counter: *mut u64) {
    // SAFETY: a field of a map value, touched only atomically.
    unsafe { atomic::add(counter, 1) };
}

/// Takes the seat's next sequence number.
#[inline(always)]
fn next_seq(state: *mut SlotState) -> u64 {
    // SAFETY: a field of a map value, touched only atomically.
    unsafe { atomic::add(ptr::addr_of_mut!((*state).seq), 1) }
}

/// Takes the operator's one free exec, if `pid` holds it.
#[inline(always)]
pub fn take_operator(state: *mut SlotState, pid: u32) -> bool {
    // SAFETY: a field of a map value, touched only atomically.
    unsafe { atomic::replace(ptr::addr_of_mut!((*state).operator_pid), pid, 0) }
}

/// Whether `pid` still holds the operator's free exec.
#[inline(always)]
pub fn is_operator(state: *mut SlotState, pid: u32) -> bool {
    // SAFETY: a field of a map value, touched only atomically.
    unsafe { ptr::read_volatile(ptr::addr_of!((*state).operator_pid)) == pid }
}

/// Writes an event of the agent; counts it as lost when there is no room.
#[inline(always)]
pub fn output(seat: u32, state: *mut SlotState, data: *mut c_void, bytes: u64) -> bool {
    // SAFETY: `data` points at `bytes` initialised bytes of ours; the ring is one of ours.
    if let Some(ring) = EVENTS.get(seat::slot(seat))
        && unsafe { bpf_ringbuf_output(ptr::from_ref(ring).cast_mut().cast(), data, bytes, 0) } == 0
    {
        return true;
    }
    // SAFETY: a field of a map value.
    count(unsafe { ptr::addr_of_mut!((*state).lost) });
    false
}

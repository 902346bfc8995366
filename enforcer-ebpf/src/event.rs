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
    maps::{EVENTS, offset},
    task::{self, read_kernel_or_zero},
};

/// Now, on the clock that events carry, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a plain helper call.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The current process id. Read from the task: programs on packets have no helper for it.
#[inline(always)]
pub fn pid() -> u32 {
    read_kernel_or_zero(task::current_address() + offset!(task_tgid))
}

/// Fills in what the kernel knows of the current task.
#[inline(always)]
pub fn describe(header: &mut Header, kind: u32, seat: u32, stage: u32) {
    header.kind = kind;
    header.slot = seat::slot(seat);
    header.stage = stage;
    header.pid = pid();
    header.ppid = task::parent_pid(task::current_address());
    // SAFETY: plain helper calls.
    unsafe {
        header.uid = bpf_get_current_uid_gid() as u32;
        header.cgroup = bpf_get_current_cgroup_id();
    }
    header.flags = 0;
    header.approval = 0;
    header.tripped = 0;
}

/// Adds one to a counter of a slot; several CPUs may.
#[inline(always)]
pub fn count(counter: *mut u64) {
    // SAFETY: a field of a map value, touched only atomically.
    unsafe { atomic::add(counter, 1) };
}

/// Takes the seat's next sequence number.
#[inline(always)]
pub fn next_seq(state: *mut SlotState) -> u64 {
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

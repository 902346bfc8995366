//! The kernel programs of enforcer.
//!
//! | program | hook | what it does |
//! |---|---|---|
//! | `exec_committed` | `tp_btf/sched_process_exec` | the guarantee: judges the kernel's own copy, kills |
//! | `exec_check` | `lsm/bprm_check_security` | the clean errno, where the kernel loads LSM programs |
//! | `socket_connect` | `lsm/socket_connect` | connects of families that no cgroup hook sees, foreign sockets |
//! | `connect4` `connect6` `sendmsg4` `sendmsg6` | cgroup socket address | addresses |
//! | `packet_out` | cgroup packets | packets that would be led on to another address, or leave the machine for a loopback one |
//! | `unix_stream_connect` `unix_may_send` | LSM | unix sockets, by the name that they are bound to |
//! | `unix_connect` `unix_sendmsg` | cgroup unix socket address | unix sockets, by the name of the call |
//! | `ptrace_access_check` `task_kill` | LSM | processes outside the agent |
//! | `sock_create` | cgroup socket | families and protocols that a host rule cannot judge |
//! | `judge_trial` | none: run by tests only | the judgement of `exec_committed` over an exec that nobody makes |
//! | `task_forked` `cgroup_attached` | `tp_btf` | marks, and tasks that leave their agent's cgroup |
#![no_std]
#![no_main]
#![allow(internal_features, reason = "atomics; see atomic.rs")]
#![feature(core_intrinsics)]

mod atomic;
mod event;
mod hooks;
mod judge;
mod maps;
mod scan;
mod scratch;
mod task;
mod words;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// Helpers such as `bpf_probe_read_kernel` are reserved to programs under a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

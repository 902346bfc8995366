//! The kernel programs of enforcer.
//!
//! | program | hook | what it does |
//! |---|---|---|
//! | `exec_committed` | `tp_btf/sched_process_exec` | the guarantee: judges the kernel's own copy, kills |
//! | `exec_check` | `lsm/bprm_check_security` | the clean errno, where the kernel loads LSM programs |
//! | `socket_connect` | `lsm/socket_connect` | connects of families that no cgroup hook sees, foreign sockets |
//! | `connect4` `connect6` `sendmsg4` `sendmsg6` | cgroup socket address | addresses |
//! | `sock_create` | cgroup socket | families and protocols that a host rule cannot judge |
//! | `task_forked` `cgroup_attached` | `tp_btf` | marks, and tasks that leave their agent's cgroup |
#![no_std]
#![no_main]
#![allow(internal_features, reason = "atomics; see atomic.rs")]
#![feature(core_intrinsics)]

mod atomic;
mod event;
mod exec;
mod facts;
mod grant;
mod judge;
mod lifecycle;
mod lsm;
mod maps;
mod net;
mod scan;
mod task;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// Helpers such as `bpf_probe_read_kernel` are reserved to programs under a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

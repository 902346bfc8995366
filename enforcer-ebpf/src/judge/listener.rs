//! Whose a listening socket is.

use core::ptr;

use aya_ebpf::{
    bindings::{bpf_sock_addr, bpf_sock_tuple},
    helpers::{
        bpf_get_current_uid_gid,
        generated::{bpf_sk_lookup_tcp, bpf_sk_release},
    },
};
use enforcer_common::{address, seat};

use crate::{
    maps::offset,
    task::{forgotten, read_kernel_or_zero, slot_of_cgroup},
};

/// `BPF_F_CURRENT_NETNS`: that of the socket that connects.
const ITS_NETNS: u64 = u64::MAX;

/// Whether a socket belongs to the user of the current process, and was made outside the cgroup of the agent.
#[inline(always)]
pub fn is_outside(sock: u64, seat: u32) -> bool {
    let uid = read_kernel_or_zero::<u32>(sock + offset!(sock_uid));
    if uid != bpf_get_current_uid_gid() as u32 {
        return false;
    }
    let cgroup = read_kernel_or_zero::<u64>(sock + offset!(sock_cgroup));
    slot_of_cgroup(cgroup) != Some(seat::slot(seat))
}

/// The socket that listens on a TCP port of this machine, as an address for reads; 0 if there is none. It is not held:
/// what is read there after it has gone is read of another, or of none.
#[inline(always)]
pub fn of_tcp(context: *mut bpf_sock_addr, to: &[u8; 16], port: u16) -> u64 {
    // SAFETY: an all-zero union of plain numbers is valid.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size;
    // SAFETY: fields of the union, plain numbers; both addresses are in network order in memory.
    unsafe {
        if to[..12] == address::MAPPED {
            tuple.__bindgen_anon_1.ipv4.daddr =
                u32::from_ne_bytes([to[12], to[13], to[14], to[15]]);
            tuple.__bindgen_anon_1.ipv4.saddr = tuple.__bindgen_anon_1.ipv4.daddr;
            tuple.__bindgen_anon_1.ipv4.dport = port.to_be();
            size = size_of_val(&tuple.__bindgen_anon_1.ipv4);
        } else {
            let words = core::mem::transmute::<[u8; 16], [u32; 4]>(*to);
            tuple.__bindgen_anon_1.ipv6.daddr = words;
            tuple.__bindgen_anon_1.ipv6.saddr = words;
            tuple.__bindgen_anon_1.ipv6.dport = port.to_be();
            size = size_of_val(&tuple.__bindgen_anon_1.ipv6);
        }
        let sock = bpf_sk_lookup_tcp(
            context.cast(),
            ptr::from_mut(&mut tuple),
            size as u32,
            ITS_NETNS,
            0,
        );
        if sock.is_null() {
            return 0;
        }
        let address = forgotten(sock as u64);
        bpf_sk_release(sock.cast());
        address
    }
}

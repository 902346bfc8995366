//! What the programs on socket addresses read of their context, the kernel's own copy.
//!
//! The unspecified address is judged as loopback and made so in that copy: the kernel would go to whatever local
//! address the socket is bound to.

use core::ptr;

use aya_ebpf::bindings::bpf_sock_addr;

use crate::{
    event::now,
    judge::net::{AF_INET, AF_INET6, judge, v4_address, v6_address},
};

/// `127.0.0.1`
const LOOPBACK: u32 = 0x7f00_0001;
/// The third word of an IPv4 address in IPv6.
const MAPPED: u32 = 0xffff;

#[inline(always)]
pub fn judge_v4<const CONNECT: bool>(context: *mut bpf_sock_addr) -> i32 {
    let start = now();
    // SAFETY: the verifier turns these into reads of the context, and a write.
    let (ip, port, protocol, kind) = unsafe {
        // The kernel would take the address that the socket is bound to.
        if (*context).user_ip4 == 0 {
            ptr::write_volatile(ptr::addr_of_mut!((*context).user_ip4), LOOPBACK.to_be());
        }
        (
            (*context).user_ip4,
            (*context).user_port,
            (*context).protocol,
            (*context).type_,
        )
    };
    judge::<CONNECT>(
        context,
        v4_address(ip),
        u16::from_be(port as u16),
        protocol,
        AF_INET,
        kind,
        start,
    )
}

#[inline(always)]
pub fn judge_v6<const CONNECT: bool>(context: *mut bpf_sock_addr) -> i32 {
    let start = now();
    // SAFETY: the verifier turns these into reads of the context, and writes.
    let (words, port, protocol, kind) = unsafe {
        // What the kernel would take for the address that the socket is bound to, or its IPv4 loopback.
        if (*context).user_ip6[0] | (*context).user_ip6[1] | (*context).user_ip6[3] == 0 {
            let last = ptr::addr_of_mut!((*context).user_ip6[3]);
            if (*context).user_ip6[2] == MAPPED.to_be() {
                ptr::write_volatile(last, LOOPBACK.to_be());
            } else if (*context).user_ip6[2] == 0 {
                ptr::write_volatile(last, 1u32.to_be());
            }
        }
        (
            [
                (*context).user_ip6[0],
                (*context).user_ip6[1],
                (*context).user_ip6[2],
                (*context).user_ip6[3],
            ],
            (*context).user_port,
            (*context).protocol,
            (*context).type_,
        )
    };
    judge::<CONNECT>(
        context,
        v6_address(words),
        u16::from_be(port as u16),
        protocol,
        AF_INET6,
        kind,
        start,
    )
}

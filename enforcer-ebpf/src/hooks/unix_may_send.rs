//! `lsm/unix_may_send`: datagrams to unix sockets, by the name that the peer is bound to.

use core::ffi::c_void;

use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{judge::unix::bound_peer, maps::offset, task::read_kernel};

/// Runs for each datagram, and when a datagram socket connects.
#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    let socket = ctx.arg::<*const c_void>(0) as u64;
    let peer = ctx.arg::<*const c_void>(1) as u64;
    let earlier: i32 = ctx.arg(2);
    if earlier != 0 {
        return earlier;
    }
    let sock = read_kernel::<u64>(socket + offset!(socket_sk)).unwrap_or(0);
    let other = read_kernel::<u64>(peer + offset!(socket_sk)).unwrap_or(0);
    // What is sent on a connected socket was recorded when it was connected.
    let connected = read_kernel::<u64>(sock + offset!(unix_peer)) == Some(other);
    bound_peer(sock, other, !connected)
}

//! `cgroup/unix_sendmsg`: datagrams to unix sockets, by the name of the call.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::judge::unix::{SEND, called};

// Not of this type: the loader knows none for unix sockets and is told when the program is attached.
#[cgroup_sock_addr(connect4)]
pub fn unix_sendmsg(ctx: SockAddrContext) -> i32 {
    called(ctx.sock_addr as u64, SEND)
}

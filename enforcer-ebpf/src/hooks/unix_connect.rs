//! `cgroup/unix_connect`: connects to unix sockets, by the name of the call.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::judge::unix::{CONNECT, called};

// Not of this type: the loader knows none for unix sockets and is told when the program is attached.
#[cgroup_sock_addr(connect4)]
pub fn unix_connect(ctx: SockAddrContext) -> i32 {
    called(ctx.sock_addr as u64, CONNECT)
}

//! `cgroup/sendmsg4`: datagrams to IPv4 addresses.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use super::addresses::judge_v4;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    judge_v4::<false>(ctx.sock_addr)
}

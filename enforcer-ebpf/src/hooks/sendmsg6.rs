//! `cgroup/sendmsg6`: datagrams to IPv6 addresses.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use super::addresses::judge_v6;

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    judge_v6::<false>(ctx.sock_addr)
}

//! `cgroup/connect4`: connects to IPv4 addresses.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use super::addresses::judge_v4;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    judge_v4::<true>(ctx.sock_addr)
}

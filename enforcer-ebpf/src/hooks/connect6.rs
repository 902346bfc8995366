//! `cgroup/connect6`: connects to IPv6 addresses.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use super::addresses::judge_v6;

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    judge_v6::<true>(ctx.sock_addr)
}

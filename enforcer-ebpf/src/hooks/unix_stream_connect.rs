//! `lsm/unix_stream_connect`: connects to unix sockets, by the name that the peer is bound to.

use core::ffi::c_void;

use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::judge::unix::bound_peer;

#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let sock = ctx.arg::<*const c_void>(0) as u64;
    let other = ctx.arg::<*const c_void>(1) as u64;
    let earlier: i32 = ctx.arg(3);
    if earlier != 0 {
        return earlier;
    }
    bound_peer(sock, other, true)
}

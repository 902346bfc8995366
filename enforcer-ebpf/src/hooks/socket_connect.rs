//! `lsm/socket_connect`: connects of families that no cgroup hook sees, and of sockets from outside the cgroup.

use core::ffi::c_void;

use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::seat;

use crate::{
    event::now,
    judge::{
        EPERM,
        net::{self, Aim, refuses},
    },
    maps::offset,
    task::{self, Membership, read_kernel, read_kernel_or_zero, unproven},
};

const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;

#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let socket = ctx.arg::<*const c_void>(0) as u64;
    let address = ctx.arg::<*const c_void>(1) as u64;
    let earlier: i32 = ctx.arg(3);
    if earlier != 0 {
        return earlier;
    }
    let seat = match task::membership() {
        Membership::Outside => return 0,
        Membership::Inside(seat) | Membership::Escaped(seat) => seat,
        Membership::Orphaned => return -EPERM,
    };
    if seat::observed(seat) {
        return 0;
    }
    let start = now();
    let Some(family) = read_kernel::<u16>(address) else {
        return -EPERM;
    };
    let sock = read_kernel_or_zero::<u64>(socket + offset!(socket_sk));
    let protocol = u32::from(read_kernel_or_zero::<u16>(sock + offset!(sock_protocol)));
    let socket_type = u32::from(read_kernel_or_zero::<u16>(sock + offset!(sock_type)));
    let (judged, port) = match family {
        AF_UNSPEC | AF_UNIX | AF_NETLINK => return 0,
        AF_INET => {
            let (Some(port), Some(ip)) = (
                read_kernel::<u16>(address + 2),
                read_kernel::<u32>(address + 4),
            ) else {
                return -EPERM;
            };
            (net::v4_address(ip), u16::from_be(port))
        }
        AF_INET6 => {
            let (Some(port), Some(words)) = (
                read_kernel::<u16>(address + 2),
                read_kernel::<[u32; 4]>(address + 8),
            ) else {
                return -EPERM;
            };
            (net::v6_address(words), u16::from_be(port))
        }
        _ => ([0; 16], 0),
    };
    let aim = Aim {
        address: judged,
        seat,
        port: u32::from(port),
        protocol,
        family: u32::from(family),
        socket_type,
        reserved: 0,
    };
    if unproven(refuses(&aim, start)) == 0 {
        0
    } else {
        -EPERM
    }
}

//! What the kernel programs and the user space of enforcer share.
//!
//! Everything here is `no_std`, has a fixed layout and no I/O: the [`event`]s that the kernel writes, the
//! map keys and values of a policy ([`rule`]), its breaker and rates ([`limits`]), and the layout of the compiled pattern [`table`]s together
//! with the one walker that both sides run over them.
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod address;
pub mod event;
pub mod grant;
pub mod limits;
pub mod load;
pub mod own;
pub mod rule;
pub mod seat;
pub mod table;

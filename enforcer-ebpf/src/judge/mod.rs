//! The judging: what an action is, what the rules say of it, and what stands behind them. What hooks do with it is in
//! [`crate::hooks`].

pub mod climb;
pub mod escape;
pub mod exec;
pub mod facts;
pub mod forms;
pub mod gate;
pub mod gather;
pub mod grant;
pub mod kept;
pub mod limits;
pub mod listener;
pub mod net;
pub mod outsider;
pub mod own;
pub mod packet;
pub mod unix;
pub mod walk;

/// What an LSM program returns for a refusal, negative.
pub const EPERM: i32 = 1;

//! The decision: what the policy says of one action. Pure: no I/O, no clock.

mod decision;
pub mod redact;

pub use decision::{Decision, Risk};

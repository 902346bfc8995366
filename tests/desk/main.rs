//! Who may answer, how long, how often, by which way. It is user space, and the same on every kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod ask_files;
mod ask_limits;
mod ask_many;
mod ask_modes;
mod ask_signals;
mod ask_who;
#[allow(dead_code, reason = "two test executables share it, each uses a part")]
#[path = "../approvals/scene.rs"]
mod scene;

//! What a rule asks about waits for a person, runs exactly as approved, and nothing else runs for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod ask_bound;
mod ask_connect;
mod ask_exec;
mod ask_killed;
mod ask_odd;
#[allow(dead_code, reason = "two test executables share it, each uses a part")]
mod scene;

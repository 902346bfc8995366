//! What a rule asks about waits for a person, runs exactly as approved, and nothing else runs for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod ask_bound;
mod ask_connect;
mod ask_exec;
mod ask_files;
mod ask_killed;
mod ask_limits;
mod ask_many;
mod ask_modes;
mod ask_odd;
mod ask_signals;
mod ask_who;
mod scene;

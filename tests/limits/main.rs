//! The breaker and the limits: what counts, exactly how often, and who can close a breaker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod breaker;
mod half_open;
mod kept;
mod operator;
mod rates;
mod scene;
mod supervised;

//! What the kernel's programs count, in each stage that denies: enough to see that they do on another kernel. All else
//! about the breaker and the limits is in `limits`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod breaker;
mod complexity;
mod rates;
#[allow(dead_code, reason = "shared with `limits`, which uses all of it")]
#[path = "../limits/scene.rs"]
mod scene;

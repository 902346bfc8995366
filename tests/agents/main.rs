//! Real coding agents as their users run them, each with a model that says what a script has it say: under `enforcer run` with
//! the shipped policies, with their hooks, and without either. `cargo xtask test --agents` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

/// A test for each of these agents, which calls the function with it.
macro_rules! tests_of {
    ($check:path: $($name:ident $agent:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                $check(&crate::agent::$agent);
            }
        )+
    };
}

mod agent;
mod asked;
mod claude;
mod codex;
mod denied;
mod hooks;
mod scene;
mod work;

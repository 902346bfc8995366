//! What the integration tests share: sessions under `enforcer run`, the trails that they leave, and what the
//! machine gives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing unwrap is how a test fails"
)]

mod approvals;
mod attempts;
mod machine;
pub mod model;
mod session;
mod trail;

pub use approvals::{Request, approvals};
pub use attempts::{Attempt, Attempts, Outcomes, forbidding, loosening, open, shutting};
pub use machine::{Level, in_guest, level, patience, program, quick, root, skip};
pub use session::{
    Ended, Running, Session, agent_user, cgroup_root, cgroups, copy_program, enforcer, left_over,
};
pub use trail::{Denial, Line, Trail};

/// The path of an offender (a file of `tests/probes`) that the tests were built with.
#[macro_export]
macro_rules! probe {
    ($name:literal) => {
        std::path::Path::new(env!(concat!("CARGO_BIN_EXE_", $name)))
    };
}

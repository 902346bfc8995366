//! enforcer keeps an AI agent's process tree inside its policy.
//!
//! `policy` and `decide` are pure: text and actions in, tables and decisions out. The adapters (`kernel`,
//! `launch`, `seccomp`, `audit`) do the I/O and know `policy` and `decide`, never one another; they meet in
//! the composition roots (`run`, `doctor`).

pub mod cli;
pub mod decide;
pub mod policy;

//! The `enforcer` command: its command line, and what it puts together of the crates.

pub mod cli;
pub mod doctor;

//! enforcer keeps an AI agent's process tree inside its policy.
//!
//! `policy` and `decide` are pure: text and actions in, tables and decisions out. The adapters (`kernel`,
//! `launch`, `seccomp`, `audit`, `approvals`) do the I/O and know `policy` and `decide`, never one another; they meet in
//! the composition roots (`run`, `hook`, `doctor`).

pub mod approvals;
pub mod audit;
pub mod changer;
pub mod cli;
pub mod decide;
pub mod directories;
pub mod doctor;
pub mod ground;
pub mod hook;
pub mod kernel;
pub mod launch;
pub mod on_disk;
pub mod own_files;
pub mod policy;
pub mod policy_file;
pub mod run;
mod say;
pub mod seccomp;
pub mod table_cache;

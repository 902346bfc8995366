//! Policies on this machine: read so that nobody else can have written them, with the rule sets that they include,
//! settled for the user that an agent runs as; and their compiled tables, kept between starts.

#![forbid(unsafe_code)]

pub mod ground;
pub mod policy_file;
pub mod rule_files;
pub mod shipped;
pub mod table_cache;

//! Files and directories that must be ours, whoever else can write around them, and programs as the kernel finds them.

#![forbid(unsafe_code)]

pub mod changer;
pub mod directories;
pub mod on_disk;
pub mod own_files;
pub mod script;

//! The command line, one command a file: parse, call, exit code.

pub mod audit;

//! The command line: one command a file. Each parses its arguments, calls the library and gives an exit code.

pub mod explain;

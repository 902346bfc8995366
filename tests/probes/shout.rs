//! Counts what runs: appends to `$MARK` one `b` if its own name or an argument is forbidden (contains
//! `forbidden`), else one `g`; exits with 3 or 0.
//!
//! No standard library start-up is needed for more: it is run ten thousand times.
#![allow(
    clippy::expect_used,
    reason = "a program that cannot misbehave gives up"
)]

use std::{env, fs::OpenOptions, io::Write, os::unix::ffi::OsStrExt};

fn main() {
    let name = env::current_exe().ok();
    let bad = env::args_os()
        .skip(1)
        .chain(name.and_then(|path| path.file_name().map(ToOwned::to_owned)))
        .any(|word| word.as_bytes().windows(9).any(|part| part == b"forbidden"));
    if let Some(mark) = env::var_os("MARK")
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(mark)
    {
        let _ = file.write_all(if bad { b"b" } else { b"g" });
    }
    std::process::exit(if bad { 3 } else { 0 });
}

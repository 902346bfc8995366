//! Makes a directory its root, in a user namespace of its own, and executes a program there:
//! `chroot DIRECTORY PROGRAM ARGUMENTS…`. The mark is left at `$INSIDE`.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another"
)]

use std::{
    env,
    ffi::{CString, OsString},
    os::unix::{ffi::OsStringExt, process::CommandExt},
    process::Command,
};

fn main() {
    let mut arguments = env::args_os().skip(1);
    let directory = arguments
        .next()
        .map(OsString::into_vec)
        .expect("a directory");
    let directory = CString::new(directory).expect("no NUL");
    let program = arguments.next().expect("a program");
    let inside = env::var_os("INSIDE").unwrap_or_default();
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWUSER), 0, "unshare");
        assert_eq!(libc::chroot(directory.as_ptr()), 0, "chroot");
        assert_eq!(libc::chdir(c"/".as_ptr()), 0, "chdir");
    }
    let error = Command::new(program)
        .args(arguments)
        .env("MARK", inside)
        .exec();
    eprintln!("refused: {error}");
    std::process::exit(126);
}

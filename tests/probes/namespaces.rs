//! Gives a path another meaning, in a user namespace of its own, and executes a program there:
//! `namespaces chroot DIRECTORY PROGRAM ARGUMENTS…` makes the directory its root (the mark is left at `$INSIDE`),
//! `namespaces bind SOURCE TARGET PROGRAM ARGUMENTS…` mounts one path over another,
//! `namespaces cgroup DIRECTORY PROGRAM ARGUMENTS…` mounts the cgroups there and moves to a new one among them.
//!
//! All in one process: without a user mapping, capabilities do not survive an exec.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    env,
    ffi::{CString, OsString},
    fs,
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::Path,
    process::Command,
    ptr,
};

fn c_string(word: OsString) -> CString {
    CString::new(word.into_vec()).expect("no NUL")
}

fn check(result: i32, step: &str) {
    if result != 0 {
        eprintln!("{step}: {}", std::io::Error::last_os_error());
        std::process::exit(77);
    }
}

fn main() {
    let mut words = env::args_os().skip(1);
    let mut next = || words.next().expect("one more word");
    let way = next();
    let path = c_string(next());
    let mut mark = env::var_os("MARK").unwrap_or_default();
    unsafe {
        if way == "chroot" {
            check(libc::unshare(libc::CLONE_NEWUSER), "unshare");
            check(libc::chroot(path.as_ptr()), "chroot");
            check(libc::chdir(c"/".as_ptr()), "chdir");
            mark = env::var_os("INSIDE").unwrap_or_default();
        } else if way == "cgroup" {
            let spaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP;
            check(libc::unshare(spaces), "unshare");
            let done = libc::mount(
                c"none".as_ptr(),
                path.as_ptr(),
                c"cgroup2".as_ptr(),
                0,
                ptr::null(),
            );
            check(done, "mount");
            let new = Path::new(path.to_str().expect("a plain path")).join("new");
            fs::create_dir(&new).expect("a new cgroup");
            fs::write(new.join("cgroup.procs"), "0").expect("moved");
            println!("moved");
        } else {
            let target = c_string(next());
            check(
                libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
                "unshare",
            );
            let done = libc::mount(
                path.as_ptr(),
                target.as_ptr(),
                ptr::null(),
                libc::MS_BIND,
                ptr::null(),
            );
            check(done, "mount");
        }
    }
    let program = next();
    let error = Command::new(program).args(words).env("MARK", mark).exec();
    eprintln!("refused: {error}");
    std::process::exit(126);
}

//! Starts a program in one of the ways that the kernel offers: `ways WAY PROGRAM ARGUMENTS…`.
//!
//! The exit status is the program's; 126 when the exec was refused, 128 + signal when the program was killed.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    env,
    ffi::{CStr, CString, OsString},
    fs::{self, File},
    io::{Seek, Write},
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd},
        unix::ffi::OsStringExt,
    },
    process::exit,
    ptr,
};

use libc::{c_char, c_int, pid_t};

const REFUSED: i32 = 126;

struct Target {
    path: CString,
    words: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    _environment: Vec<CString>,
}

impl Target {
    fn new(words: Vec<CString>) -> Self {
        let environment: Vec<CString> = env::vars_os()
            .map(|(name, value)| {
                let mut entry = name.into_vec();
                entry.push(b'=');
                entry.extend(value.into_vec());
                CString::new(entry).expect("no NUL")
            })
            .collect();
        let path = words[0].clone();
        let mut target = Self {
            path,
            argv: Vec::new(),
            envp: pointers(&environment),
            words,
            _environment: environment,
        };
        target.argv = pointers(&target.words);
        target
    }

    fn exec(&self) -> ! {
        self.exec_path(&self.path)
    }

    fn exec_path(&self, path: &CStr) -> ! {
        unsafe {
            libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
        }
        refused()
    }

    fn exec_at(&self, fd: c_int, path: &CStr, flags: c_int) -> ! {
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd,
                path.as_ptr(),
                self.argv.as_ptr(),
                self.envp.as_ptr(),
                flags,
            );
        }
        refused()
    }

    fn open(&self) -> File {
        File::open(self.path.to_str().expect("a plain path")).expect("the program opens")
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

fn refused() -> ! {
    eprintln!("refused: {}", std::io::Error::last_os_error());
    unsafe { libc::_exit(REFUSED) }
}

fn wait(pid: pid_t) -> ! {
    let mut status = 0;
    if pid < 0 || unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } < 0 {
        eprintln!("no child: {}", std::io::Error::last_os_error());
        exit(125);
    }
    exit(if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    });
}

extern "C" fn exec_in_clone(target: *mut libc::c_void) -> c_int {
    unsafe { &*target.cast::<Target>() }.exec()
}

fn clone_with(flags: c_int, target: &mut Target) -> pid_t {
    let mut stack = vec![0u8; 1 << 20];
    unsafe {
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        let pid = libc::clone(
            exec_in_clone,
            top,
            flags | libc::SIGCHLD,
            ptr::from_mut(target).cast(),
        );
        std::mem::forget(stack);
        pid
    }
}

/// An unnamed file with the program in it, opened for reading only.
fn memory_file(target: &Target) -> c_int {
    let fd = unsafe { libc::memfd_create(c"harmless".as_ptr(), 0) };
    let mut file = unsafe { File::from_raw_fd(fd) };
    std::io::copy(&mut target.open(), &mut file).expect("copied");
    file.flush().expect("flushed");
    file.rewind().expect("rewound");
    file.into_raw_fd()
}

/// An unnamed script whose interpreter is the program.
fn memory_script(target: &Target) -> c_int {
    let fd = unsafe { libc::memfd_create(c"harmless".as_ptr(), 0) };
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(b"#!").expect("written");
    file.write_all(target.path.as_bytes()).expect("written");
    file.write_all(b"\n").expect("written");
    file.into_raw_fd()
}

fn path(text: String) -> CString {
    CString::new(text).expect("no NUL")
}

#[expect(clippy::too_many_lines, reason = "a flat list of ways")]
fn main() {
    let mut arguments = env::args_os().skip(1).map(OsString::into_vec);
    let way = String::from_utf8(arguments.next().expect("a way")).expect("a way");
    let mut target = Target::new(
        arguments
            .map(|word| CString::new(word).expect("no NUL"))
            .collect(),
    );
    match way.as_str() {
        "exec" => target.exec(),
        "fork" => match unsafe { libc::fork() } {
            0 => target.exec(),
            pid => wait(pid),
        },
        // A clone that shares memory and stops its parent is what vfork is.
        "vfork" => {
            let pid = clone_with(libc::CLONE_VM | libc::CLONE_VFORK, &mut target);
            wait(pid);
        }
        "clone-vm" => {
            let pid = clone_with(libc::CLONE_VM, &mut target);
            wait(pid);
        }
        "clone-parent" => {
            // The child's parent is ours, so that it shows up elsewhere in the tree.
            let _ = clone_with(libc::CLONE_PARENT, &mut target);
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        "posix-spawn" => unsafe {
            let mut pid = 0;
            let result = libc::posix_spawn(
                &raw mut pid,
                target.path.as_ptr(),
                ptr::null(),
                ptr::null(),
                target.argv.as_ptr().cast(),
                target.envp.as_ptr().cast(),
            );
            if result != 0 {
                exit(REFUSED);
            }
            wait(pid);
        },
        "thread" => {
            let address = ptr::from_ref(&target) as usize;
            let _ =
                std::thread::spawn(move || unsafe { &*(address as *const Target) }.exec()).join();
        }
        "double-fork" => unsafe {
            // A daemon: its parents are gone before it starts the program.
            if libc::fork() == 0 {
                libc::setsid();
                if libc::fork() == 0 {
                    while libc::getppid() != 1 && !adopted() {
                        libc::usleep(1000);
                    }
                    target.exec();
                }
                libc::_exit(0);
            }
            libc::wait(ptr::null_mut());
            libc::usleep(400_000);
        },
        "execveat-directory" => {
            let whole = target.path.to_str().expect("a plain path").to_owned();
            let (directory, name) = whole.rsplit_once('/').expect("an absolute path");
            let fd = File::open(directory)
                .expect("the directory opens")
                .into_raw_fd();
            target.exec_at(fd, &path(name.to_owned()), 0);
        }
        // Nothing is executed: whether it could be is the errno, 0 for yes.
        "check" => unsafe {
            let check = 0x1_0000;
            let result = libc::syscall(
                libc::SYS_execveat,
                libc::AT_FDCWD,
                target.path.as_ptr(),
                target.argv.as_ptr(),
                target.envp.as_ptr(),
                check,
            );
            let errno = std::io::Error::last_os_error().raw_os_error();
            println!("{}", if result == 0 { 0 } else { errno.unwrap_or(-1) });
        },
        "execveat-fd" => {
            let fd = target.open().into_raw_fd();
            target.exec_at(fd, c"", libc::AT_EMPTY_PATH);
        }
        "execveat-path-fd" => {
            let fd = unsafe { libc::open(target.path.as_ptr(), libc::O_PATH) };
            target.exec_at(fd, c"", libc::AT_EMPTY_PATH);
        }
        "fexecve" => unsafe {
            let fd = target.open().into_raw_fd();
            libc::fexecve(fd, target.argv.as_ptr().cast(), target.envp.as_ptr().cast());
            refused();
        },
        "proc-self-fd" | "proc-pid-fd" | "proc-thread-self-fd" | "proc-task-fd" | "dev-fd" => {
            let fd = target.open().into_raw_fd();
            let place = match way.as_str() {
                "proc-self-fd" => "/proc/self/fd".to_owned(),
                "proc-thread-self-fd" => "/proc/thread-self/fd".to_owned(),
                "proc-pid-fd" => format!("/proc/{}/fd", std::process::id()),
                "proc-task-fd" => format!("/proc/self/task/{}/fd", std::process::id()),
                _ => "/dev/fd".to_owned(),
            };
            target.exec_path(&path(format!("{place}/{fd}")));
        }
        "dev-stdin" => unsafe {
            libc::dup2(target.open().as_raw_fd(), 0);
            target.exec_path(c"/dev/stdin");
        },
        "link-to-fd" => {
            // The name that is executed says nothing of a descriptor.
            let fd = memory_file(&target);
            std::os::unix::fs::symlink(format!("/proc/self/fd/{fd}"), "plain").expect("linked");
            target.exec_path(c"./plain");
        }
        "memfd" => {
            let fd = memory_file(&target);
            target.exec_at(fd, c"", libc::AT_EMPTY_PATH);
        }
        "memfd-proc" => {
            let fd = memory_file(&target);
            target.exec_path(&path(format!("/proc/self/fd/{fd}")));
        }
        "memfd-script" => {
            let fd = memory_script(&target);
            target.exec_at(fd, c"", libc::AT_EMPTY_PATH);
        }
        "memfd-script-proc" => {
            let fd = memory_script(&target);
            target.exec_path(&path(format!("/proc/self/fd/{fd}")));
        }
        "tmpfile" => unsafe {
            let fd = libc::open(c".".as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o700);
            let mut file = File::from_raw_fd(fd);
            std::io::copy(&mut target.open(), &mut file).expect("copied");
            let fd = libc::open(
                path(format!("/proc/self/fd/{}", file.as_raw_fd())).as_ptr(),
                libc::O_RDONLY,
            );
            drop(file);
            target.exec_at(fd, c"", libc::AT_EMPTY_PATH);
        },
        "deleted" => {
            fs::copy(target.path.to_str().expect("a plain path"), "gone").expect("copied");
            let fd = File::open("gone").expect("opened").into_raw_fd();
            fs::remove_file("gone").expect("removed");
            target.exec_path(&path(format!("/proc/self/fd/{fd}")));
        }
        "deleted-via-link" => {
            fs::copy(target.path.to_str().expect("a plain path"), "gone").expect("copied");
            let fd = File::open("gone").expect("opened").into_raw_fd();
            fs::remove_file("gone").expect("removed");
            std::os::unix::fs::symlink(format!("/proc/self/fd/{fd}"), "plain").expect("linked");
            target.exec_path(c"./plain");
        }
        "empty-argv" => {
            target.argv = vec![ptr::null()];
            target.exec();
        }
        "null-argv" => unsafe {
            libc::syscall(
                libc::SYS_execve,
                target.path.as_ptr(),
                ptr::null::<*const c_char>(),
                target.envp.as_ptr(),
            );
            refused();
        },
        "empty-argv0" => {
            target.words[0] = CString::default();
            target.argv = pointers(&target.words);
            target.exec();
        }
        "long-argv0" => {
            target.words[0] = CString::new(vec![b'a'; 100_000]).expect("no NUL");
            target.argv = pointers(&target.words);
            target.exec();
        }
        // WAY PROGRAM ARGV0 ARGUMENTS…
        "argv0" => {
            target.words.remove(0);
            target.argv = pointers(&target.words);
            target.exec();
        }
        // WAY DIRECTORY NAME ARGUMENTS…: a name without a slash, found in the current directory.
        "relative" => {
            env::set_current_dir(target.path.to_str().expect("a plain path")).expect("entered");
            target.words.remove(0);
            target.argv = pointers(&target.words);
            let name = target.words[0].clone();
            target.exec_path(&name);
        }
        other => {
            eprintln!("no such way: {other}");
            exit(125);
        }
    }
}

/// Whether the parent is a subreaper that is not our forefather's shell: our grandparent is gone.
fn adopted() -> bool {
    use std::sync::OnceLock;
    static FIRST: OnceLock<pid_t> = OnceLock::new();
    let parent = unsafe { libc::getppid() };
    *FIRST.get_or_init(|| parent) != parent
}

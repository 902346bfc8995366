//! Tries the system-call groups: system calls that reach past what the kernel programs judge.
//!
//! `syscalls each` tries them one after another, each in a process of its own, and prints its name and errno (0: it
//! went through). `syscalls prey` is an innocent process: it prints its pid and the address of a word, and ends with
//! status 3 when the word has changed. `syscalls prowl PID ADDRESS` is its enemy. `syscalls stack WAY PROGRAM …` loads a
//! seccomp filter of its own and executes the program. `syscalls hold KEY` keeps System V objects, `syscalls objects KEY`
//! opens them. `syscalls foundlings COUNT` gives its parent so many children to wait for. `syscalls bomb` forks until it may no more and prints how often.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    reason = "a misbehaving program: plain system calls, one after another; it gives up when one fails"
)]

use std::{
    env,
    ffi::CString,
    fs::File,
    io::{Error, Write},
    os::unix::{fs::FileExt, process::CommandExt},
    process::{Command, exit},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
    thread::sleep,
    time::Duration,
};

use libc::{c_long, pid_t};

const PTRACE_SEIZE: c_long = 0x4206;
const UFFD_USER_MODE_ONLY: c_long = 1;

fn errno(result: c_long) -> i32 {
    if result < 0 {
        Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}

/// A child that waits to be killed.
struct Child(pid_t);

impl Child {
    fn new() -> Self {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            loop {
                unsafe { libc::pause() };
            }
        }
        assert!(pid > 0, "no child");
        Self(pid)
    }

    fn number(&self) -> c_long {
        self.0.into()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), libc::__WALL);
        }
    }
}

macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {
        errno(unsafe { libc::syscall($number $(, $argument)*) })
    };
}

/// Reads (or writes) a word of a child's memory, which is where ours is.
fn child_memory(number: c_long) -> i32 {
    let word = [7_u8; 8];
    let child = Child::new();
    let mut copy = [0_u8; 8];
    let local = libc::iovec {
        iov_base: copy.as_mut_ptr().cast(),
        iov_len: 8,
    };
    let remote = libc::iovec {
        iov_base: word.as_ptr().cast_mut().cast(),
        iov_len: 8,
    };
    call!(
        number,
        child.number(),
        &raw const local,
        1_usize,
        &raw const remote,
        1_usize,
        0_usize
    )
}

/// A new user namespace, then what needs one.
fn in_a_user_namespace(then: impl Fn() -> i32) -> i32 {
    match errno(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }.into()) {
        0 => then(),
        errno => errno,
    }
}

fn fork_with(number: c_long, flags: u64) -> i32 {
    // struct clone_args: flags, then …, exit_signal.
    let exit_signal = libc::SIGCHLD as u64;
    let arguments: [u64; 11] = [flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, 0];
    let pid = unsafe {
        if number == libc::SYS_clone3 {
            libc::syscall(number, arguments.as_ptr(), size_of_val(&arguments))
        } else {
            libc::syscall(
                number,
                flags | exit_signal,
                0_usize,
                0_usize,
                0_usize,
                0_usize,
            )
        }
    };
    if pid == 0 {
        unsafe { libc::_exit(0) };
    }
    let failed = errno(pid);
    if pid > 0 {
        unsafe { libc::waitpid(pid as pid_t, ptr::null_mut(), 0) };
    }
    failed
}

/// Types into a terminal of our own.
fn type_ahead() -> i32 {
    let (mut master, mut slave) = (0, 0);
    unsafe {
        let opened = libc::openpty(
            &raw mut master,
            &raw mut slave,
            ptr::null_mut(),
            ptr::null(),
            ptr::null(),
        );
        if opened < 0 {
            return errno(-1);
        }
        libc::setsid();
        libc::ioctl(slave, libc::TIOCSCTTY, 0);
        errno(libc::ioctl(slave, libc::TIOCSTI, c"x".as_ptr()).into())
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> i32 {
    errno(unsafe { libc::socket(family, kind, protocol) }.into())
}

fn ioctl(request: u32) -> i32 {
    call!(libc::SYS_ioctl, 0, request, 0)
}

/// Opens the System V objects with this key that are there (`make`: makes them): names and errnos.
fn objects(key: i32, make: bool) -> [(&'static str, c_long); 3] {
    let flags = if make { libc::IPC_CREAT | 0o666 } else { 0 };
    unsafe {
        [
            ("shm", libc::shmget(key, 4096, flags).into()),
            ("msg", libc::msgget(key, flags).into()),
            ("sem", libc::semget(key, 1, flags).into()),
        ]
    }
    .map(|(name, id)| (name, if id < 0 { -c_long::from(errno(id)) } else { id }))
}

/// Makes objects, says so, and removes them when its standard input ends.
fn hold(key: i32) {
    let made = objects(key, true);
    println!("{made:?}");
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    unsafe {
        libc::shmctl(made[0].1 as i32, libc::IPC_RMID, ptr::null_mut());
        libc::msgctl(made[1].1 as i32, libc::IPC_RMID, ptr::null_mut());
        libc::semctl(made[2].1 as i32, 0, libc::IPC_RMID);
    }
}

/// Starts processes that its parent is to wait for, and counts those that nobody has waited for a moment later.
fn foundlings(count: usize) {
    for _ in 0..count {
        // struct clone_args; the exit signal is the parent's choice.
        let arguments: [u64; 11] = [libc::CLONE_PARENT as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let size = size_of_val(&arguments);
        match unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size) } {
            0 => unsafe { libc::_exit(0) },
            -1 => panic!("no clone3: {}", Error::last_os_error()),
            _ => {}
        }
    }
    let parent = unsafe { libc::getppid() };
    let left = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let zombie = |process: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            stat.contains(&format!(") Z {parent} "))
        };
        processes
            .filter(|process| process.file_name() != "self")
            .map(zombie)
            .filter(|is| *is)
            .count()
    };
    for _ in 0..100 {
        if left() == 0 {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    println!("{} left", left());
}

type Attempt = (&'static str, fn() -> i32);

const ATTEMPTS: [Attempt; 38] = [
    ("ptrace-seize", || {
        let child = Child::new();
        call!(libc::SYS_ptrace, PTRACE_SEIZE, child.number(), 0, 0)
    }),
    ("ptrace-traceme", || call!(libc::SYS_ptrace, 0, 0, 0, 0)),
    ("process-vm-readv", || {
        child_memory(libc::SYS_process_vm_readv)
    }),
    ("process-vm-writev", || {
        child_memory(libc::SYS_process_vm_writev)
    }),
    ("pidfd-getfd", || {
        let child = Child::new();
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.number(), 0) };
        call!(libc::SYS_pidfd_getfd, pidfd, 1, 0)
    }),
    ("kcmp", || {
        let child = Child::new();
        call!(libc::SYS_kcmp, child.number(), child.number(), 1, 0, 0)
    }),
    ("bpf-map", || {
        // BPF_MAP_CREATE of an array of one word.
        let attr: [u32; 16] = [2, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        call!(libc::SYS_bpf, 0, attr.as_ptr(), size_of_val(&attr))
    }),
    ("perf-event-open", || {
        // A software clock of this process, user space only: type 1, size 112, exclude_kernel and exclude_hv.
        let mut attr = [0_u64; 14];
        attr[0] = 1 | 112 << 32;
        attr[5] = 1 << 5 | 1 << 6;
        call!(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 0)
    }),
    ("userfaultfd", || {
        call!(libc::SYS_userfaultfd, UFFD_USER_MODE_ONLY)
    }),
    ("memfd-secret", || call!(libc::SYS_memfd_secret, 0)),
    ("unshare-user", || {
        errno(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
    }),
    ("unshare-user-net", || {
        errno(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) }.into())
    }),
    ("clone-user", || {
        fork_with(libc::SYS_clone, libc::CLONE_NEWUSER as u64)
    }),
    ("clone3", || fork_with(libc::SYS_clone3, 0)),
    ("clone3-user", || {
        fork_with(libc::SYS_clone3, libc::CLONE_NEWUSER as u64)
    }),
    ("mount", || {
        in_a_user_namespace(|| {
            errno(
                unsafe {
                    libc::mount(
                        c"none".as_ptr(),
                        c"/tmp".as_ptr(),
                        c"tmpfs".as_ptr(),
                        0,
                        ptr::null(),
                    )
                }
                .into(),
            )
        })
    }),
    ("fsopen", || {
        in_a_user_namespace(|| call!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0))
    }),
    ("chroot", || {
        in_a_user_namespace(|| errno(unsafe { libc::chroot(c"/tmp".as_ptr()) }.into()))
    }),
    ("setns", || {
        in_a_user_namespace(|| {
            let own = unsafe { libc::open(c"/proc/self/ns/mnt".as_ptr(), libc::O_RDONLY) };
            errno(unsafe { libc::setns(own, libc::CLONE_NEWNS) }.into())
        })
    }),
    ("open-tree", || {
        call!(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), 0)
    }),
    // KEYCTL_GET_KEYRING_ID of the session's keyring.
    ("keyctl", || call!(libc::SYS_keyctl, 0, -3, 1)),
    ("add-key", || {
        call!(
            libc::SYS_add_key,
            c"user".as_ptr(),
            c"hatch".as_ptr(),
            c"x".as_ptr(),
            1,
            -1
        )
    }),
    ("io-uring", || {
        let parameters = [0_u32; 30];
        call!(libc::SYS_io_uring_setup, 2, parameters.as_ptr())
    }),
    ("tiocsti", type_ahead),
    // Outside, this descriptor is none of these devices.
    ("tunsetiff", || ioctl(0x4004_54ca)),
    ("vhost-vsock", || ioctl(0x4008_af60)),
    ("uinput", || ioctl(0x5501)),
    ("clone-parent", || {
        fork_with(libc::SYS_clone, libc::CLONE_PARENT as u64)
    }),
    ("mq-open", || {
        let (name, flags) = (c"enforcer-hatch", libc::O_CREAT | libc::O_RDWR);
        let failed = call!(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, 0);
        call!(libc::SYS_mq_unlink, name.as_ptr());
        failed
    }),
    ("vsock", || socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("alg", || socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("netlink-usersock", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_USERSOCK)
    }),
    ("netlink-audit", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT)
    }),
    ("prlimit", || {
        let child = Child::new();
        let limit = libc::rlimit64 {
            rlim_cur: 9,
            rlim_max: 9,
        };
        call!(
            libc::SYS_prlimit64,
            child.number(),
            libc::RLIMIT_CORE,
            &raw const limit,
            0
        )
    }),
    ("open-by-handle", || {
        // A handle of the root directory; opening it needs a capability.
        let mut handle = [0_u32; 34];
        handle[0] = 128;
        let mut mount = 0;
        let root = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                c"/".as_ptr(),
                handle.as_mut_ptr(),
                &raw mut mount,
                0,
            );
            libc::open(c"/".as_ptr(), libc::O_RDONLY)
        };
        call!(libc::SYS_open_by_handle_at, root, handle.as_ptr(), 0)
    }),
    // No descriptor is a module; no image a kernel; no flag a reboot: root gets another errno than EPERM.
    ("finit-module", || {
        call!(libc::SYS_finit_module, -1, c"".as_ptr(), 0)
    }),
    ("kexec-file-load", || {
        call!(libc::SYS_kexec_file_load, -1, -1, 0, c"".as_ptr(), 0)
    }),
    ("clock-settime", || {
        // A clock that cannot be set.
        let time = [0_i64; 2];
        call!(libc::SYS_clock_settime, 1, time.as_ptr())
    }),
];

/// Runs an attempt in a child; its errno.
fn attempt(try_it: fn() -> i32) -> i32 {
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = try_it();
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        255
    }
}

static WORD: AtomicU64 = AtomicU64::new(1);

fn prey() -> ! {
    let mut out = std::io::stdout();
    writeln!(out, "{} {}", std::process::id(), WORD.as_ptr() as usize).expect("said");
    out.flush().expect("said");
    loop {
        sleep(Duration::from_millis(20));
        if WORD.load(Ordering::SeqCst) != 1 {
            exit(3);
        }
    }
}

fn prowl(pid: pid_t, address: u64) {
    let say = |name: &str, errno: i32| println!("{name} {errno}");
    say(
        "seize",
        call!(libc::SYS_ptrace, PTRACE_SEIZE, c_long::from(pid), 0, 0),
    );
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(pid), 0) };
    say("getfd", call!(libc::SYS_pidfd_getfd, pidfd, 1, 0));
    let same = 1_u64.to_ne_bytes();
    let local = libc::iovec {
        iov_base: same.as_ptr().cast_mut().cast(),
        iov_len: 8,
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: 8,
    };
    say(
        "writev",
        call!(
            libc::SYS_process_vm_writev,
            c_long::from(pid),
            &raw const local,
            1_usize,
            &raw const remote,
            1_usize,
            0_usize
        ),
    );
    let written = File::options()
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .and_then(|memory| memory.write_all_at(&same, address));
    let failed =
        |result: std::io::Result<()>| result.err().map_or(0, |e| e.raw_os_error().unwrap_or(1));
    say("mem", failed(written));
    say(
        "environ",
        failed(File::open(format!("/proc/{pid}/environ")).map(drop)),
    );
    say(
        "stop",
        errno(unsafe { libc::kill(pid, libc::SIGSTOP) }.into()),
    );
    say(
        "pidfd-kill",
        call!(libc::SYS_pidfd_send_signal, pidfd, libc::SIGTERM, 0, 0),
    );
    say(
        "kill",
        errno(unsafe { libc::kill(pid, libc::SIGKILL) }.into()),
    );
}

/// Loads a filter that answers `execve` and `execveat` with `action`; what seccomp(2) gives.
fn load(action: u32, flags: u64) -> c_long {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let (load, jump, ret) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let filter = [
        instruction(load, 0, 0, 0),
        instruction(jump, 2, 0, libc::SYS_execve as u32),
        instruction(jump, 1, 0, libc::SYS_execveat as u32),
        instruction(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(ret, 0, 0, action),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    }
}

/// A listener of our own, served by another process, that waves every exec through.
fn listen() {
    const NEW_LISTENER: u64 = 1 << 3;
    // struct seccomp_notif: id, pid, flags, data (64 bytes); the answer: id, value, error, flags.
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    const CONTINUE: u32 = 1;
    let listener = load(libc::SECCOMP_RET_USER_NOTIF, NEW_LISTENER);
    if listener < 0 {
        // There is one already: only one may be.
        println!("no listener: {}", errno(listener));
        return;
    }
    if unsafe { libc::fork() } != 0 {
        return;
    }
    loop {
        let mut notification = [0_u64; 10];
        let fd = listener as i32;
        unsafe {
            if libc::ioctl(fd, RECEIVE, notification.as_mut_ptr()) < 0 {
                libc::_exit(0);
            }
            let answer = [notification[0], 0, u64::from(CONTINUE) << 32];
            libc::ioctl(fd, SEND, answer.as_ptr());
        }
    }
}

fn stack(way: &str, words: &[String]) -> ! {
    match way {
        "log" => assert!(load(libc::SECCOMP_RET_LOG, 0) == 0),
        "allow-many" => {
            for _ in 0..200 {
                assert!(load(libc::SECCOMP_RET_ALLOW, 0) == 0);
            }
        }
        "listener" => listen(),
        "dispatch" => {
            // PR_SET_SYSCALL_USER_DISPATCH with a selector that lets all pass: the calls are ours to redirect.
            static SELECTOR: u8 = 0;
            assert!(unsafe { libc::prctl(59, 1, 0, 0, &raw const SELECTOR) } == 0);
        }
        "no-new-privs" => {
            // Nobody can take it back.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) };
        }
        "shown-name" => {
            let name = CString::new("git").expect("no NUL");
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
        }
        "undumpable" => {
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        }
        "personality" => {
            // READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | PER_LINUX32.
            unsafe { libc::personality(0x0440_0008) };
        }
        other => panic!("no such way: {other}"),
    }
    let error = Command::new(&words[0]).args(&words[1..]).exec();
    eprintln!("refused: {error}");
    exit(126)
}

fn bomb() {
    let mut children = Vec::new();
    let errno = loop {
        match unsafe { libc::fork() } {
            0 => loop {
                unsafe { libc::pause() };
            },
            -1 => break errno(-1),
            pid => children.push(pid),
        }
        if children.len() > 20_000 {
            break 0;
        }
    };
    println!("{} {errno}", children.len());
    for pid in children {
        unsafe {
            libc::kill(pid, libc::SIGKILL);
        }
    }
}

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["each"] => {
            for (name, try_it) in ATTEMPTS {
                println!("{name} {}", attempt(try_it));
            }
        }
        ["prey"] => prey(),
        ["prowl", pid, address] => prowl(
            pid.parse().expect("a pid"),
            address.parse().expect("an address"),
        ),
        ["stack", way, ..] => {
            let program: Vec<String> = words[2..].iter().map(ToString::to_string).collect();
            stack(way, &program);
        }
        ["traced-by-launcher"] => {
            assert_eq!(call!(libc::SYS_ptrace, 0, 0, 0, 0), 0);
            unsafe { libc::raise(libc::SIGUSR1) };
        }
        ["hold", key] => hold(key.parse().expect("a key")),
        ["objects", key] => {
            for (name, id) in objects(key.parse().expect("a key"), false) {
                println!("{name} {}", if id < 0 { -id } else { 0 });
            }
            let own = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) };
            println!("own {}", errno(own.into()));
        }
        ["foundlings", count] => foundlings(count.parse().expect("a number")),
        ["bomb"] => bomb(),
        _ => panic!("no such way: {words:?}"),
    }
}

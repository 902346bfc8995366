//! An instance of the kernel programs over a cgroup of its own, and children that act in it.

use std::{
    convert::Infallible,
    ffi::CString,
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use enforcer_agent::{InForce, selftest};
use enforcer_common::grant::{ExecGrant, kernel_device};
use enforcer_kernel::{
    agent::{Agent, AgentPlan},
    attach::NamedLink,
    events::{Feed, KernelEvent},
    grants::Grants,
    instance::{Instance, UnixJudgement},
};
use enforcer_launch::{CgroupRoot, LandlockDomain};
use enforcer_policy::compile::{Tables, compile};

/// Compiles a policy.
pub fn tables(text: &str) -> Tables {
    compile(&enforcer_policy::parse(text).unwrap().policy, 7).unwrap()
}

/// A governed cgroup.
pub struct World {
    pub grants: Grants,
    pub agent: Agent,
    pub unix: UnixJudgement,
    /// What was seen to refuse.
    pub in_force: InForce,
    feed: Feed,
    /// Detached when dropped.
    _links: Vec<NamedLink>,
    instance: Arc<Instance>,
    /// Where its children are.
    pub cgroup: PathBuf,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A fresh cgroup. Not among the agents': a launcher that starts takes those away whose launcher is gone.
pub fn new_cgroup() -> PathBuf {
    let id = format!(
        "test-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let cgroup = CgroupRoot::find().unwrap().path().join(id);
    fs::create_dir(&cgroup).unwrap();
    cgroup
}

/// A cgroup for the self-test, taken away when dropped.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Self {
        Self(new_cgroup())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        take_away(&self.0);
    }
}

fn take_away(cgroup: &Path) {
    // Children that were never let go read the end of their pipe and are gone soon.
    for _ in 0..500 {
        if fs::remove_dir(cgroup).is_ok() {
            break;
        }
        sleep(Duration::from_millis(10));
    }
}

/// How deep the cgroups of these tests are.
pub const LEVEL: u32 = 1;

impl World {
    pub fn new(tables: &Tables) -> Self {
        let mut instance = Instance::load(LEVEL).unwrap();
        let place = Place::new();
        let in_force =
            selftest::prove(&mut instance, &place.0, &LandlockDomain::probe(false)).unwrap();
        drop(place);
        Self::with(Arc::new(instance), in_force, &AgentPlan::new(tables))
    }

    /// Another agent of the same instance.
    pub fn beside(&self, plan: &AgentPlan<'_>) -> Self {
        Self::with(Arc::clone(&self.instance), self.in_force.clone(), plan)
    }

    fn with(instance: Arc<Instance>, in_force: InForce, plan: &AgentPlan<'_>) -> Self {
        let cgroup = new_cgroup();
        let agent = instance.admit(plan).unwrap();
        let links = instance
            .govern(
                &agent,
                fs::File::open(&cgroup).unwrap(),
                fs::metadata(&cgroup).unwrap().ino(),
            )
            .unwrap();
        Self {
            grants: agent.grants().unwrap(),
            unix: in_force.unix(),
            in_force,
            feed: agent.feed().unwrap(),
            agent,
            _links: links,
            instance,
            cgroup,
        }
    }

    /// Whether a denied exec fails with an errno.
    pub fn has_lsm(&self) -> bool {
        self.in_force.has("exec_check")
    }

    /// The agent's events so far.
    pub fn events(&mut self) -> Vec<KernelEvent> {
        let mut events = Vec::new();
        let drained = self.feed.drain(|event| {
            events.push(event.unwrap());
            Ok::<_, Infallible>(())
        });
        let Ok(()) = drained;
        events
    }

    /// A child in the cgroup that waits to be let go, and then does what `act` says; its errno is its exit status.
    pub fn child(&self, act: impl FnOnce() -> i32) -> Child {
        let (wait, go) = nix::unistd::pipe().unwrap();
        let procs = fs::OpenOptions::new()
            .write(true)
            .open(self.cgroup.join("cgroup.procs"))
            .unwrap();
        // SAFETY: the child makes system calls only, and `act` promises the same.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let mut byte = 0_u8;
            // SAFETY: plain system calls on descriptors that were inherited.
            unsafe {
                if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                    libc::_exit(251);
                }
                if libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
                    libc::_exit(252);
                }
                libc::_exit(act());
            }
        }
        Child {
            pid: pid as u32,
            go,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        take_away(&self.cgroup);
    }
}

/// A child that waits.
pub struct Child {
    pub pid: u32,
    go: OwnedFd,
}

impl Child {
    /// Lets it go and gives its exit status; `None` if it was killed.
    pub fn go(self) -> Option<i32> {
        nix::unistd::write(&self.go, b"g").unwrap();
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(self.pid as i32, &raw mut status, 0) };
        libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
    }
}

/// The last error of a failed call; 0 if it did not fail.
pub fn errno_of(result: i64) -> i32 {
    if result >= 0 {
        return 0;
    }
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(250)
}

/// One exec, made ready.
pub struct Exec {
    path: CString,
    argv: Vec<CString>,
}

impl Exec {
    pub fn new(path: &str, argv: &[&str]) -> Self {
        let text = |text: &str| CString::new(text).unwrap();
        Self {
            path: text(path),
            argv: argv.iter().map(|word| text(word)).collect(),
        }
    }

    /// The argument area from `argv[from]` on.
    pub fn area(&self, from: usize) -> Vec<u8> {
        self.argv[from..]
            .iter()
            .flat_map(|word| word.as_bytes_with_nul().to_vec())
            .collect()
    }

    pub fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    /// What a child is to do; 255 with an errno that is none.
    pub fn act(&self) -> impl FnOnce() -> i32 + '_ {
        let mut argv: Vec<*const libc::c_char> =
            self.argv.iter().map(|word| word.as_ptr()).collect();
        argv.push(std::ptr::null());
        move || {
            let environment = [std::ptr::null()];
            // SAFETY: NULL-terminated arrays of strings that live in the parent's copy.
            let result =
                unsafe { libc::execve(self.path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
            errno_of(result.into())
        }
    }
}

/// A grant for a file, in the current directory, for a minute.
pub fn grant(file: &Path, request: u64) -> ExecGrant {
    let (file, directory) = (fs::metadata(file).unwrap(), fs::metadata(".").unwrap());
    ExecGrant {
        request,
        expires_ns: boottime() + 60_000_000_000,
        inode: file.ino(),
        size: file.size(),
        changed_s: file.ctime(),
        cwd_inode: directory.ino(),
        changed_ns: file.ctime_nsec() as u32,
        device: kernel_device(file.dev()),
        cwd_device: kernel_device(directory.dev()),
        unanswered: 0,
    }
}

/// `CLOCK_BOOTTIME`, ns.
pub fn boottime() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// What a child is to do: a TCP connect to this port of `127.0.0.1`; its errno.
pub fn connect(port: u16) -> impl Fn() -> i32 + Copy {
    move || {
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: a plain address, as long as said.
        errno_of(i64::from(unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            libc::connect(fd, (&raw const address).cast(), 16)
        }))
    }
}

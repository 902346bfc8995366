//! A network of a test's own, and what goes by in it.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// A network namespace with a pair of interfaces, `near` (2 or more, with addresses and the default route) and `far`.
pub struct Network {
    name: String,
    pub near: u32,
    namespace: File,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Network {
    /// `None` where this kernel has no such interfaces.
    pub fn new() -> Option<Self> {
        let name = format!(
            "enforcer-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        assert!(ip(&["netns", "add", &name]));
        let namespace = File::open(format!("/run/netns/{name}")).unwrap();
        let mut network = Self {
            name,
            near: 0,
            namespace,
        };
        let set = |words: &str| {
            let words: Vec<&str> = ["-n", &network.name]
                .into_iter()
                .chain(words.split(' '))
                .collect();
            ip(&words)
        };
        if !set("link add near type veth peer name far") {
            return None;
        }
        for words in [
            "link set lo up",
            "link set far up",
            "link set near up",
            "addr add 10.99.0.1/24 dev near",
            "addr add fd99::1/64 dev near nodad",
            "neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev near",
            "neigh add fd99::2 lladdr 02:00:00:00:00:02 dev near",
            "route add default via 10.99.0.2 dev near",
            "-6 route add default via fd99::2 dev near",
        ] {
            assert!(set(words), "{words}");
        }
        network.near = network.inside(|| {
            // SAFETY: the name is NUL-terminated.
            unsafe { libc::if_nametoindex(c"near".as_ptr()) }
        });
        assert!(network.near > 1);
        Some(network)
    }

    /// Does something in the namespace, on a thread of its own.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                assert_eq!(self.enter(), 0);
                act()
            });
            thread.join().unwrap()
        })
    }

    /// Takes the calling thread into the namespace.
    pub fn enter(&self) -> i32 {
        // SAFETY: numbers only.
        unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) }
    }

    /// A packet socket on all its interfaces.
    pub fn tap(&self) -> Tap {
        self.inside(|| {
            let all = i32::from((libc::ETH_P_ALL as u16).to_be());
            // SAFETY: numbers only; the kernel has just made it.
            unsafe {
                let fd = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, all);
                assert!(fd >= 0, "{}", io::Error::last_os_error());
                Tap(OwnedFd::from_raw_fd(fd))
            }
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip")
        .args(words)
        .status()
        .is_ok_and(|status| status.success())
}

/// A packet socket.
pub struct Tap(OwnedFd);

impl Tap {
    /// Whether a packet to `port` was seen on another interface than loopback since it was last asked.
    pub fn saw(&self, port: u16) -> bool {
        thread::sleep(Duration::from_millis(30));
        let mut saw = false;
        let mut bytes = [0_u8; 2048];
        loop {
            // SAFETY: the structures are as long as said.
            let (length, device) = unsafe {
                let mut from: libc::sockaddr_ll = std::mem::zeroed();
                let mut size = size_of::<libc::sockaddr_ll>() as u32;
                let length = libc::recvfrom(
                    self.0.as_raw_fd(),
                    bytes.as_mut_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut size,
                );
                (length, from.sll_ifindex)
            };
            let Ok(length) = usize::try_from(length) else {
                return saw;
            };
            let header = match bytes[0] >> 4 {
                4 => usize::from(bytes[0] & 15) * 4,
                6 => 40,
                _ => continue,
            };
            saw |= device != 1
                && length >= header + 4
                && bytes[header + 2..header + 4] == port.to_be_bytes();
        }
    }
}

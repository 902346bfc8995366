//! Who listens where the agent wants to connect to, where no kernel program sees the listener.
//!
//! A listener of the agent's own user that no process of the agent holds is outside: what connects to it has it act,
//! ungoverned. The kernel's list says which socket is bound to a file or a name and whose it is (`sock_diag(7)`), the
//! descriptors of the agent's processes say whether it is theirs.

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::{Mutex, PoisonError},
};

use enforcer_common::{address, grant::kernel_device};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, getpeername, getsockopt, socket,
            sockopt::PeerCredentials, sockopt::SockType as TypeOf,
        },
        stat::fstat,
        statfs::{BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, fstatfs},
    },
};

use enforcer_launch::{AgentCgroup, Connector, SocketPlace};
use enforcer_policy::ConnectAction;
use enforcer_seccomp::{
    Eyes, descriptor,
    diag::{self, TcpListener, UnixSocket},
};

/// How many sockets of the agent's are remembered.
const REMEMBERED: usize = 4096;

/// Whose a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The agent's.
    Agents,
    /// The agent's user's, and outside the agent.
    Outside,
    /// Another user's.
    Others,
}

/// Finds out.
#[derive(Debug)]
pub struct Listeners {
    eyes: Eyes,
    cgroup: AgentCgroup,
    /// Cookies of sockets that processes of the agent were seen to hold.
    inside: Mutex<HashSet<u64>>,
}

/// What is bound to a socket file or an abstract name.
#[derive(Debug, Default)]
pub struct Bound {
    /// The names that were given when it was bound.
    pub names: Vec<Vec<u8>>,
    /// Whose it is; the one outside, if there are several; `None` if there is none in this network namespace.
    pub whose: Option<Whose>,
}

impl Listeners {
    /// For the agent in this cgroup.
    pub fn new(eyes: Eyes, cgroup: AgentCgroup) -> Self {
        Self {
            eyes,
            cgroup,
            inside: Mutex::default(),
        }
    }

    /// What is bound to a place.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn at(&self, place: &SocketPlace) -> io::Result<Bound> {
        let sockets = diag::unix_sockets()?;
        Ok(match place {
            SocketPlace::File(file) => {
                let stat = fstat(file)?;
                // The kernel's list has the low half only.
                let inode = stat.st_ino as u32;
                // These show another number than the socket's own.
                let any = matches!(
                    fstatfs(file)?.filesystem_type(),
                    BTRFS_SUPER_MAGIC | OVERLAYFS_SUPER_MAGIC
                );
                let device = kernel_device(stat.st_dev);
                self.bound(sockets, |socket| {
                    socket
                        .file
                        .is_some_and(|file| file.0 == inode && (any || file.1 == device))
                })
            }
            SocketPlace::Abstract(name) => self.bound(sockets, |socket| {
                socket.file.is_none() && socket.name.split_first() == Some((&b'@', name))
            }),
        })
    }

    fn bound(&self, sockets: Vec<UnixSocket>, fits: impl Fn(&UnixSocket) -> bool) -> Bound {
        let mut bound = Bound::default();
        for socket in sockets.into_iter().filter(fits) {
            let whose = self.whose(socket.inode, socket.cookie, socket.uid);
            if bound.whose != Some(Whose::Outside) {
                bound.whose = Some(whose);
            }
            bound.names.push(socket.name);
        }
        bound
    }

    /// Whether a TCP listener that a connect reaches is outside.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn is_outside_tcp(&self, action: &ConnectAction) -> io::Result<bool> {
        let wanted = address::normalise(action.address);
        let reaches = |listener: &&TcpListener| {
            listener.port == action.port
                && (listener.address == [0; 16] || address::normalise(listener.address) == wanted)
        };
        Ok(diag::tcp_listeners()?
            .iter()
            .filter(reaches)
            .any(|found| self.whose(found.inode, found.cookie, found.uid) == Whose::Outside))
    }

    fn whose(&self, inode: u32, cookie: u64, uid: u32) -> Whose {
        if uid != self.eyes.uid {
            return Whose::Others;
        }
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        // Once more where it is not found: it is handed on to children while the first look goes round.
        if cookie != 0 && inside.contains(&cookie) || self.holds(inode) || self.holds(inode) {
            if inside.len() >= REMEMBERED {
                inside.clear();
            }
            inside.insert(cookie);
            return Whose::Agents;
        }
        Whose::Outside
    }

    /// Whether a process of the agent has the socket with this inode number.
    fn holds(&self, inode: u32) -> bool {
        let wanted = format!("socket:[{inode}]");
        let processes = self.cgroup.procs().unwrap_or_default();
        processes.into_iter().any(|process| {
            let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else {
                return false;
            };
            entries
                .flatten()
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|target| target.as_os_str() == wanted.as_str())
        })
    }

    /// What is bound to a place that the kernel's list does not have, because it is in another network namespace, or the list
    /// had a gap: asked of itself, by a connect of our own.
    ///
    /// # Errors
    ///
    /// What the connect of `of` would come to: nobody listens.
    pub fn probe(
        &self,
        connector: &Connector,
        of: &OwnedFd,
        place: &SocketPlace,
    ) -> Result<Bound, Errno> {
        let kind: SockType = getsockopt(of, TypeOf)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let probe = socket(AddressFamily::Unix, kind, flags, None)?;
        connector.connect(probe.as_fd(), place)?;
        let own = match (kind, place) {
            // Datagrams have no peer to ask; the file is of who made the socket.
            (SockType::Datagram, SocketPlace::File(file)) => fstat(file)?.st_uid == self.eyes.uid,
            (SockType::Datagram, SocketPlace::Abstract(_)) => true,
            _ => getsockopt(&probe, PeerCredentials)?.uid() == self.eyes.uid,
        };
        let whose = match own {
            false => Whose::Others,
            true if self.peer_is_agents(&probe) => Whose::Agents,
            true => Whose::Outside,
        };
        let name = getpeername::<UnixAddr>(probe.as_raw_fd())?;
        Ok(Bound {
            names: name
                .path()
                .map(|path| path.as_os_str().as_bytes().to_vec())
                .into_iter()
                .collect(),
            whose: Some(whose),
        })
    }

    /// Whether the process at the other end is the agent's, and lives.
    fn peer_is_agents(&self, probe: &OwnedFd) -> bool {
        let Ok(process) = descriptor::peer_process(probe) else {
            return false;
        };
        let pid = || {
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()));
            let text = text.unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
            line.and_then(|pid| pid.trim().parse::<u32>().ok())
        };
        // A number that was given to another meanwhile is none any more the second time.
        pid().is_some_and(|number| self.eyes.is_agents_process(number) && pid() == Some(number))
    }
}

/// Which processes have been told of which listeners outside, the latest.
#[derive(Debug, Default)]
pub struct ToldListeners(Mutex<VecDeque<(u32, Vec<u8>)>>);

/// How many of them are remembered.
const TOLD: usize = 64;

impl ToldListeners {
    /// Whether a process has not been told this yet; it is from then on.
    pub fn is_new(&self, pid: u32, what: &[u8]) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told
            .iter()
            .any(|(other, said)| *other == pid && said == what)
        {
            return false;
        }
        if told.len() >= TOLD {
            told.pop_front();
        }
        told.push_back((pid, what.to_vec()));
        true
    }
}

/// Parts of the names of daemons' sockets that run commands for whoever connects, and what they are.
const DAEMONS: [(&str, &str); 8] = [
    (
        "/codex-daemon-",
        "Codex, which runs without it as `codex --no-daemon`",
    ),
    ("/cc-daemon-", "Claude Code"),
    ("/vscode-", "VS Code"),
    ("/.vscode-server/", "VS Code"),
    ("/emacs", "Emacs"),
    ("/nvim.", "Neovim"),
    ("/tmux-", "tmux"),
    ("/.gnupg/", "GnuPG"),
];

/// The known daemons of a user that listen now: what each is, and its socket. For people to read.
pub fn daemons(uid: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut found: Vec<(&str, Vec<u8>)> = Vec::new();
    let sockets = diag::unix_sockets().unwrap_or_default();
    for socket in sockets
        .into_iter()
        .filter(|socket| socket.uid == uid && socket.listens)
    {
        let name = String::from_utf8_lossy(&socket.name);
        let known = DAEMONS.iter().find(|(part, _)| name.contains(part));
        // One line for each daemon, however many sockets it has.
        if let Some((_, what)) = known
            && !found.iter().any(|(other, _)| other == what)
        {
            found.push((what, socket.name));
        }
    }
    found
}

/// Whether a thread is in another network namespace than this process.
pub fn in_own_network(tid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let namespace = |process: &str| {
        fs::metadata(format!("/proc/{process}/ns/net")).map(|found| (found.dev(), found.ino()))
    };
    match (namespace(&tid.to_string()), namespace("self")) {
        (Ok(its), Ok(ours)) => its != ours,
        _ => false,
    }
}

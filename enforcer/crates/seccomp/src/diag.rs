//! The sockets of this network namespace, as the kernel lists them (`sock_diag(7)`, `proc_net_tcp`).

use std::{fs, io};

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SOCK_DIAG_BY_FAMILY: u16 = 20; // linux/sock_diag.h

// Of what a socket is shown (linux/unix_diag.h), and the attributes that carry it.
const SHOW_NAME: u32 = 0x01;
const SHOW_VFS: u32 = 0x02;
const SHOW_UID: u32 = 0x40;
const ATTRIBUTE_NAME: u16 = 0;
const ATTRIBUTE_VFS: u16 = 1;
const ATTRIBUTE_UID: u16 = 7;

// Socket states (linux/tcp_states.h): a bound datagram socket is closed, or established once it has connected.
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;
const LISTENING: u8 = 10;

// As one byte each in a request (linux/inet_diag.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

const HEADER: usize = 16; // struct nlmsghdr
const UNIX_MESSAGE: usize = 16; // struct unix_diag_msg
const INET_MESSAGE: usize = 72; // struct inet_diag_msg
/// Bytes of one answer; the kernel sends at most 32 KiB at a time.
const ROOM: usize = 1 << 16;

/// A socket that can be connected or sent to by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its inode number, as `/proc/PID/fd` shows it.
    pub inode: u32,
    /// What no other socket has had since the boot.
    pub cookie: u64,
    /// The user that made it.
    pub uid: u32,
    /// The name that it is bound to: a path as it was given, or `@` and an abstract name.
    pub name: Vec<u8>,
    /// Its file: the low half of the inode number, and the kernel's device number.
    pub file: Option<(u32, u32)>,
    /// Whether it is there for streams or sequenced packets.
    pub listens: bool,
}

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpListener {
    /// Its inode number, as `/proc/PID/fd` shows it.
    pub inode: u32,
    /// What no other socket has had since the boot; 0 where the kernel does not tell.
    pub cookie: u64,
    /// The user that made it.
    pub uid: u32,
    /// Its address; IPv4 as `::ffff:a.b.c.d`. Zeros: every address.
    pub address: [u8; 16],
    /// Its port.
    pub port: u16,
}

/// The unix sockets that can be connected or sent to.
///
/// # Errors
/// When the kernel does not tell (`CONFIG_UNIX_DIAG`).
pub fn unix_sockets() -> io::Result<Vec<UnixSocket>> {
    let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
    let states = 1_u32 << ESTABLISHED | 1 << CLOSED | 1 << LISTENING;
    for word in [states, 0, SHOW_NAME | SHOW_VFS | SHOW_UID, 0, 0] {
        request.extend(word.to_ne_bytes());
    }
    let mut sockets = Vec::new();
    dump(&request, |message| sockets.extend(unix_socket(message)))?;
    Ok(sockets)
}

/// The TCP sockets that listen: by `sock_diag`, or where that is a module that cannot be loaded (`CONFIG_INET_TCP_DIAG`), by
/// the list in procfs.
///
/// # Errors
/// When the kernel does not tell.
pub fn tcp_listeners() -> io::Result<Vec<TcpListener>> {
    match tcp_by_diag() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => tcp_by_procfs(),
        listed => listed,
    }
}

fn tcp_by_procfs() -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for name in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
            Ok(text) => listeners.extend(text.lines().skip(1).filter_map(listed)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "tcp6" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

/// A line of the list, if the socket listens. Addresses are words as this machine has them in memory.
fn listed(line: &str) -> Option<TcpListener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    if state != LISTENING {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<[u8; 4]>>>()?.concat();
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok([0, 0, 0, 0]) => [0; 16],
        Ok(v4) => enforcer_common::address::from_v4(v4),
        Err(_) => bytes.try_into().ok()?,
    };
    Some(TcpListener {
        inode: fields.get(9)?.parse().ok()?,
        cookie: 0,
        uid: fields.get(7)?.parse().ok()?,
        address,
        port: u16::from_str_radix(port, 16).ok()?,
    })
}

fn tcp_by_diag() -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut request = vec![family, IPPROTO_TCP, 0, 0];
        request.extend((1_u32 << LISTENING).to_ne_bytes());
        // struct inet_diag_sockid: any.
        request.extend([0; 48]);
        dump(&request, |message| listeners.extend(tcp_listener(message)))?;
    }
    Ok(listeners)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn cookie(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(word(bytes, at + 4)?) << 32 | u64::from(word(bytes, at)?))
}

fn unix_socket(message: &[u8]) -> Option<UnixSocket> {
    let (kind, state) = (i32::from(*message.get(1)?), *message.get(2)?);
    // An accepted socket has the name of the one that accepted it.
    if state == ESTABLISHED && kind != libc::SOCK_DGRAM {
        return None;
    }
    let mut socket = UnixSocket {
        inode: word(message, 4)?,
        cookie: cookie(message, 8)?,
        uid: u32::MAX,
        name: Vec::new(),
        file: None,
        listens: state == LISTENING,
    };
    let mut rest = message.get(UNIX_MESSAGE..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        let value = rest.get(4..length)?;
        match kind {
            ATTRIBUTE_NAME => {
                socket.name = match value {
                    [0, name @ ..] => [b"@", name].concat(),
                    path => path
                        .split(|byte| *byte == 0)
                        .next()
                        .unwrap_or(path)
                        .to_vec(),
                }
            }
            ATTRIBUTE_VFS => socket.file = Some((word(value, 0)?, word(value, 4)?)),
            ATTRIBUTE_UID => socket.uid = word(value, 0)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (!socket.name.is_empty()).then_some(socket)
}

fn tcp_listener(message: &[u8]) -> Option<TcpListener> {
    let message = message.get(..INET_MESSAGE)?;
    // struct inet_diag_sockid begins behind four bytes: ports, addresses, interface, cookie.
    let mut address: [u8; 16] = message[8..24].try_into().ok()?;
    if i32::from(message[0]) == libc::AF_INET && address[..4] != [0; 4] {
        address = enforcer_common::address::from_v4(address[..4].try_into().ok()?);
    }
    Some(TcpListener {
        inode: word(message, 68)?,
        cookie: cookie(message, 44)?,
        uid: word(message, 64)?,
        address,
        port: u16::from_be_bytes([message[4], message[5]]),
    })
}

/// Asks, and hands over each answer without its header.
fn dump(request: &[u8], mut answer: impl FnMut(&[u8])) -> io::Result<()> {
    // SAFETY: numbers only; the descriptor that comes back is ours.
    let socket = unsafe {
        let fd = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_SOCK_DIAG,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let length = u32::try_from(HEADER + request.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(request);
    // SAFETY: the buffer is as long as it says.
    if unsafe {
        libc::send(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
        )
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    let mut room = vec![0_u8; ROOM];
    loop {
        // SAFETY: the buffer is as long as it says.
        let read = unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), ROOM, 0) };
        let Ok(read) = usize::try_from(read) else {
            return Err(io::Error::last_os_error());
        };
        let mut rest = &room[..read];
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(length) = word(rest, 0) {
            let length = length as usize;
            let (Some(kind), Some(body)) = (rest.get(4..6), rest.get(HEADER..length)) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            match i32::from(u16::from_ne_bytes([kind[0], kind[1]])) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let errno = word(body, 0).map_or(libc::EIO, |errno| -errno.cast_signed());
                    return Err(io::Error::from_raw_os_error(errno));
                }
                _ => answer(body),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

    use super::*;

    fn inode(socket: &impl AsRawFd) -> u32 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let text = link
            .to_str()
            .unwrap()
            .trim_matches(|c: char| !c.is_ascii_digit());
        text.parse().unwrap()
    }

    #[test]
    fn unix_sockets_are_found_by_name_and_by_file() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let stream = UnixListener::bind(&path).unwrap();
        let name = format!("diag-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let datagram = UnixDatagram::bind_addr(&address).unwrap();
        let all = unix_sockets().unwrap();
        let found = |number: u32| all.iter().find(|socket| socket.inode == number).unwrap();
        let stream = found(inode(&stream));
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!(stream.name, path.as_os_str().as_encoded_bytes());
        assert_eq!(stream.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(stream.file.unwrap().0, file.ino() as u32);
        assert!(stream.listens);
        let datagram = found(inode(&datagram));
        assert_eq!(datagram.name, format!("@{name}").as_bytes());
        assert!(datagram.file.is_none() && !datagram.listens);
        assert_ne!(stream.cookie, datagram.cookie);
    }

    #[test]
    fn tcp_listeners_are_found_by_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let all = tcp_listeners().unwrap();
        let found = all.iter().find(|listener| listener.port == port).unwrap();
        assert_eq!(found.inode, inode(&listener));
        assert_eq!(
            found.address,
            enforcer_common::address::from_v4([127, 0, 0, 1])
        );
        assert_eq!(found.uid, nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn procfs_tells_the_same_of_listeners() {
        for place in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(place) else {
                // A machine without IPv6.
                assert!(place.starts_with('['), "{place}");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let mine = |listeners: Vec<TcpListener>| {
                let mut listeners = listeners.into_iter();
                let found = listeners.find(|listener| listener.port == port).unwrap();
                TcpListener { cookie: 0, ..found }
            };
            assert_eq!(
                mine(tcp_by_procfs().unwrap()),
                mine(tcp_listeners().unwrap()),
                "{place}"
            );
        }
    }
}

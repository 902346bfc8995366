//! Socket addresses as callers give them: `struct sockaddr_in`, `sockaddr_in6`, `sockaddr_un`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a caller wants to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port.
    Inet(IpAddr, u16),
    /// The path of a unix socket.
    Path(Vec<u8>),
    /// The abstract name of a unix socket, without the NUL before it.
    Abstract(Vec<u8>),
}

impl Address {
    /// Parses what the kernel would read; `None` for what it refuses, and for other families.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let port = || {
            let port = bytes.get(2..4)?.try_into().ok()?;
            Some(u16::from_be_bytes(port))
        };
        match i32::from(family) {
            libc::AF_INET => {
                let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                Some(Self::Inet(Ipv4Addr::from(octets).into(), port()?))
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                Some(Self::Inet(Ipv6Addr::from(octets).into(), port()?))
            }
            libc::AF_UNIX => match bytes.get(2..)? {
                [] => None,
                [0, name @ ..] => Some(Self::Abstract(name.to_vec())),
                path => {
                    let end = path.iter().position(|byte| *byte == 0);
                    Some(Self::Path(path[..end.unwrap_or(path.len())].to_vec()))
                }
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(name: &[u8]) -> Vec<u8> {
        [&1_u16.to_ne_bytes(), name].concat()
    }

    #[test]
    fn unix_names() {
        let parse = |name: &[u8]| Address::parse(&unix(name));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"/a\0rest"), Some(Address::Path(b"/a".to_vec())));
        assert_eq!(parse(b"/a"), Some(Address::Path(b"/a".to_vec())));
        assert_eq!(parse(b"\0a\0b"), Some(Address::Abstract(b"a\0b".to_vec())));
    }

    #[test]
    fn inet_addresses() {
        let mut v4 = 2_u16.to_ne_bytes().to_vec();
        v4.extend([0x1f, 0x90, 127, 0, 0, 1]);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(Address::parse(&v4), Some(Address::Inet(loopback, 8080)));
        // Too short, another family, nothing at all.
        assert_eq!(Address::parse(&v4[..6]), None);
        assert_eq!(Address::parse(&[16, 0, 0, 0]), None);
        assert_eq!(Address::parse(b""), None);
    }
}

//! What is judged: an exec, a connect to an address, a connect to a unix socket.

use std::net::IpAddr;

use enforcer_common::{address, rule::judged_protocol};

/// One exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAction {
    /// The path as given to the kernel.
    pub path: Vec<u8>,
    /// Whether the path is a bare name that stands for a program in a trusted directory: what a shell would
    /// find in `PATH`. Only for judging a command line that is not run.
    pub found: bool,
    /// The arguments, `argv[0]` first; it may be empty.
    pub argv: Vec<Vec<u8>>,
    /// Path of the executable that the path leads to, links followed; of the interpreter for a script. Its name alone
    /// where more is not known.
    pub resolved: Option<Vec<u8>>,
    /// Set if the path is a script.
    pub script: Option<ScriptHead>,
    /// Path of the script itself, links followed, if it is one and that is known.
    pub own: Option<Vec<u8>>,
    /// The executable has no link in the file system (memfd, deleted).
    pub fileless: bool,
    /// The agent's user can change the program, or a directory on the way to it: no directory is trusted for it.
    pub changeable: bool,
}

/// The first line of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptHead {
    /// The interpreter's path.
    pub interpreter: Vec<u8>,
    /// Its argument.
    pub argument: Option<Vec<u8>>,
}

impl ExecAction {
    /// A command line that is not run: a first word without a slash stands for a program in a trusted
    /// directory.
    pub fn from_words(argv: Vec<Vec<u8>>) -> Self {
        let path = argv.first().cloned().unwrap_or_default();
        Self {
            found: !path.contains(&b'/'),
            path,
            argv,
            ..Self::default()
        }
    }

    /// What rules see behind the program: for each argument a NUL and the argument.
    pub fn arguments(&self) -> Vec<u8> {
        joined(self.argv.iter().skip(1))
    }
}

/// A NUL before each word.
pub fn joined<'a>(words: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut text = Vec::new();
    for word in words {
        text.push(0);
        text.extend_from_slice(word);
    }
    text
}

/// One connect, or a datagram sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectAction {
    /// The address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The port, host order.
    pub port: u16,
    /// The IP protocol number.
    pub protocol: u16,
}

impl ConnectAction {
    /// A connect to an address.
    pub fn new(address: IpAddr, port: u16, protocol: u16) -> Self {
        let address = match address {
            IpAddr::V4(v4) => address::from_v4(v4.octets()),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self {
            address,
            port,
            protocol: judged_protocol(protocol.into()) as u16,
        }
    }
}

/// A connect to a unix socket, or a datagram sent to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixAction {
    /// The socket's name: its absolute path, resolved as far as it is known, or `@` and its abstract name.
    pub name: Vec<u8>,
}

impl UnixAction {
    /// A connect to the socket with this name.
    pub fn new(name: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into() }
    }
}

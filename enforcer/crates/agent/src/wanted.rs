//! What a call wants of the kernel: as it waits, and as the trail and the terminal have it.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hasher},
    net::{IpAddr, SocketAddr},
};

use enforcer_common::{address, limits::Thing};

use super::{
    error::{AgentError, Result},
    held::HeldCall,
    paths::UnixConnect,
};
use enforcer_decide::{
    Outcome,
    approval::{ConnectRequest, ExecRequest, Request},
    engine::Engine,
};
use enforcer_policy::{ConnectAction, ExecAction, UnixAction, matcher::Matcher};
use enforcer_seccomp::resolve::{self, Found};
use enforcer_trail::Syscall;

/// What a call wants, as it was looked at when it came; it is held until that is done or refused.
#[derive(Debug)]
pub enum Wish {
    /// To start a program.
    Exec(Found),
    /// To connect to an address.
    Connect(ConnectRequest),
    /// To connect to a unix socket.
    Unix(UnixConnect),
}

impl Wish {
    /// What the rules say of it.
    pub fn judge(&self, engine: &Engine) -> Outcome {
        match self {
            Self::Exec(found) => engine.exec(&found.action),
            Self::Connect(to) => {
                engine.connect(&ConnectAction::new(to.address, to.port, to.protocol))
            }
            Self::Unix(connect) => engine.unix(&UnixAction::new(connect.name.as_slice())),
        }
    }

    /// What it is to the breaker, which tells a repeat from another.
    pub fn thing(&self) -> Thing {
        match self {
            Self::Exec(found) => found.thing(),
            Self::Connect(to) => {
                let address = normal(to.address);
                Thing::address(&address, to.protocol.into(), to.port.into())
            }
            Self::Unix(connect) => socket_thing(&connect.name),
        }
    }

    /// What is told of it.
    pub fn wanted(&self, matcher: &Matcher) -> Wanted<'_> {
        match self {
            Self::Exec(found) => Wanted::exec(matcher, &found.action),
            Self::Connect(to) => Wanted::Connect(*to),
            Self::Unix(connect) => Wanted::Unix(&connect.name),
        }
    }

    /// What a person is asked about: exactly this. `tid` is the thread that waits.
    ///
    /// # Errors
    ///
    /// The program or the working directory cannot be vouched for.
    fn request(&self, tid: u32) -> Result<Request> {
        Ok(match self {
            Self::Exec(found) => Request::Exec(ExecRequest {
                path: found.action.path.clone(),
                argv: found.action.argv.clone(),
                cwd: resolve::working_directory(tid)
                    .map_err(AgentError::system("its working directory cannot be read"))?,
                file: found.identity().map_err(AgentError::Unvouched)?,
            }),
            Self::Connect(to) => Request::Connect(*to),
            Self::Unix(connect) => Request::Unix(connect.name.clone()),
        })
    }
}

/// A call as it is put to a person.
#[derive(Debug)]
pub struct Put {
    /// The call.
    pub held: HeldCall,
    /// What is asked.
    pub request: Request,
}

impl Put {
    /// Looks once more at what is to be vouched for, which can take as long as the file is large: on the holding thread.
    ///
    /// # Errors
    ///
    /// It cannot be put to anybody: the call, and why.
    pub fn new(held: HeldCall) -> std::result::Result<Self, (Box<HeldCall>, AgentError)> {
        match held.wish.request(held.tid) {
            Ok(request) => Ok(Self { held, request }),
            Err(error) => Err((Box::new(held), error)),
        }
    }

    /// The program, and what was vouched for.
    pub fn exec(&self) -> Option<(&Found, &ExecRequest)> {
        match (&self.held.wish, &self.request) {
            (Wish::Exec(found), Request::Exec(exec)) => Some((found, exec)),
            _ => None,
        }
    }
}

/// What a caller wanted, for the trail and the terminal.
#[derive(Clone, Debug)]
pub enum Wanted<'a> {
    /// An exec: the text as rules see it, the size of its arguments, its path.
    Exec {
        /// The program, then for each argument a NUL and the argument.
        text: Cow<'a, [u8]>,
        /// Bytes of the arguments with their NULs.
        argv_bytes: u32,
        /// The path as given.
        path: &'a [u8],
    },
    /// A connect to an address.
    Connect(ConnectRequest),
    /// A connect to a unix socket: its path, or `@` and its abstract name.
    Unix(&'a [u8]),
    /// A system call that the filter refuses.
    Syscall(Syscall<'a>),
}

impl<'a> Wanted<'a> {
    /// An exec.
    pub fn exec(matcher: &Matcher, action: &'a ExecAction) -> Self {
        let bytes: usize = action.argv.iter().map(|word| word.len() + 1).sum();
        Self::Exec {
            text: matcher.text(action).into(),
            argv_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            path: &action.path,
        }
    }

    /// What a line on the terminal calls it.
    pub fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Exec { text, .. } => Cow::Borrowed(text),
            Self::Connect(to) => {
                let address = SocketAddr::new(to.address, to.port);
                Cow::Owned(format!("connect {address}").into_bytes())
            }
            Self::Unix(name) => Cow::Owned([b"connect ", *name].concat()),
            Self::Syscall(call) => Cow::Borrowed(call.name.as_bytes()),
        }
    }
}

/// A unix socket by its name, to tell one denial from another.
pub fn socket_thing(name: &[u8]) -> Thing {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    Thing::socket(hasher.finish())
}

/// An address as the kernel programs know it.
pub fn normal(address: IpAddr) -> [u8; 16] {
    address::normalise(match address {
        IpAddr::V4(v4) => address::from_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    })
}

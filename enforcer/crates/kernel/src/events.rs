//! The ring buffer, read: bytes become [`KernelEvent`]s.

use std::{
    net::Ipv6Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
};

use aya::maps::{Map, MapData, RingBuf};
use aya_log::EbpfLogger;
use enforcer_common::{
    event::{
        ConnectTail, ExecTail, Header, KIND_CONNECT, KIND_ESCAPE, KIND_EXEC, KIND_PACKET,
        KIND_PROCESS, KIND_SOCKET, KIND_UNIX, ProcessTail, UnixTail,
    },
    seat::SlotState,
};

use super::{KernelError, agent::Agent, sys};

/// One event of the kernel programs.
#[derive(Clone, Debug)]
pub struct KernelEvent {
    /// What all events have.
    pub header: Header,
    /// What it is about.
    pub body: Body,
}

/// What an event is about.
#[derive(Clone, Debug)]
pub enum Body {
    /// An exec.
    Exec(ExecFacts),
    /// A connect, or a datagram to an address.
    Connect(SocketFacts),
    /// A socket that a host rule cannot judge.
    Socket(SocketFacts),
    /// A task that left its agent's cgroup.
    Escape,
    /// A connect, or a datagram, to a unix socket.
    Unix(UnixFacts),
    /// A process outside the agent that was reached for.
    Process(ProcessFacts),
    /// A packet that would be led on to another address; the port is not known.
    Packet(SocketFacts),
}

/// The facts of a unix connect or datagram.
#[derive(Clone, Debug)]
pub struct UnixFacts {
    /// The socket's path (`/var/run/` as `/run/`), or `@` and its abstract name; empty if it could not be read.
    pub name: Vec<u8>,
    /// Type of the socket.
    pub socket_type: u32,
    /// Name of the file that the process executes; empty if it could not be read. May be cut.
    pub program: Vec<u8>,
}

/// The facts of an attempt on another process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessFacts {
    /// The process.
    pub target: u32,
    /// `REACH_` constant of [`enforcer_common::event`].
    pub reach: u32,
    /// Access mode, or number of the signal.
    pub detail: u32,
}

/// The facts of an exec.
#[derive(Clone, Debug)]
pub struct ExecFacts {
    /// The program as rules see it, then for each argument a NUL and the argument. May be cut.
    pub text: Vec<u8>,
    /// The path as given to the kernel. May be cut.
    pub path: Vec<u8>,
    /// The executable's own name in its directory.
    pub name: Vec<u8>,
    /// Size of the argument area, bytes.
    pub argv_bytes: u32,
}

/// The facts of a connect or a socket.
#[derive(Clone, Debug)]
pub struct SocketFacts {
    /// Address as judged; IPv4 in its mapped form.
    pub address: Ipv6Addr,
    /// Port.
    pub port: u16,
    /// IP protocol.
    pub protocol: u32,
    /// Address family of the socket.
    pub family: u32,
    /// Type of the socket.
    pub socket_type: u32,
    /// Name of the file that the process executes; empty if it could not be read. May be cut.
    pub program: Vec<u8>,
}

/// The bytes before the first NUL.
fn before_nul(bytes: &[u8]) -> Vec<u8> {
    bytes
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or(bytes)
        .to_vec()
}

/// Reads a plain structure off the front of `bytes`.
fn take<T: aya::Pod>(bytes: &mut &[u8]) -> Option<T> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    *bytes = rest;
    // SAFETY: `T` is plain data of exactly this many bytes; no alignment is assumed.
    Some(unsafe { ptr::read_unaligned(head.as_ptr().cast::<T>()) })
}

impl KernelEvent {
    /// Parses the bytes of one ring buffer record; `None` if they are not what the programs write.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let header: Header = take(rest)?;
        let body = match header.kind {
            KIND_EXEC => {
                let tail: ExecTail = take(rest)?;
                let mut piece = |len: u32| {
                    let (head, left) = rest.split_at_checked(len as usize)?;
                    *rest = left;
                    Some(head.to_vec())
                };
                Body::Exec(ExecFacts {
                    text: piece(tail.text_len)?,
                    path: piece(tail.path_len)?,
                    name: piece(tail.name_len)?,
                    argv_bytes: tail.argv_bytes,
                })
            }
            KIND_CONNECT | KIND_SOCKET | KIND_PACKET => {
                let tail: ConnectTail = take(rest)?;
                let facts = SocketFacts {
                    address: tail.address.into(),
                    port: u16::try_from(tail.port).ok()?,
                    protocol: tail.protocol,
                    family: tail.family,
                    socket_type: tail.socket_type,
                    program: before_nul(&tail.program),
                };
                match header.kind {
                    KIND_CONNECT => Body::Connect(facts),
                    KIND_SOCKET => Body::Socket(facts),
                    _ => Body::Packet(facts),
                }
            }
            KIND_UNIX => {
                let tail: UnixTail = take(rest)?;
                Body::Unix(UnixFacts {
                    name: rest.get(..tail.name_len as usize)?.to_vec(),
                    socket_type: tail.socket_type,
                    program: before_nul(&tail.program),
                })
            }
            KIND_PROCESS => {
                let tail: ProcessTail = take(rest)?;
                Body::Process(ProcessFacts {
                    target: tail.target,
                    reach: tail.reach,
                    detail: tail.detail,
                })
            }
            KIND_ESCAPE => Body::Escape,
            _ => return None,
        };
        Some(Self { header, body })
    }
}

/// Bytes of a ring buffer before each of its records (`BPF_RINGBUF_HDR_SZ`, linux/bpf.h).
const RECORD_HEADER: usize = 8;

/// The events and counters of an agent.
pub struct Feed {
    ring: RingBuf<MapData>,
    /// Bytes that it has room for.
    room: usize,
    agent: Agent,
    diagnostics: Option<EbpfLogger<KernelLog>>,
}

/// Hands what the kernel programs say to `tracing`.
struct KernelLog;

impl log::Log for KernelLog {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "enforcer::kernel", "{}", record.args());
    }

    fn flush(&self) {}
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    /// The feed of an agent over its ring.
    pub(super) fn new(ring: OwnedFd, agent: Agent) -> Result<Self, KernelError> {
        let room = sys::map_info(&ring)
            .map_err(|error| KernelError::map("EVENTS", error))?
            .max_entries as usize;
        let ring = MapData::from_fd(ring).map_err(|error| KernelError::map("EVENTS", error))?;
        Ok(Self {
            room,
            ring: RingBuf::try_from(Map::RingBuf(ring))
                .map_err(|error| KernelError::map("EVENTS", error))?,
            agent,
            diagnostics: None,
        })
    }

    /// Readable when there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Hands on what the programs say, from the next event on; `program` is the number of one of them.
    ///
    /// # Errors
    ///
    /// The programs were built without diagnostics.
    pub(super) fn diagnose(&mut self, program: u32) -> Result<(), KernelError> {
        let logger = EbpfLogger::init_from_id_with_logger(program, KernelLog)
            .map_err(|error| KernelError::map("AYA_LOGS", error))?;
        self.diagnostics = Some(logger);
        Ok(())
    }

    /// Gives all events that are there to `each`, and takes each off the ring afterwards. It is `None` for a record that could
    /// not be parsed.
    ///
    /// It ends: of those that come meanwhile it takes no more than the ring has room for. An agent makes events faster than
    /// they are written, and whoever waits for this would wait for as long as it likes.
    ///
    /// # Errors
    ///
    /// The first error of `each`; the event of that is off the ring, too.
    pub fn drain<E>(
        &mut self,
        mut each: impl FnMut(Option<KernelEvent>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.flush();
        }
        let mut taken = 0;
        while taken < self.room
            && let Some(record) = self.ring.next()
        {
            // With its header there, whole words.
            taken += record.len() + RECORD_HEADER;
            each(KernelEvent::parse(&record))?;
        }
        Ok(())
    }

    /// The counters of the agent.
    ///
    /// # Errors
    ///
    /// The kernel refuses to show them.
    pub fn counters(&self) -> Result<SlotState, KernelError> {
        self.agent.state()
    }
}

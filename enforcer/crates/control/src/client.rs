//! The other end of the control socket.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    ControlError, SOCKET_NAME,
    error::run,
    protocol::{DeskEvent, Operation, Reply},
};

/// How long a desk may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it may take to say what it has counted.
const COUNTING: Duration = Duration::from_secs(1);

/// How long it may take to compile a policy, on a busy machine.
const COMPILING: Duration = Duration::from_mins(2);

/// Bytes of a reply: a thousand listed requests.
const MAX_REPLY: u64 = 64 * 1024 * 1024;

/// The sockets of all runs below a directory (`/run/enforcer`), whether or not anybody listens.
pub fn sockets(root: &Path) -> Vec<PathBuf> {
    // A user that is not root may pass through the directory without being able to list it: then its own listing of
    // unix sockets, which every user can read, tells where they are.
    let mut found: Vec<PathBuf> = match fs::read_dir(root) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.path().join(SOCKET_NAME)))
            .filter(|socket| fs::symlink_metadata(socket).is_ok())
            .collect(),
        Err(_) => listening(root),
    };
    found.sort();
    found.dedup();
    found
}

fn listening(root: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table
        .lines()
        // Num RefCount Protocol Flags Type St Inode Path (proc(5)).
        .filter_map(|line| line.split_ascii_whitespace().nth(7))
        .map(PathBuf::from)
        .filter(|path| {
            path.file_name().is_some_and(|name| name == SOCKET_NAME)
                && path.parent().and_then(Path::parent) == Some(root)
        })
        .collect()
}

/// Puts one request to a desk.
///
/// # Errors
///
/// Nobody listens, or the reply is no reply.
pub fn request(socket: &Path, request: &Operation) -> Result<Reply, ControlError> {
    Listening::find(socket)?.request(request)
}

/// A desk that listens, for who has to know whether a request can have reached it.
#[derive(Debug)]
pub struct Listening {
    socket: PathBuf,
    stream: UnixStream,
}

impl Listening {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn find(socket: &Path) -> Result<Self, ControlError> {
        Ok(Self {
            stream: connect(socket)?,
            socket: socket.to_owned(),
        })
    }

    /// Puts one request to it.
    ///
    /// # Errors
    ///
    /// There is no reply. What was requested may have been done.
    pub fn request(mut self, request: &Operation) -> Result<Reply, ControlError> {
        let patience = match request {
            Operation::Change { .. } => COMPILING,
            // Who asks has numbers of the kernel's to show instead.
            Operation::Counts => COUNTING,
            _ => PATIENCE,
        };
        let socket = &self.socket;
        self.stream
            .set_read_timeout(Some(patience))
            .map_err(ControlError::io(socket, "setsockopt"))?;
        send(&mut self.stream, socket, request)?;
        let mut line = String::new();
        let read = BufReader::new(self.stream.take(MAX_REPLY)).read_line(&mut line);
        read.map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::Silent {
                run: run(socket),
                within: patience,
            },
            _ => ControlError::io(socket, "read")(source),
        })?;
        if line.is_empty() {
            return Err(ControlError::Protocol(format!(
                "{}: whoever listened there has gone without an answer",
                socket.display()
            )));
        }
        parse(socket, &line)
    }
}

/// A watch of one desk.
#[derive(Debug)]
pub struct DeskWatch {
    socket: PathBuf,
    lines: BufReader<UnixStream>,
}

impl DeskWatch {
    /// Starts to watch.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn start(socket: &Path) -> Result<Self, ControlError> {
        let mut stream = connect(socket)?;
        send(&mut stream, socket, &Operation::Watch)?;
        Ok(Self {
            socket: socket.to_owned(),
            lines: BufReader::new(stream),
        })
    }

    /// Waits for the next event; `None` when the desk has ended.
    ///
    /// # Errors
    ///
    /// The desk refuses, or the connection fails.
    pub fn wait(&mut self) -> Result<Option<DeskEvent>, ControlError> {
        let mut line = String::new();
        let read = (&mut self.lines)
            .take(MAX_REPLY)
            .read_line(&mut line)
            .map_err(ControlError::io(&self.socket, "read"))?;
        if read == 0 {
            return Ok(None);
        }
        if let Ok(event) = serde_json::from_str(&line) {
            return Ok(Some(event));
        }
        let reply: Reply = parse(&self.socket, &line)?;
        Err(ControlError::Refused(reply.error.unwrap_or_default()))
    }
}

fn connect(socket: &Path) -> Result<UnixStream, ControlError> {
    let stream = UnixStream::connect(socket).map_err(ControlError::io(socket, "connect"))?;
    stream
        .set_write_timeout(Some(PATIENCE))
        .map_err(ControlError::io(socket, "setsockopt"))?;
    Ok(stream)
}

fn send(stream: &mut UnixStream, socket: &Path, request: &Operation) -> Result<(), ControlError> {
    let line = serde_json::to_string(request)
        .map_err(|error| ControlError::Protocol(error.to_string()))?
        + "\n";
    match stream.write_all(line.as_bytes()) {
        // Who is turned away is told before the request is read: the reply is there.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(ControlError::io(socket, "write")),
    }
}

fn parse(socket: &Path, line: &str) -> Result<Reply, ControlError> {
    serde_json::from_str(line).map_err(|error| {
        ControlError::Protocol(format!(
            "{}: not a reply of an approvals desk ({error}); is it the same version of enforcer?",
            socket.display()
        ))
    })
}

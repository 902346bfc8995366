//! The listening end: who connects is looked at first, then one bounded operation is read. Nothing that a peer sends
//! costs more than that.

use std::{cell::Cell, future::Future, io, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    task::spawn_local,
    time::timeout,
};

use super::{
    ControlError, Reporter, Role,
    protocol::{MAX_REQUEST, Operation, Reply, ReplyFault},
    words,
};

/// Connections at once; the next are turned away.
const MAX_CONNECTIONS: usize = 32;

/// Of these, connections of the agent itself: it must not keep the approvers out.
const MAX_AGENT_CONNECTIONS: usize = 4;

/// How long a peer may take to send its operation, and to take its reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a watcher is told, a line each.
#[derive(Debug)]
pub struct WatchLines {
    /// What there is.
    pub there: Vec<String>,
    /// What happens from now on.
    pub next: mpsc::Receiver<Rc<str>>,
}

/// What answers at a socket. All of it happens on one thread.
pub trait Service: 'static {
    /// What the process that connected may do. Asked when it connects, and again before its operation counts.
    fn role(&self, uid: u32, pid: Option<i32>) -> Role;

    /// Carries an operation out, any but [`Operation::DeskWatch`].
    fn reply(
        &self,
        role: &Role,
        peer: Reporter,
        operation: Operation,
    ) -> impl Future<Output = Reply>;

    /// Starts a watch.
    ///
    /// # Errors
    ///
    /// What the watcher is told instead.
    fn watch(&self) -> Result<WatchLines, Box<Reply>>;
}

/// Takes connections for a service.
#[derive(Debug)]
pub struct Server<S> {
    service: Rc<S>,
    connections: Cell<usize>,
    agent_connections: Cell<usize>,
}

/// Counts a connection as long as it is there.
struct Seat<S> {
    server: Rc<Server<S>>,
    agent: bool,
}

impl<S> Seat<S> {
    fn take(server: &Rc<Server<S>>, agent: bool) -> Option<Self> {
        let full = server.connections.get() >= MAX_CONNECTIONS
            || (agent && server.agent_connections.get() >= MAX_AGENT_CONNECTIONS);
        if full {
            return None;
        }
        add(&server.connections, 1);
        add(&server.agent_connections, usize::from(agent));
        Some(Self {
            server: Rc::clone(server),
            agent,
        })
    }
}

impl<S> Drop for Seat<S> {
    fn drop(&mut self) {
        take(&self.server.connections, 1);
        take(&self.server.agent_connections, usize::from(self.agent));
    }
}

fn add(count: &Cell<usize>, more: usize) {
    count.set(count.get() + more);
}

fn take(count: &Cell<usize>, less: usize) {
    count.set(count.get().saturating_sub(less));
}

impl<S: Service> Server<S> {
    /// A server of this service. It listens nowhere by itself.
    pub fn new(service: Rc<S>) -> Rc<Self> {
        Rc::new(Self {
            service,
            connections: Cell::new(0),
            agent_connections: Cell::new(0),
        })
    }

    /// A new connection: served on a task of its own, or turned away. Called within a [`tokio::task::LocalSet`].
    pub fn welcome(self: &Rc<Self>, stream: UnixStream) {
        let Ok(peer) = stream.peer_cred() else { return };
        let role = self.service.role(peer.uid(), peer.pid());
        if role == Role::Stranger {
            turn_away(
                &stream,
                &Reply::fault(
                    ReplyFault::Refused,
                    "you are not an approver; ask for your name in `approvals.approvers` of the policy, or use sudo",
                ),
            );
            return;
        }
        let Some(seat) = Seat::take(self, role == Role::Agent) else {
            turn_away(
                &stream,
                &Reply::fault(
                    ReplyFault::Busy,
                    "too many connections to the approvals desk; try again",
                ),
            );
            return;
        };
        spawn_local(async move {
            // A peer that is gone or too slow has had its turn.
            let _ = seat.server.converse(stream, role).await;
        });
    }

    async fn converse(&self, mut stream: UnixStream, role: Role) -> io::Result<()> {
        let operation = match timeout(PATIENCE, read_operation(&mut stream)).await {
            Ok(operation) => operation,
            Err(_) => Err(ControlError::Protocol(format!(
                "no request within {}",
                words::duration(PATIENCE)
            ))),
        };
        let reply = match operation {
            Ok(Operation::Watch) if matches!(role, Role::Approver(_) | Role::Onlooker) => {
                return self.follow(stream).await;
            }
            // The peer may have changed between its connection and its request.
            Ok(operation) => {
                let peer = stream.peer_cred()?;
                if self.service.role(peer.uid(), peer.pid()) == role {
                    let reporter = Reporter {
                        pid: peer.pid().unwrap_or(0).unsigned_abs(),
                        uid: peer.uid(),
                    };
                    self.service.reply(&role, reporter, operation).await
                } else {
                    Reply::fault(
                        ReplyFault::Refused,
                        "the process that connected has changed or is gone",
                    )
                }
            }
            Err(error) => error.into(),
        };
        send(&mut stream, &line(&reply)?).await
    }

    async fn follow(&self, mut stream: UnixStream) -> io::Result<()> {
        // No operation can come between what there is and what follows: this thread does one thing at a time.
        let WatchLines { there, mut next } = match self.service.watch() {
            Ok(watch) => watch,
            Err(reply) => return send(&mut stream, &line(&reply)?).await,
        };
        for text in there {
            send(&mut stream, &text).await?;
        }
        let mut byte = [0];
        loop {
            tokio::select! {
                text = next.recv() => match text {
                    Some(text) => send(&mut stream, &text).await?,
                    // It lagged too far behind: the peer connects again and sees what is there.
                    None => return Ok(()),
                },
                // A watcher has nothing more to say.
                _ = stream.read(&mut byte) => return Ok(()),
            }
        }
    }
}

/// One line, if the socket takes it at once.
fn turn_away(stream: &UnixStream, reply: &Reply) {
    if let Ok(line) = line(reply) {
        let _ = stream.try_write(line.as_bytes());
    }
}

async fn read_operation(stream: &mut UnixStream) -> Result<Operation, ControlError> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        let read = stream
            .read(&mut piece)
            .await
            .map_err(|error| ControlError::Protocol(error.to_string()))?;
        let start = text.len();
        text.extend_from_slice(&piece[..read]);
        if let Some(end) = piece[..read].iter().position(|byte| *byte == b'\n') {
            break start + end;
        }
        if read == 0 {
            break start;
        }
        if text.len() > MAX_REQUEST {
            break text.len();
        }
    };
    if end > MAX_REQUEST {
        return Err(ControlError::Protocol(format!(
            "the request is longer than {MAX_REQUEST} bytes"
        )));
    }
    serde_json::from_slice(&text[..end]).map_err(|error| {
        ControlError::Protocol(format!(
            "not a request ({error}); send one line such as {{\"op\":\"list\"}}"
        ))
    })
}

/// A value as a line of the protocol.
///
/// # Errors
///
/// It is no JSON.
pub fn line(value: &impl serde::Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

async fn send(stream: &mut UnixStream, text: &str) -> io::Result<()> {
    timeout(PATIENCE, stream.write_all(text.as_bytes()))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

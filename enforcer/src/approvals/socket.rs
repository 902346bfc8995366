//! The control socket: who connects is looked at first, then one bounded request is read. Nothing that a peer sends
//! costs more than that.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::spawn_local,
    time::timeout,
};

use super::{
    ApprovalsError, Record,
    desk::Verdict,
    peer::Role,
    protocol::{self, Fault, Happening, MAX_REQUEST, Reply, Request, ToolReport},
    record,
    serve::Shared,
    tools::Reporter,
};
use crate::decide::Decision;

/// Connections at once; the next are turned away.
const MAX_CONNECTIONS: usize = 32;

/// Of these, connections of the agent itself: it must not keep the approvers out.
const MAX_AGENT_CONNECTIONS: usize = 4;

/// How long a peer may take to send its request, and to take its reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests in a list of all.
const MAX_LIST: u32 = 1000;

/// Bytes of a command line in a list.
const MAX_LISTED: usize = 4096;

/// Counts a connection as long as it is there.
struct Seat {
    shared: Rc<Shared>,
    agent: bool,
}

impl Seat {
    fn take(shared: &Rc<Shared>, agent: bool) -> Option<Self> {
        let full = shared.connections.get() >= MAX_CONNECTIONS
            || (agent && shared.agent_connections.get() >= MAX_AGENT_CONNECTIONS);
        if full {
            return None;
        }
        add(&shared.connections, 1);
        add(&shared.agent_connections, usize::from(agent));
        Some(Self {
            shared: Rc::clone(shared),
            agent,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        take(&self.shared.connections, 1);
        take(&self.shared.agent_connections, usize::from(self.agent));
    }
}

fn add(count: &Cell<usize>, more: usize) {
    count.set(count.get() + more);
}

fn take(count: &Cell<usize>, less: usize) {
    count.set(count.get().saturating_sub(less));
}

/// A new connection: served on a task of its own, or turned away.
pub(super) fn welcome(shared: &Rc<Shared>, stream: UnixStream) {
    let Ok(peer) = stream.peer_cred() else { return };
    let role = shared.guard.role(peer.uid(), peer.pid());
    if role == Role::Stranger {
        turn_away(
            &stream,
            &Reply::fault(
                Fault::Refused,
                "you are not an approver; ask for your name in `approvals.approvers` of the policy, or use sudo",
            ),
        );
        return;
    }
    let Some(seat) = Seat::take(shared, role == Role::Agent) else {
        turn_away(
            &stream,
            &Reply::fault(
                Fault::Busy,
                "too many connections to the approvals desk; try again",
            ),
        );
        return;
    };
    let shared = Rc::clone(shared);
    spawn_local(async move {
        let _seat = seat;
        // A peer that is gone or too slow has had its turn.
        let _ = converse(&shared, stream, role).await;
    });
}

/// One line, if the socket takes it at once.
fn turn_away(stream: &UnixStream, reply: &Reply) {
    if let Ok(line) = line(reply) {
        let _ = stream.try_write(line.as_bytes());
    }
}

async fn converse(shared: &Rc<Shared>, mut stream: UnixStream, role: Role) -> io::Result<()> {
    let request = match timeout(PATIENCE, read_request(&mut stream)).await {
        Ok(request) => request,
        Err(_) => Err(ApprovalsError::Protocol(format!(
            "no request within {}",
            record::duration(PATIENCE)
        ))),
    };
    let reply = match request {
        Ok(Request::Watch) if matches!(role, Role::Approver(_) | Role::Onlooker) => {
            return watch(shared, stream).await;
        }
        // The peer may have changed between its connection and its request.
        Ok(request) => {
            let peer = stream.peer_cred()?;
            if shared.guard.role(peer.uid(), peer.pid()) == role {
                let reporter = Reporter {
                    pid: peer.pid().unwrap_or(0).unsigned_abs(),
                    uid: peer.uid(),
                };
                reply(shared, &role, reporter, request)
            } else {
                Reply::fault(
                    Fault::Refused,
                    "the process that connected has changed or is gone",
                )
            }
        }
        Err(error) => error.into(),
    };
    send(&mut stream, &line(&reply)?).await
}

async fn read_request(stream: &mut UnixStream) -> Result<Request, ApprovalsError> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    let end = loop {
        let read = stream
            .read(&mut piece)
            .await
            .map_err(|error| ApprovalsError::Protocol(error.to_string()))?;
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
        return Err(ApprovalsError::Protocol(format!(
            "the request is longer than {MAX_REQUEST} bytes"
        )));
    }
    serde_json::from_slice(&text[..end]).map_err(|error| {
        ApprovalsError::Protocol(format!(
            "not a request ({error}); send one line such as {{\"op\":\"list\"}}"
        ))
    })
}

fn reply(shared: &Shared, role: &Role, reporter: Reporter, request: Request) -> Reply {
    let answered = match (request, role) {
        (Request::Tool { report }, Role::Agent) => tool(shared, reporter, &report),
        (Request::Tool { .. }, _) => Err(ApprovalsError::Refused(
            "only hooks inside the agent report tool calls".to_owned(),
        )),
        (Request::Last, _) => Ok(Reply {
            denials: Some(shared.last_denials()),
            ..Reply::default()
        }),
        (Request::Breaker { reset, by }, _) => breaker(shared, role, reset, by),
        (_, Role::Agent | Role::Stranger) => Err(ApprovalsError::Refused(
            "the agent's own user and processes can neither see nor answer requests; another user must, outside the agent"
                .to_owned(),
        )),
        (Request::List { all }, _) => shared.at_desk(|desk, now| {
            desk.expire(now);
            let records = if all { desk.history(MAX_LIST) } else { desk.list() };
            records.map(|records| listed(records.into_iter().map(brief).collect()))
        }),
        (Request::Show { id }, _) => shared.at_desk(|desk, now| {
            desk.expire(now);
            desk.record(&id).map(|record| listed(vec![record]))
        }),
        (Request::Answer { .. }, Role::Onlooker) => Err(ApprovalsError::Refused(
            "root is not among the approvers of this agent's policy (`approvals.approvers`)".to_owned(),
        )),
        (
            Request::Answer {
                id,
                approve,
                reason,
                scope,
                for_s,
                by,
            },
            Role::Approver(name),
        ) => verdict(approve, scope.as_deref(), for_s).and_then(|verdict| {
            let approver = full_name(name, by);
            let ended =
                shared.at_desk(|desk, now| desk.answer(&id, &verdict, &approver, &reason, now))?;
            Ok(Reply {
                ended: Some(ended),
                ..Reply::default()
            })
        }),
        (Request::Watch, _) => Err(ApprovalsError::Refused("nobody to watch".to_owned())),
    };
    answered.unwrap_or_else(Reply::from)
}

/// Takes what a hook reports, with the approval that covers it, if there is one.
fn tool(shared: &Shared, reporter: Reporter, report: &ToolReport) -> Result<Reply, ApprovalsError> {
    let Some(tools) = &shared.tools else {
        return Err(ApprovalsError::Refused(
            "this run takes no reports of hooks".to_owned(),
        ));
    };
    let approved = (report.decision == Decision::Ask && !report.refused)
        .then(|| {
            shared.at_desk(|desk, now| {
                desk.covering(
                    report.rule.as_deref(),
                    report.words.as_deref(),
                    report.cwd.as_deref(),
                    now,
                )
            })
        })
        .flatten();
    Ok(Reply {
        tool: Some(tools.tool(reporter, report, approved.as_ref())),
        ..Reply::default()
    })
}

/// How the trail names who did something.
fn full_name(name: &str, by: Option<String>) -> String {
    match by {
        Some(by) if name == "root" => format!("root for {by}"),
        _ => name.to_owned(),
    }
}

/// Shows the breaker, or closes it.
fn breaker(
    shared: &Shared,
    role: &Role,
    reset: bool,
    by: Option<String>,
) -> Result<Reply, ApprovalsError> {
    let Some(control) = &shared.breaker else {
        return Err(ApprovalsError::NotFound("breaker".to_owned()));
    };
    let status = match role {
        Role::Stranger => return Err(ApprovalsError::Refused("not your agent".to_owned())),
        _ if !reset => control.status(),
        Role::Approver(name) => control
            .reset(&full_name(name, by))
            .map_err(ApprovalsError::Refused)?,
        Role::Onlooker => {
            return Err(ApprovalsError::Refused(
                "root is not among the approvers of this agent's policy (`approvals.approvers`), who alone may close its breaker".to_owned(),
            ));
        }
        Role::Agent => {
            return Err(ApprovalsError::Refused(
                "the agent's own user and processes cannot close its breaker; another user must, outside the agent"
                    .to_owned(),
            ));
        }
    };
    Ok(Reply {
        breaker: Some(status),
        ..Reply::default()
    })
}

fn verdict(
    approve: bool,
    scope: Option<&str>,
    for_s: Option<u64>,
) -> Result<Verdict, ApprovalsError> {
    let bad = |text: &str| Err(ApprovalsError::BadAnswer(text.to_owned()));
    if !approve {
        if scope.is_some() || for_s.is_some() {
            return bad("a denial has no scope and no time");
        }
        return Ok(Verdict::Deny);
    }
    let Some(scope) = protocol::scope(scope.unwrap_or("once")) else {
        return bad("unknown scope; it is once, session or rule");
    };
    Ok(Verdict::Approve {
        scope,
        lasting: for_s.map(Duration::from_secs),
    })
}

fn listed(records: Vec<Record>) -> Reply {
    Reply {
        requests: Some(records),
        ..Reply::default()
    }
}

/// A request in a list: without what is long.
fn brief(mut record: Record) -> Record {
    if record.command.len() > MAX_LISTED {
        let end = record.command.floor_char_boundary(MAX_LISTED);
        record.command.truncate(end);
        record.command.push('…');
        record.argv.clear();
    }
    record
}

async fn watch(shared: &Rc<Shared>, mut stream: UnixStream) -> io::Result<()> {
    // No request can come between the two: this thread does one thing at a time.
    let pending = shared.at_desk(|desk, now| {
        desk.expire(now);
        desk.list()
    });
    let mut happenings = shared.watch();
    match pending {
        Ok(records) => {
            for request in records {
                let request = Box::new(request);
                send(&mut stream, &line(&Happening::New { request })?).await?;
            }
        }
        Err(error) => return send(&mut stream, &line(&Reply::from(error))?).await,
    }
    let mut byte = [0];
    loop {
        tokio::select! {
            happening = happenings.recv() => match happening {
                Some(text) => send(&mut stream, &text).await?,
                // It lagged too far behind: the peer connects again and sees what is pending.
                None => return Ok(()),
            },
            // A watcher has nothing more to say.
            _ = stream.read(&mut byte) => return Ok(()),
        }
    }
}

fn line(value: &impl serde::Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

async fn send(stream: &mut UnixStream, text: &str) -> io::Result<()> {
    timeout(PATIENCE, stream.write_all(text.as_bytes()))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

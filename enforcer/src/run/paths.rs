//! Connects to the paths of unix sockets, where the launcher's connector makes them: judged by the socket that the path
//! leads to, and made to that socket, whatever the path has become meanwhile.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering, mpsc::Sender},
    thread,
};

use super::{
    held::{self, Held, Message, Wish},
    lines::Wanted,
    supervisor::Shared,
};
use crate::{
    audit::Verdict,
    decide::{Decision, Outcome, UnixAction, approval::Answer},
    kernel::limits::Kind,
    seccomp::{
        ConnectCall, Notification, descriptor,
        resolve::{Resolver, SocketFile},
        target::{self, Who},
    },
};

/// Most connects that are under way at a time; the next one is told to try again.
const CONNECTS: usize = 64;

/// A connect to the path of a unix socket that may be made.
#[derive(Debug)]
pub struct PathConnect {
    /// The notification.
    pub id: u64,
    /// Whose it is.
    pub who: Who,
    /// The caller's socket.
    pub socket: OwnedFd,
    /// The socket that the path led to when it was judged.
    pub place: OwnedFd,
    /// That socket's name.
    pub name: Vec<u8>,
    /// What the policy says of it.
    pub outcome: Outcome,
}

impl Shared {
    /// Judges a connect to a path by the socket that the path leads to. The connector then connects to that socket,
    /// whatever the path has become.
    pub fn judge_path(
        self: &Arc<Self>,
        notification: &Notification,
        call: &ConnectCall,
        path: &[u8],
        resolver: &mut Resolver,
        holder: &Sender<Message>,
    ) -> anyhow::Result<()> {
        let Notification { id, tid, .. } = *notification;
        let resolved = {
            let _looking = self.serving.looking();
            resolver.socket(tid, path)
        };
        let SocketFile {
            file: place,
            path: name,
        } = match resolved {
            Ok(found) => found,
            Err(unresolved) => {
                self.refuse(id, unresolved.errno);
                return Ok(());
            }
        };
        let by_rules = self.unix_outcome(path, &name);
        let asks = by_rules.decision == Decision::Ask;
        let limited = self.limited(tid, Kind::Connect, &by_rules);
        let by_limit = limited.is_some();
        let outcome = limited.unwrap_or(by_rules);
        let who = target::who(tid).unwrap_or_default();
        let socket = match socket_of(who, call) {
            Ok(socket) => socket,
            Err(error) => {
                self.refuse(id, error.raw_os_error().unwrap_or(libc::EBADF));
                return Ok(());
            }
        };
        if !self.with.listener.is_valid(id) {
            return Ok(());
        }
        match outcome.decision {
            // Where LSM programs judge the socket itself, they do it without our help.
            Decision::Allow | Decision::Deny if self.with.first.lsm && !asks => self.go_on(id),
            Decision::Allow => {
                let connect = PathConnect {
                    id,
                    who,
                    socket,
                    place,
                    name,
                    outcome,
                };
                self.connect(connect, None);
            }
            Decision::Ask => {
                return held::send(
                    holder,
                    Held {
                        id,
                        tid,
                        who,
                        outcome,
                        wish: Wish::Unix {
                            socket,
                            place,
                            name,
                        },
                    },
                );
            }
            Decision::Deny => {
                let tripped = if by_limit {
                    None
                } else {
                    self.with.limiter.denied(who.tgid)
                };
                self.refuse_connect(id, who, Wanted::Unix(&name), &outcome, tripped)?;
            }
        }
        Ok(())
    }

    /// The socket's own name decides; a rule that denies or asks about the name as given counts too.
    fn unix_outcome(&self, given: &[u8], name: &[u8]) -> Outcome {
        let judge = |name: &[u8]| {
            self.with.engine.unix(&UnixAction {
                name: name.to_vec(),
            })
        };
        let real = judge(name);
        if given.first() == Some(&b'/') {
            let given = judge(given);
            if given.rule.is_some() && given.decision > real.decision {
                return given;
            }
        }
        real
    }

    /// Has a connect made, on a thread of its own: it may have to wait for the other side. `answer` is the approval.
    pub fn connect(self: &Arc<Self>, connect: PathConnect, answer: Option<Answer>) {
        let id = connect.id;
        if self.connects.fetch_add(1, Ordering::Relaxed) >= CONNECTS {
            self.connects.fetch_sub(1, Ordering::Relaxed);
            self.refuse(id, libc::EAGAIN);
            return;
        }
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("connect".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                shared.connect_path(&connect, answer.as_ref());
                shared.connects.fetch_sub(1, Ordering::Relaxed);
            });
        if spawned.is_err() {
            self.connects.fetch_sub(1, Ordering::Relaxed);
            self.refuse(id, libc::EAGAIN);
        }
    }

    /// Records a connect that may go on, has it made, and answers.
    fn connect_path(&self, connect: &PathConnect, answer: Option<&Answer>) {
        let id = connect.id;
        let Some(connector) = &self.with.connector else {
            self.refuse(id, libc::EPERM);
            return;
        };
        // The last stage: the kernel leaves to us what the connector does.
        if let Some(limited) = self.taken(connect.who.tgid, Kind::Connect) {
            let wanted = Wanted::Unix(&connect.name);
            if let Err(error) = self.refuse_connect(id, connect.who, wanted, &limited, None) {
                self.refuse(id, libc::EPERM);
                self.fail(error);
            }
            return;
        }
        let recorded = self.with.recorder.answered(
            self.caller(connect.who),
            Wanted::Unix(&connect.name),
            &connect.outcome,
            answer,
            Verdict::Allowed,
            None,
        );
        if let Err(error) = recorded {
            self.refuse(id, libc::EPERM);
            self.fail(error);
            return;
        }
        let answered = match connector.connect(connect.socket.as_fd(), connect.place.as_fd()) {
            Ok(()) => self.with.listener.finish(id, 0),
            Err(errno) => self.with.listener.refuse(id, errno as i32),
        };
        if let Err(error) = answered {
            self.fail(error.into());
        }
    }
}

/// The socket that a call is about.
pub fn socket_of(who: Who, call: &ConnectCall) -> io::Result<OwnedFd> {
    descriptor::descriptor(&descriptor::process(who.tgid)?, call.socket)
}

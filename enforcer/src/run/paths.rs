//! Connects to unix sockets, where the launcher's connector makes them: judged by the socket that the path leads to, by
//! the name that this is bound to, and by who listens there; and made to that socket, whatever the path has become
//! meanwhile.

use std::{
    ffi::OsStr,
    fs,
    hash::{DefaultHasher, Hasher},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
    sync::{Arc, atomic::Ordering, mpsc::Sender},
    thread,
};

use enforcer_common::limits::Thing;

use super::{
    held::{self, Held, Message, Wish},
    lines::Wanted,
    listeners::{Bound, Whose, in_own_network},
    supervisor::Shared,
};
use crate::{
    audit::Verdict,
    changer::Owned,
    decide::{Decision, Outcome, UnixAction, approval::Answer, wording::OUTSIDE_LISTENER},
    kernel::{instance::UnixJudgement, limits::Kind},
    launch::{Connector, Place},
    seccomp::{
        ConnectCall, Notification, descriptor,
        resolve::{Resolver, SocketFile},
        target::{self, Who},
    },
};

/// Most connects that are under way at a time; the next one is told to try again.
const CONNECTS: usize = 64;

/// A connect to a unix socket that may be made.
#[derive(Debug)]
pub struct PathConnect {
    /// The notification.
    pub id: u64,
    /// Whose it is.
    pub who: Who,
    /// The caller's socket.
    pub socket: OwnedFd,
    /// The socket that the path led to when it was judged, or the abstract name.
    pub place: Place,
    /// That socket's name.
    pub name: Vec<u8>,
    /// What the policy says of it.
    pub outcome: Outcome,
    /// Whether it is the launcher's own socket: what hooks report is heard, and counts nowhere.
    pub own: bool,
    /// Nobody knows yet who listens there, and it matters.
    pub unknown: bool,
}

/// A unix socket by its name, to tell one denial from another.
pub(super) fn thing(name: &[u8]) -> Thing {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    Thing::socket(hasher.finish())
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
        let found = {
            let _looking = self.serving.looking();
            resolver.socket(tid, path)
        };
        let SocketFile { file, path: name } = match found {
            Ok(found) => found,
            Err(unresolved) => {
                self.refuse(id, unresolved.errno);
                return Ok(());
            }
        };
        let place = Place::File(file);
        // Without the list there is the listener itself to ask.
        let bound = self.with.listeners.at(&place).unwrap_or_default();
        let (by_rules, unknown) = if self.is_own_socket(&name) {
            (self.by_name(&name), false)
        } else {
            let (by_names, borrowed) = self.by_names(path, &name, &bound.names);
            let (outcome, unknown) = self.by_listener(by_names, borrowed, &bound);
            // A list that sockets come and go from has gaps.
            (outcome, unknown || bound.names.is_empty())
        };
        self.judge_unix(
            notification,
            call,
            (place, name),
            (by_rules, unknown),
            holder,
        )
    }

    /// Judges a connect to an abstract name that no rule speaks of. The connector then makes it, by that very name.
    pub fn judge_abstract(
        self: &Arc<Self>,
        notification: &Notification,
        call: &ConnectCall,
        name: Vec<u8>,
        holder: &Sender<Message>,
    ) -> anyhow::Result<()> {
        let Notification { id, tid, .. } = *notification;
        let shown = [b"@", name.as_slice()].concat();
        let by_rules = self.with.engine.unix(&UnixAction {
            name: shown.clone(),
        });
        let open = by_rules.decision == Decision::Allow && by_rules.rule.is_none();
        if !open || self.with.engine.unix_outside().is_none() {
            if self.with.first.unix == UnixJudgement::Absent {
                return self.judge_abstract_alone(notification, &name);
            }
            // The kernel judges the name, on its own copy.
            self.go_on(id);
            return Ok(());
        }
        let place = Place::Abstract(name);
        let judged = if in_own_network(tid) {
            // Of the agent's own making, as all that listens in it.
            (by_rules, false)
        } else {
            match self.with.listeners.at(&place) {
                Ok(Bound { whose: None, .. }) => {
                    self.refuse(id, libc::ECONNREFUSED);
                    return Ok(());
                }
                Ok(bound) => self.by_listener(by_rules, false, &bound),
                Err(_) => (by_rules, true),
            }
        };
        self.judge_unix(notification, call, (place, shown), judged, holder)
    }

    /// What the rules have said, once it is known who listens; and whether that is still to be found out. `borrowed`: the
    /// rule is about a name that the socket need not have had when it was bound.
    fn by_listener(&self, by_rules: Outcome, borrowed: bool, bound: &Bound) -> (Outcome, bool) {
        let settled = by_rules.decision != Decision::Allow || by_rules.rule.is_some();
        if settled && !borrowed {
            return (by_rules, false);
        }
        match (self.with.engine.unix_outside(), bound.whose) {
            (Some(outside), Some(Whose::Outside)) if outside.decision > by_rules.decision => {
                (outside, false)
            }
            (Some(_), None) => (by_rules, true),
            _ => (by_rules, false),
        }
    }

    /// Carries out what was judged. `unknown`: the listener is still to be looked at.
    fn judge_unix(
        self: &Arc<Self>,
        notification: &Notification,
        call: &ConnectCall,
        (place, name): (Place, Vec<u8>),
        (by_rules, unknown): (Outcome, bool),
        holder: &Sender<Message>,
    ) -> anyhow::Result<()> {
        let Notification { id, tid, .. } = *notification;
        let asks = by_rules.decision == Decision::Ask;
        let own = by_rules.decision == Decision::Allow && self.is_own_socket(&name);
        let limited = if own {
            None
        } else {
            self.limited(tid, Kind::Connect, &by_rules)
        };
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
            Decision::Allow | Decision::Deny
                if self.with.first.unix == UnixJudgement::Bound && !asks =>
            {
                self.go_on(id);
            }
            Decision::Allow => {
                let connect = PathConnect {
                    id,
                    who,
                    socket,
                    place,
                    name,
                    outcome,
                    own,
                    unknown,
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
                        own: false,
                        later: self.fails_meanwhile(&socket),
                        wish: Wish::Unix {
                            socket,
                            place,
                            name,
                        },
                    },
                );
            }
            Decision::Deny => {
                // What the kernel does not count either.
                let uncounted = by_limit || outcome.rule.as_deref() == Some(OUTSIDE_LISTENER);
                let tripped = if uncounted {
                    None
                } else {
                    self.with.limiter.denied(who.tgid, thing(&name))
                };
                self.refuse_connect(id, who, Wanted::Unix(&name), &outcome, tripped)?;
            }
        }
        Ok(())
    }

    /// Judges a connect to an abstract name where the kernel does not. Nobody can be asked about it: what a thread shows
    /// here it can change before the kernel reads it.
    pub fn judge_abstract_alone(
        &self,
        notification: &Notification,
        name: &[u8],
    ) -> anyhow::Result<()> {
        let Notification { id, tid, .. } = *notification;
        let name = [b"@", name].concat();
        let by_rules = self.with.engine.unix(&UnixAction { name: name.clone() });
        let limited = self.limited(tid, Kind::Connect, &by_rules);
        let by_limit = limited.is_some();
        let outcome = limited.unwrap_or(by_rules);
        if outcome.decision == Decision::Allow {
            self.go_on(id);
            return Ok(());
        }
        let who = target::who(tid).unwrap_or_default();
        if !self.with.listener.is_valid(id) {
            return Ok(());
        }
        let tripped = if by_limit {
            None
        } else {
            self.with.limiter.denied(who.tgid, thing(&name))
        };
        self.refuse_connect(id, who, Wanted::Unix(&name), &outcome, tripped)
    }

    fn is_own_socket(&self, name: &[u8]) -> bool {
        let own = self.with.own.as_ref();
        own.is_some_and(|own| own.is_socket(name))
    }

    fn by_name(&self, name: &[u8]) -> Outcome {
        self.with.engine.unix(&UnixAction {
            name: name.to_vec(),
        })
    }

    /// The socket's own name decides; a rule that denies or asks about the name as given, or about one that the socket
    /// is bound to, counts too. A rule about a name that the agent could have given to another socket, by a link or by
    /// renaming it, says nothing of a socket that is bound to another name: whether that was so comes with the answer.
    fn by_names(&self, given: &[u8], name: &[u8], bound: &[Vec<u8>]) -> (Outcome, bool) {
        let mut strictest = self.by_name(name);
        let absolute = (given.first() == Some(&b'/')).then_some(given);
        let bound: Vec<Vec<u8>> = bound.iter().map(|bound| whole(bound, name)).collect();
        for other in absolute.into_iter().chain(bound.iter().map(Vec::as_slice)) {
            let outcome = self.by_name(other);
            if outcome.rule.is_some() && outcome.decision > strictest.decision {
                strictest = outcome;
            }
        }
        if strictest.decision == Decision::Deny || strictest.rule.is_none() {
            return (strictest, false);
        }
        let elsewhere = |bound: &Vec<u8>| bound != name && self.by_name(bound).rule.is_none();
        if !(bound.is_empty() || bound.iter().any(elsewhere)) || !self.can_be_given(name) {
            return (strictest, false);
        }
        for other in bound.iter().filter(|bound| elsewhere(bound)) {
            let outcome = self.by_name(other);
            if strictest.decision == Decision::Allow || outcome.decision > strictest.decision {
                strictest = outcome;
            }
        }
        (strictest, true)
    }

    /// Whether the agent could put a socket where this name is.
    fn can_be_given(&self, name: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(name));
        path.ancestors().skip(1).any(|directory| {
            // What cannot be looked at cannot be vouched for. Where everybody can make entries the agent can, too.
            fs::symlink_metadata(directory).map_or(true, |found| {
                found.mode() & OTHERS_WRITE != 0
                    || self.with.changer.how(Owned::from(&found)).is_some()
            })
        })
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
        if connect.unknown && !self.may_reach(connect, connector) {
            return;
        }
        // The last stage: the kernel leaves to us what the connector does.
        if !connect.own
            && let Some(limited) = self.taken(connect.who.tgid, Kind::Connect)
        {
            let wanted = Wanted::Unix(&connect.name);
            if let Err(error) = self.refuse_connect(id, connect.who, wanted, &limited, None) {
                self.refuse(id, libc::EPERM);
                self.fail(error);
            }
            return;
        }
        let recorded = self.with.recorder.answered(
            &self.caller(connect.who),
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
        let answered = match connector.connect(connect.socket.as_fd(), &connect.place) {
            Ok(()) => self.with.listener.finish(id, 0),
            Err(errno) => self.with.listener.refuse(id, errno as i32),
        };
        if let Err(error) = answered {
            self.fail(error.into());
        }
    }
}

impl Shared {
    /// Looks who listens, and to what name that is bound, where the kernel's list did not tell; else the call has its answer.
    fn may_reach(&self, connect: &PathConnect, connector: &Connector) -> bool {
        let id = connect.id;
        let listeners = &self.with.listeners;
        let bound = match listeners.probe(connector, &connect.socket, &connect.place) {
            Ok(bound) => bound,
            Err(errno) => {
                self.refuse(id, errno as i32);
                return false;
            }
        };
        let (by_rules, borrowed) = match &connect.place {
            Place::File(_) => self.by_names(&connect.name, &connect.name, &bound.names),
            Place::Abstract(_) => (connect.outcome.clone(), false),
        };
        let (outcome, _) = self.by_listener(by_rules, borrowed, &bound);
        if outcome.decision == Decision::Allow {
            return true;
        }
        // Nobody can be asked from here.
        let outcome = Outcome {
            decision: Decision::Deny,
            ..outcome
        };
        let wanted = Wanted::Unix(&connect.name);
        if let Err(error) = self.refuse_connect(id, connect.who, wanted, &outcome, None) {
            self.refuse(id, libc::EPERM);
            self.fail(error);
        }
        false
    }
}

/// Write permission of everybody (`S_IWOTH`).
const OTHERS_WRITE: u32 = 0o002;

/// A name that a socket was bound to, as an absolute one. Of a relative one the last part is known: it lay in the directory
/// of the bound socket's file, wherever that is now.
fn whole(bound: &[u8], file: &[u8]) -> Vec<u8> {
    if bound.first() == Some(&b'/') {
        return bound.to_vec();
    }
    let last = |path: &[u8]| {
        path.iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1)
    };
    [&file[..last(file)], &bound[last(bound)..]].concat()
}

/// The socket that a call is about.
pub fn socket_of(who: Who, call: &ConnectCall) -> io::Result<OwnedFd> {
    descriptor::descriptor(&descriptor::process(who.tgid)?, call.socket)
}

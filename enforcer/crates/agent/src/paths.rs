//! Connects to unix sockets, where the launcher's connector makes them: judged by the socket that the path leads to, by
//! the name that this is bound to, and by who listens there; and made to that socket, whatever the path has become
//! meanwhile.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::Sender,
    },
    thread,
};

use super::{
    account::CallOutcome,
    error::Result,
    held::{self, HeldCall, Message},
    listeners::{Bound, Listeners, Whose, in_own_network},
    supervisor::Shared,
    wanted::{Wanted, Wish, socket_thing},
};
use enforcer_common::limits::ActionClass;
use enforcer_decide::{Outcome, approval::Answer};
use enforcer_files::changer::Owned;
use enforcer_kernel::instance::UnixJudgement;
use enforcer_launch::{Connector, SocketPlace};
use enforcer_policy::{Cause, Decision, UnixAction};
use enforcer_seccomp::{
    ConnectCall, Notification, descriptor,
    resolve::{Resolver, SocketFile},
    target::{self, ThreadOwner},
};
use enforcer_trail::Verdict;

/// Most connects that are under way at a time; the next one is told to try again.
const CONNECTS: usize = 64;

/// What is known of sockets, and who connects them.
#[derive(Debug)]
pub struct Sockets {
    /// Who connects to the paths of unix sockets.
    pub connector: Option<Connector>,
    /// Who finds out whose a listener is.
    pub listeners: Listeners,
    /// Connects that are under way.
    connects: AtomicUsize,
}

impl Sockets {
    /// With this connector, if one is needed, and for the listeners of this agent.
    pub fn new(connector: Option<Connector>, listeners: Listeners) -> Self {
        Self {
            connector,
            listeners,
            connects: AtomicUsize::new(0),
        }
    }
}

/// A connect to a unix socket, from when it is judged until it is made.
#[derive(Debug)]
pub struct UnixConnect {
    /// The caller's socket.
    pub socket: OwnedFd,
    /// The socket that the path led to when it was judged, or the abstract name.
    pub place: SocketPlace,
    /// That socket's name.
    pub name: Vec<u8>,
}

/// One that may be made.
#[derive(Debug)]
pub struct PathConnect {
    /// The notification.
    pub id: u64,
    /// Whose it is.
    pub who: ThreadOwner,
    /// What is connected to what.
    pub unix: UnixConnect,
    /// What the policy says of it.
    pub outcome: Outcome,
    /// Whether it is the launcher's own socket: what hooks report is heard, and counts nowhere.
    pub own: bool,
    /// Nobody knows yet who listens there, and it matters.
    pub unknown: bool,
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
    ) -> Result<()> {
        let Notification { id, tid, .. } = *notification;
        let found = {
            let _looking = self.serving.looking();
            resolver.socket(tid, path)
        };
        let SocketFile { file, path: name } = match found {
            Ok(found) => found,
            Err(unresolved) => {
                self.calls.refuse(id, unresolved.errno);
                return Ok(());
            }
        };
        let place = SocketPlace::File(file);
        // Without the list there is the listener itself to ask.
        let bound = self.sockets.listeners.at(&place).unwrap_or_default();
        let (by_rules, unknown) = if self.launched.is_socket(&name) {
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
    ) -> Result<()> {
        let Notification { id, tid, .. } = *notification;
        let shown = [b"@", name.as_slice()].concat();
        let by_rules = self.ruling.engine.unix(&UnixAction {
            name: shown.clone(),
        });
        let open = by_rules.decision == Decision::Allow && by_rules.rule.is_none();
        if !open || self.ruling.engine.unix_outside().is_none() {
            if self.ruling.first.unix == UnixJudgement::Absent {
                return self.judge_abstract_alone(notification, &name);
            }
            // The kernel judges the name, on its own copy.
            self.calls.go_on(id);
            return Ok(());
        }
        let place = SocketPlace::Abstract(name);
        let judged = if in_own_network(tid) {
            // Of the agent's own making, as all that listens in it.
            (by_rules, false)
        } else {
            match self.sockets.listeners.at(&place) {
                Ok(Bound { whose: None, .. }) => {
                    self.calls.refuse(id, libc::ECONNREFUSED);
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
        match (self.ruling.engine.unix_outside(), bound.whose) {
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
        (place, name): (SocketPlace, Vec<u8>),
        (by_rules, unknown): (Outcome, bool),
        holder: &Sender<Message>,
    ) -> Result<()> {
        let Notification { id, tid, .. } = *notification;
        let asks = by_rules.decision == Decision::Ask;
        let own = by_rules.decision == Decision::Allow && self.launched.is_socket(&name);
        let limited = if own {
            None
        } else {
            self.limited(tid, ActionClass::Connect, &by_rules)
        };
        let by_limit = limited.is_some();
        let outcome = limited.unwrap_or(by_rules);
        let who = target::who(tid).unwrap_or_default();
        let socket = match socket_of(who, call) {
            Ok(socket) => socket,
            Err(error) => {
                self.calls
                    .refuse(id, error.raw_os_error().unwrap_or(libc::EBADF));
                return Ok(());
            }
        };
        if !self.calls.is_valid(id) {
            return Ok(());
        }
        let connect = UnixConnect {
            socket,
            place,
            name,
        };
        match outcome.decision {
            // Where LSM programs judge the socket itself, they do it without our help.
            Decision::Allow | Decision::Deny
                if self.ruling.first.unix == UnixJudgement::Bound && !asks =>
            {
                self.calls.go_on(id);
            }
            Decision::Allow => {
                let connect = PathConnect {
                    id,
                    who,
                    unix: connect,
                    outcome,
                    own,
                    unknown,
                };
                self.connect(connect, None);
            }
            Decision::Ask => {
                return held::send(
                    holder,
                    HeldCall {
                        id,
                        tid,
                        who,
                        outcome,
                        own: false,
                        later: self.fails_meanwhile(&connect.socket),
                        wish: Wish::Unix(connect),
                    },
                );
            }
            Decision::Deny => {
                // What the kernel does not count either.
                let uncounted =
                    by_limit || matches!(outcome.cause, Cause::Listener | Cause::Unseen);
                let tripped = if uncounted {
                    None
                } else {
                    self.limiter.denied(who.tgid, socket_thing(&connect.name))
                };
                let done = CallOutcome::refused(who, Wanted::Unix(&connect.name), &outcome);
                self.refuse(id, &done.tripping(tripped))?;
            }
        }
        Ok(())
    }

    /// Judges a connect to an abstract name where the kernel does not. Nobody can be asked about it: what a thread shows
    /// here it can change before the kernel reads it.
    pub fn judge_abstract_alone(&self, notification: &Notification, name: &[u8]) -> Result<()> {
        let Notification { id, tid, .. } = *notification;
        let name = [b"@", name].concat();
        let by_rules = self.ruling.engine.unix(&UnixAction { name: name.clone() });
        let limited = self.limited(tid, ActionClass::Connect, &by_rules);
        let by_limit = limited.is_some();
        let outcome = limited.unwrap_or(by_rules);
        if outcome.decision == Decision::Allow {
            self.calls.go_on(id);
            return Ok(());
        }
        let who = target::who(tid).unwrap_or_default();
        if !self.calls.is_valid(id) {
            return Ok(());
        }
        let tripped = if by_limit {
            None
        } else {
            self.limiter.denied(who.tgid, socket_thing(&name))
        };
        let done = CallOutcome::refused(who, Wanted::Unix(&name), &outcome);
        self.refuse(id, &done.tripping(tripped))
    }

    fn by_name(&self, name: &[u8]) -> Outcome {
        self.ruling.engine.unix(&UnixAction {
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
                    || self.sight.changer.how(Owned::from(&found)).is_some()
            })
        })
    }

    /// Has a connect made, on a thread of its own: it may have to wait for the other side. `answer` is the approval.
    pub fn connect(self: &Arc<Self>, connect: PathConnect, answer: Option<Answer>) {
        let id = connect.id;
        if self.sockets.connects.fetch_add(1, Ordering::Relaxed) >= CONNECTS {
            self.sockets.connects.fetch_sub(1, Ordering::Relaxed);
            self.calls.refuse(id, libc::EAGAIN);
            return;
        }
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("connect".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                shared.connect_path(&connect, answer.as_ref());
                shared.sockets.connects.fetch_sub(1, Ordering::Relaxed);
            });
        if spawned.is_err() {
            self.sockets.connects.fetch_sub(1, Ordering::Relaxed);
            self.calls.refuse(id, libc::EAGAIN);
        }
    }

    /// Records a connect that may go on, has it made, and answers.
    fn connect_path(&self, connect: &PathConnect, answer: Option<&Answer>) {
        let id = connect.id;
        let Some(connector) = &self.sockets.connector else {
            self.calls.refuse(id, libc::EPERM);
            return;
        };
        if connect.unknown && !self.may_reach(connect, connector) {
            return;
        }
        // The last stage: the kernel leaves to us what the connector does.
        if !connect.own
            && let Some(limited) = self.taken(connect.who.tgid, ActionClass::Connect)
        {
            self.refuse_path(connect, &limited);
            return;
        }
        let wanted = Wanted::Unix(&connect.unix.name);
        let recorded = self.account.record(&CallOutcome {
            answer,
            verdict: Verdict::Allowed,
            ..CallOutcome::refused(connect.who, wanted, &connect.outcome)
        });
        if let Err(error) = recorded {
            self.calls.refuse(id, libc::EPERM);
            self.calls.fail(error);
            return;
        }
        let answered = match connector.connect(connect.unix.socket.as_fd(), &connect.unix.place) {
            Ok(()) => self.calls.listener.finish(id, 0),
            Err(errno) => self.calls.listener.refuse(id, errno as i32),
        };
        if let Err(error) = answered {
            self.calls.fail(error.into());
        }
    }
}

impl Shared {
    /// Looks who listens, and to what name that is bound, where the kernel's list did not tell; else the call has its answer.
    fn may_reach(&self, connect: &PathConnect, connector: &Connector) -> bool {
        let id = connect.id;
        let listeners = &self.sockets.listeners;
        let bound = match listeners.probe(connector, &connect.unix.socket, &connect.unix.place) {
            Ok(bound) => bound,
            Err(errno) => {
                self.calls.refuse(id, errno as i32);
                return false;
            }
        };
        let (by_rules, borrowed) = match &connect.unix.place {
            SocketPlace::File(_) => {
                self.by_names(&connect.unix.name, &connect.unix.name, &bound.names)
            }
            SocketPlace::Abstract(_) => (connect.outcome.clone(), false),
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
        self.refuse_path(connect, &outcome);
        false
    }

    /// Has a connect fail that the thread which makes it found out about.
    fn refuse_path(&self, connect: &PathConnect, outcome: &Outcome) {
        let wanted = Wanted::Unix(&connect.unix.name);
        if let Err(error) = self.refuse(
            connect.id,
            &CallOutcome::refused(connect.who, wanted, outcome),
        ) {
            self.calls.fail(error);
        }
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
pub fn socket_of(who: ThreadOwner, call: &ConnectCall) -> io::Result<OwnedFd> {
    descriptor::descriptor(&descriptor::process(who.tgid)?, call.socket)
}

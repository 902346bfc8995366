//! The desk at work: a thread of its own that waits for questions, answers, deadlines and processes that end. It costs
//! nothing while nothing happens.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixListener as StdListener,
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{
    io::unix::AsyncFd,
    net::UnixListener,
    sync::{
        Notify,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task::{LocalSet, spawn_local},
};

use super::{
    ApprovalsError, Asking, Desk, RequestLimits, Store, Waiter, WaiterId,
    files::{Directory, Files},
    notify,
    ready::readable,
};
use enforcer_control::{
    AgentControl, Approvers, BreakerControl, Server, ToolDesk, peer::PeerGuard,
    protocol::DeskEvent, record,
};
use enforcer_decide::approval::{Answer, Asked};

/// Denials that are kept for the agent to ask about.
const LAST_DENIALS: usize = 16;

/// Events that a watcher may lag behind before it is let go.
const WATCH_LAG: usize = 256;

/// How long to wait when no connection can be accepted (no descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a desk needs to start.
#[derive(Clone, Debug)]
pub struct DeskSettings {
    /// The database ([`super::DEFAULT_DB`]).
    pub db: PathBuf,
    /// The id of the run.
    pub instance: String,
    /// Where the control socket is made. Its directory must let approvers and the agent's user pass (mode 0711), and
    /// be writable by root alone.
    pub socket: PathBuf,
    /// Who may answer.
    pub approvers: Approvers,
    /// The agent's user.
    pub agent_uid: u32,
    /// The agent's groups, the primary one too.
    pub agent_gids: Vec<u32>,
    /// The agent's cgroup as `/proc/PID/cgroup` of its processes names it behind `0::`.
    pub agent_cgroup: String,
    /// Timeout, rate, number.
    pub limits: RequestLimits,
    /// `--approvals-dir`.
    pub directory: Option<PathBuf>,
    /// The program that hears of each new request, and its arguments; none if empty.
    pub notify: Vec<String>,
    /// Who takes what hooks report; without, hooks are told to deny.
    pub tools: Option<Arc<dyn ToolDesk>>,
    /// The breaker of the run.
    pub breaker: Option<Arc<dyn BreakerControl>>,
    /// Who changes how the agent is governed.
    pub agent: Option<Arc<dyn AgentControl>>,
}

/// What a policy says of the desk.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Who may answer.
    pub approvers: Approvers,
    /// Timeout, rate, number.
    pub limits: RequestLimits,
    /// The program that hears of each new request, and its arguments; none if empty.
    pub notify: Vec<String>,
    /// Whether approvals that were to reach further than once hold no longer.
    pub forget: bool,
}

enum Command {
    Ask {
        asked: Box<Asked>,
        process: OwnedFd,
        waiting: Box<dyn FnOnce(&str) + Send>,
        waiter: Waiter,
    },
    Denied(String),
    Rules(Box<Rules>),
    Shutdown,
}

/// Puts actions to the desk. Cheap to clone; any thread may have one.
#[derive(Clone, Debug)]
pub struct Asker {
    commands: UnboundedSender<Command>,
}

impl Asker {
    /// Asks and returns at once. `process` is a pidfd of the process that waits: when it ends, the request is
    /// cancelled. `waiting` is called with the request's id if somebody has to answer it; then `answered` is called exactly once, on the desk's thread, and must return at once; if the desk is
    /// gone, it is called with a refusal.
    pub fn ask(
        &self,
        asked: Asked,
        process: OwnedFd,
        waiting: impl FnOnce(&str) + Send + 'static,
        answered: impl FnOnce(Answer) + Send + 'static,
    ) {
        // A command that cannot be sent is dropped, and its waiter says no.
        let _ = self.commands.send(Command::Ask {
            asked: Box::new(asked),
            process,
            waiting: Box::new(waiting),
            waiter: Waiter::new(answered),
        });
    }

    /// Has the desk go by other rules from now on. What is pending keeps its time.
    pub fn replace_rules(&self, rules: Rules) {
        let _ = self.commands.send(Command::Rules(Box::new(rules)));
    }

    /// Keeps a denial's text for `last`.
    pub fn note_denial(&self, text: &str) {
        let _ = self.commands.send(Command::Denied(record::text(text)));
    }
}

/// A desk at work. Dropping it shuts it down.
#[derive(Debug)]
pub struct DeskHandle {
    asker: Asker,
    thread: Option<JoinHandle<()>>,
}

impl DeskHandle {
    /// Another way to the same desk.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// See [`Asker::ask`].
    pub fn ask(
        &self,
        asked: Asked,
        process: OwnedFd,
        waiting: impl FnOnce(&str) + Send + 'static,
        answered: impl FnOnce(Answer) + Send + 'static,
    ) {
        self.asker.ask(asked, process, waiting, answered);
    }

    /// See [`Asker::note_denial`].
    pub fn note_denial(&self, text: &str) {
        self.asker.note_denial(text);
    }

    /// Denies all that is pending, tells the waiters, takes the socket away and waits for the thread.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.asker.commands.send(Command::Shutdown);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the approvals desk broke down; what waited was denied");
        }
    }
}

impl Drop for DeskHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Opens the database, the socket and the directory, and starts the desk's thread. What earlier runs have left in the
/// directory is archived, unless it is still pending: [`Store::recover`] comes first.
///
/// # Errors
///
/// Any of them cannot be opened or is not safe; nothing is left behind then.
pub fn start(settings: DeskSettings) -> Result<DeskHandle, ApprovalsError> {
    let now = Timestamp::now();
    let store = Store::open(&settings.db)?;
    if let Err(error) = store.prune(now) {
        tracing::warn!(%error, "old requests are kept for now");
    }
    let directory = settings
        .directory
        .as_deref()
        .map(|path| {
            Directory::open(
                path,
                &settings.approvers,
                settings.agent_uid,
                &settings.agent_gids,
            )
        })
        .transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(ApprovalsError::io(&settings.socket, "epoll_create"))?;
    let (listener, socket) = bind(&settings.socket)?;
    let (commands, receiver) = mpsc::unbounded_channel();
    let thread = thread::Builder::new()
        .name("approvals".to_owned())
        .spawn(move || {
            let local = LocalSet::new();
            let served = local.block_on(&runtime, async {
                let shared = Rc::new(Shared {
                    desk: RefCell::new(Desk::new(store, &settings.instance, settings.limits)),
                    guard: RefCell::new(PeerGuard {
                        approvers: settings.approvers,
                        agent_uid: settings.agent_uid,
                        agent_cgroup: settings.agent_cgroup,
                    }),
                    agent: settings.agent,
                    breaker: settings.breaker,
                    files: directory.map(Files::new).transpose()?,
                    notify: RefCell::new(settings.notify),
                    watchers: RefCell::default(),
                    denials: RefCell::default(),
                    tools: settings.tools,
                    processes: RefCell::default(),
                    epoch: (now, Instant::now()),
                    changed: Notify::new(),
                });
                shared
                    .serve(UnixListener::from_std(listener)?, receiver)
                    .await;
                Ok::<_, io::Error>(())
            });
            if let Err(error) = served {
                tracing::error!(%error, "the approvals desk cannot work; whatever asks is denied");
            }
            drop(socket);
        })
        .map_err(ApprovalsError::io(Path::new("approvals"), "clone"))?;
    Ok(DeskHandle {
        asker: Asker { commands },
        thread: Some(thread),
    })
}

/// The socket's file; goes when the desk goes.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn bind(path: &Path) -> Result<(StdListener, SocketFile), ApprovalsError> {
    // One that an earlier desk left behind.
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        fs::remove_file(path).map_err(ApprovalsError::io(path, "unlink"))?;
    }
    let listener = StdListener::bind(path).map_err(ApprovalsError::io(path, "bind"))?;
    let file = SocketFile(path.to_owned());
    // Who may do what is decided by the peer's credentials.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .map_err(ApprovalsError::io(path, "chmod"))?;
    listener
        .set_nonblocking(true)
        .map_err(ApprovalsError::io(path, "fcntl"))?;
    Ok((listener, file))
}

/// What the desk's tasks have in common. They all run on one thread.
pub(super) struct Shared {
    desk: RefCell<Desk>,
    pub guard: RefCell<PeerGuard>,
    pub agent: Option<Arc<dyn AgentControl>>,
    pub breaker: Option<Arc<dyn BreakerControl>>,
    files: Option<Files>,
    notify: RefCell<Vec<String>>,
    watchers: RefCell<Vec<mpsc::Sender<Rc<str>>>>,
    denials: RefCell<VecDeque<String>>,
    pub tools: Option<Arc<dyn ToolDesk>>,
    /// The processes that wait.
    processes: RefCell<HashMap<WaiterId, Rc<AsyncFd<OwnedFd>>>>,
    /// Deadlines follow the monotonic clock: setting the machine's clock changes none.
    epoch: (Timestamp, Instant),
    changed: Notify,
}

impl Shared {
    pub fn now(&self) -> Timestamp {
        let (start, instant) = self.epoch;
        SignedDuration::try_from(instant.elapsed())
            .ok()
            .and_then(|passed| start.checked_add(passed).ok())
            // Beyond all time: everything has expired.
            .unwrap_or(Timestamp::MAX)
    }

    fn replace_rules(&self, rules: Rules) {
        self.guard.borrow_mut().approvers = rules.approvers;
        *self.notify.borrow_mut() = rules.notify;
        self.at_desk(|desk, _| desk.replace_rules(rules.limits, rules.forget));
    }

    /// Does something at the desk and tells everybody what came of it.
    pub fn at_desk<T>(&self, act: impl FnOnce(&mut Desk, Timestamp) -> T) -> T {
        let now = self.now();
        let (result, events) = {
            let mut desk = self.desk.borrow_mut();
            let result = act(&mut desk, now);
            (result, desk.take_events())
        };
        if !events.is_empty() {
            for event in events {
                self.publish(&event);
            }
            self.changed.notify_one();
        }
        result
    }

    fn publish(&self, event: &DeskEvent) {
        if let DeskEvent::New { request } = event {
            notify::of(&self.notify.borrow(), request);
        }
        if let Some(files) = &self.files {
            match event {
                DeskEvent::New { request } => files.propose(request),
                DeskEvent::Ended { id, .. } => files.archive(id),
            }
        }
        let mut watchers = self.watchers.borrow_mut();
        if watchers.is_empty() {
            return;
        }
        match serde_json::to_string(event) {
            // A watcher that is gone or too slow is let go.
            Ok(line) => {
                let line: Rc<str> = (line + "\n").into();
                watchers.retain(|watcher| watcher.try_send(Rc::clone(&line)).is_ok());
            }
            Err(error) => tracing::warn!(%error, "an event cannot be told"),
        }
    }

    /// Everything that happens from now on.
    pub fn follow(&self) -> mpsc::Receiver<Rc<str>> {
        let (sender, receiver) = mpsc::channel(WATCH_LAG);
        self.watchers.borrow_mut().push(sender);
        receiver
    }

    pub fn last_denials(&self) -> Vec<String> {
        self.denials.borrow().iter().cloned().collect()
    }

    async fn serve(
        self: Rc<Self>,
        listener: UnixListener,
        mut commands: UnboundedReceiver<Command>,
    ) {
        let server = Server::new(Rc::clone(&self));
        if let Some(files) = &self.files {
            self.read_files(files.existing());
        }
        loop {
            let deadline = self.desk.borrow().next_deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Ask { asked, process, waiting, waiter }) => {
                        self.ask(*asked, process, waiting, waiter);
                    }
                    Some(Command::Denied(text)) => self.keep_denial(text),
                    Some(Command::Rules(rules)) => self.replace_rules(*rules),
                    Some(Command::Shutdown) | None => break,
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => server.welcome(stream),
                    Err(error) => {
                        tracing::warn!(%error, "no connection to the approvals desk can be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = self.until(deadline) => self.at_desk(Desk::expire),
                names = Files::changed(self.files.as_ref()) => self.read_files(names),
                // Another deadline may come first now.
                () = self.changed.notified() => {}
            }
        }
        self.cancel_ended();
        self.at_desk(Desk::close_all);
    }

    /// Cancels what nobody waits for any more. The agent's end and the desk's come one upon the other: what a
    /// killed process waited for was not left unanswered.
    fn cancel_ended(&self) {
        let ended: Vec<WaiterId> = self
            .processes
            .borrow()
            .iter()
            .filter(|(_, process)| has_ended(process))
            .map(|(waiter, _)| *waiter)
            .collect();
        for waiter in ended {
            self.at_desk(|desk, now| desk.cancel(waiter, now));
        }
    }

    async fn until(&self, deadline: Option<Timestamp>) {
        let Some(deadline) = deadline else {
            return std::future::pending().await;
        };
        let left = Duration::try_from(deadline.duration_since(self.now())).unwrap_or_default();
        // Not a moment too early: that would be a turn for nothing.
        tokio::time::sleep(left + Duration::from_millis(1)).await;
    }

    fn ask(
        self: &Rc<Self>,
        asked: Asked,
        process: OwnedFd,
        waiting: Box<dyn FnOnce(&str) + Send>,
        waiter: Waiter,
    ) {
        // Falls when the waiter has been told; then nobody looks at the process any more.
        let (told, answered) = oneshot::channel::<()>();
        let waiter = Waiter::new(move |answer| {
            drop(told);
            waiter.tell(answer);
        });
        let asking = self.at_desk(|desk, now| desk.ask(asked, waiter, now));
        if let Asking::Waiting { id, waiter, .. } = asking {
            waiting(&id);
            match readable(process) {
                Ok(process) => {
                    let process = Rc::new(process);
                    self.processes
                        .borrow_mut()
                        .insert(waiter, Rc::clone(&process));
                    spawn_local(Rc::clone(self).guard_waiter(process, answered, waiter));
                }
                Err(error) => {
                    tracing::warn!(%error, "a waiting process cannot be watched; its request is cancelled");
                    self.at_desk(|desk, now| desk.cancel(waiter, now));
                }
            }
        }
    }

    async fn guard_waiter(
        self: Rc<Self>,
        process: Rc<AsyncFd<OwnedFd>>,
        answered: oneshot::Receiver<()>,
        waiter: WaiterId,
    ) {
        tokio::select! {
            // A pidfd is readable when its process has ended (pidfd_open(2)). An error counts as that, too.
            _ = process.readable() => self.at_desk(|desk, now| desk.cancel(waiter, now)),
            _ = answered => {}
        }
        self.processes.borrow_mut().remove(&waiter);
    }

    fn keep_denial(&self, text: String) {
        let mut denials = self.denials.borrow_mut();
        if denials.len() == LAST_DENIALS {
            denials.pop_front();
        }
        denials.push_back(text);
    }

    fn read_files(&self, names: Vec<String>) {
        let Some(files) = &self.files else { return };
        for id in names {
            let (here, elsewhere) = {
                let desk = self.desk.borrow();
                (desk.is_pending(&id), desk.is_pending_anywhere(&id))
            };
            if !here {
                // Another run may share the directory.
                if !elsewhere {
                    files.archive(&id);
                }
                continue;
            }
            if let Some(response) = files.response(&id, &self.guard.borrow()) {
                let answered = self.at_desk(|desk, now| {
                    desk.answer(
                        &id,
                        &response.verdict,
                        &response.approver,
                        &response.notes,
                        now,
                    )
                });
                if let Err(error) = answered {
                    tracing::warn!(%error, id, "a response file had no effect");
                }
            }
        }
    }
}

/// Whether a pidfd's process has ended.
fn has_ended(process: &AsyncFd<OwnedFd>) -> bool {
    let mut look = [PollFd::new(process.get_ref().as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut look, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod serve_tests;

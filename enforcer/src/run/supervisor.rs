//! The supervisor's thread: it sees system calls before the kernel carries them out, and answers.
//!
//! Whatever is let go on is judged again in the kernel, on the kernel's own copy. So a doubt here (arguments that
//! cannot be read, a path that leads nowhere) is left to the kernel; nothing is decided by a guess.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use enforcer_common::limits::Breaker;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    first::FirstJudgement,
    held::{self, Held, Message, Wish},
    lines::{Caller, Wanted},
    listeners::{Listeners, Told},
    own_line::OwnLine,
    record::Recorder,
    refused::Refusals,
    serving::{Served, Serving},
    tell::Telling,
};
use crate::{
    approvals::Asker,
    audit::Verdict,
    changer::Changer,
    decide::{
        Decision, Engine, ExecAction, Outcome, Wording, approval::Answer, line, own::starts_hook,
    },
    kernel::{
        grants::Grants,
        instance::UnixJudgement,
        limits::{Kind, Limiter},
    },
    launch::{CgroupRoot, Connector, ExecStops, OwnProgram},
    policy::Waiting,
    seccomp::{
        Address, Call, ConnectCall, ExecCall, Eyes, Listener, Notification,
        resolve::{Found, Resolver, Roots},
        target::{self, Who},
    },
};

/// How long an errno waits for its reason to be written where the process sees it.
const TELLING: Duration = Duration::from_millis(20);

/// What the supervisor works with.
#[derive(Debug)]
pub struct Supervised {
    /// Where the calls come from.
    pub listener: Listener,
    /// What decides.
    pub engine: Engine,
    /// Where it is written.
    pub recorder: Recorder,
    /// Who tells the process.
    pub telling: Arc<Telling>,
    /// What was chosen.
    pub first: FirstJudgement,
    /// Where approvals go for the kernel to know them.
    pub grants: Grants,
    /// The breaker and the rates.
    pub limiter: Limiter,
    /// How what these deny is told.
    pub wording: Wording,
    /// Who finds somebody to answer.
    pub desk: Asker,
    /// How long that may take.
    pub timeout: Duration,
    /// How what is asked about waits.
    pub waiting: Waiting,
    /// Who holds processes whose exec is done.
    pub stops: ExecStops,
    /// Who connects to the paths of unix sockets.
    pub connector: Option<Connector>,
    /// The launcher's own program and socket.
    pub own: Option<OwnProgram>,
    /// Who finds out whose a listener is.
    pub listeners: Listeners,
    /// Who the agent runs as, to the file system.
    pub eyes: Eyes,
    /// Where cgroups are.
    pub cgroups: CgroupRoot,
    /// Whether its processes can have another root directory or mount namespace.
    pub roots: Roots,
    /// Groups of system calls that the policy allows.
    pub loosened: Vec<String>,
    /// The agent's name.
    pub agent: String,
    /// Who could change programs: the agent's user.
    pub changer: Changer,
    /// The agent's first process: its first exec is the operator's.
    pub operator: u32,
    /// Where a failure ends the run.
    pub failures: UnboundedSender<anyhow::Error>,
}

/// The supervisor at work. It ends when the agent's tree is gone.
#[derive(Debug)]
pub struct Supervisor {
    served: Served,
    holding: JoinHandle<()>,
    to_holder: Sender<Message>,
}

/// What its threads use.
#[derive(Debug)]
pub(super) struct Shared {
    pub with: Supervised,
    pub refusals: Refusals,
    pub serving: Serving,
    pub told: Told,
    pub connects: AtomicUsize,
    own_line: OwnLine,
    operator_seen: AtomicBool,
}

impl Supervisor {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// A thread cannot be had.
    pub fn start(with: Supervised) -> anyhow::Result<Self> {
        let refusals = Refusals::new(with.loosened.clone())?;
        let shared = Arc::new(Shared {
            own_line: OwnLine::new(with.operator),
            with,
            refusals,
            serving: Serving::default(),
            told: Told::default(),
            connects: AtomicUsize::new(0),
            operator_seen: AtomicBool::new(false),
        });
        let (to_holder, messages) = mpsc::channel();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .context("a thread for the supervisor cannot be had; raise the limit of processes")
        };
        let holding = {
            let (shared, sender) = (Arc::clone(&shared), to_holder.clone());
            spawn(
                "holding",
                Box::new(move || held::hold(&shared, &messages, &sender)),
            )?
        };
        let served = shared.start_serving(to_holder.clone())?;
        Ok(Self {
            served,
            holding,
            to_holder,
        })
    }

    /// Ends the rest, once the desk has answered all that was open.
    pub fn end(self) {
        self.served.wait();
        let _ = self.to_holder.send(Message::End);
        let _ = self.holding.join();
    }
}

impl Shared {
    /// Answers calls, until there are none any more or another thread has taken over.
    pub fn serve(
        self: &Arc<Self>,
        resolver: &mut Resolver,
        holder: &Sender<Message>,
        mine: impl Fn() -> bool,
    ) {
        while mine() {
            match self.with.listener.recv() {
                Ok(Some(notification)) => {
                    if let Err(error) = self.judge(&notification, resolver, holder) {
                        // Not answered would be held for ever.
                        self.refuse(notification.id, libc::EPERM);
                        self.fail(error);
                    }
                }
                Ok(None) => {
                    if let Err(error) = self.end_refusals() {
                        self.fail(error);
                    }
                    return;
                }
                Err(error) => {
                    self.fail(error.into());
                    return;
                }
            }
        }
    }

    /// Ends the run: what cannot be recorded or answered must not go on.
    pub fn fail(&self, error: anyhow::Error) {
        // The main loop is gone when the run has ended already.
        let _ = self.with.failures.send(error);
    }

    /// Lets a call go on to the kernel's judgement.
    pub fn go_on(&self, id: u64) {
        if let Err(error) = self.with.listener.allow(id) {
            self.fail(error.into());
        }
    }

    /// Has a call fail.
    pub fn refuse(&self, id: u64, errno: i32) {
        if let Err(error) = self.with.listener.refuse(id, errno) {
            self.fail(error.into());
        }
    }

    fn judge(
        self: &Arc<Self>,
        notification: &Notification,
        resolver: &mut Resolver,
        holder: &Sender<Message>,
    ) -> anyhow::Result<()> {
        match notification.call {
            Call::Exec(call) => self.judge_exec(notification, &call, resolver, holder),
            Call::Connect(call) => self.judge_connect(notification, &call, resolver, holder),
            Call::Other(call) => self.refuse_call(notification, &call),
        }
    }

    fn judge_exec(
        &self,
        notification: &Notification,
        call: &ExecCall,
        resolver: &mut Resolver,
        holder: &Sender<Message>,
    ) -> anyhow::Result<()> {
        let Notification { id, tid, .. } = *notification;
        if tid == self.with.operator && !self.operator_seen.swap(true, Ordering::Relaxed) {
            if let Ok(text) = target::exec_text(tid, call) {
                self.own_line.given(&text.path, &text.argv);
            }
            self.go_on(id);
            return Ok(());
        }
        // What cannot be read or leads nowhere: the kernel says the errno, or judges what became of it.
        let Ok(text) = target::exec_text(tid, call) else {
            self.go_on(id);
            return Ok(());
        };
        let found = {
            let _looking = self.serving.looking();
            resolver.exec(tid, call, text)
        };
        let Ok(found) = found else {
            self.go_on(id);
            return Ok(());
        };
        if self.is_hook(&found) {
            self.go_on(id);
            return Ok(());
        }
        let by_rules = self.with.engine.exec(&found.action);
        if call.is_check() {
            self.answer_check(id, by_rules.decision);
            return Ok(());
        }
        let asks = by_rules.decision == Decision::Ask;
        let limited = self.limited(tid, Kind::Exec, &by_rules);
        let by_limit = limited.is_some();
        let outcome = limited.unwrap_or(by_rules);
        if outcome.decision == Decision::Allow {
            self.go_on(id);
            return Ok(());
        }
        let who = target::who(tid).unwrap_or_default();
        // What was read belongs to this call only if its caller still waits in it.
        if !self.with.listener.is_valid(id) {
            return Ok(());
        }
        if outcome.decision == Decision::Ask {
            let own = !by_limit && self.own_line.is_again(who, &found.action);
            let held = Held {
                id,
                tid,
                who,
                outcome,
                own,
                later: self.with.waiting == Waiting::Retry && !own,
                wish: Wish::Exec(found),
            };
            return held::send(holder, held);
        }
        let text = self.with.engine.matcher().text(&found.action);
        self.tell_denial(who, &text, &outcome, outcome.suggestion.as_deref());
        // What the rules ask about the kernel would refuse for that, not for the limit.
        if self.with.first.refuses || asks {
            let tripped = if by_limit {
                None
            } else {
                self.with.limiter.denied(who.tgid, found.thing())
            };
            self.record_exec(who, &found.action, &outcome, None, Verdict::Errno, tripped)?;
            self.refuse(id, libc::EPERM);
        } else {
            // The kernel refuses it, and records it.
            self.go_on(id);
        }
        Ok(())
    }

    /// Answers who only asks whether it could execute something: no exec, so nobody is asked, and nothing is counted,
    /// recorded or granted.
    fn answer_check(&self, id: u64, by_rules: Decision) {
        let limiter = &self.with.limiter;
        let allowed = by_rules == Decision::Allow
            && matches!(limiter.breaker(), Breaker::Closed { .. })
            && limiter.look(Kind::Exec).is_ok();
        if allowed {
            self.go_on(id);
        } else {
            self.refuse(id, libc::EPERM);
        }
    }

    /// Whether an exec is that of the launcher's own hook, or of the shell that starts it.
    fn is_hook(&self, found: &Found) -> bool {
        self.with.own.as_ref().is_some_and(|own| {
            let trusted = self.with.engine.matcher().is_trusted(&found.action);
            let executable = own.is_file(found.file());
            starts_hook(&own.own(), &found.action, executable, trusted)
        })
    }

    fn judge_connect(
        self: &Arc<Self>,
        notification: &Notification,
        call: &ConnectCall,
        resolver: &mut Resolver,
        holder: &Sender<Message>,
    ) -> anyhow::Result<()> {
        let Notification { id, tid, .. } = *notification;
        let Ok(address) = target::socket_address(tid, call) else {
            self.go_on(id);
            return Ok(());
        };
        match Address::parse(&address) {
            Some(Address::Path(path)) if !call.datagram && self.with.connector.is_some() => {
                self.judge_path(notification, call, &path, resolver, holder)
            }
            Some(Address::Abstract(name))
                if !call.datagram
                    && self.with.connector.is_some()
                    && self.with.first.unix != UnixJudgement::Bound =>
            {
                self.judge_abstract(notification, call, name, holder)
            }
            Some(Address::Abstract(name)) if self.with.first.unix == UnixJudgement::Absent => {
                self.judge_abstract_alone(notification, &name)
            }
            Some(Address::Inet(address, port)) if self.with.first.addresses => {
                self.judge_inet(notification, call, (address, port), holder)
            }
            // Judged in the kernel, on its own copy of the address.
            _ => {
                self.go_on(id);
                Ok(())
            }
        }
    }

    /// A process, as the trail names it.
    pub fn caller(&self, who: Who) -> Caller {
        Caller {
            pid: who.tgid,
            ppid: who.ppid,
            uid: who.uid,
            cgroup: self.with.cgroups.id_of(who.tgid).ok(),
            program: target::program(who.tgid).unwrap_or_default(),
        }
    }

    /// Records an exec that did not happen. `tripped`: the denials in a row, if this one opened the breaker.
    pub fn record_exec(
        &self,
        who: Who,
        action: &ExecAction,
        outcome: &Outcome,
        answer: Option<&Answer>,
        verdict: Verdict,
        tripped: Option<u64>,
    ) -> anyhow::Result<()> {
        let bytes: usize = action.argv.iter().map(|word| word.len() + 1).sum();
        self.with.recorder.answered(
            &self.caller(who),
            Wanted::Exec {
                text: &self.with.engine.matcher().text(action),
                argv_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                path: &action.path,
            },
            outcome,
            answer,
            verdict,
            tripped,
        )
    }

    /// Tells a process why its call fails.
    pub fn tell_denial(&self, who: Who, what: &[u8], outcome: &Outcome, suggestion: Option<&str>) {
        let line = line::blocked_line(what, &outcome.reason, suggestion);
        self.with.telling.denial(who.tgid, who.ppid, &line, TELLING);
    }
}

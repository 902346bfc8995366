//! The supervisor's thread: it sees system calls before the kernel carries them out, and answers.
//!
//! Whatever is let go on is judged again in the kernel, on the kernel's own copy. So a doubt here (arguments that
//! cannot be read, a path that leads nowhere) is left to the kernel; nothing is decided by a guess.

use std::{
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    first::FirstJudgement,
    held::{self, Held, Message},
    record::{Caller, Recorder, Wanted},
};
use crate::{
    approvals::DeskHandle,
    audit::Verdict,
    decide::{
        ConnectAction, Decision, Engine, ExecAction, Outcome, UnixAction,
        approval::{Answer, ConnectSubject, Subject},
        line,
    },
    kernel::Grants,
    seccomp::{
        Address, Call, Connector, ExecCall, Listener, Notification, Resolver, SocketCall, Target,
        Teller,
    },
};

/// How long an errno waits for its reason to be written where the process sees it.
const TELLING: Duration = Duration::from_millis(20);
/// Most connects to unix sockets that are under way at a time.
const CONNECTS: usize = 64;

/// What the supervisor works with.
#[derive(Debug)]
pub struct Supervised {
    /// Where the calls come from.
    pub listener: Arc<Listener>,
    /// What decides.
    pub engine: Engine,
    /// Where it is written.
    pub recorder: Recorder,
    /// Who tells the process; none if nothing is to be told.
    pub teller: Option<Teller>,
    /// What was chosen.
    pub first: FirstJudgement,
    /// Where approvals go for the kernel to know them.
    pub grants: Grants,
    /// Who finds somebody to answer.
    pub desk: Option<DeskHandle>,
    /// Who connects to the paths of unix sockets.
    pub connector: Option<Connector>,
    /// The agent's name.
    pub agent: String,
    /// The agent's first process: its first exec is the operator's.
    pub operator: u32,
    /// Where a failure ends the run.
    pub failures: UnboundedSender<anyhow::Error>,
}

/// The supervisor at work. It ends when the agent's tree is gone.
#[derive(Debug)]
pub struct Supervisor {
    serving: JoinHandle<()>,
    holding: JoinHandle<()>,
    to_holder: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

/// What both threads use.
#[derive(Debug)]
pub(super) struct Shared {
    pub with: Supervised,
    pub resolver: Resolver,
    connects: AtomicUsize,
    operator_seen: AtomicBool,
}

impl Supervisor {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// A thread cannot be had.
    pub fn start(with: Supervised) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            with,
            resolver: Resolver::default(),
            connects: AtomicUsize::new(0),
            operator_seen: AtomicBool::new(false),
        });
        let (to_holder, messages) = mpsc::channel();
        let holding = {
            let (shared, sender) = (Arc::clone(&shared), to_holder.clone());
            thread::Builder::new()
                .name("holding".to_owned())
                .spawn(move || held::hold(&shared, &messages, &sender))
                .context("a thread for held calls cannot be had; raise the limit of processes")?
        };
        let serving = {
            let (shared, sender) = (Arc::clone(&shared), to_holder.clone());
            thread::Builder::new()
                .name("supervisor".to_owned())
                .spawn(move || shared.serve(&sender))
                .context("a thread for the supervisor cannot be had; raise the limit of processes")?
        };
        Ok(Self {
            serving,
            holding,
            to_holder,
            shared,
        })
    }

    /// Ends with the tree: nobody is left who could be answered. Requests that are still open are recorded as
    /// cancelled.
    pub fn end(self) {
        let _ = self.serving.join();
        if let Some(desk) = &self.shared.with.desk {
            desk.shutdown();
        }
        let _ = self.to_holder.send(Message::End);
        let _ = self.holding.join();
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, holder: &mpsc::Sender<Message>) {
        loop {
            match self.with.listener.recv() {
                Ok(Some(notification)) => {
                    if let Err(error) = self.judge(&notification, holder) {
                        // Not answered would be held for ever.
                        self.refuse(&notification);
                        self.fail(error);
                    }
                }
                Ok(None) => return,
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

    fn judge(
        self: &Arc<Self>,
        notification: &Notification,
        holder: &mpsc::Sender<Message>,
    ) -> anyhow::Result<()> {
        match notification.call() {
            Call::Exec => self.judge_exec(notification, holder),
            Call::Connect | Call::SendTo => self.judge_connect(notification, holder),
            Call::Other => {
                self.go_on(notification);
                Ok(())
            }
        }
    }

    fn judge_exec(
        &self,
        notification: &Notification,
        holder: &mpsc::Sender<Message>,
    ) -> anyhow::Result<()> {
        let target = Target::of(notification);
        if notification.pid == self.with.operator && !self.operator_seen.swap(true, Ordering::Relaxed)
        {
            self.go_on(notification);
            return Ok(());
        }
        let Ok(call) = target.exec_call(notification) else {
            self.go_on(notification);
            return Ok(());
        };
        let Ok(action) = self.resolver.exec_action(&target, &call) else {
            self.go_on(notification);
            return Ok(());
        };
        if !self.with.listener.is_valid(notification.id) {
            return Ok(());
        }
        let outcome = self.with.engine.exec(&action);
        match outcome.decision {
            Decision::Allow => {}
            Decision::Ask => {
                return self.hold(
                    holder,
                    Held::exec(notification, target, call, action, outcome),
                );
            }
            Decision::Deny => {
                let caller = target.caller();
                self.tell_denial(&caller, &self.with.engine.exec_text(&action), &outcome);
                if self.with.first.refuses {
                    self.record_exec(caller, &call, &action, &outcome, None)?;
                    self.refuse(notification);
                    return Ok(());
                }
                // The kernel refuses it, and records it.
            }
        }
        self.go_on(notification);
        Ok(())
    }

    /// Records a refused exec.
    pub fn record_exec(
        &self,
        caller: Caller,
        call: &ExecCall,
        action: &ExecAction,
        outcome: &Outcome,
        answer: Option<&Answer>,
    ) -> anyhow::Result<()> {
        let bytes: usize = call.argv.iter().map(|word| word.len() + 1).sum();
        self.with.recorder.answered(
            caller,
            Wanted::Exec {
                text: &self.with.engine.exec_text(action),
                argv_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                path: &call.path,
            },
            outcome,
            answer,
            Verdict::Errno,
        )
    }
}

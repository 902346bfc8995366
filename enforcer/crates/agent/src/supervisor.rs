//! The supervisor's thread: it sees system calls before the kernel carries them out, and answers.
//!
//! Whatever is let go on is judged again in the kernel, on the kernel's own copy. So a doubt here (arguments that
//! cannot be read, a path that leads nowhere) is left to the kernel; nothing is decided by a guess.

use std::{
    ops::Deref,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use enforcer_common::limits::Breaker;

use super::{
    account::{Account, CallOutcome},
    calls::Calls,
    error::{AgentError, Result},
    held::{self, Approving, HeldCall, Message},
    own_line::Launched,
    paths::Sockets,
    refused::Refusals,
    ruling::{Ruling, Rulings},
    serving::{Served, Serving},
    sight::Sight,
    wanted::{Wanted, Wish},
};
use enforcer_common::limits::ActionClass;
use enforcer_decide::own::starts_hook;
use enforcer_kernel::{instance::UnixJudgement, limits::Limiter};
use enforcer_policy::{Decision, Waiting};
use enforcer_seccomp::{
    Address, ConnectCall, ExecCall, Notification, NotifiedCall,
    resolve::{Found, Resolver},
    target::{self},
};

/// What the supervisor's threads work with, whatever decides.
#[derive(Debug)]
pub struct Supervised {
    /// The calls.
    pub calls: Calls,
    /// What decides.
    pub rulings: Rulings,
    /// The breaker and the rates.
    pub limiter: Limiter,
    /// Who hears of it.
    pub account: Account,
    /// How what is asked about waits.
    pub approving: Approving,
    /// How sockets are connected.
    pub sockets: Sockets,
    /// How paths are looked at.
    pub sight: Sight,
    /// What is not the agent's own doing.
    pub launched: Launched,
    /// What the filter refuses.
    pub refusals: Refusals,
    /// Which thread serves.
    pub serving: Serving,
}

/// The supervisor at work. It ends when the agent's tree is gone.
#[derive(Debug)]
pub struct Supervisor {
    served: Served,
    holding: JoinHandle<()>,
    to_holder: Sender<Message>,
}

/// What one call is judged with, from its beginning to its end.
#[derive(Debug)]
pub(super) struct Shared {
    with: Arc<Supervised>,
    pub ruling: Arc<Ruling>,
}

impl Shared {
    /// With what decides now.
    pub fn now(with: &Arc<Supervised>) -> Arc<Self> {
        Arc::new(Self {
            ruling: with.rulings.now(),
            with: Arc::clone(with),
        })
    }
}

impl Deref for Shared {
    type Target = Supervised;

    fn deref(&self) -> &Supervised {
        &self.with
    }
}

impl Supervisor {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// A thread cannot be had.
    pub fn start(with: Supervised) -> Result<Self> {
        let with = Arc::new(with);
        let (to_holder, messages) = mpsc::channel();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(AgentError::Thread)
        };
        let holding = {
            let (with, sender) = (Arc::clone(&with), to_holder.clone());
            spawn(
                "holding",
                Box::new(move || held::hold(&with, &messages, &sender)),
            )?
        };
        let served = with.start_serving(to_holder.clone())?;
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

impl Supervised {
    /// Answers calls, until there are none any more or another thread has taken over.
    pub fn serve(
        self: &Arc<Self>,
        resolver: &mut Resolver,
        holder: &Sender<Message>,
        mine: impl Fn() -> bool,
    ) {
        while mine() {
            match self.calls.listener.recv() {
                Ok(Some(notification)) => {
                    let shared = Shared::now(self);
                    if let Err(error) = shared.judge(&notification, resolver, holder) {
                        // Not answered would be held for ever.
                        self.calls.refuse(notification.id, libc::EPERM);
                        self.calls.fail(error);
                    }
                }
                Ok(None) => {
                    if let Err(error) = Shared::now(self).end_refusals() {
                        self.calls.fail(error);
                    }
                    return;
                }
                Err(error) => {
                    self.calls.fail(error.into());
                    return;
                }
            }
        }
    }
}

impl Shared {
    fn judge(
        self: &Arc<Self>,
        notification: &Notification,
        resolver: &mut Resolver,
        holder: &Sender<Message>,
    ) -> Result<()> {
        let is_other = matches!(notification.call, NotifiedCall::Other(_));
        if self.ruling.observed && !is_other && notification.tid != self.launched.operator {
            self.calls.go_on(notification.id);
            return Ok(());
        }
        match notification.call {
            NotifiedCall::Exec(call) => self.judge_exec(notification, &call, resolver, holder),
            NotifiedCall::Connect(call) => {
                self.judge_connect(notification, &call, resolver, holder)
            }
            NotifiedCall::Other(call) => self.refuse_call(notification, &call),
        }
    }

    fn judge_exec(
        &self,
        notification: &Notification,
        call: &ExecCall,
        resolver: &mut Resolver,
        holder: &Sender<Message>,
    ) -> Result<()> {
        let Notification { id, tid, .. } = *notification;
        if self.launched.is_first(tid) {
            if let Ok(text) = target::exec_text(tid, call) {
                self.launched.line.given(&text.path, &text.argv);
            }
            self.calls.go_on(id);
            return Ok(());
        }
        // What cannot be read or leads nowhere: the kernel says the errno, or judges what became of it.
        let Ok(text) = target::exec_text(tid, call) else {
            self.calls.go_on(id);
            return Ok(());
        };
        let found = {
            let _looking = self.serving.looking();
            resolver.exec(tid, call, text)
        };
        let Ok(found) = found else {
            self.calls.go_on(id);
            return Ok(());
        };
        if self.is_hook(&found) {
            self.calls.go_on(id);
            return Ok(());
        }
        let by_rules = self.ruling.engine.exec(&found.action);
        if call.is_check() {
            self.answer_check(id, by_rules.decision);
            return Ok(());
        }
        let asks = by_rules.decision == Decision::Ask;
        let limited = self.limited(tid, ActionClass::Exec, &by_rules);
        let by_limit = limited.is_some();
        let outcome = limited.unwrap_or(by_rules);
        if outcome.decision == Decision::Allow {
            self.calls.go_on(id);
            return Ok(());
        }
        let who = target::who(tid).unwrap_or_default();
        // What was read belongs to this call only if its caller still waits in it.
        if !self.calls.is_valid(id) {
            return Ok(());
        }
        if outcome.decision == Decision::Ask {
            let own = !by_limit && self.launched.line.is_again(who, &found.action);
            let held = HeldCall {
                id,
                tid,
                who,
                outcome,
                own,
                later: self.ruling.waiting == Waiting::Retry && !own,
                wish: Wish::Exec(found),
            };
            return held::send(holder, held);
        }
        let wanted = Wanted::exec(self.ruling.engine.matcher(), &found.action);
        let done = CallOutcome::refused(who, wanted, &outcome);
        // What the rules ask about the kernel would refuse for that, not for the limit.
        if self.ruling.first.refuses || asks {
            let tripped = if by_limit {
                None
            } else {
                self.limiter.denied(who.tgid, found.thing())
            };
            self.refuse(id, &done.tripping(tripped))?;
        } else {
            // The kernel refuses it, and records it.
            self.account.tell(&done);
            self.calls.go_on(id);
        }
        Ok(())
    }

    /// Answers who only asks whether it could execute something: no exec, so nobody is asked, and nothing is counted,
    /// recorded or granted.
    fn answer_check(&self, id: u64, by_rules: Decision) {
        let limiter = &self.limiter;
        let allowed = by_rules == Decision::Allow
            && matches!(limiter.breaker(), Breaker::Closed { .. })
            && limiter.look(ActionClass::Exec).is_ok();
        if allowed {
            self.calls.go_on(id);
        } else {
            self.calls.refuse(id, libc::EPERM);
        }
    }

    /// Whether an exec is that of the launcher's own hook, or of the shell that starts it.
    fn is_hook(&self, found: &Found) -> bool {
        self.launched.own.as_ref().is_some_and(|own| {
            let trusted = self.ruling.engine.matcher().is_trusted(&found.action);
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
    ) -> Result<()> {
        let Notification { id, tid, .. } = *notification;
        let Ok(address) = target::socket_address(tid, call) else {
            self.calls.go_on(id);
            return Ok(());
        };
        match Address::parse(&address) {
            Some(Address::Path(path)) if !call.datagram && self.sockets.connector.is_some() => {
                self.judge_path(notification, call, &path, resolver, holder)
            }
            Some(Address::Abstract(name))
                if !call.datagram
                    && self.sockets.connector.is_some()
                    && self.ruling.first.unix != UnixJudgement::Bound =>
            {
                self.judge_abstract(notification, call, name, holder)
            }
            Some(Address::Abstract(name)) if self.ruling.first.unix == UnixJudgement::Absent => {
                self.judge_abstract_alone(notification, &name)
            }
            Some(Address::Inet(address, port)) if self.ruling.first.addresses => {
                self.judge_inet(notification, call, (address, port), holder)
            }
            // Judged in the kernel, on its own copy of the address.
            _ => {
                self.calls.go_on(id);
                Ok(())
            }
        }
    }
}

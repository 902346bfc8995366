//! Calls that wait for a person: put to the desk, and settled when an answer comes.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::Duration,
};

use enforcer_common::grant::{ConnectGrant, ExecGrant, ExecGrantKey, kernel_device};
use nix::{
    sys::statfs::{BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, statfs},
    time::{ClockId, clock_gettime},
};

use super::{
    account::CallOutcome,
    error::{AgentError, Result},
    lately::RefusedLately,
    parked::{ParkedExecs, Parking},
    paths::PathConnect,
    retry::Retries,
    supervisor::{Shared, Supervised},
    wanted::{Put, Wish, normal},
};
use enforcer_approvals::Asker;
use enforcer_decide::{
    Outcome,
    approval::{
        Answer, Asked, DirectoryIdentity, Ending, ExecRequest, FileIdentity, Parent, Request, Scope,
    },
    line,
};
use enforcer_kernel::grants::Grants;
use enforcer_launch::ExecStops;
use enforcer_policy::Decision;
use enforcer_say::say;
use enforcer_seccomp::{
    descriptor,
    resolve::{self, Found},
    target::{self, ThreadOwner},
};

/// How long a grant holds: from the answer to the kernel's judgement.
pub(super) const GRANT: Duration = Duration::from_secs(10);

/// What becomes of calls that wait.
#[derive(Debug)]
pub struct Approving {
    /// Who finds somebody to answer.
    pub desk: Asker,
    /// In whose name it is asked: the agent's.
    pub agent: String,
    /// Where approvals go for the kernel to know them.
    pub grants: Grants,
    /// Who holds processes whose exec is done.
    pub stops: ExecStops,
}

/// A call that waits.
#[derive(Debug)]
pub struct HeldCall {
    /// The notification.
    pub id: u64,
    /// The thread that waits.
    pub tid: u32,
    /// Its process.
    pub who: ThreadOwner,
    /// Why a person is asked.
    pub outcome: Outcome,
    /// It is the operator's own command line once more: nobody is asked.
    pub own: bool,
    /// It fails while somebody is asked, and may be tried again.
    pub later: bool,
    /// What it wants.
    pub wish: Wish,
}

/// What the holding thread is told.
#[derive(Debug)]
pub enum Message {
    /// Someone has to be asked.
    Ask(Box<HeldCall>),
    /// Someone has been asked, and the call may wait long.
    Waits(Box<Parking>),
    /// An answer has come.
    Answered(Box<Put>, Answer),
    /// Someone has been asked (the request's id), and the call does not wait.
    Later(Box<Put>, String),
    /// An answer has come to what did not wait.
    AnsweredLater(Box<Request>, Answer),
    /// The run ends; nothing comes after this.
    End,
}

/// Hands a call over to the holding thread.
///
/// # Errors
///
/// That thread broke down.
pub fn send(holder: &Sender<Message>, held: HeldCall) -> Result<()> {
    holder
        .send(Message::Ask(Box::new(held)))
        .map_err(|_| AgentError::NobodyHolds)
}

/// Works until the end.
pub fn hold(with: &Arc<Supervised>, messages: &Receiver<Message>, sender: &Sender<Message>) {
    let mut grants = 0;
    let mut refusals = RefusedLately::default();
    let mut parked = ParkedExecs::default();
    let mut retries = Retries::default();
    while let Ok(message) = messages.recv() {
        let shared = &Shared::now(with);
        let done = match message {
            Message::Ask(held) if held.own => {
                grants += 1;
                shared.go_on_as_the_operators(*held, grants)
            }
            Message::Ask(held) if held.later => {
                grants += 1;
                shared.ask_for_later(*held, sender, &refusals, &mut retries, grants)
            }
            Message::Ask(held) => shared.ask(*held, sender, &refusals),
            Message::Later(put, id) => {
                shared.refuse_for_now(&put, &id, &mut retries, &mut refusals)
            }
            Message::AnsweredLater(request, answer) => {
                shared.keep_answer(*request, answer, &mut retries);
                Ok(())
            }
            Message::Waits(parking) => {
                grants += 1;
                shared.park(&parking, grants, &mut parked)
            }
            Message::Answered(put, answer) => {
                grants += 1;
                if !matches!(answer.ending, Ending::Approved { .. }) {
                    refusals.remember(&put, &answer);
                }
                match parked.take(put.held.id) {
                    Some(number) => shared.settle_parked(&put, answer, number),
                    None => shared.settle(*put, answer, grants),
                }
            }
            Message::End => return,
        };
        if let Err(error) = done {
            shared.calls.fail(error);
        }
    }
}

impl Shared {
    /// Puts a call to the desk.
    fn ask(
        self: &Arc<Self>,
        held: HeldCall,
        sender: &Sender<Message>,
        refusals: &RefusedLately,
    ) -> Result<()> {
        let Some((put, process)) = self.put(held, |held| held.who.tgid)? else {
            return Ok(());
        };
        if let Some(answer) = refusals.find(&put) {
            // Counted when it was given.
            return self.refuse_held(&put.held, &answer, None);
        }
        let asked = self.asked(&put);
        let waiting = {
            let (shared, who) = (Arc::clone(self), put.held.who);
            let (what, reason) = (self.what(&put.held), put.held.outcome.reason.clone());
            let parking = self.parking(&put);
            let sender = sender.clone();
            move |id: &str| {
                shared.tell_waiting(who, id, &what, &reason);
                if let Some(parking) = parking {
                    let _ = sender.send(Message::Waits(Box::new(parking)));
                }
            }
        };
        let sender = sender.clone();
        self.approving
            .desk
            .ask(asked, process, waiting, move |answer| {
                // Without a receiver the run has ended, and the caller with it.
                let _ = sender.send(Message::Answered(Box::new(put), answer));
            });
        Ok(())
    }

    /// What the desk is told of a call.
    pub(super) fn asked(&self, put: &Put) -> Asked {
        let Put { held, request } = put;
        Asked {
            agent: self.approving.agent.clone(),
            pid: held.who.tgid,
            ppid: held.who.ppid,
            uid: held.who.uid,
            request: request.clone(),
            parents: self.parents(held.who.tgid),
            rule: held.outcome.rule.clone(),
            reason: held.outcome.reason.clone(),
            risk: held.outcome.risk,
            suggestion: held.outcome.suggestion.clone(),
        }
    }

    /// Makes of a call what is put to a person, and holds the process that `of` says: whose request it is. Nothing where that
    /// fails: the call has its answer then.
    pub(super) fn put(
        &self,
        held: HeldCall,
        of: impl FnOnce(&HeldCall) -> u32,
    ) -> Result<Option<(Put, OwnedFd)>> {
        let put = match Put::new(held) {
            Ok(put) => put,
            Err((held, error)) => return self.refuse_unreadable(&held, &error).map(|()| None),
        };
        match descriptor::process(of(&put.held)) {
            Ok(process) => Ok(Some((put, process))),
            Err(error) => self
                .refuse_unreadable(&put.held, &error.into())
                .map(|()| None),
        }
    }

    /// Has a call fail that cannot be put to anybody.
    fn refuse_unreadable(&self, held: &HeldCall, error: &AgentError) -> Result<()> {
        let answer = Answer {
            request: String::new(),
            ending: Ending::Refused(error.whole()),
        };
        self.refuse_held(held, &answer, None)
    }

    /// Lets go on what the operator has answered by giving the command.
    fn go_on_as_the_operators(self: &Arc<Self>, held: HeldCall, number: u64) -> Result<()> {
        let ending = |ending| Answer {
            request: String::new(),
            ending,
        };
        match Put::new(held) {
            Ok(put) => {
                let approved = Ending::Approved {
                    approver: "operator".to_owned(),
                    reason: "the command that was given to run, started by its own launcher"
                        .to_owned(),
                    scope: Scope::Once,
                };
                self.settle(put, ending(approved), number)
            }
            Err((held, error)) => self.refuse_unreadable(&held, &error),
        }
    }

    /// The ancestors inside the agent, nearest first.
    fn parents(&self, pid: u32) -> Vec<Parent> {
        let mut parents = target::ancestors(pid);
        if let Some(first) = parents.iter().position(|p| p.pid == self.launched.operator) {
            parents.truncate(first + 1);
        }
        parents
    }

    /// What a line on the terminal calls it.
    fn what(&self, held: &HeldCall) -> Vec<u8> {
        let wanted = held.wish.wanted(self.ruling.engine.matcher());
        wanted.text().into_owned()
    }

    fn tell_waiting(&self, who: ThreadOwner, id: &str, what: &[u8], reason: &str) {
        let line = self.waiting_line(id, what, reason);
        self.account
            .telling
            .line(who.tgid, who.ppid, &line, Duration::ZERO);
        self.tell_launcher(who, &line);
    }

    /// Tells whoever started the agent that somebody is asked about a call which does not wait; its process hears that by
    /// its denial.
    pub(super) fn tell_asked(&self, held: &HeldCall, id: &str) {
        let what = self.what(held);
        let line = self.waiting_line(id, &what, &held.outcome.reason);
        self.tell_launcher(held.who, &line);
    }

    fn waiting_line(&self, id: &str, what: &[u8], reason: &str) -> String {
        let short = id.split('-').next().unwrap_or(id);
        line::waiting_line(short, what, reason, self.ruling.timeout)
    }

    /// Says a line on the launcher's standard error, where the process's words go somewhere else.
    fn tell_launcher(&self, who: ThreadOwner, line: &str) {
        if self.account.telling.tells() && !enforcer_say::is_ours(who.tgid) {
            say!("{}", enforcer_say::aside(line));
        }
    }

    /// Carries an answer out. `number` is the grant's.
    pub(super) fn settle(self: &Arc<Self>, put: Put, answer: Answer, number: u64) -> Result<()> {
        let held = &put.held;
        let answer = self.under_the_policy_of_now(held, answer);
        if !matches!(answer.ending, Ending::Approved { .. }) {
            let tripped = self.count_denial(held, &answer);
            return self.refuse_held(held, &answer, tripped);
        }
        let now = boot_ns()?;
        // What an approved call left unused must not fill the map.
        self.approving.grants.sweep(now)?;
        let expires_ns = now + u64::try_from(GRANT.as_nanos()).unwrap_or(u64::MAX);
        if let Some((found, exec)) = put.exec() {
            if let Some(why) = changed(held, found, exec) {
                let refused = Answer {
                    ending: Ending::Refused(why),
                    ..answer
                };
                return self.refuse_held(held, &refused, None);
            }
            let script = found.action.script.is_some();
            let (key, grant) = self.exec_grant(held.who, exec, script, number, expires_ns);
            self.account.recorder.expect(number, answer);
            self.approving.grants.allow_exec(&key, &grant)?;
            // Who is gone meanwhile leaves its grant behind, which is soon void. To take it back could take away
            // that of another thread with the same wish.
            self.calls.listener.allow(held.id)?;
            return Ok(());
        }
        let HeldCall {
            id,
            who,
            outcome,
            wish,
            ..
        } = put.held;
        match wish {
            Wish::Connect(to) => {
                let key = self.approving.grants.connect_key(
                    who.tgid,
                    normal(to.address),
                    to.protocol.into(),
                    to.port.into(),
                );
                self.account.recorder.expect(number, answer);
                self.approving.grants.allow_connect(
                    &key,
                    &ConnectGrant {
                        request: number,
                        expires_ns,
                    },
                )?;
                self.calls.listener.allow(id)?;
            }
            Wish::Unix(unix) => {
                let connect = PathConnect {
                    id,
                    who,
                    unix,
                    outcome,
                    own: false,
                    unknown: false,
                };
                self.connect(connect, Some(answer));
            }
            Wish::Exec(_) => self.calls.refuse(id, libc::EPERM),
        }
        Ok(())
    }

    /// An approval of what the policy denies by now, since it was replaced meanwhile, is none.
    pub(super) fn under_the_policy_of_now(&self, held: &HeldCall, answer: Answer) -> Answer {
        if !matches!(answer.ending, Ending::Approved { .. }) {
            return answer;
        }
        let now = held.wish.judge(&self.ruling.engine);
        if now.decision != Decision::Deny {
            return answer;
        }
        Answer {
            ending: Ending::Refused(format!(
                "the policy was replaced while it was asked about, and denies it: {}",
                now.reason
            )),
            ..answer
        }
    }

    /// Counts an answer that denies; the denials in a row, if this one opened the breaker.
    pub(super) fn count_denial(&self, held: &HeldCall, answer: &Answer) -> Option<u64> {
        // Who is gone was not denied anything, nor is a request that could not be put to anybody.
        let counts = matches!(answer.ending, Ending::Denied { .. } | Ending::Expired(_));
        counts
            .then(|| self.limiter.denied(held.who.tgid, held.wish.thing()))
            .flatten()
    }

    pub(super) fn exec_grant(
        &self,
        who: ThreadOwner,
        exec: &ExecRequest,
        script: bool,
        number: u64,
        expires_ns: u64,
    ) -> (ExecGrantKey, ExecGrant) {
        let mut args = Vec::new();
        // The kernel drops a script's argv[0].
        for word in exec.argv.iter().skip(usize::from(script)) {
            args.extend_from_slice(word);
            args.push(0);
        }
        let key = self
            .approving
            .grants
            .exec_key(who.tgid, &exec.path, &args, script);
        let grant = ExecGrant {
            request: number,
            expires_ns,
            inode: exec.file.inode,
            size: exec.file.size,
            changed_s: exec.file.changed.0,
            cwd_inode: exec.cwd.inode,
            changed_ns: exec.file.changed.1,
            device: device(&exec.file.path, exec.file.device),
            cwd_device: device(&exec.cwd.path, exec.cwd.device),
            unanswered: 0,
        };
        (key, grant)
    }

    /// Has a call fail for want of an approval, and says so. `tripped`: the denials in a row, if this one opened the
    /// breaker.
    pub(super) fn refuse_held(
        &self,
        held: &HeldCall,
        answer: &Answer,
        tripped: Option<u64>,
    ) -> Result<()> {
        self.refuse(held.id, &self.unapproved(held, answer).tripping(tripped))
    }

    /// That a call does not go on for want of an approval.
    pub(super) fn unapproved<'a>(&self, held: &'a HeldCall, answer: &'a Answer) -> CallOutcome<'a> {
        let wanted = held.wish.wanted(self.ruling.engine.matcher());
        CallOutcome {
            answer: Some(answer),
            ..CallOutcome::refused(held.who, wanted, &held.outcome)
        }
    }

    /// Has a call fail with EPERM, once that is on record and told.
    pub(super) fn refuse(&self, id: u64, done: &CallOutcome<'_>) -> Result<()> {
        let recorded = self.account.refuse(done);
        self.calls.refuse(id, libc::EPERM);
        recorded
    }
}

/// What is not any more as it was when a person was asked.
pub(super) fn changed(held: &HeldCall, found: &Found, exec: &ExecRequest) -> Option<String> {
    let same = |now: &FileIdentity| *now == exec.file;
    match found.identity() {
        Ok(now) if same(&now) => {}
        Ok(_) => return Some("the program was changed while it was asked about".to_owned()),
        Err(error) => return Some(format!("the program cannot be vouched for: {error}")),
    }
    let same =
        |now: &DirectoryIdentity| (now.device, now.inode) == (exec.cwd.device, exec.cwd.inode);
    match resolve::working_directory(held.tid) {
        Ok(now) if same(&now) => None,
        _ => Some("the working directory was changed while it was asked about".to_owned()),
    }
}

/// The kernel's number of a file's device; 0, which stands for any, where `stat` gives another number than the
/// inode has.
fn device(path: &[u8], st_dev: u64) -> u32 {
    use std::os::unix::ffi::OsStrExt;
    let kind = statfs(std::ffi::OsStr::from_bytes(path)).map(|stat| stat.filesystem_type());
    match kind {
        Ok(BTRFS_SUPER_MAGIC | OVERLAYFS_SUPER_MAGIC) | Err(_) => 0,
        Ok(_) => kernel_device(st_dev),
    }
}

/// The time that grants are compared with, ns.
pub(super) fn boot_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(AgentError::Clock)?;
    let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(ns).map_err(AgentError::BeforeBoot)
}

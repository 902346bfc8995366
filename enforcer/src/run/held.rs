//! Calls that wait for a person: put to the desk, and settled when an answer comes.

use std::{
    collections::VecDeque,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use enforcer_common::{
    address,
    grant::{ConnectGrant, ExecGrant, ExecGrantKey, kernel_device},
    limits::Thing,
};
use nix::{
    sys::statfs::{BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, statfs},
    time::{ClockId, clock_gettime},
};

use super::{
    lines::Wanted,
    parked::{ParkedExecs, Parking},
    paths::{self, PathConnect},
    retry::Retries,
    supervisor::Shared,
};
use crate::{
    audit::Verdict,
    decide::{
        Outcome,
        approval::{
            Answer, Asked, ConnectSubject, Ending, ExecSubject, FileIdentity, Parent, Place, Scope,
            Subject,
        },
        line, wording,
    },
    launch::Place as SocketPlace,
    say::{self, say},
    seccomp::{
        descriptor,
        resolve::{self, Found},
        target::{self, Who},
    },
};

/// How long a grant holds: from the answer to the kernel's judgement.
pub(super) const GRANT: Duration = Duration::from_secs(10);

/// How long a refusal holds for the same process trying the same program by another path, as a shell does that
/// goes through `PATH`.
const REFUSED: Duration = Duration::from_secs(2);
/// How many refusals are remembered for that.
const REMEMBERED: usize = 32;

/// A call that waits.
#[derive(Debug)]
pub struct Held {
    /// The notification.
    pub id: u64,
    /// The thread that waits.
    pub tid: u32,
    /// Its process.
    pub who: Who,
    /// Why a person is asked.
    pub outcome: Outcome,
    /// It is the operator's own command line once more: nobody is asked.
    pub own: bool,
    /// It fails while somebody is asked, and may be tried again.
    pub later: bool,
    /// What it wants.
    pub wish: Wish,
}

/// What a call wants.
#[derive(Debug)]
pub enum Wish {
    /// To start a program.
    Exec(Found),
    /// To connect to an address.
    Connect(ConnectSubject),
    /// To connect to a unix socket.
    Unix {
        /// The caller's socket.
        socket: OwnedFd,
        /// The socket that its path led to, or its abstract name.
        place: SocketPlace,
        /// That socket's name.
        name: Vec<u8>,
    },
}

impl Wish {
    /// What it is, to tell a repeat from another.
    fn thing(&self) -> Thing {
        match self {
            Self::Exec(found) => found.thing(),
            Self::Connect(subject) => {
                let address = normal(subject.address);
                Thing::address(&address, subject.protocol.into(), subject.port.into())
            }
            Self::Unix { name, .. } => paths::thing(name),
        }
    }
}

/// What the holding thread is told.
#[derive(Debug)]
pub enum Message {
    /// Someone has to be asked.
    Ask(Box<Held>),
    /// Someone has been asked, and the call may wait long.
    Waits(Box<Parking>),
    /// An answer has come.
    Answered(Box<Held>, Box<Subject>, Answer),
    /// Someone has been asked (the request's id), and the call does not wait.
    Later(Box<Held>, Box<Subject>, String),
    /// An answer has come to what did not wait.
    AnsweredLater(Box<Subject>, Answer),
    /// The run ends; nothing comes after this.
    End,
}

/// Hands a call over to the holding thread.
///
/// # Errors
///
/// That thread broke down.
pub fn send(holder: &Sender<Message>, held: Held) -> anyhow::Result<()> {
    holder
        .send(Message::Ask(Box::new(held)))
        .ok()
        .context("the thread for held calls broke down; report this as a defect")
}

/// What was refused a moment ago.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<(Instant, u32, ExecSubject, Answer)>);

impl Refusals {
    pub(super) fn remember(&mut self, pid: u32, subject: &Subject, answer: &Answer) {
        if let Subject::Exec(exec) = subject {
            if self.0.len() >= REMEMBERED {
                self.0.pop_front();
            }
            let refusal = (Instant::now(), pid, exec.clone(), answer.clone());
            self.0.push_back(refusal);
        }
    }

    /// The refusal that this process has just been given, if only the directory of the program differs: a search through
    /// `PATH` may come upon two copies.
    pub(super) fn find(&self, pid: u32, subject: &Subject) -> Option<Answer> {
        let Subject::Exec(exec) = subject else {
            return None;
        };
        self.0
            .iter()
            .rev()
            .find(|(at, refused_pid, refused, _)| {
                at.elapsed() < REFUSED
                    && *refused_pid == pid
                    && refused.argv == exec.argv
                    && base_name(&refused.path) == base_name(&exec.path)
                    && refused.cwd == exec.cwd
            })
            .map(|(_, _, _, answer)| answer.clone())
    }
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Works until the end.
pub fn hold(shared: &Arc<Shared>, messages: &Receiver<Message>, sender: &Sender<Message>) {
    let mut grants = 0;
    let mut refusals = Refusals::default();
    let mut parked = ParkedExecs::default();
    let mut retries = Retries::default();
    while let Ok(message) = messages.recv() {
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
            Message::Later(held, subject, id) => {
                shared.refuse_for_now(&held, &subject, &id, &mut retries, &mut refusals)
            }
            Message::AnsweredLater(subject, answer) => {
                shared.keep_answer(*subject, answer, &mut retries);
                Ok(())
            }
            Message::Waits(parking) => {
                grants += 1;
                shared.park(&parking, grants, &mut parked)
            }
            Message::Answered(held, subject, answer) => {
                grants += 1;
                if !matches!(answer.ending, Ending::Approved { .. }) {
                    refusals.remember(held.who.tgid, &subject, &answer);
                }
                match parked.take(held.id) {
                    Some(number) => shared.settle_parked(&held, &subject, answer, number),
                    None => shared.settle(*held, &subject, answer, grants),
                }
            }
            Message::End => return,
        };
        if let Err(error) = done {
            shared.fail(error);
        }
    }
}

impl Shared {
    /// Puts a call to the desk.
    fn ask(
        self: &Arc<Self>,
        held: Held,
        sender: &Sender<Message>,
        refusals: &Refusals,
    ) -> anyhow::Result<()> {
        let asked = Self::subject(&held)
            .and_then(|subject| Ok((subject, descriptor::process(held.who.tgid)?)));
        let (subject, process) = match asked {
            Ok(asked) => asked,
            Err(error) => return self.refuse_unreadable(&held, &error),
        };
        if let Some(answer) = refusals.find(held.who.tgid, &subject) {
            // Counted when it was given.
            return self.refuse_held(&held, &answer, None);
        }
        let asked = self.asked(&held, &subject);
        let waiting = {
            let (shared, who) = (Arc::clone(self), held.who);
            let (what, reason) = (self.what(&held.wish), held.outcome.reason.clone());
            let parking = self.parking(&held, &subject);
            let sender = sender.clone();
            move |id: &str| {
                shared.tell_waiting(who, id, &what, &reason);
                if let Some(parking) = parking {
                    let _ = sender.send(Message::Waits(Box::new(parking)));
                }
            }
        };
        let sender = sender.clone();
        self.with.desk.ask(asked, process, waiting, move |answer| {
            // Without a receiver the run has ended, and the caller with it.
            let _ = sender.send(Message::Answered(Box::new(held), Box::new(subject), answer));
        });
        Ok(())
    }

    /// What the desk is told of a call.
    pub(super) fn asked(&self, held: &Held, subject: &Subject) -> Asked {
        Asked {
            agent: self.with.agent.clone(),
            pid: held.who.tgid,
            ppid: held.who.ppid,
            uid: held.who.uid,
            subject: subject.clone(),
            parents: self.parents(held.who.tgid),
            rule: held.outcome.rule.clone(),
            reason: held.outcome.reason.clone(),
            risk: held.outcome.risk,
            suggestion: held.outcome.suggestion.clone(),
        }
    }

    /// Has a call fail that cannot be put to anybody.
    pub(super) fn refuse_unreadable(
        &self,
        held: &Held,
        error: &anyhow::Error,
    ) -> anyhow::Result<()> {
        let answer = Answer {
            request: String::new(),
            ending: Ending::Refused(format!("{error:#}")),
        };
        self.refuse_held(held, &answer, None)
    }

    /// Lets go on what the operator has answered by giving the command.
    fn go_on_as_the_operators(self: &Arc<Self>, held: Held, number: u64) -> anyhow::Result<()> {
        let ending = |ending| Answer {
            request: String::new(),
            ending,
        };
        match Self::subject(&held) {
            Ok(subject) => {
                let approved = Ending::Approved {
                    approver: "operator".to_owned(),
                    reason: "the command that was given to run, started by its own launcher"
                        .to_owned(),
                    scope: Scope::Once,
                };
                self.settle(held, &subject, ending(approved), number)
            }
            Err(error) => self.refuse_unreadable(&held, &error),
        }
    }

    pub(super) fn subject(held: &Held) -> anyhow::Result<Subject> {
        Ok(match &held.wish {
            Wish::Exec(found) => Subject::Exec(ExecSubject {
                path: found.action.path.clone(),
                argv: found.action.argv.clone(),
                cwd: resolve::working_directory(held.tid)
                    .context("its working directory cannot be read")?,
                file: found
                    .identity()
                    .context("the program cannot be vouched for")?,
            }),
            Wish::Connect(subject) => Subject::Connect(*subject),
            Wish::Unix { name, .. } => Subject::Unix(name.clone()),
        })
    }

    /// The ancestors inside the agent, nearest first.
    fn parents(&self, pid: u32) -> Vec<Parent> {
        let mut parents = target::ancestors(pid);
        if let Some(first) = parents.iter().position(|p| p.pid == self.with.operator) {
            parents.truncate(first + 1);
        }
        parents
    }

    /// What a line on the terminal calls it.
    fn what(&self, wish: &Wish) -> Vec<u8> {
        match wish {
            Wish::Exec(found) => self.with.engine.matcher().text(&found.action),
            Wish::Connect(subject) => {
                let address = std::net::SocketAddr::new(subject.address, subject.port);
                format!("connect {address}").into_bytes()
            }
            Wish::Unix { name, .. } => [b"connect ", name.as_slice()].concat(),
        }
    }

    fn tell_waiting(&self, who: Who, id: &str, what: &[u8], reason: &str) {
        let line = self.waiting_line(id, what, reason);
        self.with
            .telling
            .line(who.tgid, who.ppid, &line, Duration::ZERO);
        self.tell_launcher(who, &line);
    }

    /// Tells whoever started the agent that somebody is asked about a call which does not wait; its process hears that by
    /// its denial.
    pub(super) fn tell_asked(&self, held: &Held, id: &str) {
        let what = self.what(&held.wish);
        let line = self.waiting_line(id, &what, &held.outcome.reason);
        self.tell_launcher(held.who, &line);
    }

    fn waiting_line(&self, id: &str, what: &[u8], reason: &str) -> String {
        let short = id.split('-').next().unwrap_or(id);
        line::waiting_line(short, what, reason, self.with.timeout)
    }

    /// Says a line on the launcher's standard error, where the process's words go somewhere else.
    fn tell_launcher(&self, who: Who, line: &str) {
        if self.with.telling.tells() && !say::is_ours(who.tgid) {
            say!("{}", say::aside(line));
        }
    }

    /// Carries an answer out. `number` is the grant's.
    pub(super) fn settle(
        self: &Arc<Self>,
        held: Held,
        subject: &Subject,
        answer: Answer,
        number: u64,
    ) -> anyhow::Result<()> {
        if !matches!(answer.ending, Ending::Approved { .. }) {
            let tripped = self.count_denial(&held, &answer);
            return self.refuse_held(&held, &answer, tripped);
        }
        let now = boot_ns()?;
        // What an approved call left unused must not fill the map.
        self.with.grants.sweep(now)?;
        let expires_ns = now + u64::try_from(GRANT.as_nanos()).unwrap_or(u64::MAX);
        match (&held.wish, subject) {
            (Wish::Exec(found), Subject::Exec(exec)) => {
                if let Some(why) = changed(&held, found, exec) {
                    let refused = Answer {
                        ending: Ending::Refused(why),
                        ..answer
                    };
                    return self.refuse_held(&held, &refused, None);
                }
                let script = found.action.script.is_some();
                let (key, grant) = self.exec_grant(held.who, exec, script, number, expires_ns);
                self.with.recorder.expect(number, answer);
                self.with.grants.allow_exec(&key, &grant)?;
                // Who is gone meanwhile leaves its grant behind, which is soon void. To take it back could take away
                // that of another thread with the same wish.
                self.with.listener.allow(held.id)?;
            }
            (Wish::Connect(connect), _) => {
                let key = self.with.grants.connect_key(
                    held.who.tgid,
                    normal(connect.address),
                    connect.protocol.into(),
                    connect.port.into(),
                );
                self.with.recorder.expect(number, answer);
                self.with.grants.allow_connect(
                    &key,
                    &ConnectGrant {
                        request: number,
                        expires_ns,
                    },
                )?;
                self.with.listener.allow(held.id)?;
            }
            _ => {
                let Held {
                    id,
                    who,
                    outcome,
                    wish,
                    ..
                } = held;
                if let Wish::Unix {
                    socket,
                    place,
                    name,
                } = wish
                {
                    let connect = PathConnect {
                        id,
                        who,
                        socket,
                        place,
                        name,
                        outcome,
                        own: false,
                        unknown: false,
                    };
                    self.connect(connect, Some(answer));
                }
            }
        }
        Ok(())
    }

    /// Counts an answer that denies; the denials in a row, if this one opened the breaker.
    pub(super) fn count_denial(&self, held: &Held, answer: &Answer) -> Option<u64> {
        // Who is gone was not denied anything, nor is a request that could not be put to anybody.
        let counts = matches!(answer.ending, Ending::Denied { .. } | Ending::Expired(_));
        counts
            .then(|| self.with.limiter.denied(held.who.tgid, held.wish.thing()))
            .flatten()
    }

    pub(super) fn exec_grant(
        &self,
        who: Who,
        exec: &ExecSubject,
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
            .with
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
        held: &Held,
        answer: &Answer,
        tripped: Option<u64>,
    ) -> anyhow::Result<()> {
        let recorded = self.record_refusal(held, answer, tripped, Verdict::Errno);
        self.refuse(held.id, libc::EPERM);
        recorded
    }

    /// Records and tells that a call failed for want of an approval.
    pub(super) fn record_refusal(
        &self,
        held: &Held,
        answer: &Answer,
        tripped: Option<u64>,
        verdict: Verdict,
    ) -> anyhow::Result<()> {
        let outcome = &held.outcome;
        let recorded = match &held.wish {
            Wish::Exec(found) => self.record_exec(
                held.who,
                &found.action,
                outcome,
                Some(answer),
                verdict,
                tripped,
            ),
            Wish::Connect(subject) => self.with.recorder.answered(
                &self.caller(held.who),
                Wanted::Connect {
                    address: subject.address,
                    port: subject.port,
                    protocol: subject.protocol.into(),
                },
                outcome,
                Some(answer),
                verdict,
                tripped,
            ),
            Wish::Unix { name, .. } => self.with.recorder.answered(
                &self.caller(held.who),
                Wanted::Unix(name),
                outcome,
                Some(answer),
                verdict,
                tripped,
            ),
        };
        if answer.ending != Ending::Cancelled {
            let told = Outcome {
                reason: wording::ending(&answer.ending, outcome),
                ..outcome.clone()
            };
            self.tell_denial(
                held.who,
                &self.what(&held.wish),
                &told,
                outcome.suggestion.as_deref(),
            );
        }
        recorded
    }
}

/// What is not any more as it was when a person was asked.
pub(super) fn changed(held: &Held, found: &Found, exec: &ExecSubject) -> Option<String> {
    let same = |now: &FileIdentity| *now == exec.file;
    match found.identity() {
        Ok(now) if same(&now) => {}
        Ok(_) => return Some("the program was changed while it was asked about".to_owned()),
        Err(error) => return Some(format!("the program cannot be vouched for: {error}")),
    }
    let same = |now: &Place| (now.device, now.inode) == (exec.cwd.device, exec.cwd.inode);
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

/// An address as the kernel programs know it.
fn normal(address: IpAddr) -> [u8; 16] {
    address::normalise(match address {
        IpAddr::V4(v4) => address::from_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    })
}

/// The time that grants are compared with, ns.
pub(super) fn boot_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("CLOCK_BOOTTIME cannot be read")?;
    let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(ns).context("CLOCK_BOOTTIME is before the boot")
}

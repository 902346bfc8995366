//! Lines of the trail, made: from the kernel's events, and from what the supervisor did.

use std::{collections::BTreeMap, mem::take, net::SocketAddr, sync::Arc};

use enforcer_common::{
    event::{CAUSE_APPROVED, CAUSE_HOOK, FLAG_TRUNCATED, Header, REACH_SIGNAL, REACH_TRACE},
    seat,
};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use super::{
    account::CallOutcome,
    breaker,
    counts::Counts,
    editions::{Edition, Editions},
    error::{AgentError, Result},
    parked::ParkedLines,
    wanted::Wanted,
};
use enforcer_decide::{
    Outcome, Wording,
    approval::{Answer, Ending},
    line, wording,
};
use enforcer_kernel::events::{Body, KernelEvent};
use enforcer_policy::{Decision, Judgement};
use enforcer_say::say;
use enforcer_trail::{
    Action, Approval, Connect, Entry, Exec, Reader, Record, Stage, Verdict, Writer,
};
/// An agent without a name is recorded as the hooks record it.
pub const UNNAMED: &str = "unknown";

/// A process that left its agent's cgroup.
#[derive(Clone, Copy, Debug)]
pub struct Escaped {
    /// The process.
    pub pid: u32,
    /// When it left, `CLOCK_BOOTTIME`, ns.
    pub boottime_ns: u64,
}

/// A denial that its process should hear of.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The process.
    pub pid: u32,
    /// Its parent, for when it is gone.
    pub ppid: u32,
    /// Whether it is an exec.
    pub exec: bool,
    /// What to say.
    pub line: String,
}

/// What came of the events that were there.
#[derive(Debug, Default)]
pub struct DrainedEvents {
    /// Processes that left the agent's cgroup.
    pub escaped: Vec<Escaped>,
    /// Denials, oldest first.
    pub denied: Vec<Denied>,
}

/// Who did what, for a line that the kernel has no event for.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Process.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Its real user.
    pub uid: u32,
    /// Its cgroup; the agent's own if it is not known.
    pub cgroup: Option<u64>,
    /// Name of the file that it executes; empty if it is gone.
    pub program: Vec<u8>,
}

/// The writer, and what lines are made from.
#[derive(Debug)]
pub struct Lines {
    pub editions: Editions,
    pub writer: Writer,
    pub agent: Option<String>,
    pub cgroup: u64,
    pub counts: Counts,
    pub next_seq: u64,
    /// The next event may stand in the trail already.
    pub resumed: bool,
    /// Answers whose actions the kernel has yet to tell of, by number of the grant. Grants are void after a while, and
    /// numbers ascend: old ones go when there are many.
    pub approved: BTreeMap<u64, Answer>,
    /// Execs whose lines wait for an answer.
    pub parked: ParkedLines,
    /// Whether the operator is told when the breaker opens.
    pub announces: bool,
    /// Whether a hook of the agent has been started.
    pub hooked: bool,
}

impl Lines {
    /// The agent's name in the trail.
    pub fn name(&self) -> &str {
        self.agent.as_deref().unwrap_or(UNNAMED)
    }

    /// Writes a line.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        self.mark_as_now();
        self.writer.append(record)?;
        self.writer.flush()?;
        Ok(())
    }

    /// Writes a line and, if the denial that it tells of opened the breaker, right behind it the line that says so.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn write_with_trip(
        &mut self,
        record: &Record,
        at: Timestamp,
        tripped: Option<u64>,
    ) -> Result<()> {
        self.mark_as_now();
        self.write_marked(record, at, tripped)
    }

    /// Writes a line, or forgets it. `decides`: the generation that decides from then on, and whether it only observes;
    /// without one as what decides now.
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn write_or_forget(&mut self, record: &Record, decides: Option<(u32, bool)>) -> Result<()> {
        match decides {
            Some((generation, observed)) => self.mark(&self.editions.of(generation), observed),
            None => self.mark_as_now(),
        }
        self.writer.write_or_forget(record)?;
        Ok(())
    }

    fn mark_as_now(&mut self) {
        let (now, observed) = self.editions.now();
        self.mark(&now, observed);
    }

    /// Has the next lines marked as those of what decided, and of whether it blocked nothing.
    fn mark(&mut self, edition: &Arc<Edition>, observed: bool) {
        if self.editions.mark(edition, observed) {
            self.writer
                .restamp(edition.stamp.clone().observed(observed));
        }
    }

    fn write_marked(&mut self, record: &Record, at: Timestamp, tripped: Option<u64>) -> Result<()> {
        self.writer.append(record)?;
        if let Some(denials) = tripped {
            let reason = wording::breaker_tripped(denials);
            let trip = Record::breaker_trip(at, self.name(), &reason, denials);
            self.writer.append(&trip)?;
        }
        // Both in one write: whoever resumes finds both or neither.
        self.writer.flush()?;
        if let Some(denials) = tripped
            && self.announces
        {
            let observed = self.editions.marked_as_observed();
            for line in breaker::opened(denials, self.name(), observed, self.hooked) {
                say!("enforcer: {line}");
            }
        }
        Ok(())
    }

    /// Writes one event of the kernel's; `offset` is what [`boot_offset`] gave.
    ///
    /// # Errors
    ///
    /// The event is of another version, or the trail cannot be written.
    pub fn event(
        &mut self,
        event: Option<KernelEvent>,
        offset: i128,
        seen: &mut DrainedEvents,
    ) -> Result<()> {
        let event = event.ok_or(AgentError::UnknownEvent)?;
        if matches!(event.body, Body::Escape) {
            seen.escaped.push(Escaped {
                pid: event.header.pid,
                boottime_ns: event.header.boottime_ns,
            });
        }
        self.hooked |= event.header.cause == CAUSE_HOOK;
        self.next_seq = self.next_seq.max(event.header.seq + 1);
        if take(&mut self.resumed) && self.is_written(&event.header)? {
            return Ok(());
        }
        let edition = self.editions.of(seat::generation(event.header.seat));
        if let Some((event, edition)) = self.parked.keep(event, edition) {
            return self.settled(&event, &edition, offset, seen);
        }
        Ok(())
    }

    /// Writes the line of an event that waits for nothing more, in the words of what decided; the other arguments as for
    /// [`Self::event`].
    ///
    /// # Errors
    ///
    /// The trail cannot be written.
    pub fn settled(
        &mut self,
        event: &KernelEvent,
        edition: &Arc<Edition>,
        offset: i128,
        seen: &mut DrainedEvents,
    ) -> Result<()> {
        let record = self.record(event, &edition.wording, offset, seen);
        let tripped = Some(event.header.tripped).filter(|denials| *denials > 0);
        self.mark(edition, seat::observed(event.header.seat));
        self.write_marked(&record, at(event.header.boottime_ns, offset), tripped)
    }

    /// Whether the trail has this event. No other instance has had the same cgroup.
    fn is_written(&self, header: &Header) -> Result<bool> {
        let own = [
            ("seq", header.seq.to_string()),
            ("cgroup", header.cgroup.to_string()),
            ("pid", header.pid.to_string()),
        ];
        // Most lines need not be parsed.
        let number = format!("\"seq\":{}", header.seq);
        let (found, _) = Reader::new(self.writer.path()).last(1, |line: &[u8]| {
            String::from_utf8_lossy(line).contains(&number)
                && Entry::parse(line).is_ok_and(|entry| {
                    own.iter()
                        .all(|(key, value)| entry.parameter(key) == *value)
                })
        })?;
        Ok(!found.is_empty())
    }

    fn record(
        &mut self,
        event: &KernelEvent,
        wording: &Wording,
        offset: i128,
        seen: &mut DrainedEvents,
    ) -> Record {
        let header = &event.header;
        let judgement = Judgement {
            decision: Decision::from_number(header.decision),
            rank: header.rank,
            cause: header.cause,
        };
        let mut outcome = match &event.body {
            Body::Exec(_) | Body::Escape | Body::Process(_) => wording.exec_outcome(judgement),
            Body::Connect(_) | Body::Socket(_) | Body::Packet(_) => {
                wording.connect_outcome(judgement)
            }
            Body::Unix(_) => wording.unix_outcome(judgement),
        };
        let verdict = Verdict::from_number(header.verdict);
        match &event.body {
            Body::Escape => self.counts.denied += 1,
            Body::Exec(_) | Body::Process(_) => {
                self.counts.note(true, verdict != Verdict::Allowed);
            }
            _ => self.counts.note(false, verdict != Verdict::Allowed),
        }
        let permitted = judgement.decision == Decision::Allow || judgement.cause == CAUSE_APPROVED;
        if verdict == Verdict::Allowed && !permitted {
            self.counts.observed += 1;
        }
        let answer = self.approved.remove(&header.approval);
        if let Some(answer) = &answer {
            outcome.reason = wording::ending(&answer.ending, &outcome);
        }
        let action = Action {
            approval: answer.as_ref().map(told),
            ..self.action(header, &outcome, judgement.decision, offset)
        };
        let record = match &event.body {
            Body::Exec(facts) => Record::exec(
                &action,
                &Exec {
                    text: &facts.text,
                    argv_bytes: facts.argv_bytes,
                    truncated: header.flags & FLAG_TRUNCATED != 0,
                    exe: &facts.path,
                    name: &facts.name,
                },
            ),
            Body::Connect(facts) => Record::connect(
                &action,
                &Connect {
                    host: None,
                    address: Some(facts.address.to_canonical()),
                    port: Some(facts.port),
                    protocol: facts.protocol,
                    socket: None,
                    program: &facts.program,
                },
            ),
            Body::Packet(facts) => {
                Record::packet(&action, &facts.program, facts.address.to_canonical())
            }
            Body::Socket(facts) => Record::socket(
                &action,
                &facts.program,
                facts.family,
                facts.socket_type,
                facts.protocol,
            ),
            Body::Unix(facts) => Record::unix(&action, &facts.program, &facts.name),
            Body::Process(facts) => {
                Record::process(&action, facts.target, reach(facts.reach), facts.detail)
            }
            Body::Escape => Record::escape(&action),
        };
        let record = record.suggesting(suggestion(&outcome, verdict));
        if verdict != Verdict::Allowed {
            let what = match &event.body {
                Body::Exec(facts) => Some(facts.text.clone()),
                Body::Connect(facts) => {
                    let address = SocketAddr::new(facts.address.to_canonical(), facts.port);
                    Some(format!("connect {address}").into_bytes())
                }
                Body::Unix(facts) => Some([b"connect ", facts.name.as_slice()].concat()),
                _ => None,
            };
            if let Some(what) = what {
                seen.denied.push(Denied {
                    pid: header.pid,
                    ppid: header.ppid,
                    exec: matches!(event.body, Body::Exec(_)),
                    line: line::blocked_line(&what, &outcome.reason, outcome.suggestion.as_deref()),
                });
            }
        }
        record
    }

    fn action<'a>(
        &'a self,
        header: &Header,
        outcome: &'a Outcome,
        decision: Decision,
        offset: i128,
    ) -> Action<'a> {
        Action {
            timestamp: at(header.boottime_ns, offset),
            agent: self.name(),
            reason: &outcome.reason,
            security_risk: outcome.security_risk,
            cause: outcome.cause,
            rule: outcome.rule.as_deref(),
            decision,
            verdict: Verdict::from_number(header.verdict),
            stage: Stage::from_number(header.stage),
            risk: Some(outcome.risk),
            pid: header.pid,
            ppid: header.ppid,
            uid: header.uid,
            cgroup: header.cgroup,
            seq: Some(header.seq),
            latency_ns: Some(header.latency_ns),
            approval: None,
        }
    }

    /// A line for what the supervisor did.
    pub fn supervised(&self, caller: &Caller, done: &CallOutcome<'_>) -> Record {
        let outcome = done.outcome;
        let reason = match done.answer {
            Some(answer) => wording::ending(&answer.ending, outcome),
            None => outcome.reason.clone(),
        };
        let action = Action {
            timestamp: Timestamp::now(),
            agent: self.name(),
            reason: &reason,
            security_risk: outcome.security_risk,
            cause: outcome.cause,
            rule: outcome.rule.as_deref(),
            decision: outcome.decision,
            verdict: done.verdict,
            stage: Stage::Seccomp,
            risk: Some(outcome.risk),
            pid: caller.pid,
            ppid: caller.ppid,
            uid: caller.uid,
            cgroup: caller.cgroup.unwrap_or(self.cgroup),
            seq: None,
            latency_ns: None,
            approval: done.answer.map(told),
        };
        let record = match &done.wanted {
            Wanted::Exec {
                text,
                argv_bytes,
                path,
            } => Record::exec(
                &action,
                &Exec {
                    text,
                    argv_bytes: *argv_bytes,
                    truncated: false,
                    exe: path,
                    name: b"",
                },
            ),
            Wanted::Connect(to) => Record::connect(
                &action,
                &Connect {
                    host: None,
                    address: Some(to.address),
                    port: Some(to.port),
                    protocol: to.protocol.into(),
                    socket: None,
                    program: &caller.program,
                },
            ),
            Wanted::Unix(name) => Record::unix(&action, &caller.program, name),
            Wanted::Syscall(call) => Record::syscall(&action, call),
        };
        record.suggesting(suggestion(outcome, done.verdict))
    }
}

/// What can be done about what did not happen: what to do instead, or else how to be allowed.
fn suggestion(outcome: &Outcome, verdict: Verdict) -> Option<&String> {
    let denied = verdict != Verdict::Allowed;
    outcome.suggestions.first().filter(|_| denied)
}

/// What was wanted of a process.
fn reach(number: u32) -> &'static str {
    match number {
        REACH_TRACE => "trace",
        REACH_SIGNAL => "signal",
        _ => "unknown",
    }
}

/// What the trail tells of a request.
fn told(answer: &Answer) -> Approval<'_> {
    let (state, approver, reason, scope) = match &answer.ending {
        Ending::Approved {
            approver,
            reason,
            scope,
        } => (
            "approved",
            Some(approver),
            Some(reason),
            Some(scope.as_str()),
        ),
        Ending::Denied { approver, reason } => ("denied", Some(approver), Some(reason), None),
        Ending::Expired(_) => ("expired", None, None, None),
        Ending::Cancelled => ("cancelled", None, None, None),
        Ending::Refused(_) => ("refused", None, None, None),
    };
    Approval {
        request: &answer.request,
        state,
        approver: approver.map(String::as_str),
        reason: reason.map(String::as_str),
        scope,
    }
}

/// What to add to a `CLOCK_BOOTTIME` reading to have UTC, in nanoseconds.
///
/// # Errors
///
/// The clock cannot be read.
pub fn boot_offset() -> Result<i128> {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(AgentError::Clock)?;
    let boot = i128::from(boot.tv_sec()) * 1_000_000_000 + i128::from(boot.tv_nsec());
    Ok(Timestamp::now().as_nanosecond() - boot)
}

fn at(boottime_ns: u64, offset: i128) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(boottime_ns) + offset)
        .unwrap_or_else(|_| Timestamp::now())
}

//! One line of the trail.
//!
//! The keys and their order are fixed (`docs/trail.md`): readers of the existing trail reject a line with any
//! other key, so all else lies in `parameters`. Every string is redacted when the record is made; a record that
//! shows a secret cannot be built.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::Serialize;
use serde_json::{Map, Value};

use super::action::{Action, Approval, Connect, Event, Exec, Stage, Syscall, Verdict};
use enforcer_policy::model::Protocol;
use enforcer_policy::{Cause, Decision, Risk};

/// Longest string that is kept, in bytes before redaction; a longer one is cut and the record says `truncated`.
const STRING_MAX: usize = 64 * 1024;

/// One line of the trail. Made by its constructors only, redacted then, never changed after.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    timestamp: String,
    event: Event,
    agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    security_risk: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(super) parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denial_count: Option<u64>,
}

impl Record {
    /// An exec that was judged.
    pub fn exec(action: &Action<'_>, exec: &Exec<'_>) -> Self {
        let mut parameters = Map::with_capacity(16);
        let (text, cut) = within(exec.text);
        let command = enforcer_redact::command(text);
        let lengths = word_lengths(text, &command);
        parameters.insert("command".into(), command.into());
        parameters.insert("argv_bytes".into(), exec.argv_bytes.into());
        if exec.truncated || cut {
            parameters.insert("truncated".into(), true.into());
        } else if let Some(lengths) = lengths {
            parameters.insert("words".into(), lengths.into());
        }
        if !exec.exe.is_empty() {
            parameters.insert(
                "exe".into(),
                enforcer_redact::text(within(exec.exe).0).into(),
            );
        }
        let base = exec
            .exe
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        if !exec.name.is_empty() && exec.name != base {
            parameters.insert("resolved".into(), enforcer_redact::text(exec.name).into());
        }
        action.process(&mut parameters);
        action.judgement(&mut parameters);
        action.record("exec", parameters)
    }

    /// A connect, or a datagram to an address, that was judged.
    pub fn connect(action: &Action<'_>, connect: &Connect<'_>) -> Self {
        let mut parameters = Map::with_capacity(16);
        executes(&mut parameters, connect.program);
        action.process(&mut parameters);
        if let Some(host) = connect.host.filter(|h| !h.is_empty()) {
            parameters.insert("host".into(), enforcer_redact::text(host.as_bytes()).into());
        }
        if let Some(address) = connect.address {
            parameters.insert("address".into(), address.to_canonical().to_string().into());
        }
        if let Some(port) = connect.port {
            parameters.insert("port".into(), port.into());
        }
        parameters.insert("protocol".into(), protocol_name(connect.protocol));
        action.judgement(&mut parameters);
        if let Some((family, kind)) = connect.socket {
            parameters.insert("family".into(), family.into());
            parameters.insert("socket_type".into(), kind.into());
        }
        action.record("connect", parameters)
    }

    /// A socket of a family or protocol that no host rule can judge.
    pub fn socket(
        action: &Action<'_>,
        program: &[u8],
        family: u32,
        socket_type: u32,
        protocol: u32,
    ) -> Self {
        let socket = Some((family, socket_type));
        Self::connect(
            action,
            &Connect {
                host: None,
                address: None,
                port: None,
                protocol,
                socket,
                program,
            },
        )
    }

    /// A connect, or a datagram, to a unix socket: its path, or `@` and its abstract name. `program` as in [`Connect`].
    pub fn unix(action: &Action<'_>, program: &[u8], name: &[u8]) -> Self {
        let mut parameters = Map::with_capacity(16);
        executes(&mut parameters, program);
        action.process(&mut parameters);
        parameters.insert(
            "address".into(),
            enforcer_redact::text(within(name).0).into(),
        );
        parameters.insert("protocol".into(), "unix".into());
        action.judgement(&mut parameters);
        action.record("connect", parameters)
    }

    /// A system call that the filter refused.
    pub fn syscall(action: &Action<'_>, call: &Syscall<'_>) -> Self {
        let mut parameters = Map::with_capacity(12);
        parameters.insert(
            "syscall".into(),
            enforcer_redact::text(call.name.as_bytes()).into(),
        );
        parameters.insert(
            "group".into(),
            enforcer_redact::text(call.group.as_bytes()).into(),
        );
        if call.left_out > 0 {
            parameters.insert("left_out".into(), call.left_out.into());
        }
        action.process(&mut parameters);
        action.judgement(&mut parameters);
        action.record("syscall", parameters)
    }

    /// A packet that was led past the judged address; it was dropped. `program` as in [`Connect`].
    pub fn packet(action: &Action<'_>, program: &[u8], address: IpAddr) -> Self {
        let mut parameters = Map::with_capacity(16);
        executes(&mut parameters, program);
        action.process(&mut parameters);
        parameters.insert("address".into(), address.to_string().into());
        parameters.insert("packet".into(), true.into());
        action.judgement(&mut parameters);
        action.record("connect", parameters)
    }

    /// A process outside the agent that the agent wanted to reach into: `access` says how, `detail` is the mode of
    /// access or the number of the signal.
    pub fn process(action: &Action<'_>, target: u32, access: &str, detail: u32) -> Self {
        let mut parameters = Map::with_capacity(16);
        action.process(&mut parameters);
        parameters.insert("target".into(), target.into());
        parameters.insert("access".into(), access.into());
        parameters.insert("detail".into(), detail.into());
        action.judgement(&mut parameters);
        action.record("exec", parameters)
    }

    /// A request that its supervisor left unanswered: the supervisor ended, the action did not happen. `rule` and `risk`
    /// are those of the request.
    pub fn unanswered(
        timestamp: Timestamp,
        agent: &str,
        (tool, command): (&str, &str),
        (rule, risk): (Option<&str>, Option<Risk>),
        reason: &str,
        approval: Approval<'_>,
    ) -> Self {
        let action = Action {
            timestamp,
            agent,
            reason,
            // As of every line that a rule asked about; a default is no rule.
            security_risk: rule.is_some(),
            cause: rule.map_or(Cause::Default, |_| Cause::Rule),
            rule,
            decision: Decision::Ask,
            verdict: Verdict::Errno,
            stage: Stage::Seccomp,
            risk,
            pid: 0,
            ppid: 0,
            uid: 0,
            cgroup: 0,
            seq: None,
            latency_ns: None,
            approval: Some(approval),
        };
        let mut parameters = Map::with_capacity(8);
        let key = if tool == "exec" { "command" } else { "address" };
        parameters.insert(
            key.into(),
            enforcer_redact::text(within(command.as_bytes()).0).into(),
        );
        action.judgement(&mut parameters);
        action.record(tool, parameters)
    }

    /// A command that was not started: its agent was not let in. `command` as in [`Exec::text`].
    pub fn refusal(timestamp: Timestamp, agent: &str, command: &[u8], reason: &str) -> Self {
        let mut parameters = Map::with_capacity(6);
        let (text, cut) = within(command);
        parameters.insert("command".into(), enforcer_redact::command(text).into());
        if cut {
            parameters.insert("truncated".into(), true.into());
        }
        parameters.insert("cause".into(), Cause::Admission.as_str().into());
        parameters.insert("decision".into(), Decision::Deny.as_str().into());
        parameters.insert("stage".into(), "admission".into());
        Self {
            timestamp: stamp(timestamp),
            event: Event::Denial,
            agent: agent_name(agent),
            tool: Some("exec".to_owned()),
            reason: enforcer_redact::text(within(reason.as_bytes()).0),
            security_risk: false,
            parameters,
            denial_count: None,
        }
    }

    /// A task left its agent's cgroup; it was killed. `action.verdict` says so.
    pub fn escape(action: &Action<'_>) -> Self {
        let mut parameters = Map::with_capacity(12);
        action.process(&mut parameters);
        action.judgement(&mut parameters);
        parameters.insert("escape".into(), true.into());
        action.record("exec", parameters)
    }

    /// Events that were lost between two that arrived. Their actions were denied.
    ///
    /// `first_seq` is the number of the first one lost.
    pub fn gap(timestamp: Timestamp, agent: &str, lost: u64, first_seq: u64) -> Self {
        let mut parameters = Map::with_capacity(3);
        parameters.insert("decision".into(), Decision::Deny.as_str().into());
        parameters.insert("seq".into(), first_seq.into());
        parameters.insert("lost".into(), lost.into());
        Self {
            timestamp: stamp(timestamp),
            event: Event::Denial,
            agent: agent_name(agent),
            tool: None,
            reason: format!("events lost: {lost}"),
            security_risk: true,
            parameters,
            denial_count: None,
        }
    }

    /// The breaker opened after `denial_count` denials.
    pub fn breaker_trip(
        timestamp: Timestamp,
        agent: &str,
        reason: &str,
        denial_count: u64,
    ) -> Self {
        Self {
            timestamp: stamp(timestamp),
            event: Event::CircuitBreakerTrip,
            agent: agent_name(agent),
            tool: None,
            reason: enforcer_redact::text(within(reason.as_bytes()).0),
            security_risk: false,
            parameters: Map::new(),
            denial_count: Some(denial_count),
        }
    }

    /// A tool call that the hook front end judged. Long strings in `parameters` are cut.
    pub fn tool_call(
        timestamp: Timestamp,
        event: Event,
        agent: &str,
        tool: &str,
        reason: &str,
        security_risk: bool,
        parameters: &Map<String, Value>,
    ) -> Self {
        let mut cut = false;
        let short: Map<String, Value> = parameters
            .iter()
            .map(|(k, v)| (k.clone(), shorten(v, &mut cut)))
            .collect();
        let mut parameters = enforcer_redact::members(&short);
        if cut {
            parameters.insert("truncated".into(), true.into());
        }
        Self {
            timestamp: stamp(timestamp),
            event,
            agent: agent_name(agent),
            tool: Some(enforcer_redact::text(within(tool.as_bytes()).0)),
            reason: enforcer_redact::text(within(reason.as_bytes()).0),
            security_risk,
            parameters,
            denial_count: None,
        }
    }

    /// The same, with what can be done about a denial.
    #[must_use]
    pub fn suggesting(mut self, suggestion: Option<&String>) -> Self {
        if let Some(suggestion) = suggestion {
            let text = enforcer_redact::text(within(suggestion.as_bytes()).0);
            self.parameters.insert("suggestion".into(), text.into());
        }
        self
    }

    /// What kind of line it is.
    pub fn event(&self) -> Event {
        self.event
    }

    /// Appends the line, newline included. On an error, which no value made here causes, `out` is as before.
    ///
    /// # Errors
    /// What the serializer says.
    pub fn write_line(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let before = out.len();
        let written = serde_json::to_writer(&mut *out, self);
        match &written {
            Ok(()) => out.push(b'\n'),
            Err(_) => out.truncate(before),
        }
        written
    }
}

impl Action<'_> {
    fn process(&self, parameters: &mut Map<String, Value>) {
        parameters.insert("pid".into(), self.pid.into());
        parameters.insert("ppid".into(), self.ppid.into());
        parameters.insert("uid".into(), self.uid.into());
        parameters.insert("cgroup".into(), self.cgroup.into());
    }

    fn judgement(&self, parameters: &mut Map<String, Value>) {
        if let Some(rule) = self.rule.filter(|r| !r.is_empty()) {
            parameters.insert(
                "rule".into(),
                enforcer_redact::text(within(rule.as_bytes()).0).into(),
            );
        }
        parameters.insert("cause".into(), self.cause.as_str().into());
        parameters.insert("decision".into(), self.decision.as_str().into());
        parameters.insert("verdict".into(), self.verdict.as_str().into());
        parameters.insert("stage".into(), self.stage.as_str().into());
        if let Some(risk) = self.risk {
            parameters.insert("risk".into(), risk.as_str().into());
        }
        if let Some(seq) = self.seq {
            parameters.insert("seq".into(), seq.into());
        }
        if let Some(latency) = self.latency_ns {
            parameters.insert("latency_ns".into(), latency.into());
        }
        if let Some(approval) = self.approval {
            parameters.insert("approval".into(), approval.request.into());
            parameters.insert("approval_state".into(), approval.state.into());
            let texts = [
                ("approver", approval.approver),
                ("approval_reason", approval.reason),
                ("approval_scope", approval.scope),
            ];
            for (key, text) in texts {
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    parameters.insert(
                        key.into(),
                        enforcer_redact::text(within(text.as_bytes()).0).into(),
                    );
                }
            }
        }
    }

    fn record(&self, tool: &str, parameters: Map<String, Value>) -> Record {
        let event = match self.verdict {
            Verdict::Allowed => Event::Approval,
            Verdict::Errno | Verdict::Killed => Event::Denial,
        };
        Record {
            timestamp: stamp(self.timestamp),
            event,
            agent: agent_name(self.agent),
            tool: Some(tool.to_owned()),
            reason: enforcer_redact::text(within(self.reason.as_bytes()).0),
            security_risk: self.security_risk,
            parameters,
            denial_count: None,
        }
    }
}

/// The program of a process that connects.
fn executes(parameters: &mut Map<String, Value>, program: &[u8]) {
    if !program.is_empty() {
        parameters.insert(
            "exe".into(),
            enforcer_redact::text(within(program).0).into(),
        );
    }
}

/// `2026-11-21T02:37:44.309895+00:00`: microseconds always, as the readers of the trail expect.
fn stamp(timestamp: Timestamp) -> String {
    let t = Offset::UTC.to_datetime(timestamp);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.subsec_nanosecond() / 1000
    )
}

fn agent_name(agent: &str) -> String {
    let name = enforcer_redact::text(within(agent.as_bytes()).0);
    let name = name.trim();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name.to_owned()
    }
}

/// What rules can name by name, others by number.
fn protocol_name(number: u32) -> Value {
    Protocol::numbered(number).map_or_else(|| number.into(), |protocol| protocol.name().into())
}

/// The length in bytes of each word of a command as it is written down, where its spaces do not tell its words apart.
/// Nothing where a secret that was replaced reaches over several words.
fn word_lengths(raw: &[u8], command: &str) -> Option<Vec<usize>> {
    let plain = |word: &[u8]| {
        !word
            .iter()
            .any(|byte| *byte == b' ' || byte.is_ascii_control())
    };
    if raw.split(|byte| *byte == 0).all(plain) {
        return None;
    }
    let words = enforcer_redact::words(raw.split(|byte| *byte == 0));
    (words.join(" ") == command).then(|| words.iter().map(String::len).collect())
}

/// The first part of a string, and whether that is not all.
fn within(raw: &[u8]) -> (&[u8], bool) {
    if raw.len() <= STRING_MAX {
        return (raw, false);
    }
    // Not in the middle of a character.
    let mut end = STRING_MAX;
    while end > STRING_MAX - 4 && raw[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    (&raw[..end], true)
}

/// A value with its long strings cut.
fn shorten(value: &Value, cut: &mut bool) -> Value {
    match value {
        Value::String(s) => {
            let (head, long) = within(s.as_bytes());
            *cut |= long;
            Value::from(String::from_utf8_lossy(head))
        }
        Value::Array(items) => items.iter().map(|v| shorten(v, cut)).collect(),
        Value::Object(object) => object
            .iter()
            .map(|(k, v)| (k.clone(), shorten(v, cut)))
            .collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod record_tests;

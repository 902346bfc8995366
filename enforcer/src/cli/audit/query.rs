//! `enforcer audit query`: the lines of the trail, and of its older files, that are about something.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::{Style, print, report};
use crate::cli::error::{CliError, Context};
use enforcer_decide::principal::{Name, TenantName};
use enforcer_policy::Cause;
use enforcer_say::say;
use enforcer_trail::{DEFAULT_PATH, Entry, Reader, tenant_trail};

/// What `audit query` takes. Every condition must hold.
#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    /// The trail [default: the tenant's own with --tenant, else /var/log/enforcer/audit.jsonl]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Lines of this tenant; those without a tenant are nobody's and are not shown
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Option<TenantName>,
    /// Lines of agents that work for this user
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<Name>,
    /// Lines of the agent with this name, in upper or lower case
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<String>,
    /// What became of it
    #[arg(long, value_enum, value_name = "EVENT")]
    pub(super) event: Option<EventWord>,
    /// exec, connect, syscall, agent (what an operator did to it), breaker, or the tool of a hook
    #[arg(long, value_name = "TOOL")]
    pub(super) tool: Option<String>,
    /// LOW, MEDIUM, HIGH or CRITICAL
    #[arg(long, value_enum, ignore_case = true, value_name = "RISK")]
    pub(super) risk: Option<RiskWord>,
    /// What the policy said
    #[arg(long, value_enum, ignore_case = true, value_name = "DECISION")]
    pub(super) decision: Option<DecisionWord>,
    /// Lines that the rule with this id decided
    #[arg(long, value_name = "ID")]
    pub(super) rule: Option<String>,
    /// Lines with this cause: `rule`, `default`, `breaker`, `rate`, … (all are in docs/trail.md)
    #[arg(long, value_name = "CAUSE", value_parser = cause)]
    pub(super) cause: Option<Cause>,
    /// Lines about processes of the cgroup with this id: of one run (`enforcer status --json` has it)
    #[arg(long, value_name = "ID")]
    pub(super) cgroup: Option<u64>,
    /// From this time on: 2026-11-21, 2026-11-21T09:30:00Z, or so long ago: 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Timestamp>,
    /// Only the last N of them
    #[arg(short = 'n', long = "lines", value_name = "N")]
    pub(super) lines: Option<usize>,
    /// Shows the lines as they are in the file
    #[arg(long)]
    pub(super) json: bool,
}

/// Kinds of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum EventWord {
    /// The action went on
    Approval,
    /// The action did not happen
    Denial,
    /// The breaker opened
    CircuitBreakerTrip,
}

/// Decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DecisionWord {
    /// The policy allows it
    Allow,
    /// The policy asks
    Ask,
    /// The policy denies it
    Deny,
}

/// Risks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum RiskWord {
    /// Reading, building, testing
    Low,
    /// Easily undone
    Medium,
    /// Hard to undo
    High,
    /// Loss of data or control
    Critical,
}

/// The word of a value, as the trail has it.
fn word(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// A cause by its word. Whoever misspells one is not to be told that there are no lines.
fn cause(word: &str) -> Result<Cause, String> {
    serde_json::from_value(word.into()).map_err(|error| error.to_string())
}

/// A point in time, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<civil::DateTime>() {
        let zoned = at
            .to_zoned(TimeZone::UTC)
            .map_err(|error| error.to_string())?;
        return Ok(zoned.timestamp());
    }
    let split = text.len().saturating_sub(1);
    let ago = text
        .get(..split)
        .zip(text.get(split..))
        .and_then(|(count, unit)| {
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                "d" => 86_400,
                _ => return None,
            };
            let seconds = count
                .parse::<u32>()
                .ok()
                .map(|count| i64::from(count) * seconds)?;
            Timestamp::now()
                .checked_sub(SignedDuration::from_secs(seconds))
                .ok()
        });
    ago.ok_or_else(|| {
        "write a date (2026-11-21), a time (2026-11-21T09:30:00Z), or how long ago (30m, 2h, 7d)"
            .to_owned()
    })
}

impl QueryArgs {
    /// The file to read.
    fn file(&self) -> PathBuf {
        let usual = Path::new(DEFAULT_PATH);
        match (&self.file, &self.tenant) {
            (Some(file), _) => file.clone(),
            (None, Some(tenant)) => tenant_trail(usual, tenant.as_str()),
            (None, None) => usual.to_owned(),
        }
    }

    fn wants(&self, entry: &Entry) -> bool {
        let same =
            |wanted: Option<&str>, found: String| wanted.is_none_or(|wanted| wanted == found);
        let at = || entry.text("timestamp").parse::<Timestamp>().ok();
        same(
            self.tenant.as_ref().map(TenantName::as_str),
            entry.parameter("tenant"),
        ) && same(
            self.user.as_ref().map(Name::as_str),
            entry.parameter("user"),
        ) && self
            .agent
            .as_ref()
            .is_none_or(|agent| agent.to_lowercase() == entry.text("agent").to_lowercase())
            && same(
                self.event.as_ref().map(word).as_deref(),
                entry.text("event"),
            )
            && same(self.tool.as_deref(), entry.text("tool"))
            && same(
                self.risk.as_ref().map(word).as_deref(),
                entry.parameter("risk"),
            )
            && same(
                self.decision.as_ref().map(word).as_deref(),
                entry.parameter("decision"),
            )
            && same(self.rule.as_deref(), entry.parameter("rule"))
            && same(self.cause.map(Cause::as_str), entry.parameter("cause"))
            && self
                .cgroup
                .is_none_or(|id| entry.parameter("cgroup") == id.to_string())
            && self
                .since
                .is_none_or(|since| at().is_some_and(|at| at >= since))
            && self
                .until
                .is_none_or(|until| at().is_some_and(|at| at < until))
    }
}

/// Shows the lines.
///
/// # Errors
///
/// The trail is missing or cannot be read, or `out` cannot be written.
pub(super) fn show(args: &QueryArgs, style: Style, out: &mut impl Write) -> Result<(), CliError> {
    let mut malformed = 0_u64;
    let wanted = |line: &[u8]| {
        let entry = Entry::parse(line);
        malformed += u64::from(entry.is_err());
        entry.is_ok_and(|entry| args.wants(&entry))
    };
    let count = args.lines.unwrap_or(usize::MAX);
    let read = Reader::new(&args.file()).last(count, wanted);
    let (lines, _) = match (&args.file, &args.tenant) {
        (None, Some(tenant)) => {
            let tenant = tenant.as_str();
            read.with_context(|| {
                format!("the trail of the tenant {tenant} (enforcer run --tenant {tenant})")
            })?
        }
        _ => read?,
    };
    for line in &lines {
        print(line, args.json, style, out)?;
    }
    out.flush()?;
    report(malformed);
    if lines.is_empty() {
        let file = args.file();
        let tenants = if args.file.is_none() && args.tenant.is_none() {
            "; agents of a tenant have a trail of their own (--tenant)"
        } else {
            ""
        };
        say!(
            "enforcer: no line of {} is about that{tenants}",
            file.display()
        );
    }
    Ok(())
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;

//! `enforcer approvals`: sees and answers what waits for a person.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};

use super::{FAILURE, on_our_directories};
use crate::cli::error::{CliError, refuse};
use enforcer_approvals::{ApprovalsError, DEFAULT_DB, Store};
use enforcer_control::{
    ControlError, RequestRecord, RequestState, SOCKET_NAME, client,
    protocol::{Operation, Reply, ReplyFault},
};
use enforcer_files::directories;
use enforcer_say::say;

mod text;
mod watch;

/// Where the running agents have their sockets.
pub(crate) const STATE_ROOT: &str = directories::RUNNING.path;

/// Requests of the past that a list shows.
const MAX_HISTORY: u32 = 1000;

const EXAMPLES: &str = "\
Examples:
  sudo enforcer approvals list
  sudo enforcer approvals show 3f2a
  sudo enforcer approvals approve 3f2a --reason 'reviewed the branch'
  sudo enforcer approvals approve 3f2a --scope session --for 30m
  sudo enforcer approvals deny 3f2a 77b0 --reason 'not on a Friday'
  sudo enforcer approvals watch

An id may be cut to its first characters, at least 4. Root may answer, and the users and groups
that the policy names in `approvals.approvers`; the agent's own user never.

Exit status: 0 done, 1 no such request or it has ended already, 2 bad use or not permitted.";

/// Sees and answers what waits for a person.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ApprovalsArgs {
    #[command(subcommand)]
    command: ApprovalsCommand,
    /// Where the running agents have their sockets
    #[arg(long, global = true, hide = true, value_name = "DIR", default_value = STATE_ROOT)]
    run_dir: PathBuf,
    /// The database
    #[arg(long, global = true, hide = true, value_name = "FILE", default_value = DEFAULT_DB)]
    db: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ApprovalsCommand {
    /// List what waits for an answer, the most dangerous first
    List(ListArgs),
    /// Show a request: who asks, what exactly, why
    Show(ShowArgs),
    /// Let what is waiting go on
    Approve(ApproveArgs),
    /// Refuse what is waiting
    Deny(DenyArgs),
    /// Wait for requests; on a terminal, ask about each
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Those that have ended, too, also of agents that have ended (as root)
    #[arg(long)]
    all: bool,
    /// As a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The request's id, or the start of it
    id: String,
    /// As a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ApproveArgs {
    /// The requests' ids, or the starts of them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// How far the approval reaches
    #[arg(long, value_enum, default_value = "once")]
    scope: Reach,
    /// How long it reaches (30s, 30m, 2h); unless given, until the agent ends
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    lasting: Option<Duration>,
    /// Why; goes into the trail
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

#[derive(Debug, Args)]
struct DenyArgs {
    /// The requests' ids, or the starts of them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why; goes into the trail
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

#[derive(Debug, Args)]
struct WatchArgs {
    /// A JSON object a line, without asking
    #[arg(long)]
    json: bool,
}

/// How far an approval reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reach {
    /// What is waiting now, once
    Once,
    /// Exactly the same again: same arguments, directory, file and user
    Session,
    /// Whatever the same rule asks about
    Rule,
}

impl Reach {
    fn word(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Session => "session",
            Self::Rule => "rule",
        }
    }
}

/// A person's answer, as the desks take it.
#[derive(Clone, Debug)]
struct Verdict {
    approve: bool,
    reason: String,
    scope: Option<Reach>,
    lasting: Option<Duration>,
}

impl Verdict {
    fn request(&self, id: String) -> Operation {
        Operation::Answer {
            id,
            approve: self.approve,
            reason: self.reason.clone(),
            scope: self.scope.map(|scope| scope.word().to_owned()),
            for_s: self.lasting.map(|time| time.as_secs()),
            // The desk believes it of root alone.
            by: std::env::var("SUDO_USER")
                .ok()
                .filter(|user| user != "root"),
        }
    }
}

/// Runs `enforcer approvals`.
///
/// # Errors
///
/// No desk can be reached, the peer may not do this, or the database cannot be read.
pub fn run(args: &ApprovalsArgs) -> Result<ExitCode, CliError> {
    if args.run_dir == Path::new(STATE_ROOT) && args.db == Path::new(DEFAULT_DB) {
        on_our_directories(&[directories::STATE], &[directories::RUNNING])?;
    }
    let desks = Desks {
        root: &args.run_dir,
        db: &args.db,
    };
    let done = match &args.command {
        ApprovalsCommand::List(list) => desks.list(list),
        ApprovalsCommand::Show(show) => desks.show(show),
        ApprovalsCommand::Approve(approve) => {
            if approve.lasting.is_some() && approve.scope == Reach::Once {
                refuse!(
                    "--for needs --scope session or --scope rule: an approval for once is used at once"
                );
            }
            Ok(desks.answer(
                &approve.ids,
                &Verdict {
                    approve: true,
                    reason: approve.reason.clone(),
                    scope: Some(approve.scope),
                    lasting: approve.lasting,
                },
            ))
        }
        ApprovalsCommand::Deny(deny) => Ok(desks.answer(
            &deny.ids,
            &Verdict {
                approve: false,
                reason: deny.reason.clone(),
                scope: None,
                lasting: None,
            },
        )),
        ApprovalsCommand::Watch(watch) => watch::run(&args.run_dir, watch.json),
    };
    match done {
        // The reader of a pipe has seen enough.
        Err(error) if error.reader_left() => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

/// The desks of all running agents, and the database.
struct Desks<'a> {
    root: &'a Path,
    db: &'a Path,
}

/// Why an answer had no effect.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn of(reply: Reply) -> Self {
        let code = match reply.fault {
            Some(ReplyFault::NotFound | ReplyFault::Ended) => 1,
            _ => FAILURE,
        };
        Self {
            code,
            text: reply.error.unwrap_or_default(),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self {
            code: FAILURE,
            text: error.to_string(),
        }
    }
}

impl From<ApprovalsError> for Failure {
    fn from(error: ApprovalsError) -> Self {
        let code = match error {
            ApprovalsError::NotFound(_) | ApprovalsError::Ended { .. } => 1,
            _ => FAILURE,
        };
        Self {
            code,
            text: error.to_string(),
        }
    }
}

impl Desks<'_> {
    /// The replies of all desks that listen. A desk that is just ending does not count; if all refuse, that is the
    /// answer.
    fn ask_all(&self, request: &Operation) -> Result<Vec<(PathBuf, Reply)>, Failure> {
        let mut replies = Vec::new();
        let mut refusal = None;
        for socket in client::sockets(self.root) {
            match client::request(&socket, request) {
                Ok(reply) if reply.fault.is_none() => replies.push((socket, reply)),
                Ok(reply) => refusal = Some(Failure::of(reply)),
                Err(error) if error.is_nobody() => {}
                Err(error) => refusal = Some(error.into()),
            }
        }
        match refusal {
            Some(failure) if replies.is_empty() => Err(failure),
            Some(failure) => {
                say!("enforcer: one agent's desk: {}", failure.text);
                Ok(replies)
            }
            None => Ok(replies),
        }
    }

    fn pending(&self) -> Result<Vec<(PathBuf, RequestRecord)>, Failure> {
        let mut found = Vec::new();
        for (socket, reply) in self.ask_all(&Operation::List { all: false })? {
            for record in reply.requests.unwrap_or_default() {
                found.push((socket.clone(), record));
            }
        }
        found.sort_by_key(|(_, record)| (text::urgency(&record.risk), record.asked_at));
        Ok(found)
    }

    fn history(&self) -> Result<Vec<RequestRecord>, Failure> {
        match Store::open_existing(self.db) {
            Ok(Some(store)) => Ok(store.history(MAX_HISTORY)?),
            Ok(None) => Ok(Vec::new()),
            // Others than root see the running agents' requests.
            Err(ApprovalsError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let replies = self.ask_all(&Operation::List { all: true })?;
                let mut records: Vec<RequestRecord> = replies
                    .into_iter()
                    .flat_map(|(_, reply)| reply.requests.unwrap_or_default())
                    .collect();
                records.sort_by_key(|record| std::cmp::Reverse(record.asked_at));
                Ok(records)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self, args: &ListArgs) -> Result<ExitCode, CliError> {
        let records = if args.all {
            self.history()
        } else {
            self.pending()
                .map(|found| found.into_iter().map(|(_, record)| record).collect())
        };
        let records = match records {
            Ok(records) => records,
            Err(failure) => return Ok(report(&failure)),
        };
        let mut out = enforcer_say::out();
        if args.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&records)?)?;
        } else if records.is_empty() {
            writeln!(
                out,
                "{}",
                if args.all {
                    "No requests."
                } else {
                    "Nothing waits for an answer."
                }
            )?;
        } else {
            text::list(&mut out, &records, text::Style::of_stdout())?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, args: &ShowArgs) -> Result<ExitCode, CliError> {
        let record = match self.find(&args.id) {
            Ok(record) => record,
            Err(failure) => return Ok(report(&failure)),
        };
        let socket = self.root.join(&record.instance).join(SOCKET_NAME);
        if record.state == RequestState::Pending && client::Listening::find(&socket).is_err() {
            say!("enforcer: {}", unanswerable(&record).text);
        }
        let mut out = enforcer_say::out();
        if args.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&record)?)?;
        } else {
            text::show(&mut out, &record, text::Style::of_stdout())?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// A request, from the desk that holds it, else from the database.
    fn find(&self, prefix: &str) -> Result<RequestRecord, Failure> {
        let mut failure = Failure::from(ApprovalsError::NotFound(prefix.to_owned()));
        let mut found = Vec::new();
        for socket in client::sockets(self.root) {
            let request = Operation::Show {
                id: prefix.to_owned(),
            };
            match client::request(&socket, &request) {
                Ok(reply) if reply.fault.is_some() => {
                    let told = Failure::of(reply);
                    if told.code != 1 {
                        failure = told;
                    }
                }
                Ok(reply) => found.extend(reply.requests.unwrap_or_default()),
                Err(_) => {}
            }
        }
        match found.len() {
            1 => return Ok(found.remove(0)),
            0 => {}
            count => {
                return Err(ApprovalsError::Ambiguous {
                    prefix: prefix.to_owned(),
                    count,
                }
                .into());
            }
        }
        match Store::open_existing(self.db) {
            Ok(Some(store)) => Ok(store.find(prefix)?),
            // Who may not read the database is told what the desks said.
            Ok(None) | Err(ApprovalsError::Io { .. } | ApprovalsError::NotOurs { .. }) => {
                Err(failure)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Answers each; the worst of the outcomes is the exit status.
    fn answer(&self, ids: &[String], verdict: &Verdict) -> ExitCode {
        let mut worst = 0;
        for id in ids {
            match self.answer_one(id, verdict) {
                Ok(ended) => {
                    for id in ended {
                        let word = if verdict.approve {
                            "approved"
                        } else {
                            "denied"
                        };
                        // A closed standard output does not undo an answer.
                        let _ = writeln!(enforcer_say::out(), "{id} {word}");
                    }
                }
                Err(failure) => {
                    say!("enforcer: {}", failure.text);
                    worst = worst.max(failure.code);
                }
            }
        }
        ExitCode::from(worst)
    }

    fn answer_one(&self, prefix: &str, verdict: &Verdict) -> Result<Vec<String>, Failure> {
        if prefix.len() < 4 {
            return Err(ApprovalsError::ShortId(prefix.to_owned()).into());
        }
        let pending: Vec<(PathBuf, RequestRecord)> = self
            .pending()?
            .into_iter()
            .filter(|(_, record)| record.id.starts_with(prefix))
            .collect();
        match pending.as_slice() {
            [(socket, record)] => answer(socket, &record.id, verdict),
            [] => {
                let record = self.find(prefix)?;
                if record.state == RequestState::Pending {
                    return Err(unanswerable(&record));
                }
                Err(ApprovalsError::Ended {
                    how: record.ending(),
                    id: record.id,
                }
                .into())
            }
            several => Err(ApprovalsError::Ambiguous {
                prefix: prefix.to_owned(),
                count: several.len(),
            }
            .into()),
        }
    }
}

/// Why nobody takes an answer to a request that no desk has, and that has not ended on record.
fn unanswerable(record: &RequestRecord) -> Failure {
    let run = record.instance.clone();
    Failure {
        code: 1,
        text: format!("{}: {}", record.id, ControlError::Gone { run }),
    }
}

/// Gives one answer to one desk; the ids that it ended.
fn answer(socket: &Path, id: &str, verdict: &Verdict) -> Result<Vec<String>, Failure> {
    let reply = client::request(socket, &verdict.request(id.to_owned()))?;
    if reply.fault.is_some() {
        return Err(Failure::of(reply));
    }
    Ok(reply.ended.unwrap_or_default())
}

fn report(failure: &Failure) -> ExitCode {
    say!("enforcer: {}", failure.text);
    ExitCode::from(failure.code)
}

/// `30s`, `30m`, `2h`, `1d`; a bare number is seconds.
fn parse_time(text: &str) -> Result<Duration, String> {
    let no_time = || format!("`{text}` is not a time; write 30s, 30m, 2h or 1d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(no_time()),
    };
    let number: u64 = digits
        .parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(no_time)?;
    number
        .checked_mul(factor)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
#[path = "approvals_tests.rs"]
mod approvals_tests;

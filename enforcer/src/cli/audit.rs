//! `enforcer audit`: reads the trail.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Context};
use enforcer_trail::{DEFAULT_PATH, Entry, Reader};

use enforcer_control::words::counted;
use enforcer_files::directories;
use enforcer_say::say;

use super::on_our_directories;

mod query;

/// How long `--follow` waits between two looks at the file.
const POLL: Duration = Duration::from_millis(200);

/// Reads the audit trail.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Shows the last lines of the trail: time, agent, verdict, what was done, and why it was decided so
    Tail(TailArgs),
    /// Shows the lines of the trail and its older files that are about a tenant, a user, an agent, a rule, …
    Query(query::QueryArgs),
}

/// What `audit tail` takes.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The trail
    #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// Goes on with new lines as they come, through rotations
    #[arg(short, long)]
    follow: bool,
    /// How many lines
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    lines: usize,
    /// Shows the lines as they are in the file
    #[arg(long)]
    json: bool,
    /// Only what was denied, and where a breaker opened
    #[arg(long)]
    denied: bool,
}

/// Runs `enforcer audit`.
///
/// # Errors
/// The trail is missing or cannot be read, or standard output cannot be written.
pub fn run(args: &AuditArgs) -> Result<(), CliError> {
    on_our_directories(&[], &[directories::TRAILS])?;
    let stdout = io::stdout();
    let style = Style {
        colour: stdout.is_terminal() && colour_wanted(),
    };
    let shown = match &args.command {
        AuditCommand::Tail(tail) => show(tail, style, &mut enforcer_say::out()),
        AuditCommand::Query(query) => query::show(query, style, &mut enforcer_say::out()),
    };
    match shown {
        // The reader of a pipe has seen enough.
        Err(error) if error.reader_left() => Ok(()),
        other => other,
    }
}

/// `NO_COLOR` (no-color.org: set and not empty) and dumb terminals get none.
fn colour_wanted() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    !no_color && !dumb
}

fn show(args: &TailArgs, style: Style, out: &mut impl Write) -> Result<(), CliError> {
    let mut malformed = 0_u64;
    let mut wanted = |line: &[u8]| {
        let entry = Entry::parse(line);
        malformed += u64::from(entry.is_err());
        entry.is_ok_and(|e| !args.denied || e.is_denied())
    };
    let (lines, mut follower) = Reader::new(&args.file).last(args.lines, &mut wanted)?;
    for line in &lines {
        print(line, args.json, style, out)?;
    }
    out.flush()?;
    report(malformed);
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(POLL);
        let mut malformed = 0;
        let mut printed = Ok(());
        follower.poll(|line| match Entry::parse(line) {
            Ok(entry) if args.denied && !entry.is_denied() => {}
            Ok(_) if printed.is_ok() => printed = print(line, args.json, style, out),
            Ok(_) => {}
            Err(_) => malformed += 1,
        })?;
        printed?;
        out.flush()?;
        report(malformed);
    }
}

fn report(malformed: u64) {
    if malformed > 0 {
        let lines = counted(malformed, "malformed line");
        say!("enforcer: skipped {lines}");
    }
}

fn print(line: &[u8], json: bool, style: Style, out: &mut impl Write) -> Result<(), CliError> {
    if json {
        // JSON escapes the control characters below 0x20; a foreign line may hold others.
        writeln!(out, "{}", enforcer_redact::sanitise(line))?;
    } else {
        let entry = Entry::parse(line).context("reading a line of the trail again")?;
        writeln!(out, "{}", style.line(&entry))?;
    }
    Ok(())
}

/// How a line looks.
#[derive(Clone, Copy, Debug)]
struct Style {
    colour: bool,
}

impl Style {
    /// `2026-11-21 02:37:44.309  coder  DENIED killed  exec rm -rf /  (no-rm: reason)`
    fn line(self, entry: &Entry) -> String {
        let event = clean(&entry.text("event"));
        let (word, colour) = match event.as_str() {
            "approval" => match observed(entry) {
                Some(word) => (word.to_owned(), "33"),
                // What a person did to the agent: no action of its own that was judged.
                None if entry.text("tool") == "agent" => ("operator".to_owned(), "1"),
                None => ("allowed".to_owned(), "32"),
            },
            "denial" if entry.is_denied() => (denial(entry), "31"),
            "denial" => ("asked".to_owned(), "33"),
            "circuit_breaker_trip" => ("BREAKER OPEN".to_owned(), "1;31"),
            _ => (event.clone(), "33"),
        };
        let time = clean(&entry.text("timestamp"));
        let time = time
            .strip_suffix("+00:00")
            .unwrap_or(&time)
            .replacen('T', " ", 1);
        // Milliseconds are enough for the eye.
        let time = time.get(..23).unwrap_or(&time);
        let what = [clean(&entry.text("tool")), subject(entry)].join(" ");
        let mut line = format!(
            "{}  {}  {}  {}",
            self.paint("2", time),
            clean(&entry.text("agent")),
            self.paint(colour, &format!("{word:<13}")),
            what.trim()
        );
        let why = why(entry);
        if !why.is_empty() {
            line.push_str("  ");
            line.push_str(&self.paint("2", &format!("({why})")));
        }
        line
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// `DENIED`, and how, where that is known. Whether a person allowed what a hook had its agent ask, no line tells.
pub(super) fn denial(entry: &Entry) -> String {
    match clean(&entry.parameter("verdict")).as_str() {
        "" | "denied" => "DENIED".to_owned(),
        how => format!("DENIED {how}"),
    }
}

/// What would have become of an action that went on because its agent was only observed.
fn observed(entry: &Entry) -> Option<&'static str> {
    let decision = entry.parameter("decision");
    let went_on = entry.parameter("observed") == "true" && entry.parameter("cause") != "approved";
    match decision.as_str() {
        "deny" if went_on => Some("would deny"),
        "ask" if went_on => Some("would ask"),
        _ => None,
    }
}

/// The command, the address, or what else a tool was called with.
pub(super) fn subject(entry: &Entry) -> String {
    let command = entry.parameter("command");
    if !command.is_empty() {
        let cut = if entry.parameter("truncated") == "true" {
            " …"
        } else {
            ""
        };
        return clean(&command) + cut;
    }
    let address = clean(&entry.parameter("address"));
    if !address.is_empty() {
        let port = clean(&entry.parameter("port"));
        let host = clean(&entry.parameter("host"));
        let protocol = clean(&entry.parameter("protocol"));
        let place = if port.is_empty() {
            address.clone()
        } else if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        };
        let name = if host.is_empty() {
            String::new()
        } else {
            format!("{host} ")
        };
        let exe = clean(&entry.parameter("exe"));
        let by = if exe.is_empty() {
            String::new()
        } else {
            format!(" by {exe}")
        };
        return format!("{name}{place} {protocol}{by}").trim().to_owned();
    }
    for key in ["syscall", "file_path", "path", "url", "pattern"] {
        let value = entry.parameter(key);
        if !value.is_empty() {
            return clean(&value);
        }
    }
    // What a file or web tool of a hook was called with.
    for key in ["paths", "urls"] {
        let list = entry.parameters().and_then(|all| all.get(key)?.as_array());
        let items: Vec<String> = list
            .into_iter()
            .flatten()
            .filter_map(|item| item.as_str().map(clean))
            .collect();
        if !items.is_empty() {
            return items.join(" ");
        }
    }
    let pid = clean(&entry.parameter("pid"));
    if pid.is_empty() {
        String::new()
    } else {
        format!("pid {pid}")
    }
}

/// The rule and the reason; the rule's id once only.
fn why(entry: &Entry) -> String {
    let rule = clean(&entry.parameter("rule"));
    let reason = clean(&entry.text("reason"));
    if rule.is_empty() || reason.contains(&rule) {
        reason
    } else if reason.is_empty() {
        rule
    } else {
        format!("{rule}: {reason}")
    }
}

/// Foreign lines may hold anything: nothing of it reaches the terminal unprintable.
pub(super) fn clean(text: &str) -> String {
    enforcer_redact::sanitise(text.as_bytes())
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod audit_tests;

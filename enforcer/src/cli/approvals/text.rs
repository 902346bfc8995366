//! How requests look to a person. All texts in a record are printable already; they are made so once more here, for the
//! terminal is the approver's.

use std::io::{self, IsTerminal, Write};

use jiff::{SignedDuration, Timestamp};

use enforcer_control::{RequestRecord, RequestState};

/// Characters of an id in a list.
const SHORT_ID: usize = 8;

/// Whether colour is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb.
    pub fn of_stdout() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self {
            colour: io::stdout().is_terminal() && !no_color && !dumb,
        }
    }

    #[cfg(test)]
    pub fn plain() -> Self {
        Self { colour: false }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn risk(self, risk: &str, width: usize) -> String {
        let code = match risk {
            "CRITICAL" => "1;31",
            "HIGH" => "31",
            "MEDIUM" => "33",
            _ => "32",
        };
        self.paint(code, &format!("{:<width$}", clean(risk)))
    }
}

/// The most dangerous first.
pub(super) fn urgency(risk: &str) -> u8 {
    match risk {
        "CRITICAL" => 0,
        "HIGH" => 1,
        "MEDIUM" => 2,
        _ => 3,
    }
}

/// One line a request.
pub(super) fn list(
    out: &mut impl Write,
    records: &[RequestRecord],
    style: Style,
) -> io::Result<()> {
    let now = Timestamp::now();
    for record in records {
        let when = if record.state == RequestState::Pending {
            left(record, now)
        } else {
            format!("{:.0}", record.asked_at)
        };
        writeln!(
            out,
            "{}  {:<9}  {}  {}  {}  {}",
            style.paint("1", &short(&record.id)),
            record.state.as_str(),
            style.risk(&record.risk, 8),
            clean(&record.agent),
            clean(&record.command),
            style.paint("2", &format!("({}; {when})", clean(&record.reason)))
        )?;
    }
    Ok(())
}

/// All of a request.
pub(super) fn show(out: &mut impl Write, record: &RequestRecord, style: Style) -> io::Result<()> {
    let mut line = |name: &str, text: &str| -> io::Result<()> {
        writeln!(out, "{} {text}", style.paint("2", &format!("{name:<11}")))
    };
    line("request", &style.paint("1", &clean(&record.id)))?;
    line("state", &clean(&record.ending()))?;
    line(
        "agent",
        &format!("{} (run {})", clean(&record.agent), clean(&record.instance)),
    )?;
    line("command", &style.paint("1", &clean(&record.command)))?;
    if record.unprintable {
        line(
            "",
            &style.paint(
                "1;31",
                "it holds characters that cannot be shown as they are: look twice",
            ),
        )?;
    }
    for (n, word) in record.argv.iter().enumerate() {
        line(&format!("  argv[{n}]"), &clean(word))?;
    }
    if let (Some(path), Some(name)) = (&record.path, record.argv.first())
        && path.rsplit('/').next() != name.rsplit('/').next()
    {
        line("", "argv[0] is not the name of the program that is started")?;
    }
    for (name, text) in [
        ("directory", &record.cwd),
        ("file", &record.file),
        ("sha256", &record.sha256),
        ("rule", &record.rule),
    ] {
        if let Some(text) = text {
            line(name, &clean(text))?;
        }
    }
    line("risk", &style.risk(&record.risk, 0))?;
    line("why", &clean(&record.reason))?;
    if let Some(suggestion) = &record.suggestion {
        line("instead", &clean(suggestion))?;
    }
    line(
        "process",
        &format!(
            "pid {} of uid {}{}",
            record.pid,
            record.uid,
            match record.waiting {
                0 | 1 => String::new(),
                n => format!(", and {} more that ask the same", n - 1),
            }
        ),
    )?;
    for parent in &record.parents {
        line(
            "  below",
            &format!("{} {}", parent.pid, clean(&parent.command)),
        )?;
    }
    line("asked", &format!("{:.0}", record.asked_at))?;
    if record.state == RequestState::Pending {
        line("expires", &left(record, Timestamp::now()))?;
    }
    if let Some(scope) = &record.outcome.scope {
        line("scope", &clean(scope))?;
    }
    Ok(())
}

/// The first characters of an id.
pub(super) fn short(id: &str) -> String {
    clean(id).chars().take(SHORT_ID).collect()
}

/// Text for the terminal.
pub(super) fn clean(text: &str) -> String {
    enforcer_redact::sanitise(text.as_bytes())
}

fn left(record: &RequestRecord, now: Timestamp) -> String {
    let left = record
        .expires_at
        .duration_since(now)
        .max(SignedDuration::ZERO);
    format!("{}s left", left.as_secs())
}

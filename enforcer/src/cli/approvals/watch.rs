//! `enforcer approvals watch`: what waits, as it comes; on a terminal, with a question for each.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, IsTerminal, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{FlushArg, tcflush},
};

use super::{Reach, Verdict, answer, text};
use crate::cli::error::CliError;
use enforcer_control::{ControlError, RequestRecord, client, protocol::DeskEvent};
use enforcer_say::say;

/// What can be typed.
const KEYS: &str =
    "[a] approve once  [s] for the session  [r] for the rule  [d] deny  [Enter] skip";

/// How often new agents are looked for, and the terminal while a question stands.
const LOOK: Duration = Duration::from_millis(500);

enum News {
    Event(PathBuf, Box<DeskEvent>),
    /// A desk has ended, or it refuses.
    Over(PathBuf, Option<ControlError>),
}

/// Watches the desks of all running agents, also of those that start later.
struct Desks {
    root: PathBuf,
    watched: HashSet<PathBuf>,
    /// Desks that refused us; told once.
    refused: HashSet<PathBuf>,
    looked: Option<Instant>,
    sender: Sender<News>,
    news: Receiver<News>,
}

impl Desks {
    fn new(root: &Path) -> Self {
        let (sender, news) = mpsc::channel();
        Self {
            root: root.to_owned(),
            watched: HashSet::new(),
            refused: HashSet::new(),
            looked: None,
            sender,
            news,
        }
    }

    /// Starts to watch desks that are new. Not at every turn: a socket with nobody behind it would keep us busy.
    fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        for socket in client::sockets(&self.root) {
            if self.watched.contains(&socket) || self.refused.contains(&socket) {
                continue;
            }
            self.watched.insert(socket.clone());
            let sender = self.sender.clone();
            thread::spawn(move || {
                let over = follow(&socket, &sender).err();
                // The watch may have ended before.
                let _ = sender.send(News::Over(socket, over));
            });
        }
    }

    /// The next thing that happens, if it happens soon; nothing at a desk: it has ended.
    fn next(&mut self, wait: Duration) -> Option<(PathBuf, Option<DeskEvent>)> {
        self.look();
        match self.news.recv_timeout(wait) {
            Ok(News::Event(socket, event)) => Some((socket, Some(*event))),
            Ok(News::Over(socket, why)) => {
                self.watched.remove(&socket);
                match why {
                    // Between two runs a socket may lie there with nobody behind it.
                    None | Some(ControlError::Gone { .. } | ControlError::Io { .. }) => {}
                    Some(error) => {
                        say!("enforcer: {error}");
                        self.refused.insert(socket.clone());
                    }
                }
                Some((socket, None))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

fn follow(socket: &Path, sender: &Sender<News>) -> Result<(), ControlError> {
    let mut watch = client::DeskWatch::start(socket)?;
    while let Some(event) = watch.wait()? {
        if sender
            .send(News::Event(socket.to_owned(), Box::new(event)))
            .is_err()
        {
            break;
        }
    }
    Ok(())
}

/// Runs until it is interrupted, or the terminal or the reader is gone.
pub(super) fn run(root: &Path, json: bool) -> Result<ExitCode, CliError> {
    let mut desks = Desks::new(root);
    if json || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        stream(&mut desks, json)
    } else {
        Prompt::default().run(&mut desks)
    }
}

fn stream(desks: &mut Desks, json: bool) -> Result<ExitCode, CliError> {
    let mut out = enforcer_say::out();
    loop {
        let Some((_, Some(event))) = desks.next(LOOK) else {
            continue;
        };
        if json {
            writeln!(out, "{}", serde_json::to_string(&event)?)?;
        } else {
            match event {
                DeskEvent::New { request } => {
                    text::list(
                        &mut out,
                        std::slice::from_ref(&*request),
                        text::Style::of_stdout(),
                    )?;
                }
                DeskEvent::Ended { id, state, outcome } => {
                    let by = outcome
                        .approver
                        .map_or(String::new(), |who| format!(" by {who}"));
                    writeln!(
                        out,
                        "{}  {}{}",
                        text::short(&id),
                        state.as_str(),
                        text::clean(&by)
                    )?;
                }
            }
        }
        out.flush()?;
    }
}

/// What waits for the person at the terminal.
#[derive(Default)]
struct Prompt {
    waiting: HashMap<String, (PathBuf, RequestRecord)>,
    /// What the person has left for others or for later.
    skipped: HashSet<String>,
}

/// What the person typed.
enum Typed {
    Line(String),
    /// The request has ended meanwhile.
    Ended,
    /// The terminal is gone.
    Gone,
}

impl Prompt {
    fn run(mut self, desks: &mut Desks) -> Result<ExitCode, CliError> {
        writeln!(
            enforcer_say::out(),
            "Waiting for requests. Ctrl-C ends the watch; what waits goes on waiting."
        )?;
        loop {
            while let Some((socket, event)) = desks.next(Duration::ZERO) {
                self.note(socket, event);
            }
            let Some(id) = self.most_urgent() else {
                if let Some((socket, event)) = desks.next(LOOK) {
                    self.note(socket, event);
                }
                continue;
            };
            if !self.ask(desks, &id)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    fn note(&mut self, socket: PathBuf, event: Option<DeskEvent>) {
        match event {
            Some(DeskEvent::New { request }) => {
                self.waiting.insert(request.id.clone(), (socket, *request));
            }
            Some(DeskEvent::Ended { id, .. }) => {
                self.waiting.remove(&id);
                self.skipped.remove(&id);
            }
            // If it only let us go, it tells anew what is pending.
            None => self.waiting.retain(|_, (of, _)| *of != socket),
        }
    }

    fn most_urgent(&self) -> Option<String> {
        self.waiting
            .values()
            .map(|(_, record)| record)
            .filter(|record| !self.skipped.contains(&record.id))
            .min_by_key(|record| (text::urgency(&record.risk), record.asked_at))
            .map(|record| record.id.clone())
    }

    /// Puts one request to the person; false if the terminal is gone.
    fn ask(&mut self, desks: &mut Desks, id: &str) -> Result<bool, CliError> {
        let Some((socket, record)) = self.waiting.get(id).cloned() else {
            return Ok(true);
        };
        let mut out = enforcer_say::out();
        writeln!(out)?;
        text::show(&mut out, &record, text::Style::of_stdout())?;
        // What was typed before was not meant for this request.
        let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
        loop {
            write!(out, "{KEYS} > ")?;
            out.flush()?;
            let line = match self.read(desks, id)? {
                Typed::Line(line) => line,
                Typed::Ended => {
                    writeln!(out, "\n{} has ended meanwhile.", text::short(id))?;
                    return Ok(true);
                }
                Typed::Gone => return Ok(false),
            };
            let Some(mut verdict) = verdict(line.trim()) else {
                if line.trim().is_empty() {
                    self.skipped.insert(id.to_owned());
                    return Ok(true);
                }
                writeln!(out, "{}", no_key(line.trim()))?;
                continue;
            };
            write!(out, "Reason (may be empty) > ")?;
            out.flush()?;
            match self.read(desks, id)? {
                Typed::Line(reason) => reason.trim().clone_into(&mut verdict.reason),
                Typed::Ended => {
                    writeln!(out, "\n{} has ended meanwhile.", text::short(id))?;
                    return Ok(true);
                }
                Typed::Gone => return Ok(false),
            }
            match answer(&socket, id, &verdict) {
                Ok(ended) => {
                    let word = if verdict.approve {
                        "approved"
                    } else {
                        "denied"
                    };
                    for id in ended {
                        writeln!(out, "{} {word}", text::short(&id))?;
                        self.waiting.remove(&id);
                    }
                    self.waiting.remove(id);
                }
                Err(failure) => {
                    writeln!(out, "{}", text::clean(&failure.text))?;
                    // It has ended, or it cannot be answered from here.
                    self.skipped.insert(id.to_owned());
                }
            }
            return Ok(true);
        }
    }

    /// Waits for a line, and goes on listening to the desks.
    fn read(&mut self, desks: &mut Desks, id: &str) -> Result<Typed, CliError> {
        let stdin = io::stdin();
        let look = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        loop {
            let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, look) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => {
                    let mut line = String::new();
                    return Ok(match stdin.lock().read_line(&mut line)? {
                        0 => Typed::Gone,
                        _ => Typed::Line(line),
                    });
                }
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            while let Some((socket, event)) = desks.next(Duration::ZERO) {
                self.note(socket, event);
            }
            if !self.waiting.contains_key(id) {
                return Ok(Typed::Ended);
            }
        }
    }
}

/// What is said of a line that is no key.
fn no_key(typed: &str) -> String {
    let shown: String = text::clean(typed).chars().take(20).collect();
    format!("`{shown}` is no answer; type one letter of these and Enter:")
}

fn verdict(key: &str) -> Option<Verdict> {
    let (approve, scope) = match key {
        "a" => (true, Some(Reach::Once)),
        "s" => (true, Some(Reach::Session)),
        "r" => (true, Some(Reach::Rule)),
        "d" => (false, None),
        _ => return None,
    };
    Some(Verdict {
        approve,
        reason: String::new(),
        scope,
        lasting: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_offered_is_known_and_no_other() {
        for key in ["a", "s", "r", "d"] {
            assert!(KEYS.contains(&format!("[{key}]")), "{key}");
            assert!(verdict(key).is_some(), "{key}");
        }
        for typed in ["", "y", "yes", "A", "aa"] {
            assert!(verdict(typed).is_none(), "{typed}");
        }
    }

    #[test]
    fn what_is_no_key_is_said() {
        assert!(no_key("yes").starts_with("`yes` is no answer"));
        assert!(no_key(&"x".repeat(5000)).len() < 100);
    }
}

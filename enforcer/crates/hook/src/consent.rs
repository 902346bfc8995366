//! Whether calls are approved at all: the mode, and the user's consent where nothing names one.
//!
//! In this order: the flag; `MCP_AUTO_APPROVE`; what was answered before; a question on the terminal. Where there is
//! nobody to ask, the answer is no, and is kept as such.

use std::{
    env,
    fs::OpenOptions,
    io::{IsTerminal, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::place::{self, OwnFileError, PlaceError};
use enforcer_decide::Mode;

/// The variable.
pub const VARIABLE: &str = "MCP_AUTO_APPROVE";
/// The file of the answer, below [`place::root`].
const FILE: &str = "consent.json";
/// How long the question waits: agents wait for their hook no longer than half a minute or so, and then go on.
const PATIENCE: Duration = Duration::from_secs(15);

/// A mode, and why it is that one if somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The mode.
    pub mode: Mode,
    /// More than the usual reason says.
    pub note: Option<String>,
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentSource {
    /// Somebody answered the question.
    Question,
    /// `enforcer hook consent`.
    Command,
    /// Nobody could be asked.
    NonInteractive,
    /// Nobody answered.
    Unanswered,
}

/// The kept answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// Yes or no.
    pub auto_approve: bool,
    /// How it came about.
    pub source: ConsentSource,
    /// When, UTC.
    pub recorded_at: String,
}

/// Chooses the mode.
pub fn choose(flag: Option<Mode>) -> Chosen {
    if let Some(mode) = flag {
        return Chosen { mode, note: None };
    }
    match env::var_os(VARIABLE) {
        Some(word) if !word.is_empty() => {
            let word = word.to_string_lossy();
            word.parse().map_or_else(
                |error| Chosen {
                    mode: Mode::Disabled,
                    note: Some(format!("{VARIABLE}: {error}")),
                },
                |mode| Chosen { mode, note: None },
            )
        }
        _ => saved().unwrap_or_else(|error| Chosen {
            mode: Mode::Disabled,
            note: Some(error.to_string()),
        }),
    }
}

fn saved() -> Result<Chosen, PlaceError> {
    let root = place::directory(&place::root()?, "")?;
    let (consent, note) = match read(&root) {
        Ok(Some(consent)) => (consent, None),
        Ok(None) => {
            let (auto_approve, source) = ask();
            let consent = write(&root, auto_approve, source)?;
            (consent, None)
        }
        Err(note) => {
            return Ok(Chosen {
                mode: Mode::Disabled,
                note: Some(note),
            });
        }
    };
    let mode = if consent.auto_approve {
        Mode::Everywhere
    } else {
        Mode::Disabled
    };
    let note = note.or_else(|| {
        (!consent.auto_approve).then(|| match consent.source {
            ConsentSource::NonInteractive => {
                "nobody could be asked; run: enforcer hook consent yes".to_owned()
            }
            ConsentSource::Unanswered => {
                "nobody answered the question; run: enforcer hook consent yes".to_owned()
            }
            ConsentSource::Question | ConsentSource::Command => {
                "the user said no; to change that, run: enforcer hook consent yes".to_owned()
            }
        })
    });
    Ok(Chosen { mode, note })
}

fn file(root: &Path) -> PathBuf {
    root.join(FILE)
}

/// The kept answer.
///
/// # Errors
///
/// In words, with the mend: it cannot be read.
pub fn read(root: &Path) -> Result<Option<Consent>, String> {
    let path = file(root);
    let bytes = place::read(&path).map_err(|error| error.to_string())?;
    bytes
        .map(|bytes| {
            serde_json::from_slice(&bytes).map_err(|error| {
                format!(
                    "{} holds no answer ({error}); run: enforcer hook consent yes, or no",
                    path.display()
                )
            })
        })
        .transpose()
}

/// Keeps an answer.
///
/// # Errors
///
/// It cannot be written.
pub fn write(
    root: &Path,
    auto_approve: bool,
    source: ConsentSource,
) -> Result<Consent, OwnFileError> {
    let consent = Consent {
        auto_approve,
        source,
        recorded_at: Timestamp::now().to_string(),
    };
    // Nothing in it can fail to be written as JSON.
    let bytes = serde_json::to_vec(&consent).unwrap_or_default();
    place::replace(&file(root), &bytes)?;
    Ok(consent)
}

/// Forgets the answer: the next call asks.
///
/// # Errors
///
/// It cannot be removed.
pub fn forget(root: &Path) -> Result<(), OwnFileError> {
    let path = file(root);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(OwnFileError::Io {
            path: path.display().to_string(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Asks on the terminal, if there is a person at one.
fn ask() -> (bool, ConsentSource) {
    if is_ci() {
        return (false, ConsentSource::NonInteractive);
    }
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open("/dev/tty");
    match terminal {
        Ok(terminal) if terminal.is_terminal() => question(terminal),
        _ => (false, ConsentSource::NonInteractive),
    }
}

/// Whether this is a job that nobody watches, as build services say.
fn is_ci() -> bool {
    [
        "CI",
        "GITHUB_ACTIONS",
        "GITLAB_CI",
        "BUILDKITE",
        "TF_BUILD",
        "JENKINS_URL",
    ]
    .iter()
    .filter_map(|name| env::var(name).ok())
    .any(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

fn question(mut terminal: impl Read + Write + AsFd) -> (bool, ConsentSource) {
    let text = format!(
        "\r\nenforcer: may tool calls that the policy allows go on without a question to you? \
         [y/N, within {} s] ",
        PATIENCE.as_secs()
    );
    if terminal.write_all(text.as_bytes()).is_err() {
        return (false, ConsentSource::NonInteractive);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut byte = [0; 1];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let ready = poll(
            &mut [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)],
            timeout,
        );
        if !matches!(ready, Ok(1..)) || !matches!(terminal.read(&mut byte), Ok(1)) {
            let _ = terminal.write_all(b"\r\nenforcer: no answer: no\r\n");
            return (false, ConsentSource::Unanswered);
        }
        if matches!(byte[0], b'\n' | b'\r') || line.len() > 16 {
            break;
        }
        line.push(byte[0]);
    }
    let yes = ["y", "yes"]
        .iter()
        .any(|word| line.trim_ascii().eq_ignore_ascii_case(word.as_bytes()));
    (yes, ConsentSource::Question)
}

//! A program's output line by line, with a limit on its time.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::{as_root, shown};

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed, with all that it had started, for it took too long.
    TimedOut,
}

/// Runs a program and hands over what it writes, to standard output and to standard error, line by line and
/// without line ends.
///
/// It stays in our process group, so that an interrupt from the terminal reaches it.
///
/// # Errors
/// When the program cannot be started.
pub fn lines(command: &mut Command, timeout: Duration, mut line: impl FnMut(&str)) -> Result<End> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward(stderr, sender.clone());
    }
    drop(sender);
    let deadline = Instant::now() + timeout;
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            // Both ends are closed.
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                kill_tree(child.id())?;
                child.wait().context("cannot wait for the killed program")?;
                return Ok(End::TimedOut);
            }
        }
    }
    Ok(End::Exited(child.wait().with_context(|| {
        format!("cannot wait for `{}`", shown(command))
    })?))
}

fn forward(from: impl Read + Send + 'static, to: mpsc::Sender<String>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
            let text = String::from_utf8_lossy(&bytes);
            if to
                .send(text.trim_end_matches(['\n', '\r']).to_owned())
                .is_err()
            {
                break;
            }
            bytes.clear();
        }
    });
}

/// Kills a program and all its descendants; as root, for the tests run as root.
fn kill_tree(first: u32) -> Result<()> {
    let family = parents();
    let mut doomed = vec![first];
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        doomed.extend(
            family
                .iter()
                .filter(|(_, above)| *above == parent)
                .map(|(process, _)| *process),
        );
        next += 1;
    }
    let mut kill = as_root("kill")?;
    kill.arg("-KILL")
        .arg("--")
        .args(doomed.iter().map(u32::to_string));
    // Some of them may have ended meanwhile, which is what is wanted.
    kill.stderr(Stdio::null())
        .status()
        .context("cannot start kill")?;
    Ok(())
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let process = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            // The name stands in parentheses and may itself contain some; state and parent follow the last one.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((process, parent))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_and_the_status_too() {
        let mut seen = Vec::new();
        let end = lines(
            Command::new("sh").args(["-c", "echo a; echo b >&2; exit 3"]),
            Duration::from_secs(10),
            |text| {
                seen.push(text.to_owned());
            },
        );
        assert!(matches!(end, Ok(End::Exited(status)) if status.code() == Some(3)));
        seen.sort();
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let started = Instant::now();
        let end = lines(
            Command::new("sh").args(["-c", "sleep 60 & sleep 60"]),
            Duration::from_millis(200),
            |_| (),
        );
        assert!(matches!(end, Ok(End::TimedOut)));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

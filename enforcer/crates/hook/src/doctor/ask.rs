//! Programs that are asked: an agent for its version, the command of a settings file for its answers.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::unistd::geteuid;
use serde_json::Value;

use super::{Finding, Hooked};
use crate::{Format, probe::ProbeCall};

/// How long a hook may take: agents wait for 30 seconds.
const PATIENCE: Duration = Duration::from_secs(28);
/// How long an agent may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer that are looked at.
const MOST: u64 = 4 << 20;

/// What a program said.
pub(super) struct Said {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A program in `PATH`.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| runs(file))
}

fn runs(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

/// Whether root may start a program: one that another user could have put there is not started with root's rights.
pub(super) fn safe(program: &Path) -> Result<(), String> {
    if geteuid().is_root() {
        tight(program).map_err(|part| {
            format!(
                "{part} can be changed by others than root, so root does not start it; run this as the user of the agent"
            )
        })?;
    }
    Ok(())
}

/// Whether nobody but root can change a program; else what they can change.
fn tight(program: &Path) -> Result<(), String> {
    let real = fs::canonicalize(program).map_err(|error| error.to_string())?;
    for part in real.ancestors() {
        let metadata = fs::metadata(part).map_err(|error| error.to_string())?;
        let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
        if metadata.uid() != 0 || metadata.permissions().mode() & 0o022 != 0 && !sticky {
            return Err(part.display().to_string());
        }
    }
    Ok(())
}

/// Whether a program is the very file that runs here.
fn is_this(program: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((file(program), file(Path::new("/proc/self/exe"))), (Ok(one), Ok(other)) if one == other)
}

/// The program of a command of the form that `install` writes, which is the only one that is started: settings of a
/// project may come from strangers.
fn program(command: &str) -> Result<PathBuf, String> {
    let words = shlex::split(command).unwrap_or_default();
    let texts = words.iter().map(String::as_str);
    let joined = shlex::try_join(texts).unwrap_or_default();
    let options = words.get(2).is_none_or(|word| word.starts_with("--"));
    let program = words.first().map(PathBuf::from).unwrap_or_default();
    if joined != command || words.get(1).is_none_or(|word| word != "hook") || !options {
        return Err(
            "the command is not of the form that install writes, so it was not started".to_owned(),
        );
    }
    if !program.is_absolute() || !runs(&program) {
        return Err(format!(
            "{} is no program that could be started",
            program.display()
        ));
    }
    if !is_this(&program)
        && let Err(part) = tight(&program)
    {
        return Err(format!(
            "{} is another program than this, and others than root can change {part}, so it was not started",
            program.display()
        ));
    }
    Ok(program)
}

/// Gives a program this input and waits for its end.
pub(super) fn run(mut command: Command, input: &[u8], patience: Duration) -> Result<Said, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    let stdin = child.stdin.take();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let input = input.to_vec();
    let (sender, receiver) = mpsc::channel();
    let reading = thread::spawn(move || {
        let writing = thread::spawn(move || {
            // Who has heard enough may close its end.
            stdin.map(|mut stdin| stdin.write_all(&input))
        });
        let said = thread::spawn(move || drained(err));
        let stdout = drained(out);
        let stderr = said.join().unwrap_or_default();
        let _ = writing.join();
        let _ = sender.send((stdout, stderr));
    });
    let told = receiver.recv_timeout(patience);
    if told.is_err() {
        end(&mut child);
        return Err(format!("it did not end within {} s", patience.as_secs()));
    }
    let _ = reading.join();
    let status = child.wait().map_err(|error| error.to_string())?;
    let (stdout, stderr) = told.unwrap_or_default();
    Ok(Said {
        code: status.code(),
        stdout,
        stderr,
    })
}

fn drained(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(MOST).read_to_end(&mut bytes);
    }
    bytes
}

pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What a program says to `--version`.
fn says(program: &Path) -> Result<String, String> {
    safe(program)?;
    let mut command = Command::new(program);
    command.arg("--version");
    let said = run(command, b"", VERSION_PATIENCE)?;
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// The version of an agent's program.
pub(super) fn version(program: &Path) -> Result<String, String> {
    let said = says(program)?;
    let number = said
        .split(|c: char| c.is_whitespace() || c == 'v' || c == '(' || c == ')')
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    number
        .map(str::to_owned)
        .ok_or_else(|| format!("{} --version says none", program.display()))
}

/// Asks the command of a settings file as the agent would.
pub(super) fn command(hooked: &mut Hooked, cwd: &Path, notes: &mut Vec<String>) {
    match asked(hooked, cwd) {
        Ok(note) => notes.extend(note),
        Err(finding) => hooked.problems.push(finding),
    }
}

fn asked(hooked: &Hooked, cwd: &Path) -> Result<Option<String>, Finding> {
    let anew = format!(
        "put it in anew: enforcer hook install {} --{} --policy FILE",
        hooked.format.as_str(),
        hooked.reach
    );
    let program = program(&hooked.command).map_err(|why| Finding::new(why, anew.clone()))?;
    let own = env!("CARGO_PKG_VERSION");
    let said = says(&program).map_err(|why| Finding::new(why, anew.clone()))?;
    if said.trim() != format!("enforcer {own}") {
        return Err(Finding::new(
            format!(
                "{} is not this version of enforcer ({own}), so it was not asked: it would count the probe as a denial",
                program.display()
            ),
            "run the doctor of that program, or install this one in its place",
        ));
    }
    for (probe, denies) in [(ProbeCall::Forbidden, true), (ProbeCall::Harmless, false)] {
        let mut shell = Command::new("/bin/sh");
        shell
            .args([OsStr::new("-c"), OsStr::new(&hooked.command)])
            .current_dir(cwd);
        let event = probe.event(hooked.format, cwd).to_string();
        let fault = |why: String| {
            Finding::new(
                format!(
                    "the command does not answer as {} expects: {why}",
                    hooked.format.title()
                ),
                "run the command by hand with an event on standard input (enforcer hook --help shows one)",
            )
        };
        let said = run(shell, event.as_bytes(), PATIENCE).map_err(fault)?;
        let (denied, reason) = read(hooked.format, &said).map_err(fault)?;
        if denies && !denied {
            return Err(fault("it allows what it cannot judge".to_owned()));
        }
        if !denies && denied {
            return Err(Finding::new(
                format!("the hook denies even a command that does nothing (`true`): {reason}"),
                "mend what the reason says; where it is the policy: enforcer explain --policy FILE -- true",
            ));
        }
        if !denies && !reason.is_empty() && hooked.format == Format::Claude && is_ask(&said) {
            return Ok(Some(format!(
                "{} asks about a command that does nothing (`true`): {reason}",
                hooked.file.display()
            )));
        }
    }
    Ok(None)
}

fn is_ask(said: &Said) -> bool {
    let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    answer["hookSpecificOutput"]["permissionDecision"] == "ask"
}

/// Whether an answer in the agent's contract denies, and its reason.
pub(super) fn read(format: Format, said: &Said) -> Result<(bool, String), String> {
    if said.code != Some(0) {
        let how = said.code.map_or_else(
            || "a signal".to_owned(),
            |code| format!("exit status {code}"),
        );
        let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(format!("it ends with {how}: {why}"));
    }
    let answer: Value = serde_json::from_slice(&said.stdout)
        .map_err(|error| format!("its answer is no JSON: {error}"))?;
    let inner = &answer["hookSpecificOutput"];
    let (word, reason) = match format {
        Format::Codex | Format::Qwen if answer == serde_json::json!({}) => {
            return Ok((false, String::new()));
        }
        Format::Claude | Format::Codex | Format::Qwen => (
            &inner["permissionDecision"],
            &inner["permissionDecisionReason"],
        ),
        Format::Gemini => (&answer["decision"], &answer["reason"]),
        Format::Cursor => (&answer["permission"], &answer["user_message"]),
    };
    let reason = reason.as_str().unwrap_or_default().to_owned();
    match word.as_str() {
        Some("deny") if reason.is_empty() => Err("it denies without a reason".to_owned()),
        Some("deny") => Ok((true, reason)),
        Some("allow" | "ask") if !matches!(format, Format::Codex | Format::Qwen) => {
            Ok((false, reason))
        }
        _ => Err(format!("its answer is none of that contract: {answer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_install_writes_is_started() {
        let own = fs::read_link("/proc/self/exe").unwrap();
        let own = own.to_str().unwrap();
        for options in ["", " --format claude --policy '/a b/p.json'"] {
            let command = format!("{own} hook{options}");
            assert_eq!(program(&command), Ok(PathBuf::from(own)), "{command}");
        }
        // A link to it is another name of the same file.
        let scratch = tempfile::tempdir().unwrap();
        let link = scratch.path().join("enforcer");
        std::os::unix::fs::symlink(own, &link).unwrap();
        assert!(program(&format!("{} hook", link.display())).is_ok());
        let planted = scratch.path().join("planted/enforcer");
        fs::create_dir(scratch.path().join("planted")).unwrap();
        fs::write(&planted, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&planted, fs::Permissions::from_mode(0o777)).unwrap();
        for command in [
            format!("{own} hook; id"),
            format!("{own} hook $(id)"),
            format!("{own} hook >/tmp/x"),
            format!("{own} hook & id"),
            format!("{own} hook  --format claude"),
            format!("{own} hook consent yes"),
            format!("{own} hook uninstall claude"),
            format!("{own} run -- id"),
            format!("{} hook", planted.display()),
            "enforcer hook".to_owned(),
            "/nonexistent/enforcer hook".to_owned(),
            String::new(),
        ] {
            assert!(program(&command).is_err(), "{command}");
        }
    }
}

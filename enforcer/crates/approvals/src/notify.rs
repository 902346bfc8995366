//! Tells a program of the operator's of a new request. Nothing depends on it: who is not told can still look.

use std::{
    fs::File,
    io::{self, Seek, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use enforcer_control::RequestRecord;

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// Where it finds programs: nothing of the launcher's environment, which a user may have set, is handed on.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the program (its path, then its arguments) with the request on its standard input, and returns at once.
pub(super) fn of(program: &[String], record: &RequestRecord) {
    let [path, arguments @ ..] = program else {
        return;
    };
    let told = serde_json::to_vec(record)
        .map_err(io::Error::from)
        .and_then(|text| start(path, arguments, text))
        .and_then(|child| {
            thread::Builder::new()
                .name("notify".to_owned())
                .stack_size(64 << 10)
                .spawn(move || attend(child))
        });
    if let Err(error) = told {
        tracing::warn!(%error, path, "nobody is notified of a request");
    }
}

fn start(path: &str, arguments: &[String], mut text: Vec<u8>) -> io::Result<Child> {
    text.push(b'\n');
    // A file, not a pipe: nobody has to wait for it to be read.
    let mut input = File::from(memfd_create(c"request", MFdFlags::MFD_CLOEXEC)?);
    input.write_all(&text)?;
    input.rewind()?;
    Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Keys at the terminal are for the agent.
        .process_group(0)
        .spawn()
}

fn attend(mut child: Child) {
    let start = Instant::now();
    // An error: somebody else has waited for it.
    while matches!(child.try_wait(), Ok(None)) {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(LOOK);
    }
}

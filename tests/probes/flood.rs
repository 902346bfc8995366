//! Executes and connects until nothing more is recorded: `flood PROGRAM DIRECTORY PORT`.
//!
//! Starts when DIRECTORY holds `go`; executes PROGRAM with a long argument until that is denied ten times, then
//! without one, then connects to 127.0.0.1 until that is refused. Writes `result` (`NAME NUMBER` a line), waits for
//! `again`, executes PROGRAM once more and adds how that ended.
#![allow(
    clippy::expect_used,
    reason = "a program that cannot misbehave gives up"
)]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

/// Denials in a row after which there is no room any more.
const ENOUGH: u32 = 10;
/// More than any ring buffer holds of these.
const MOST: u32 = 100_000;

fn wait_for(path: &Path) {
    while !path.exists() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs it; whether it really ran. A refusal by errno counts as one by signal.
fn ran(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    if !argument.is_empty() {
        command.arg(argument);
    }
    match command.status() {
        Ok(status) => {
            assert!(status.success() || status.signal() == Some(9), "{status}");
            status.success()
        }
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(1), "{error}");
            false
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, program, directory, port] = &words[..] else {
        panic!("flood PROGRAM DIRECTORY PORT");
    };
    let port: u16 = port.parse().expect("a port");
    let directory = Path::new(directory);
    wait_for(&directory.join("go"));

    let (mut execs, mut denied) = (0u32, 0u32);
    for argument in ["x".repeat(2900), String::new()] {
        let mut refused = 0;
        while refused < ENOUGH && execs < MOST {
            if ran(program, &argument) {
                execs += 1;
            } else {
                refused += 1;
            }
        }
        denied += refused;
    }
    let (mut connects, mut unconnected) = (0u32, 0u32);
    while unconnected < ENOUGH && connects < MOST {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => connects += 1,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(1), "{error}");
                unconnected += 1;
            }
        }
    }
    let text =
        format!("execs {execs}\ndenied {denied}\nconnects {connects}\nunconnected {unconnected}\n");
    fs::write(directory.join("part"), text).expect("written");
    fs::rename(directory.join("part"), directory.join("result")).expect("renamed");

    wait_for(&directory.join("again"));
    let again = u32::from(ran(program, ""));
    let mut file = OpenOptions::new()
        .append(true)
        .open(directory.join("result"))
        .expect("opened");
    writeln!(file, "again {again}").expect("written");
}

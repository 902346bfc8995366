//! The worker: a process that does what it is told over a pipe and says how long each piece took.
//!
//! A line in: `exec N`, `long N` (a command line of 100 bytes), `storm N THREADS`, `tcp N PORT`, `udp N PORT`,
//! `unix N PATH`; `asked N TURN` and `hold N` (of `env`), `swap N FILE`.
//! A line out: nanoseconds of each piece, or `error` and the reason. `asked` gives the times at which the programs had
//! started, `swap` gives counts.

use std::{
    ffi::CString,
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{notify, policies, race, trace};

/// What a process of this program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Does the work.
    Plain,
    /// Does the work while a thread of its own answers a seccomp notification for each exec.
    Notified,
    /// Does the work while a thread of its own judges each exec by a policy.
    Judged,
    /// Does nothing itself: traces a plain worker and stops at each of its system calls.
    TracedCalls,
    /// Does nothing itself: traces a plain worker and stops at forks and execs only.
    TracedExecs,
}

/// Serves until standard input ends.
///
/// # Errors
///
/// The work cannot be set up.
pub fn serve(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Plain => requests(),
        Role::Notified => notify::read(requests),
        Role::Judged => notify::judge(requests),
        Role::TracedCalls => trace::follow(true),
        Role::TracedExecs => trace::follow(false),
    }
}

fn requests() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let mut reply = match request(&line?) {
            Ok(times) => times.iter().fold(String::new(), |mut text, time| {
                let _ = write!(text, "{time} ");
                text
            }),
            Err(error) => format!("error {error:#}"),
        };
        reply.push('\n');
        out.write_all(reply.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

fn request(line: &str) -> anyhow::Result<Vec<u64>> {
    let mut words = line.split(' ');
    let what = words.next().unwrap_or_default();
    let count: u32 = words.next().context("a number is missing")?.parse()?;
    let last = words.next();
    let number = || -> anyhow::Result<u32> { Ok(last.context("a number is missing")?.parse()?) };
    match what {
        "exec" => repeat(count, || spawn(&[])),
        "long" => {
            let words = policies::long_arguments();
            repeat(count, || spawn(&words))
        }
        "storm" => storm(count, number()?),
        "tcp" => {
            let to = SocketAddr::from(([127, 0, 0, 1], u16::try_from(number()?)?));
            repeat(count, || {
                drop(TcpStream::connect(to)?);
                Ok(())
            })
        }
        "udp" => {
            let to = SocketAddr::from(([127, 0, 0, 1], u16::try_from(number()?)?));
            let socket = UdpSocket::bind(("127.0.0.1", 0))?;
            repeat(count, || Ok(socket.connect(to)?))
        }
        "socket" => {
            let to = SocketAddr::from(([127, 0, 0, 1], 9));
            repeat(count, || {
                let socket = UdpSocket::bind(("127.0.0.1", 0))?;
                Ok(socket.connect(to)?)
            })
        }
        "unix" => {
            let path = last.context("a path is missing")?;
            repeat(count, || {
                drop(UnixStream::connect(path)?);
                Ok(())
            })
        }
        "asked" => asked(count, number()?),
        "hold" => hold(count),
        "swap" => race::swap(count, last.context("a file is missing")?),
        _ => bail!("unknown request {what}"),
    }
}

fn repeat(count: u32, mut piece: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<u64>> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            piece()?;
            Ok(u64::try_from(start.elapsed().as_nanos())?)
        })
        .collect()
}

/// `posix_spawn`, exec and wait: what the standard library does for a command without hooks.
fn spawn(words: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("/bin/true")
        .args(words)
        .env_clear()
        .stdin(Stdio::inherit())
        .status()?;
    if !status.success() {
        bail!("/bin/true: {status}");
    }
    Ok(())
}

/// Starts `env`, each with an argument of its own; when each had executed. `posix_spawn` waits for that.
fn asked(count: u32, turn: u32) -> anyhow::Result<Vec<u64>> {
    (0..count)
        .map(|at| {
            let mut child = Command::new("/usr/bin/env")
                .args(["-u", &format!("N{turn}_{at}"), "/bin/true"])
                .env_clear()
                .stdin(Stdio::inherit())
                .spawn()?;
            let started = monotonic_ns()?;
            let status = child.wait()?;
            if !status.success() {
                bail!("env: {status}");
            }
            Ok(started)
        })
        .collect()
}

/// Leaves that many children behind, each of which executes `env` with an argument of its own.
fn hold(count: u32) -> anyhow::Result<Vec<u64>> {
    for at in 0..count {
        let words = ["/usr/bin/env", "-u", &format!("N{at}"), "/bin/true"].map(CString::new);
        let words = words.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
        argv.push(ptr::null());
        // SAFETY: the child makes two system calls and nothing else; this process has no other thread then.
        unsafe {
            match libc::fork() {
                -1 => return Err(std::io::Error::last_os_error()).context("fork"),
                0 => {
                    libc::execv(argv[0], argv.as_ptr());
                    libc::_exit(126)
                }
                _ => {}
            }
        }
    }
    Ok(Vec::new())
}

/// `CLOCK_MONOTONIC`, ns: the same in every process.
///
/// # Errors
///
/// The kernel has no such clock.
pub fn monotonic_ns() -> anyhow::Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}

/// As many execs as threads can make; gives the whole time only.
fn storm(count: u32, threads: u32) -> anyhow::Result<Vec<u64>> {
    let start = Instant::now();
    let results: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| (0..count / threads).try_for_each(|_| spawn(&[]))))
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    results.into_iter().collect::<anyhow::Result<()>>()?;
    Ok(vec![u64::try_from(start.elapsed().as_nanos())?])
}

/// A worker, seen from the bench.
#[derive(Debug)]
pub struct Worker {
    /// The process that was started: the worker itself, or the `enforcer run` above it.
    pub child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `command`, which becomes or starts a worker, and waits for its first answer.
    ///
    /// # Errors
    ///
    /// It does not start, or does not answer.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let to = child.stdin.take().context("no pipe to the worker")?;
        let from = child.stdout.take().context("no pipe from the worker")?;
        let mut worker = Self {
            child,
            to: Some(to),
            from: BufReader::new(from),
        };
        worker.ask("exec 1")?;
        Ok(worker)
    }

    /// Has a piece of work done; the time of each piece, ns.
    ///
    /// # Errors
    ///
    /// The worker is gone, or says why it could not.
    #[allow(clippy::cast_precision_loss, reason = "times of less than a day")]
    pub fn ask(&mut self, request: &str) -> anyhow::Result<Vec<f64>> {
        let to = self.to.as_mut().context("the worker has been stopped")?;
        writeln!(to, "{request}").context("the worker is gone")?;
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!(
                "the worker ended in the middle of `{request}`: {}",
                self.child.wait()?
            );
        }
        if let Some(reason) = line.strip_prefix("error ") {
            bail!("`{request}`: {}", reason.trim_end());
        }
        line.split_ascii_whitespace()
            .map(|word| Ok(word.parse::<u64>()? as f64))
            .collect()
    }

    /// Ends it in order.
    ///
    /// # Errors
    ///
    /// It did not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.to = None;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the worker ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker ends with its input, and `enforcer run` with its worker; nothing is left governed.
        self.to = None;
        let _ = self.child.wait();
    }
}

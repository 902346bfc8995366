//! Many agents of one host: what a start and an exec outside cost beside others, and a thousand at once.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use enforcer_kernel::{
    attach::PIN_ROOT,
    host::{self, Host, LockedHosts},
};

use crate::{
    agent::{Bench, ENFORCER, run, run_with},
    report::{Figure, Report},
    sample::{Pairs, interleave, median, quantile},
    start::timed,
    storm::{SETTLED, resident},
    worker::Role,
};

/// How long many agents may take to be there, or to be gone.
const PATIENCE: Duration = Duration::from_mins(5);
/// One rule that denies a program, one that denies an address.
pub const ONE_RULE: &str = r#"{"version": "2",
    "exec": {"default": "allow", "rules": [
        {"id": "no", "decision": "deny", "argv": {"program": "false"}}]},
    "connect": {"default": "allow", "rules": [
        {"id": "not-there", "decision": "deny", "hosts": ["192.0.2.0/24"]}]}}"#;

/// The name of a crowd's agents: others that run on this machine are nobody's to end.
const CROWD: &str = "bench-crowd";

/// Sleeping agents, ended when dropped.
struct Crowd(Vec<Child>);

impl Crowd {
    /// Starts so many, each of which tries one denied program and one denied address, and waits until all have.
    fn start(bench: &Bench, count: usize) -> anyhow::Result<(Self, Duration)> {
        let policy = bench.policy("crowd", ONE_RULE)?;
        // A place of its own each time: those that were here before count for nothing.
        let here = tempfile::Builder::new()
            .prefix("crowd-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(bench.place(""))?
            .keep();
        let script = format!(
            "/bin/false && exit 1; bash -c 'echo > /dev/udp/192.0.2.1/9' 2>&1 | grep -q permitted || exit 1; : > {}/$$; exec sleep 3600",
            here.display()
        );
        let start = Instant::now();
        let mut crowd = Self(Vec::new());
        for at in 0..count {
            let trail = here.join(format!("{at}.jsonl"));
            let child = run_with(&policy, &trail, &["--agent", CROWD])
                .args(["bash", "-c", &script])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("enforcer run cannot be started")?;
            crowd.0.push(child);
        }
        loop {
            let there = std::fs::read_dir(&here)?
                .filter_map(Result::ok)
                .filter(|entry| entry.path().extension().is_none())
                .count();
            if there >= count {
                return Ok((crowd, start.elapsed()));
            }
            if start.elapsed() > PATIENCE {
                bail!("of {count} agents {there} are there after {PATIENCE:?}");
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Ends all; how long that takes.
    fn end(mut self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        if self.0.is_empty() {
            return Ok(start.elapsed());
        }
        let status = Command::new(ENFORCER)
            .args(["stop", CROWD])
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("enforcer stop {CROWD}: {status}");
        }
        for mut child in self.0.drain(..) {
            child.wait()?;
        }
        Ok(start.elapsed())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let _ = Command::new(ENFORCER).args(["stop", CROWD]).status();
        }
    }
}

/// How many agents there are while it is measured.
const BESIDE: [usize; 3] = [0, 1, 100];

/// A start that loads the kernel programs against one that finds them; then starts and execs outside, beside no, one and a
/// hundred agents, up and down again, so that whatever drifts hits all alike; and what an agent holds in memory.
///
/// # Errors
///
/// `enforcer` fails.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let policy = bench.policy("beside", ONE_RULE)?;
    let start = || timed(run(&policy, &bench.trail("beside")).arg("true"));
    loading(bench, report, start)?;
    let mut worker = bench.bare(Role::Plain)?;
    let mut seen = [const { Seen::new() }; BESIDE.len()];
    let mut crowd = Crowd(Vec::new());
    let mut memory = None;
    for cycle in 0..bench.rounds(4, 2) {
        let mut order = [0, 1, 2];
        if cycle % 2 == 1 {
            order.reverse();
        }
        for at in order {
            if crowd.0.len() != BESIDE[at] {
                crowd.end()?;
                let before = available()?;
                (crowd, _) = Crowd::start(bench, BESIDE[at])?;
                if at == 2 && memory.is_none() {
                    sleep(SETTLED);
                    memory = Some(held(&crowd, before - available()?)?);
                }
            }
            let mut starts = Vec::new();
            for _ in 0..bench.rounds(15, 5) {
                starts.extend(start()?);
            }
            seen[at].starts.push(starts);
            seen[at].execs.push(worker.ask("exec 250")?);
        }
    }
    crowd.end()?;
    worker.stop()?;
    for (count, seen) in BESIDE.iter().zip(&seen) {
        let all = seen.starts.concat();
        let middle = median(&all) * 1e-6;
        report.add(
            Figure::new(
                format!("enforcer run -q -- true, beside {count} agents"),
                middle,
                "ms",
                all.len(),
            )
            .goal("<= 30 ms", middle <= 30.0),
        );
        report.note(format!(
            "least: {:.1}, 90 %: {:.1} ms",
            quantile(&all, 0.0) * 1e-6,
            quantile(&all, 0.9) * 1e-6
        ));
    }
    for at in 1..BESIDE.len() {
        let count = BESIDE[at];
        let pairs = pairs(&seen[0].starts, &seen[at].starts);
        report.add(Figure::ratio(
            format!("a start beside {count} agents, to beside none"),
            &pairs,
            1e-6,
            "ms",
        ));
        let pairs = self::pairs(&seen[0].execs, &seen[at].execs);
        report.add(Figure::ratio(
            format!("exec + wait outside beside {count}, to beside none"),
            &pairs,
            1e-3,
            "us",
        ));
    }
    report.note("an exec outside is seen by the same programs however many agents there are");
    if let Some(memory) = memory {
        memory.tell(report);
    }
    Ok(())
}

/// What was seen beside so many agents: a list for each visit, ns.
struct Seen {
    starts: Vec<Vec<f64>>,
    execs: Vec<Vec<f64>>,
}

impl Seen {
    const fn new() -> Self {
        Self {
            starts: Vec::new(),
            execs: Vec::new(),
        }
    }
}

/// One visit each as a pair.
fn pairs(none: &[Vec<f64>], some: &[Vec<f64>]) -> Pairs {
    let mut pairs = Pairs::default();
    for (none, some) in none.iter().zip(some) {
        pairs.add(none, some);
    }
    pairs
}

/// Starts that load the kernel programs, turn by turn with starts that find them there. Left out where other agents have
/// the host of this build: nobody takes it away under them.
fn loading(
    bench: &Bench,
    report: &mut Report,
    start: impl Fn() -> anyhow::Result<Vec<f64>>,
) -> anyhow::Result<()> {
    start()?;
    let mut free = true;
    let pairs = interleave(bench.rounds(15, 5), &start, || {
        free &= take_own_host_down()?;
        start()
    })?;
    if !free {
        report.note("a start that loads the programs is not measured: other agents of this build are running");
        return Ok(());
    }
    let middle = median(&pairs.other) * 1e-6;
    report.add(
        Figure::ratio(
            "a start that loads the programs, to one that does not",
            &pairs,
            1e-6,
            "ms",
        )
        .goal("<= 400 ms", middle <= 400.0),
    );
    report.note(format!(
        "90 %: {:.1} ms; 90 % of those that find them: {:.1} ms",
        quantile(&pairs.other, 0.9) * 1e-6,
        quantile(&pairs.bare, 0.9) * 1e-6
    ));
    Ok(())
}

/// Takes the host of this build down; whether it could be, because no agent is in it.
fn take_own_host_down() -> anyhow::Result<bool> {
    let held = LockedHosts::wait()?;
    for name in host::all() {
        let Ok(found) = Host::open(&name) else {
            continue;
        };
        if found.is_current() {
            if found.used()? > 0 {
                return Ok(false);
            }
            drop(found);
            host::take_down(&held, &name)?;
        }
    }
    Ok(true)
}

/// What agents hold in memory, KiB.
struct Memory {
    /// A launcher: all, anonymous, of files.
    launcher: (f64, f64, f64),
    /// What the machine has less for each agent.
    each: f64,
}

/// What a crowd holds, for which the machine has `taken` KiB less.
#[allow(clippy::cast_precision_loss, reason = "some hundreds")]
fn held(crowd: &Crowd, taken: f64) -> anyhow::Result<Memory> {
    let last = crowd.0.last().context("the crowd is empty")?;
    let (whole, own, of_files, _) = resident(last.id())?;
    Ok(Memory {
        launcher: (whole, own, of_files),
        each: taken / crowd.0.len() as f64,
    })
}

impl Memory {
    fn tell(&self, report: &mut Report) {
        let (whole, own, of_files) = self.launcher;
        report.add(
            Figure::new(
                "resident memory of a launcher among 100",
                whole / 1024.0,
                "MiB",
                1,
            )
            .goal("<= 15 MB", whole * 1024.0 <= 15e6),
        );
        report.note(format!(
            "of that {:.1} MiB its own, {:.1} MiB of files, which all share",
            own / 1024.0,
            of_files / 1024.0
        ));
        report.add(Figure::new(
            "memory that the machine has less for each of them",
            self.each / 1024.0,
            "MiB",
            1,
        ));
        report.note("MemAvailable before and after, by 100: the launcher, the agent's own process, and the kernel's part (a ring of 1 MiB among it)");
    }
}

/// Memory that can be had, KiB.
fn available() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    text.lines()
        .find_map(|line| {
            let value = line.strip_prefix("MemAvailable:")?.trim();
            value.strip_suffix("kB")?.trim().parse().ok()
        })
        .context("the kernel does not say what memory can be had")
}

/// As many as there is room for, nearly: started, one denied program and one denied address each, ended, nothing left.
///
/// # Errors
///
/// One does not start, is not denied, or leaves something behind.
pub fn measure_thousand(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let count = bench.rounds(1000, 50);
    let (crowd, started) = Crowd::start(bench, count)?;
    let ended = crowd.end()?;
    report.add(Figure::new(
        format!("{count} agents at once: until the last has been denied twice"),
        started.as_secs_f64(),
        "s",
        count,
    ));
    report.add(Figure::new(
        format!("{count} agents at once: ended by `stop`"),
        ended.as_secs_f64(),
        "s",
        count,
    ));
    let mut places = vec![PathBuf::from("/run/enforcer")];
    for host in std::fs::read_dir(PIN_ROOT)? {
        places.push(host?.path().join("agents"));
    }
    for place in places {
        let left = std::fs::read_dir(&place)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(CROWD))
            .count();
        if left > 0 {
            bail!("{left} entries are left in {}", place.display());
        }
    }
    report.note("nothing is left of them");
    Ok(())
}

//! The fuzz targets of `tests/fuzz`: built with coverage for libFuzzer, run for a time, crashes kept.
//!
//! The stable compiler has what is needed for coverage (LLVM's `sancov-module` pass); sanitizers, which only a nightly
//! has, would look for faults of memory, of which safe Rust has none. What counts: a panic, an assertion of the target,
//! a stack that overflows, more than [`RSS_MB`] of memory, an input that takes longer than [`SLOW_S`].

mod seeds;

use std::{
    env::consts::ARCH,
    fs,
    io::Read,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    packages,
    process::{cargo, note, run, step},
    root,
};

/// The targets, each a program of the crate `enforcer-fuzz`.
pub const TARGETS: &[&str] = &["policy", "shell", "hook", "url", "redact"];
/// Time for each target, seconds.
pub const SECONDS: u64 = 60;
/// The same in the test command. The inputs there are the same each time, and more of them find nothing new.
pub const TEST_SECONDS: u64 = 15;
/// Targets that run at the same time. Each keeps one core busy; a third still gets most of its share of two, and all of
/// them end in two rounds.
const AT_ONCE: usize = 3;
/// Where the test command begins: what it finds is found again, and a failure belongs to the change.
pub const SEED: u32 = 1;
/// Memory that a target may take, MiB.
const RSS_MB: u32 = 2048;
/// Time that one input may take, seconds, on a busy machine and with checks that a release has not.
const SLOW_S: u32 = 20;
/// Longest input, bytes.
const INPUT_MAX: u32 = 8192;
/// Lines of a failed target that are shown.
const SHOWN: usize = 25;

/// Coverage as libFuzzer reads it: counters at every edge, what is compared, and where each counter belongs.
const FLAGS: [&str; 7] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Targets that were built.
pub struct Built {
    directory: PathBuf,
}

/// Compiles the targets.
///
/// # Errors
/// When the C++ compiler, which libFuzzer is built with, is missing, or a target does not compile.
pub fn build() -> Result<Built> {
    packages::ensure("the fuzz targets", packages::FUZZ)?;
    step("Fuzz targets");
    let directory = root::target().join("fuzz");
    let triple = format!("{ARCH}-unknown-linux-gnu");
    run(cargo()
        .current_dir(root::repository().join("tests/fuzz"))
        .args(["build", "--quiet", "--release", "--locked"])
        // With a target named, build scripts and macros are compiled without the flags.
        .args(["--target", &triple, "--target-dir"])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")))?;
    Ok(Built {
        directory: directory.join(triple).join("release"),
    })
}

/// What came of the targets that ran.
pub struct Outcome {
    /// Targets that found nothing.
    pub passed: u64,
    /// Those that did, or did not run.
    pub failed: Vec<String>,
}

/// A target that runs.
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Runs the targets, [`AT_ONCE`] at a time, each for `seconds`; with a `seed`, the same inputs in the same order each
/// time, as far as the time reaches.
///
/// # Errors
/// When a target cannot be started, or its directories cannot be made.
pub fn run_all(
    built: &Built,
    targets: &[&'static str],
    seconds: u64,
    seed: Option<u32>,
) -> Result<Outcome> {
    step(&format!(
        "Fuzzing: {} ({seconds} s each, {AT_ONCE} at a time)",
        targets.join(", ")
    ));
    let mut outcome = Outcome {
        passed: 0,
        failed: Vec::new(),
    };
    for chunk in targets.chunks(AT_ONCE) {
        let running = chunk
            .iter()
            .map(|name| start(built, name, seconds, seed))
            .collect::<Result<Vec<_>>>()?;
        // What hangs in itself must not hang the whole.
        let deadline = Instant::now() + Duration::from_secs(seconds * 2 + 120);
        for target in running {
            match end(target, deadline)? {
                None => outcome.passed += 1,
                Some(failure) => outcome.failed.push(failure),
            }
        }
    }
    Ok(outcome)
}

fn start(built: &Built, name: &'static str, seconds: u64, seed: Option<u32>) -> Result<Running> {
    let place = root::target().join("fuzz");
    let corpus = place.join("corpus").join(name);
    let seeds = place.join("seeds").join(name);
    let crashes = place.join("crashes").join(name);
    for directory in [&corpus, &crashes] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    seeds::write(name, &seeds)?;
    let log = place.join(format!("{name}.log"));
    let output =
        fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let binary = built.directory.join(name);
    let child = Command::new(&binary)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={SLOW_S}"))
        .arg(format!("-rss_limit_mb={RSS_MB}"))
        .arg(format!("-max_len={INPUT_MAX}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .arg("-print_final_stats=1")
        // 0: one of its own choice, which it prints.
        .arg(format!("-seed={}", seed.unwrap_or(0)))
        .arg(&corpus)
        .arg(&seeds)
        // What once crashed is tried first.
        .arg(&crashes)
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("cannot share the log")?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    Ok(Running { name, child, log })
}

/// Waits for a target; what is wrong with it, if anything.
fn end(mut target: Running, deadline: Instant) -> Result<Option<String>> {
    let status = loop {
        if let Some(status) = target
            .child
            .try_wait()
            .context("cannot wait for a target")?
        {
            break Some(status);
        }
        if Instant::now() > deadline {
            target.child.kill().context("cannot end a target")?;
            target.child.wait().context("cannot wait for a target")?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let mut log = Vec::new();
    fs::File::open(&target.log)
        .and_then(|mut file| file.read_to_end(&mut log))
        .with_context(|| format!("cannot read {}", target.log.display()))?;
    let log = String::from_utf8_lossy(&log);
    let runs = log
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map(str::trim);
    let failure = match (status, runs) {
        (Some(status), Some(runs)) if status.success() && runs != "0" => {
            note(&format!("{}: {runs} inputs, no crash", target.name));
            return Ok(None);
        }
        (Some(status), _) => format!("{} ended with {status}", target.name),
        (None, _) => format!("{} did not end", target.name),
    };
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN)..] {
        println!("    {line}");
    }
    // What a kept input brings to light again is not written a second time.
    let input = log
        .lines()
        .find_map(|line| line.split_once("Test unit written to "))
        .map_or_else(
            || {
                let crashes = root::target().join("fuzz/crashes").join(target.name);
                crashes.display().to_string()
            },
            |(_, input)| input.trim().to_owned(),
        );
    Ok(Some(format!(
        "{failure}; its input: {input}; what it said: {}",
        target.log.display()
    )))
}

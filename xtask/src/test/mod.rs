//! All tests, on all kernels, with one line at the end.

mod agents;
mod compiled;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::compiled::{Compiled, Executable, Wanted};
use crate::libtest::{Counts, EXECUTABLE, SKIPPED};
use crate::process::{as_root_with_environment, command, note, step, unwrap_cargo};
use crate::stream::{self, End};
use crate::vm::{self, Kernel};
use crate::{ebpf, fuzz, lint, root, toolchain};

/// Test executables that say nothing of a kernel: what they try is user space, or programs that a guest lacks.
const HOST_ONLY: [&str; 13] = [
    "lifecycle",
    "sessions",
    "desk",
    "gtfobins",
    "subjects",
    "hook",
    "limits",
    "loosened",
    "refusals",
    "execve_check",
    "sight",
    "settings",
    // Supervisor and desk; what the kernel does with their grants is in `kernel`.
    "approvals",
];
/// Test executables that one guest is enough for: what they try in the kernel is the same in both, or tried by others,
/// and a guest takes seconds for each agent that it starts. Shared out so that both take about as long.
const OLDER_GUEST_ONLY: [&str; 9] = [
    "cgroups",
    "counted",
    "fileless",
    "forms",
    "identity",
    "launcher_killed",
    "loss",
    "parked",
    "text",
];
const NEWER_GUEST_ONLY: [&str; 4] = ["syscalls", "listeners", "told", "unix"];
/// What says all of a machine without `bpf` among its active LSMs: what stands in for LSM programs is the same as on a
/// kernel that refuses them.
const WITHOUT_BPF_LSM: [&str; 1] = ["in_force"];
/// Time for a stage; what hangs must not hang the whole.
const LIMIT: Duration = Duration::from_hours(1);
/// Test executables of a stage that the summary names, those that took longest.
const SLOWEST: usize = 5;
/// Runs every test executable, also after a failure, and reports what the tests skipped. What the kernel gives is asked once
/// for all of them.
const RUN_ALL: &str = r#"
skips=$(mktemp) || exit 125
chmod 666 "$skips"
export ENFORCER_SKIPS=$skips
ENFORCER_LEVEL=$("$ENFORCER_BIN" doctor --json | sed -n 's/^  "enforcement": "\(.*\)",$/\1/p')
export ENFORCER_LEVEL
filter=$1
shift
status=0
for test in "$@"; do
    echo "enforcer-test-executable: $test"
    "$test" ${filter:+"$filter"} || status=$?
done
while read -r line; do
    echo "enforcer-test-skipped: $line"
done <"$skips"
rm -f "$skips"
exit $status
"#;

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Formatting, clippy, dependencies
    Lint,
    /// Tests beside the code, without root
    Unit,
    /// Random inputs for what reads policies, command texts and events
    Fuzz,
    /// Integration tests on this machine's kernel, as root
    Host,
    /// Integration tests on Debian's 6.1
    #[value(name = "vm-6.1")]
    Vm61,
    /// Integration tests on Debian's 6.12
    #[value(name = "vm-6.12")]
    Vm612,
    /// Those about what is in force on Debian's 6.1 without `bpf` in lsm=
    #[value(name = "vm-6.1-without-bpf")]
    Vm61WithoutBpf,
    /// Those about what is in force on Debian's 6.12 without `bpf` in lsm=
    #[value(name = "vm-6.12-without-bpf")]
    Vm612WithoutBpf,
    /// Real coding agents with a model of ours, on this machine's kernel; only if it is named
    Agents,
}

impl Stage {
    /// Whether it runs in a virtual machine.
    fn in_guest(self) -> bool {
        !matches!(
            self,
            Self::Lint | Self::Unit | Self::Fuzz | Self::Host | Self::Agents
        )
    }

    /// Whether it runs where no stage is named. The agents are gigabytes from npm and PyPI.
    fn is_usual(self) -> bool {
        self != Self::Agents
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit tests",
            Self::Fuzz => "fuzzing",
            Self::Host => "this kernel",
            Self::Vm61 => "kernel 6.1",
            Self::Vm612 => "kernel 6.12",
            Self::Vm61WithoutBpf => "6.1 no bpf",
            Self::Vm612WithoutBpf => "6.12 no bpf",
            Self::Agents => "real agents",
        }
    }
}

/// Runs the stages (all usual ones when none is named) and prints the summary; returns whether all went well.
///
/// The very last line is `N passed, N failed, N skipped` over all stages. A stage that fails without a failed
/// test, or that could not run, counts as one failure.
pub fn all(only: &[Stage], filter: Option<&str>, fuzz_seconds: u64) -> bool {
    if let Err(error) = without_ignored_signals() {
        note(&format!("{error:#}; tests that type ^C may fail"));
    }
    let wanted = |stage: &Stage| {
        if only.is_empty() {
            stage.is_usual()
        } else {
            only.contains(stage)
        }
    };
    let stages: Vec<Stage> = Stage::value_variants()
        .iter()
        .copied()
        .filter(wanted)
        .collect();
    let mut total = Counts::default();
    let mut summary = Vec::new();
    let mut record = |name: &str, took: Duration, counts: Counts, result: Result<()>| {
        let mut counts = counts;
        if let Err(error) = &result {
            println!("    FAILED: {name}: {error:#}");
            counts.failed = counts.failed.max(1);
        }
        total += &counts;
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        summary.push(format!(
            "{name:<12} {verdict:<7} {counts} ({} s)",
            took.as_secs()
        ));
        summary.extend(counts.slowest(SLOWEST));
    };

    let started = Instant::now();
    let toolchain =
        toolchain::ensure(true).and_then(|toolchain| ebpf::build(&toolchain).map(|_| toolchain));
    match &toolchain {
        Ok(_) => record("set-up", started.elapsed(), Counts::default(), Ok(())),
        Err(error) => record(
            "set-up",
            started.elapsed(),
            Counts::default(),
            Err(anyhow::anyhow!("{error:#}")),
        ),
    }
    let mut compiled = None;
    let (guests, here): (Vec<Stage>, Vec<Stage>) =
        stages.iter().partition(|stage| stage.in_guest());
    for stage in here {
        let started = Instant::now();
        let mut counts = Counts::default();
        let result = match (&toolchain, stage) {
            (Err(_), _) => Err(anyhow::anyhow!("could not run, for the set-up failed")),
            (Ok(toolchain), Stage::Lint) => lint::all(toolchain, false),
            // A filter names tests, of which a target is none.
            (Ok(_), Stage::Fuzz) if filter.is_some() => Ok(()),
            (Ok(_), Stage::Fuzz) => fuzzing(fuzz_seconds, &mut counts),
            (Ok(_), stage) => match (compile(&mut compiled, &stages), stage) {
                (Ok(built), Stage::Unit) => unit(built, filter, &mut counts),
                (Ok(built), stage) => integration_stage(stage, built, filter, &mut counts),
                (Err(error), _) => Err(anyhow::anyhow!("could not run: {error}")),
            },
        };
        record(stage.name(), started.elapsed(), counts, result);
    }
    if toolchain.is_ok() && !guests.is_empty() {
        let built = compile(&mut compiled, &stages);
        for end in in_guests(&guests, built, filter) {
            record(end.stage.name(), end.took, end.counts, end.result);
        }
    } else {
        for stage in guests {
            let error = anyhow::anyhow!("could not run, for the set-up failed");
            record(stage.name(), Duration::ZERO, Counts::default(), Err(error));
        }
    }
    step("Summary");
    for line in summary {
        note(&line);
    }
    println!("{total}");
    total.failed == 0
}

/// What the tests are compiled to, compiled once.
fn compile<'a>(
    compiled: &'a mut Option<Result<Compiled, String>>,
    stages: &[Stage],
) -> Result<&'a Compiled, &'a String> {
    compiled
        .get_or_insert_with(|| {
            let wanted = match stages {
                [Stage::Agents] => Wanted::One(agents::EXECUTABLE),
                _ if stages.contains(&Stage::Unit) => Wanted::Everything,
                _ => Wanted::Integration,
            };
            compiled::all(wanted).map_err(|error| format!("{error:#}"))
        })
        .as_ref()
}

/// How a stage in a virtual machine ended.
struct GuestEnd {
    stage: Stage,
    took: Duration,
    counts: Counts,
    result: Result<()>,
}

/// Runs stages in virtual machines, several at a time: while one waits, another works.
fn in_guests(
    stages: &[Stage],
    built: Result<&Compiled, &String>,
    filter: Option<&str>,
) -> Vec<GuestEnd> {
    let waiting = Mutex::new(stages.iter().copied().enumerate());
    let ended = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = lock(&waiting).next();
            let Some((index, stage)) = next else { break };
            let started = Instant::now();
            let mut counts = Counts::default();
            let result = match built {
                Ok(built) => integration_stage(stage, built, filter, &mut counts),
                Err(error) => Err(anyhow::anyhow!("could not run: {error}")),
            };
            let end = GuestEnd {
                stage,
                took: started.elapsed(),
                counts,
                result,
            };
            lock(&ended).push((index, end));
        }
    };
    thread::scope(|scope| {
        for _ in 0..vm::at_once().min(stages.len()) {
            scope.spawn(work);
        }
    });
    let mut ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.sort_by_key(|(index, _)| *index);
    ended.into_iter().map(|(_, end)| end).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts this program again without the ignored signals that it was started with (`nohup`, `&` in a script): the
/// tests type ^C and hang up.
fn without_ignored_signals() -> Result<()> {
    const WANTED: u64 = 0b111; // SIGHUP, SIGINT, SIGQUIT
    let status = fs::read_to_string("/proc/self/status").context("/proc is not mounted")?;
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    if ignored & WANTED == 0 {
        return Ok(());
    }
    note(
        "started with signals ignored (nohup, or in the background of a script): starting again with their defaults",
    );
    let mut arguments = env::args_os();
    let program = arguments.next().context("no program name")?;
    let error = Command::new("env")
        .arg("--default-signal=HUP,INT,QUIT")
        .arg(program)
        .args(arguments)
        .exec();
    Err(error).context("cannot start again by env(1)")
}

/// Runs the tests beside the code, each executable where cargo would.
fn unit(compiled: &Compiled, filter: Option<&str>, counts: &mut Counts) -> Result<()> {
    step("Unit tests");
    let mut failed = Vec::new();
    for executable in &compiled.unit {
        note(&format!("$ {}", executable.path.display()));
        let mut test = command(&executable.path);
        test.current_dir(&executable.directory)
            .env("CARGO_MANIFEST_DIR", &executable.directory)
            .args(filter)
            .stdin(Stdio::null());
        counts.begin(&executable.name);
        let end = stream::lines(&mut test, LIMIT, |line| show("", line, counts))?;
        if judge(end, filter.or(Some("")), counts).is_err() {
            failed.push(executable.name.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("tests of {} failed", failed.join(", "));
    }
    some_ran(filter, counts)
}

/// Each target counts as a test.
fn fuzzing(seconds: u64, counts: &mut Counts) -> Result<()> {
    let outcome = fuzz::run_all(&fuzz::build()?, fuzz::TARGETS, seconds, Some(fuzz::SEED))?;
    counts.passed += outcome.passed;
    counts.failed += outcome.failed.len() as u64;
    if !outcome.failed.is_empty() {
        bail!("{}", outcome.failed.join("; "));
    }
    Ok(())
}

fn integration_stage(
    stage: Stage,
    built: &Compiled,
    filter: Option<&str>,
    counts: &mut Counts,
) -> Result<()> {
    step(&format!("Integration tests: {}", stage.name()));
    let mut words = match stage {
        Stage::Agents => agents::before(built)?,
        _ => Vec::new(),
    };
    words.extend(["bash", "-c", RUN_ALL, "tests", filter.unwrap_or_default()].map(OsString::from));
    let elsewhere: Vec<&str> = match stage {
        Stage::Vm61 => [HOST_ONLY.as_slice(), &NEWER_GUEST_ONLY].concat(),
        Stage::Vm612 => [HOST_ONLY.as_slice(), &OLDER_GUEST_ONLY].concat(),
        _ => Vec::new(),
    };
    if !elsewhere.is_empty() {
        note(&format!(
            "run elsewhere, on this machine or in the other guest: {}",
            elsewhere.join(", ")
        ));
    }
    let parameter = match stage {
        Stage::Vm61WithoutBpf | Stage::Vm612WithoutBpf => Some(vm::WITHOUT_BPF_LSM),
        _ => None,
    };
    words.extend(
        built
            .tests
            .iter()
            .filter(|test| {
                let is_agents = is_one_of(test, &[agents::EXECUTABLE]);
                if is_agents || stage == Stage::Agents {
                    is_agents && stage == Stage::Agents
                } else if parameter.is_some() {
                    is_one_of(test, &WITHOUT_BPF_LSM)
                } else {
                    !is_one_of(test, &elsewhere)
                }
            })
            .map(|test| OsString::from(&test.path)),
    );
    let directory = root::repository().join("tests");
    let kernel = match stage {
        Stage::Vm61 | Stage::Vm61WithoutBpf => Kernel::V6_1,
        Stage::Vm612 | Stage::Vm612WithoutBpf => Kernel::V6_12,
        _ => return on_this_kernel(&words, &directory, built, filter, counts),
    };
    let mut variables = vec![
        ("CARGO_MANIFEST_DIR", directory.clone().into()),
        // An emulated processor takes its time.
        ("ENFORCER_AGREE_LINES", "2000".into()),
    ];
    for name in ["RUST_BACKTRACE", "RUST_TEST_THREADS"] {
        variables.extend(env::var_os(name).map(|value| (name, value)));
    }
    let job = vm::Job {
        kernel,
        parameter,
        executables: built.executables.clone(),
        enforcer: Some(built.enforcer.clone()),
        variables,
        directory,
        words,
        timeout: LIMIT,
    };
    // Lines of two machines come at once.
    let mark = format!("[{}] ", stage.name());
    let status = vm::run(&job, |line| show(&mark, line, counts))?;
    if status != 0 {
        bail!("the tests ended with status {status}");
    }
    some_ran(filter, counts)
}

/// Whether a test executable has one of these names.
fn is_one_of(executable: &Executable, names: &[&str]) -> bool {
    names.contains(&executable.name.as_str())
}

fn on_this_kernel(
    words: &[OsString],
    directory: &Path,
    built: &Compiled,
    filter: Option<&str>,
    counts: &mut Counts,
) -> Result<()> {
    let mut tests = as_root_with_environment(&words[0])?;
    unwrap_cargo(&mut tests);
    tests
        .args(&words[1..])
        .current_dir(directory)
        .stdin(Stdio::null());
    tests
        .env("ENFORCER_BIN", &built.enforcer)
        .env("CARGO_MANIFEST_DIR", directory);
    let end = stream::lines(&mut tests, LIMIT, |line| show("", line, counts))?;
    judge(end, filter, counts)
}

/// Counts and shows a line, with a mark before it.
fn show(mark: &str, line: &str, counts: &mut Counts) {
    counts.read(line);
    if let Some(reason) = line.strip_prefix(SKIPPED) {
        println!("{mark}skipped: {reason}");
    } else if let Some(path) = line.strip_prefix(EXECUTABLE) {
        println!("{mark}running {path}");
    } else {
        println!("{mark}{line}");
    }
}

fn judge(end: End, filter: Option<&str>, counts: &Counts) -> Result<()> {
    match end {
        End::TimedOut => bail!("not done after {} s", LIMIT.as_secs()),
        End::Exited(status) if !status.success() => bail!("the tests ended with {status}"),
        End::Exited(_) => some_ran(filter, counts),
    }
}

/// A stage in which no test ran is no success, unless a filter was asked for.
fn some_ran(filter: Option<&str>, counts: &Counts) -> Result<()> {
    if counts.passed == 0 && filter.is_none() {
        bail!("no test passed");
    }
    Ok(())
}

//! Build, set-up, test and bench tasks of enforcer: `cargo xtask --help`.

mod agents;
mod bench;
mod build;
mod docs;
mod ebpf;
mod fuzz;
mod libtest;
mod lint;
mod packages;
mod process;
mod root;
mod stream;
mod test;
mod toolchain;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Set up, build, run and test enforcer.
///
/// Every task first does what it needs, so that one command is enough on a fresh machine; a second run is
/// quick. Root (or sudo) is used to install system packages and to load the kernel programs, never to compile.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the build needs: system packages, the eBPF compiler and linker
    Toolchain(ToolchainArgs),
    /// Compile the kernel programs into target/bpf/enforcer.bpf.o
    Ebpf,
    /// Build target/release/enforcer, one file with the kernel programs inside
    Build,
    /// Build, then run CMD under policies/coding-agent.json; without CMD, the session of policies/demo.sh
    Run(RunArgs),
    /// Write what is generated in the documents, then check them
    Docs(DocsArgs),
    /// Check formatting, documents, clippy (kernel programs too), licences, bans and sources of the dependencies
    Lint(LintArgs),
    /// Run everything: lint, unit tests, integration tests on this kernel and in virtual machines; real agents only if
    /// they are asked for
    Test(TestArgs),
    /// Feed policies, command texts, hook events, URLs and what is recorded with random inputs, and keep what crashes
    Fuzz(FuzzArgs),
    /// Measure what governing costs: paired runs, printed as ratios
    Bench(BenchArgs),
    /// Run CMD in virtual machines with Debian's kernels; without CMD, look round in each
    Vm(VmArgs),
}

#[derive(clap::Args)]
struct ToolchainArgs {
    /// Also install what lint, the integration tests and the virtual machines need
    #[arg(long)]
    test: bool,
}

#[derive(clap::Args)]
struct DocsArgs {
    /// Only check: generated parts are up to date, links and named tests exist
    #[arg(long)]
    check: bool,
}

#[derive(clap::Args)]
struct LintArgs {
    /// Also check the dependencies against the advisory database, which is fetched from the network
    #[arg(long)]
    advisories: bool,
}

#[derive(clap::Args)]
struct TestArgs {
    /// Run only these stages; may be given several times
    #[arg(long, value_name = "STAGE")]
    only: Vec<test::Stage>,
    /// Run only the tests with real agents, which are installed below target/agents (2.7 GB): the same as `--only agents`
    #[arg(long)]
    agents: bool,
    /// Seconds for each fuzz target
    #[arg(long, value_name = "S", default_value_t = fuzz::TEST_SECONDS)]
    fuzz_seconds: u64,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

#[derive(clap::Args)]
struct FuzzArgs {
    /// Seconds for each target
    #[arg(long, value_name = "S", default_value_t = fuzz::SECONDS)]
    seconds: u64,
    /// The target to run (default: all of them)
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(fuzz::TARGETS))]
    target: Option<String>,
}

#[derive(clap::Args)]
struct BenchArgs {
    /// Fewer rounds: under a minute, and wider ranges
    #[arg(long)]
    quick: bool,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only the sections whose name contains this (user-decision, exec, connect, decision, peers,
    /// start, agents, reload, explain, storm, outside, thousand)
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

#[derive(clap::Args)]
struct VmArgs {
    /// The kernel to boot (default: all of them)
    #[arg(long)]
    kernel: Option<vm::Kernel>,
    /// Boot without `bpf` among the active LSMs, as some distributions do
    #[arg(long)]
    without_bpf_lsm: bool,
    /// Seconds that a machine may run
    #[arg(long, value_name = "S", default_value_t = 300)]
    timeout: u64,
    /// A file that the guest gets at the same path; may be given several times
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// The command and its arguments; target/release/enforcer is `enforcer` in the guest's PATH
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(clap::Args)]
struct RunArgs {
    /// Policy to run under (default: policies/coding-agent.json)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    match task(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        // The summary has said what failed, and its last line stays the last one.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(task: Task) -> Result<bool> {
    match task {
        Task::Toolchain(args) => toolchain::ensure(args.test).map(drop)?,
        Task::Ebpf => ebpf::build(&toolchain::ensure(false)?).map(drop)?,
        Task::Build => build::release().map(drop)?,
        Task::Run(args) => build::run(args.policy.as_deref(), &args.command)?,
        Task::Bench(args) => {
            bench::figures(args.quick, args.json.as_deref(), args.only.as_deref())?;
        }
        Task::Vm(args) => {
            let kernels = args
                .kernel
                .map_or_else(|| vm::Kernel::ALL.to_vec(), |kernel| vec![kernel]);
            vm::shell(
                &kernels,
                args.without_bpf_lsm.then_some(vm::WITHOUT_BPF_LSM),
                &args.command,
                Duration::from_secs(args.timeout),
                &args.with,
            )?;
        }
        Task::Docs(DocsArgs { check: true }) => docs::check()?,
        Task::Docs(DocsArgs { check: false }) => docs::write()?,
        Task::Lint(args) => {
            let toolchain = toolchain::ensure(true)?;
            // clippy compiles enforcer, which embeds the object.
            ebpf::build(&toolchain)?;
            lint::all(&toolchain, args.advisories)?;
        }
        Task::Fuzz(args) => {
            ebpf::build(&toolchain::ensure(false)?)?;
            let built = fuzz::build()?;
            let wanted =
                |name: &&'static str| args.target.as_deref().is_none_or(|only| only == *name);
            let targets: Vec<&'static str> = fuzz::TARGETS.iter().copied().filter(wanted).collect();
            let outcome = fuzz::run_all(&built, &targets, args.seconds, None)?;
            for failure in &outcome.failed {
                eprintln!("error: {failure}");
            }
            return Ok(outcome.failed.is_empty());
        }
        Task::Test(mut args) => {
            args.only.extend(args.agents.then_some(test::Stage::Agents));
            return Ok(test::all(
                &args.only,
                args.filter.as_deref(),
                args.fuzz_seconds,
            ));
        }
    }
    Ok(true)
}

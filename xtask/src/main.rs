//! Build, set-up, test and bench tasks of enforcer: `cargo xtask --help`.

mod build;
mod ebpf;
mod lint;
mod packages;
mod process;
mod root;
mod toolchain;

use std::ffi::OsString;
use std::process::ExitCode;

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
    /// Check formatting, clippy (kernel programs too), licences, bans and sources of the dependencies
    Lint(LintArgs),
}

#[derive(clap::Args)]
struct ToolchainArgs {
    /// Also install what lint, the integration tests and the virtual machines need
    #[arg(long)]
    test: bool,
}

#[derive(clap::Args)]
struct LintArgs {
    /// Also check the dependencies against the advisory database, which is fetched from the network
    #[arg(long)]
    advisories: bool,
}

#[derive(clap::Args)]
struct RunArgs {
    /// Policy to run under (default: policies/coding-agent.json)
    #[arg(long, value_name = "FILE")]
    policy: Option<std::path::PathBuf>,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    match task(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(task: Task) -> Result<()> {
    match task {
        Task::Toolchain(args) => toolchain::ensure(args.test).map(drop),
        Task::Ebpf => ebpf::build(&toolchain::ensure(false)?).map(drop),
        Task::Build => build::release().map(drop),
        Task::Run(args) => build::run(args.policy.as_deref(), &args.command),
        Task::Lint(args) => {
            let toolchain = toolchain::ensure(true)?;
            // clippy compiles enforcer, which embeds the object.
            ebpf::build(&toolchain)?;
            lint::all(&toolchain, args.advisories)
        }
    }
}

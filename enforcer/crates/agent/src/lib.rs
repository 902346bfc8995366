//! `enforcer run`: the composition root that governs one process tree.
//!
//! Order is everything here. The policy is read and compiled before anything is created; the kernel programs
//! are in force, tested and pinned before the agent's process leaves its starting line; and whatever fails on
//! the way takes away what was made so far.

#![forbid(unsafe_code)]

mod account;
mod addresses;
mod announce;
mod breaker;
mod calls;
mod change;
mod change_line;
mod command;
mod compiled;
mod counts;
mod editions;
pub mod enforcement;
mod error;
mod first;
mod first_process;
mod governed;
mod held;
mod hosts;
mod house;
mod in_force;
mod lately;
mod leftover;
mod limited;
mod lines;
mod listeners;
mod options;
mod own_line;
mod own_terms;
mod parked;
mod paths;
mod plan;
mod principal;
mod record;
mod refused;
mod retry;
mod ruling;
mod scene;
pub mod selftest;
mod service;
mod serving;
mod sight;
mod state;
pub mod status;
mod steering;
mod supervisor;
mod tell;
mod terms;
mod tools;
mod trail;
mod wanted;
mod watch;
mod weakness;

use nix::unistd::geteuid;

use enforcer_launch::Signals;

pub use breaker::{Kept, ago};
pub use change::ChangeError;
use command::ResolvedCommand;
pub use enforcement::Enforcement;
pub use error::AgentError;
use error::Result;
pub use first::{FirstJudge, FirstJudgement, Means};
use first_process::FirstProcess;
use governed::Joined;
use house::House;
pub use in_force::InForce;
pub use options::{
    CommandOptions, Governing, Level, OnDeny, PrincipalOptions, Reports, RunOptions,
};
use plan::RunPlan;
use scene::Scene;
use service::AgentServices;
pub use state::AgentStateError;
use terms::{Admission, Terms};
pub use trail::TrailError;
pub use weakness::Weakness;

/// Where the trail goes unless `--audit` says otherwise.
pub const DEFAULT_AUDIT: &str = "/var/log/enforcer/audit.jsonl";
/// Where requests and their answers are kept.
pub const APPROVALS_DB: &str = enforcer_approvals::DEFAULT_DB;

/// Governs the command and everything it starts; its exit status.
///
/// # Errors
///
/// Anything that keeps enforcement from being whole. Nothing is left behind then.
pub fn run(options: &RunOptions) -> Result<u8> {
    if !geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    // Before there are threads, which would take the signals for themselves.
    let signals = Signals::block()?;
    // What can be known to fail is known before anything is made.
    let command = ResolvedCommand::find(&options.command)?;
    let terms = match Terms::read(options, &command.identity)? {
        Admission::Granted(terms) => terms,
        Admission::Denied(turned_away) => return turned_away.record(options),
    };
    let plan = RunPlan {
        options,
        command,
        terms,
    };
    let mut proven = plan.terms.prove()?;
    let mut house = House::open(&plan, &proven)?;
    let facts = plan.record(&proven, house.trail.path())?;
    // From here on there is something to take away, which the scene does when it is dropped, after all that works in it.
    let mut scene = Scene::open(facts, &plan.terms.principal)?;
    let cgroup = scene.make_cgroup(&house.cgroups)?;
    let joined = Joined::find(&plan, &mut proven, &house.cgroups, cgroup, &scene)?;
    let (governed, host) = joined.govern(&plan, &proven, &mut scene)?;
    let process = FirstProcess::make(&plan, host, &governed, house.trail.path())?;
    let engine = proven.engine;
    let service = AgentServices::start(&plan, &mut house, &scene, governed, process, engine)?;
    service.until_ended(&plan, &signals, &mut scene)
}

//! Making the agent's process: its cgroup, its user, its terminal, and the way from fork to its program.
//!
//! The order is the point. [`spawn`] makes a process that is in the agent's cgroup from its first instruction
//! and waits; the caller puts the policy in force for it; [`Pending::go`] lets it give up every privilege and
//! start the program. What dies on the way leaves nothing running.
//!
//! Nothing here has an event loop: [`Child::pidfd`] and [`Signals::fd`] are for the caller's `poll`, and there
//! is one function for each event.

mod cgroup;
mod child;
mod clone;
mod confine;
mod connector;
mod environment;
mod error;
pub mod exec_stop;
mod identity;
mod image;
mod landlock;
mod own;
mod privilege;
mod probe;
mod process;
mod program;
mod servant;
mod signals;
mod tell;
mod terminal;
mod watched;

pub use cgroup::{
    AGENT_LEVEL, AgentCgroup, CgroupRoot, DEFAULT_PIDS_MAX, PARENT, PidsLimit, agent_of, v2_mounts,
};
pub use child::{Child, ExitStatus, reap_strangers};
pub use confine::Confinement;
pub use connector::{Connecting, Connector, SocketPlace, StartingConnector};
pub use environment::{Environment, WantedVariable};
pub use error::LaunchError;
pub use exec_stop::ExecStops;
pub use identity::{Identity, Origin};
pub use landlock::{LandlockDomain, LandlockLevel};
pub use own::OwnProgram;
pub use probe::{Act, Attempt, Probe};
pub use process::{OpenFiles, Pending, SpawnPlan, current_directory, spawn};
pub use program::find_program;
pub use signals::{Received, Signals, outlive_file_size_limit};
pub use tell::StderrNotifier;
pub use terminal::Terminal;
pub use watched::Watched;

#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod rig;

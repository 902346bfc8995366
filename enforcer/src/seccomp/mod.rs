//! seccomp: what is refused at the system call itself.
//!
//! The filter covers what no eBPF hook of enforcer sees on every kernel. It is built in the parent, where
//! libseccomp may allocate, and loaded in the agent's process as plain bytes just before its program starts.

mod filter;
mod hatches;

pub use filter::{BpfProgram, Condition, SeccompError, Test};
pub use hatches::{Call, Group, Hatches, Refusal, Refused};

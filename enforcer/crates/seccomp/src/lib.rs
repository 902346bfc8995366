//! seccomp: what is refused at the system call itself, and what the supervisor is asked about.
//!
//! The filters are built in the parent, where libseccomp may allocate, and loaded in the agent's process as
//! plain bytes just before its program starts. [`SyscallGroups`] cover what no eBPF hook of enforcer sees on every
//! kernel. With a [`Listener`] the same filter stops chosen calls until they are answered; [`target`] reads what
//! the stopped process wants, [`resolve`] finds the file that it names. What they read can change before the
//! kernel reads it again: an answer is a first judgement, and the kernel's own is the last.

mod address;
pub mod descriptor;
pub mod diag;
mod eyes;
mod filter;
pub mod groups;
mod identity;
mod notified;
mod notify;
mod readable;
pub mod resolve;
mod support;
pub mod target;
mod walk;

pub use address::Address;
pub use eyes::Eyes;
pub use filter::{BpfProgram, Condition, SeccompError, Test};
pub use groups::{IPC, RefusedCall, SyscallGroups};
pub use identity::{IdentityError, LARGEST};
pub use notified::Notified;
pub use notify::{
    ConnectCall, ExecCall, Listener, Notification, NotifiedCall, NotifyError, OtherCall,
};
pub use support::Support;

#[cfg(test)]
mod notify_tests;
#[cfg(test)]
mod rig;

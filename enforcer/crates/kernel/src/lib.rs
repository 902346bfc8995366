//! The kernel side as user space sees it: what this kernel can do, loading, attaching, filling the maps and
//! reading the events. Only this module knows aya.

use std::{io, path::PathBuf};

use thiserror::Error;

pub mod agent;
pub mod attach;
pub mod events;
pub mod generation;
pub mod grants;
pub mod host;
pub mod instance;
pub mod limits;
mod lsm;
pub mod memory;
pub mod object;
pub mod offsets;
pub mod record;
mod replace;
mod sys;
mod tables;
pub mod trial;
pub mod unix_hooks;
pub mod users;

/// Why the kernel side cannot be brought up.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The kernel does not show its types.
    #[error(
        "no kernel type information at {path}: {error}; boot a kernel built with CONFIG_DEBUG_INFO_BTF (Debian's are)"
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// What reading it said.
        error: io::Error,
    },
    /// The type information does not follow its own format.
    #[error("the kernel's type information cannot be read (not BTF, or cut short)")]
    MalformedBtf,
    /// A field that the programs read does not exist.
    #[error(
        "this kernel's `{structure}` has no field `{field}`; it is older or newer than enforcer knows (supported: see docs/kernels.md)"
    )]
    MissingField {
        /// The structure.
        structure: String,
        /// The field, dotted.
        field: String,
    },
    /// The object could not be loaded.
    #[error("the kernel programs cannot be loaded: {0}")]
    Object(String),
    /// One program was refused.
    #[error("the kernel refuses program `{program}`: {reason}")]
    Program {
        /// The program.
        program: &'static str,
        /// The error, and the end of the verifier's log.
        reason: String,
    },
    /// A map could not be filled or read.
    #[error("map `{map}`: {reason}")]
    Map {
        /// The map.
        map: &'static str,
        /// The error.
        reason: String,
    },
    /// What had to be noted down before could not be.
    #[error("{0}")]
    NotNoted(String),
    /// As many agents run as there is room for.
    #[error(
        "{slots} agents run on this machine already, and there is room for no more; `enforcer status` lists them"
    )]
    Full {
        /// How many there is room for.
        slots: u32,
    },
    /// What is pinned is not ours.
    #[error("{path}: {reason}; remove it if you know what it is")]
    Foreign {
        /// The pin.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The BPF file system is not in its place as it must be.
    #[error("{}: {reason}; {mend}", attach::BPF_ROOT)]
    BpfRoot {
        /// What is wrong.
        reason: String,
        /// What to do.
        mend: String,
    },
    /// A pin could not be made or removed.
    #[error("{path}: {error}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

impl KernelError {
    /// An error of a map.
    pub fn map(map: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Map {
            map,
            reason: reason.to_string(),
        }
    }
}

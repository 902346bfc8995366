//! A Landlock domain around the agent: what it may not do to processes outside.
//!
//! The domain restricts no file. By being in one, the agent cannot trace a process outside: no `ptrace`, no
//! `/proc/PID/mem`, no `pidfd_getfd`, whatever the user ids are and whether Yama is there or not. From ABI 6 on
//! (Linux 6.12) it also cannot signal one, and optionally cannot reach abstract unix sockets that were made outside.
//!
//! Numbers and structures are those of linux/landlock.h. The calls are made in the child, after fork: they take
//! numbers and memory that exists before it.

use super::privilege::errno;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 1 << 1;
const ACCESS_FS_MAKE_BLOCK: u64 = 1 << 11;
const ACCESS_FS_REFER: u64 = 1 << 13;

/// The first ABI in which a domain can be had without forbidding renames between directories (Linux 5.19).
const ABI_REFER: i64 = 2;
/// The first ABI with scopes (Linux 6.12).
const ABI_SCOPES: i64 = 6;

/// Rights that the domain of an older ABI handles and grants everywhere: a domain must handle something. Renames
/// between directories are refused unless they are granted (that is what REFER is), and block devices are
/// nothing that an agent without capabilities can make.
const HARMLESS: u64 = ACCESS_FS_MAKE_BLOCK | ACCESS_FS_REFER;

/// `struct landlock_ruleset_attr`; older kernels take it as long as what they do not know is zero.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// How much of the domain a kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LandlockLevel {
    /// Nothing.
    None,
    /// Processes outside cannot be traced; they can be signalled.
    Partial,
    /// Processes outside can be neither traced nor signalled.
    Full,
}

/// The Landlock domain that an agent is put into.
#[derive(Clone, Debug)]
pub struct LandlockDomain {
    /// How much of it this kernel gives.
    pub level: LandlockLevel,
    /// What is in force, or why not more; for the start line and `doctor`.
    pub why: String,
    domain: Option<Domain>,
}

#[derive(Clone, Copy, Debug)]
struct Domain {
    handled: u64,
    scoped: u64,
}

impl LandlockDomain {
    /// Asks the kernel what it gives. With `abstract_sockets`, abstract unix sockets that were made outside are out of
    /// reach too, where the kernel has scopes.
    pub fn probe(abstract_sockets: bool) -> Self {
        Self::of(abi(), abstract_sockets)
    }

    fn of(abi: Result<i64, i32>, abstract_sockets: bool) -> Self {
        let none = |why: String| Self {
            level: LandlockLevel::None,
            why,
            domain: None,
        };
        match abi {
            Err(libc::ENOSYS) => none("the kernel was built without Landlock".to_owned()),
            Err(libc::EOPNOTSUPP) => none(
                "Landlock is built in and switched off; add landlock to the kernel's lsm= parameter".to_owned(),
            ),
            Err(errno) => none(format!(
                "Landlock: {}",
                std::io::Error::from_raw_os_error(errno)
            )),
            Ok(abi) if abi < ABI_REFER => none(format!(
                "Landlock ABI {abi} would forbid renames between directories; Linux 5.19 has a later one"
            )),
            Ok(abi) if abi < ABI_SCOPES => Self {
                level: LandlockLevel::Partial,
                why: format!(
                    "Landlock ABI {abi}: processes outside cannot be traced; signals to them need Linux 6.12 to be stopped"
                ),
                domain: Some(Domain {
                    handled: HARMLESS,
                    scoped: 0,
                }),
            },
            Ok(abi) => Self {
                level: LandlockLevel::Full,
                why: format!(
                    "Landlock ABI {abi}: processes outside can be neither traced nor signalled{}",
                    if abstract_sockets {
                        ", their abstract sockets not reached"
                    } else {
                        ""
                    }
                ),
                domain: Some(Domain {
                    handled: 0,
                    scoped: SCOPE_SIGNAL
                        | if abstract_sockets {
                            SCOPE_ABSTRACT_UNIX_SOCKET
                        } else {
                            0
                        },
                }),
            },
        }
    }

    /// No domain, to show what one is good for.
    #[cfg(test)]
    pub(super) fn none(why: impl Into<String>) -> Self {
        Self {
            level: LandlockLevel::None,
            why: why.into(),
            domain: None,
        }
    }

    /// Puts the calling thread into the domain, for good. It must have `no_new_privs`. Async-signal-safe.
    ///
    /// # Errors
    /// The errno.
    pub(super) fn enter(&self) -> Result<(), i32> {
        self.domain.map_or(Ok(()), Domain::enter)
    }
}

impl Domain {
    fn enter(self) -> Result<(), i32> {
        let attr = RulesetAttr {
            handled_access_fs: self.handled,
            handled_access_net: 0,
            scoped: self.scoped,
        };
        // SAFETY: the structure is the kernel's own and its size is given; the flags are a number.
        let ruleset = checked(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attr,
                size_of::<RulesetAttr>(),
                0,
            )
        })?;
        let entered = self.grant(ruleset).and_then(|()| {
            // SAFETY: numbers only.
            checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) })
        });
        close(ruleset);
        entered.map(|_| ())
    }

    /// Grants below the root directory what is handled.
    fn grant(self, ruleset: i64) -> Result<(), i32> {
        if self.handled == 0 {
            return Ok(());
        }
        // SAFETY: the path is NUL-terminated.
        let root =
            checked(unsafe { libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }.into())?;
        let beneath = PathBeneathAttr {
            allowed_access: self.handled,
            parent_fd: root as i32,
        };
        // SAFETY: the structure is the kernel's own for this type of rule; the rest are numbers.
        let granted = checked(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset,
                RULE_PATH_BENEATH,
                &raw const beneath,
                0,
            )
        });
        close(root);
        granted.map(|_| ())
    }
}

/// The kernel's ABI, or the errno.
fn abi() -> Result<i64, i32> {
    // SAFETY: a null pointer and a size of zero are what asking for the version takes.
    checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttr>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    })
}

fn checked(result: libc::c_long) -> Result<i64, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn close(descriptor: i64) {
    // SAFETY: the descriptor is ours and not used any more.
    unsafe { libc::close(descriptor as i32) };
}

#[cfg(test)]
#[path = "landlock_tests.rs"]
mod tests;

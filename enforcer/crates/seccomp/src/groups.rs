//! System-call groups: system calls by which a process gets past what the kernel programs judge.
//!
//! They are data, `policies/built-in/syscall-groups.json`, one group a subject with the reason beside it. A policy loosens a
//! group by its name. Foreign ABIs (i386 and x32 on x86-64, 32-bit ARM on `AArch64`) are no group: their calls kill the
//! process, because their numbers would pass a filter that is written for the native ones.

use enforcer_policy::{Parsed, PolicyError};
use std::sync::LazyLock;

use libseccomp::{ScmpAction, ScmpSyscall};
use serde::Deserialize;

use super::filter::{self, BpfProgram, Condition, Rule, SeccompError, Test};
use super::notified::Notified;

/// The table that is shipped.
const SHIPPED: &str = include_str!("../../../../policies/built-in/syscall-groups.json");

/// The group of what reaches other processes' shared memory, semaphores and message queues. Shut, the agent also has an IPC
/// namespace of its own: System V objects cannot be told apart by arguments, and databases and build tools need some.
pub const IPC: &str = "ipc";

/// System calls younger than the libseccomp that must do: their numbers are the same on every architecture
/// (include/uapi/asm-generic/unistd.h, from 424 on).
const YOUNGER: [(&str, i32); 1] = [("open_tree_attr", 467)];

/// What the table may name instead of a number; the names are those of the kernel headers.
const CONSTANTS: [(&str, u64); 23] = [
    ("AF_UNIX", libc::AF_UNIX as u64),
    ("AF_INET", libc::AF_INET as u64),
    ("AF_INET6", libc::AF_INET6 as u64),
    ("AF_NETLINK", libc::AF_NETLINK as u64),
    ("NETLINK_ROUTE", libc::NETLINK_ROUTE as u64),
    ("NETLINK_SOCK_DIAG", libc::NETLINK_SOCK_DIAG as u64),
    (
        "NETLINK_KOBJECT_UEVENT",
        libc::NETLINK_KOBJECT_UEVENT as u64,
    ),
    ("NETLINK_GENERIC", libc::NETLINK_GENERIC as u64),
    ("TIOCSTI", libc::TIOCSTI),
    ("TIOCLINUX", libc::TIOCLINUX),
    ("TUNSETIFF", libc::TUNSETIFF),
    ("UI_DEV_CREATE", 0x5501),                  // linux/uinput.h
    ("VHOST_VSOCK_SET_GUEST_CID", 0x4008_af60), // linux/vhost.h
    ("VHOST_VSOCK_SET_RUNNING", 0x4004_af61),
    ("CLONE_PARENT", libc::CLONE_PARENT as u64),
    ("CLONE_NEWUSER", libc::CLONE_NEWUSER as u64),
    ("CLONE_NEWNS", libc::CLONE_NEWNS as u64),
    ("CLONE_NEWPID", libc::CLONE_NEWPID as u64),
    ("CLONE_NEWNET", libc::CLONE_NEWNET as u64),
    ("CLONE_NEWIPC", libc::CLONE_NEWIPC as u64),
    ("CLONE_NEWUTS", libc::CLONE_NEWUTS as u64),
    ("CLONE_NEWCGROUP", libc::CLONE_NEWCGROUP as u64),
    // linux/sched.h; only `unshare` takes it, `clone` reads these bits as a signal.
    ("CLONE_NEWTIME", 0x80),
];

const ERRNOS: [(&str, i32); 4] = [
    ("EPERM", libc::EPERM),
    ("ENOSYS", libc::ENOSYS),
    ("EAFNOSUPPORT", libc::EAFNOSUPPORT),
    ("EPROTONOSUPPORT", libc::EPROTONOSUPPORT),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    groups: Vec<GroupForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupForm {
    name: String,
    why: String,
    #[serde(default)]
    open_in_domain: bool,
    refuse: Vec<RefusalForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusalForm {
    syscalls: Vec<String>,
    #[serde(default)]
    when: Vec<ConditionForm>,
    errno: String,
    record: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionForm {
    argument: u32,
    one_of: Option<Vec<ValueForm>>,
    none_of: Option<Vec<ValueForm>>,
    any_bit: Option<Vec<ValueForm>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ValueForm {
    Name(String),
    Number(u32),
}

/// One system call that a refusal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCall {
    /// Its name, as in the manual.
    pub name: String,
    /// Its number on this architecture; `None` where it does not exist.
    pub number: Option<i32>,
}

/// System calls that are refused under the same conditions.
#[derive(Clone, Debug)]
pub struct SyscallRule {
    /// Which.
    pub calls: Vec<NamedCall>,
    /// What must all hold; empty: always.
    pub when: Vec<Condition>,
    /// The errno that the caller gets.
    pub errno: i32,
    /// Whether it is worth a line in the trail. Calls that ordinary programs try out and do without are not.
    pub record: bool,
}

/// One escape hatch.
#[derive(Clone, Debug)]
pub struct SyscallGroup {
    /// The name by which a policy loosens it.
    pub name: String,
    /// Why it is shut.
    pub why: String,
    /// It is only about processes outside the agent, so it stays open where these are out of reach anyway.
    pub open_in_domain: bool,
    /// What is refused.
    pub refusals: Vec<SyscallRule>,
}

/// A call that the table refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedCall<'a> {
    /// The system call's name.
    pub call: &'a str,
    /// The group's name.
    pub group: &'a str,
    /// Why the group is shut.
    pub why: &'a str,
    /// The errno to answer with.
    pub errno: i32,
}

/// What begins the id of the rule that stands for a group in reasons and in the trail.
pub const RULE: &str = "syscall:";

/// What an agent can do instead of calls of a group.
pub fn suggestion(group: &str) -> String {
    format!("do without it; the operator can open `{group}` by `syscalls.allow`")
}

/// The table of system-call groups.
#[derive(Clone, Debug)]
pub struct SyscallGroups {
    groups: Vec<SyscallGroup>,
}

impl SyscallGroups {
    /// The table that is shipped with the program.
    ///
    /// # Errors
    /// When it is malformed; a test keeps that from being built.
    pub fn shipped() -> Result<&'static Self, SeccompError> {
        static TABLE: LazyLock<Result<SyscallGroups, String>> =
            LazyLock::new(|| SyscallGroups::parse(SHIPPED));
        TABLE
            .as_ref()
            .map_err(|what| SeccompError::Table { what: what.clone() })
    }

    /// Reads a table. Every name in it must be known.
    fn parse(text: &str) -> Result<Self, String> {
        let form: FileForm = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let groups = form
            .groups
            .into_iter()
            .map(|group| {
                let name = group.name;
                Ok(SyscallGroup {
                    refusals: group
                        .refuse
                        .into_iter()
                        .map(refusal)
                        .collect::<Result<_, _>>()
                        .map_err(|what: String| format!("group `{name}`: {what}"))?,
                    name,
                    why: group.why,
                    open_in_domain: group.open_in_domain,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Self { groups })
    }

    /// All groups, in the order of the file.
    pub fn groups(&self) -> &[SyscallGroup] {
        &self.groups
    }

    /// The names by which a policy can loosen.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    /// The names of the groups that stay open where processes outside the agent are out of reach.
    pub fn open_in_domain(&self) -> impl Iterator<Item = &str> {
        self.groups
            .iter()
            .filter(|group| group.open_in_domain)
            .map(|group| group.name.as_str())
    }

    /// The filter that refuses every group but the loosened ones, each call with its errno.
    ///
    /// # Errors
    /// When a loosened name is no group, or the filter cannot be built.
    pub fn filter(&self, loosened: &[String]) -> Result<BpfProgram, SeccompError> {
        self.build(loosened, None)
    }

    /// As [`Self::filter`], for the one filter of a process that may have a listener: the `notified` calls go to it, and
    /// so do the refusals that are worth a line in the trail, which it answers as [`Self::refused`] says. When nobody
    /// listens any more such calls fail with ENOSYS.
    ///
    /// # Errors
    /// As [`Self::filter`].
    pub fn filter_with_listener(
        &self,
        loosened: &[String],
        notified: Notified,
    ) -> Result<BpfProgram, SeccompError> {
        self.build(loosened, Some(notified))
    }

    fn build(
        &self,
        loosened: &[String],
        notified: Option<Notified>,
    ) -> Result<BpfProgram, SeccompError> {
        let mut rules = Vec::new();
        for group in self.shut(loosened)? {
            for refusal in &group.refusals {
                let action = if refusal.record && notified.is_some() {
                    ScmpAction::Notify
                } else {
                    ScmpAction::Errno(refusal.errno)
                };
                let numbers = refusal.calls.iter().filter_map(|call| call.number);
                rules.extend(numbers.map(|number| Rule {
                    number,
                    when: refusal.when.clone(),
                    action,
                }));
            }
        }
        rules.extend(notified.unwrap_or_default().rules());
        filter::compile(&rules)
    }

    /// What the table says of a call, by its number and arguments as `struct seccomp_data` has them; `None` when
    /// nothing refuses it.
    ///
    /// # Errors
    /// When a loosened name is no group.
    pub fn refused(
        &self,
        loosened: &[String],
        number: i32,
        arguments: &[u64; 6],
    ) -> Result<Option<RefusedCall<'_>>, SeccompError> {
        for group in self.shut(loosened)? {
            for refusal in &group.refusals {
                if let Some(call) = refusal
                    .calls
                    .iter()
                    .find(|call| call.number == Some(number))
                    && refusal.when.iter().all(|condition| {
                        arguments
                            .get(condition.argument as usize)
                            .is_some_and(|argument| condition.test.holds(*argument))
                    })
                {
                    return Ok(Some(RefusedCall {
                        call: &call.name,
                        group: &group.name,
                        why: &group.why,
                        errno: refusal.errno,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The groups that are not loosened.
    fn shut(
        &self,
        loosened: &[String],
    ) -> Result<impl Iterator<Item = &SyscallGroup>, SeccompError> {
        if let Some(name) = loosened
            .iter()
            .find(|name| !self.names().any(|known| known == name.as_str()))
        {
            return Err(SeccompError::UnknownHatch {
                name: name.clone(),
                known: self.names().collect::<Vec<_>>().join(", "),
            });
        }
        let open = loosened.to_vec();
        Ok(self
            .groups
            .iter()
            .filter(move |group| !open.contains(&group.name)))
    }
}

fn refusal(form: RefusalForm) -> Result<SyscallRule, String> {
    let errno = ERRNOS
        .iter()
        .find(|(name, _)| *name == form.errno)
        .map(|(_, number)| *number)
        .ok_or_else(|| format!("unknown errno `{}`", form.errno))?;
    Ok(SyscallRule {
        calls: form
            .syscalls
            .into_iter()
            .map(call)
            .collect::<Result<_, _>>()?,
        when: form
            .when
            .into_iter()
            .map(condition)
            .collect::<Result<_, _>>()?,
        errno,
        record: form.record,
    })
}

fn call(name: String) -> Result<NamedCall, String> {
    let number = match YOUNGER.iter().find(|(younger, _)| *younger == name) {
        Some((_, number)) => *number,
        None => ScmpSyscall::from_name(&name)
            .map_err(|_| format!("unknown system call `{name}`"))?
            .as_raw_syscall(),
    };
    Ok(NamedCall {
        name,
        // Negative numbers stand for calls that this architecture does not have.
        number: (number >= 0).then_some(number),
    })
}

fn condition(form: ConditionForm) -> Result<Condition, String> {
    let argument = form.argument;
    if argument > 5 {
        return Err(format!("there is no argument {argument}: they are 0 to 5"));
    }
    let test = match (form.one_of, form.none_of, form.any_bit) {
        (Some(names), None, None) => Test::OneOf(values(&names)?),
        (None, Some(names), None) => Test::NoneOf(values(&names)?),
        (None, None, Some(names)) => Test::AnyBit(values(&names)?),
        _ => {
            return Err(format!(
                "argument {argument} needs one of one_of, none_of and any_bit"
            ));
        }
    };
    Ok(Condition { argument, test })
}

fn values(forms: &[ValueForm]) -> Result<Vec<u32>, String> {
    let mut values = forms
        .iter()
        .map(|form| match form {
            ValueForm::Number(number) => Ok(*number),
            ValueForm::Name(name) => CONSTANTS
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| *value as u32)
                .ok_or_else(|| format!("unknown constant `{name}`")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    values.sort_unstable();
    if values.is_empty() {
        return Err("a list of values is empty".to_owned());
    }
    Ok(values)
}

/// System calls that a policy allows by a name that no group of them has, or denies though they are refused anyway.
pub fn unknown(parsed: &Parsed) -> Vec<PolicyError> {
    let Ok(groups) = SyscallGroups::shipped() else {
        return Vec::new();
    };
    let known: Vec<&str> = groups.names().collect();
    let open: Vec<&str> = groups.open_in_domain().collect();
    let syscalls = &parsed.policy.syscalls;
    let mut errors = Vec::new();
    for (key, choices, names) in [
        ("allow", &syscalls.allow, &known),
        ("deny", &syscalls.deny, &open),
    ] {
        for (index, choice) in choices.iter().enumerate() {
            let name = choice.name.as_str();
            if names.contains(&name) {
                continue;
            }
            let what = if known.contains(&name) {
                format!("the system calls of `{name}` are refused anyway")
            } else {
                format!("there is no group of system calls `{name}`")
            };
            let mend = format!("name one of: {}", names.join(", "));
            errors.push(parsed.error_at_syscall(key, index, what, mend));
        }
    }
    errors
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;

//! The table of refused system calls and its compilation to classic BPF.

use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Why a filter could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// libseccomp refused the table.
    #[error("seccomp filter: {step}: {source}; this is a fault of the program, please report it")]
    Build {
        /// What was being done.
        step: String,
        /// What libseccomp says.
        source: libseccomp::error::SeccompError,
    },
    /// The finished filter could not be read back.
    #[error(
        "seccomp filter: {step}: {source}; check that memory and file descriptors are not exhausted"
    )]
    Export {
        /// What was being done.
        step: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

/// When a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// At every call.
    Always,
    /// When the 32-bit argument is one of the values.
    OneOf {
        /// Index of the argument, 0 to 5.
        argument: u32,
        /// The values, as the kernel sees them after it has cut the argument to 32 bits.
        values: &'static [u32],
    },
    /// When the 32-bit argument is none of the values. They are in ascending order.
    NoneOf {
        /// Index of the argument, 0 to 5.
        argument: u32,
        /// The values that pass.
        values: &'static [u32],
    },
}

/// One refusal.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The system calls, by name. A name that the running architecture does not have is passed over.
    pub syscalls: &'static [&'static str],
    /// When it applies.
    pub test: Test,
    /// The errno that the caller gets.
    pub errno: i32,
    /// Why it is refused.
    pub why: &'static str,
}

/// Socket families that other layers judge: `AF_UNIX`, `AF_INET`, `AF_INET6`, and `AF_NETLINK`, which the
/// C library needs to list interfaces.
const FAMILIES: &[u32] = &[
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
];

/// What is refused. Every rule stands alone; the order means nothing.
///
/// Foreign ABIs (i386 and x32 on x86-64, 32-bit ARM on `AArch64`) are no rule here: their calls kill the
/// process, because their numbers would pass a filter that is written for the native ones.
pub const RULES: &[Rule] = &[
    Rule {
        syscalls: &["socket", "socketpair"],
        test: Test::NoneOf {
            argument: 0,
            values: FAMILIES,
        },
        errno: libc::EAFNOSUPPORT,
        why: "a connect rule cannot judge packet, vsock, Bluetooth, SMC and other families, and the \
              cgroup hooks only see the inet ones",
    },
    Rule {
        syscalls: &["ioctl"],
        test: Test::OneOf {
            argument: 1,
            values: &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32],
        },
        errno: libc::EPERM,
        why: "puts characters into the input of the terminal that the operator's own shell reads next: a \
              command would run outside the agent's cgroup",
    },
];

/// A compiled filter, ready for `seccomp(2)`.
#[derive(Clone)]
pub struct BpfProgram(pub(super) Vec<libc::sock_filter>);

impl std::fmt::Debug for BpfProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BpfProgram({} instructions)", self.0.len())
    }
}

impl BpfProgram {
    /// The instructions.
    pub fn instructions(&self) -> &[libc::sock_filter] {
        &self.0
    }
}

fn built(step: impl Into<String>) -> impl FnOnce(libseccomp::error::SeccompError) -> SeccompError {
    let step = step.into();
    move |source| SeccompError::Build { step, source }
}

/// Compiles a table; what no rule refuses is allowed.
///
/// # Errors
/// When libseccomp refuses a rule or the result cannot be read back.
pub fn compile(rules: &[Rule]) -> Result<BpfProgram, SeccompError> {
    let mut context = ScmpFilterContext::new(ScmpAction::Allow).map_err(built("new filter"))?;
    // Also what a call through the x32 numbers gets.
    context
        .set_act_badarch(ScmpAction::KillProcess)
        .map_err(built("action on foreign ABIs"))?;
    for rule in rules {
        for name in rule.syscalls {
            let syscall = ScmpSyscall::from_name(name).map_err(built(*name))?;
            // Pseudo numbers stand for calls that this architecture does not have.
            if syscall.as_raw_syscall() < 0 {
                continue;
            }
            for comparisons in lower(rule.test) {
                context
                    .add_rule_conditional(ScmpAction::Errno(rule.errno), syscall, &comparisons)
                    .map_err(built(*name))?;
            }
        }
    }
    export(&context)
}

/// The alternatives of a test, each a list of comparisons that must all hold.
fn lower(test: Test) -> Vec<Vec<ScmpArgCompare>> {
    // The kernel reads these arguments as 32-bit ones: what stands above must not change the answer.
    let equal = |argument, value: u32| {
        ScmpArgCompare::new(
            argument,
            ScmpCompareOp::MaskedEqual(u64::from(u32::MAX)),
            u64::from(value),
        )
    };
    match test {
        Test::Always => vec![Vec::new()],
        Test::OneOf { argument, values } => values
            .iter()
            .map(|value| vec![equal(argument, *value)])
            .collect(),
        Test::NoneOf { argument, values } => {
            let highest = values.last().copied().unwrap_or(0);
            let mut alternatives: Vec<_> = (0..highest)
                .filter(|value| !values.contains(value))
                .map(|value| vec![equal(argument, value)])
                .collect();
            // A 64-bit comparison: garbage above a good value is refused too, never let through.
            alternatives.push(vec![ScmpArgCompare::new(
                argument,
                ScmpCompareOp::Greater,
                u64::from(highest),
            )]);
            alternatives
        }
    }
}

fn export(context: &ScmpFilterContext) -> Result<BpfProgram, SeccompError> {
    let failed = |step| move |source| SeccompError::Export { step, source };
    let memory = memfd_create("filter", MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| failed("memory file")(errno.into()))?;
    context.export_bpf(&memory).map_err(built("export"))?;
    let mut file = File::from(memory);
    let mut bytes = Vec::new();
    file.rewind().map_err(failed("rewind"))?;
    file.read_to_end(&mut bytes).map_err(failed("read"))?;
    // `struct sock_filter` of linux/filter.h, native byte order.
    let instructions = bytes
        .chunks_exact(8)
        .map(|raw| libc::sock_filter {
            code: u16::from_ne_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        })
        .collect();
    Ok(BpfProgram(instructions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_says_why_and_its_values_ascend() {
        for rule in RULES {
            assert!(!rule.syscalls.is_empty() && rule.why.len() > 20, "{rule:?}");
            if let Test::OneOf { values, argument } | Test::NoneOf { values, argument } = rule.test
            {
                assert!(argument < 6 && !values.is_empty(), "{rule:?}");
            }
            if let Test::NoneOf { values, .. } = rule.test {
                assert!(values.is_sorted(), "{rule:?}");
            }
            for name in rule.syscalls {
                ScmpSyscall::from_name(name).unwrap();
            }
        }
    }

    #[test]
    fn the_table_becomes_a_filter_that_the_kernel_takes_in_size() {
        let program = compile(RULES).unwrap();
        let count = program.instructions().len();
        // BPF_MAXINSNS is the kernel's limit; an empty table is six instructions or so.
        assert!((20..4096).contains(&count), "{count}");
        assert!(compile(&[]).unwrap().instructions().len() < count);
    }

    #[test]
    fn the_kernel_reads_only_the_low_half_of_an_argument() {
        let alternatives = lower(Test::NoneOf {
            argument: 0,
            values: &[1, 3],
        });
        // 0, 2, and all above 3.
        assert_eq!(alternatives.len(), 3);
        assert_eq!(lower(Test::Always), vec![Vec::new()]);
    }
}

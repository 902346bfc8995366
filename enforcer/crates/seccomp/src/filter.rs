//! Compilation of refused system calls to classic BPF.

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
    /// The table of system-call groups that is shipped is malformed.
    #[error("syscall-groups.json: {what}; this is a fault of the program, please report it")]
    Table {
        /// What is wrong with it.
        what: String,
    },
    /// A policy loosens what there is not.
    #[error("there is no escape hatch `{name}` to loosen; there are: {known}")]
    UnknownHatch {
        /// The name as given.
        name: String,
        /// All names.
        known: String,
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

/// A question to one argument. The kernel reads arguments of these calls as 32-bit ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It is one of the values.
    OneOf(Vec<u32>),
    /// It is none of the values, which ascend.
    NoneOf(Vec<u32>),
    /// It has at least one of the bits.
    AnyBit(Vec<u32>),
}

impl Test {
    /// Whether it holds of an argument, as the compiled filter answers it.
    pub fn holds(&self, argument: u64) -> bool {
        let low = argument & u64::from(u32::MAX);
        match self {
            Self::OneOf(values) => values.iter().any(|value| u64::from(*value) == low),
            // Garbage above a good value is none of the values.
            Self::NoneOf(values) => values.iter().all(|value| u64::from(*value) != argument),
            Self::AnyBit(bits) => bits.iter().any(|bit| u64::from(*bit) & argument != 0),
        }
    }
}

/// A test and the argument that it is put to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Index of the argument, 0 to 5.
    pub argument: u32,
    /// The test.
    pub test: Test,
}

/// What becomes of a system call when all conditions hold.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// The call's number on this architecture.
    pub number: i32,
    /// The conditions; none: always.
    pub when: Vec<Condition>,
    /// What becomes of it.
    pub action: ScmpAction,
}

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

/// Compiles rules; what no rule names is allowed. Calls of a foreign ABI kill the process.
///
/// # Errors
/// When libseccomp refuses a rule or the result cannot be read back.
pub(super) fn compile(rules: &[Rule]) -> Result<BpfProgram, SeccompError> {
    let mut context = ScmpFilterContext::new(ScmpAction::Allow).map_err(built("new filter"))?;
    // Also what a call through the x32 numbers gets.
    context
        .set_act_badarch(ScmpAction::KillProcess)
        .map_err(built("action on foreign ABIs"))?;
    // A binary tree over the numbers: the common calls pass after a handful of comparisons.
    context
        .set_ctl_optimize(2)
        .map_err(built("order of the rules"))?;
    for rule in rules {
        let syscall = ScmpSyscall::from(rule.number);
        for comparisons in alternatives(&rule.when) {
            context
                .add_rule_conditional(rule.action, syscall, &comparisons)
                .map_err(built(format!("system call {}", rule.number)))?;
        }
    }
    export(&context)
}

/// The alternatives of a list of conditions, each a list of comparisons that must all hold.
fn alternatives(when: &[Condition]) -> Vec<Vec<ScmpArgCompare>> {
    let mut all = vec![Vec::new()];
    for condition in when {
        let compared = comparisons(condition);
        all = all
            .iter()
            .flat_map(|before| {
                compared.iter().map(move |comparison| {
                    let mut longer = before.clone();
                    longer.push(*comparison);
                    longer
                })
            })
            .collect();
    }
    all
}

/// The comparisons one of which must hold.
fn comparisons(condition: &Condition) -> Vec<ScmpArgCompare> {
    let masked = |mask: u32, value: u32| {
        ScmpArgCompare::new(
            condition.argument,
            ScmpCompareOp::MaskedEqual(u64::from(mask)),
            u64::from(value),
        )
    };
    // What stands above the 32 bits that the kernel reads must not change the answer.
    let equal = |value: u32| masked(u32::MAX, value);
    match &condition.test {
        Test::OneOf(values) => values.iter().map(|value| equal(*value)).collect(),
        Test::AnyBit(bits) => bits.iter().map(|bit| masked(*bit, *bit)).collect(),
        Test::NoneOf(values) => {
            let highest = values.last().copied().unwrap_or(0);
            let mut alternatives: Vec<_> = (0..highest)
                .filter(|value| !values.contains(value))
                .map(equal)
                .collect();
            // A 64-bit comparison: garbage above a good value is refused too, never let through.
            alternatives.push(ScmpArgCompare::new(
                condition.argument,
                ScmpCompareOp::Greater,
                u64::from(highest),
            ));
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
    fn the_kernel_reads_only_the_low_half_of_an_argument() {
        let none_of = Condition {
            argument: 0,
            test: Test::NoneOf(vec![1, 3]),
        };
        // 0, 2, and all above 3.
        assert_eq!(comparisons(&none_of).len(), 3);
        assert_eq!(alternatives(&[]), vec![Vec::new()]);
        let one_of = Condition {
            argument: 1,
            test: Test::OneOf(vec![5, 7]),
        };
        assert_eq!(alternatives(&[none_of, one_of]).len(), 6);
    }

    #[test]
    fn a_test_answers_as_its_filter_does() {
        let one_of = Test::OneOf(vec![1, 3]);
        assert!(one_of.holds(3) && one_of.holds(1 << 32 | 3) && !one_of.holds(2));
        let none_of = Test::NoneOf(vec![1, 3]);
        assert!(!none_of.holds(3) && none_of.holds(1 << 32 | 3) && none_of.holds(0));
        let any_bit = Test::AnyBit(vec![4, 8]);
        assert!(any_bit.holds(12) && any_bit.holds(5) && !any_bit.holds(3));
    }
}

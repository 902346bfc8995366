//! Which system calls the supervisor is asked about, whatever the table of system-call groups says.

use libseccomp::ScmpAction;

use super::filter::{Condition, Rule, Test};
use super::notify::AT_EXECVE_CHECK;

/// Which system calls the supervisor is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notified {
    /// `execve` and `execveat`.
    pub exec: bool,
    /// `connect`.
    pub connect: bool,
    /// `sendto` with an address.
    pub sendto: bool,
}

/// Index of the pointer to the address among the arguments of `sendto`.
const SENDTO_ADDRESS: u32 = 4;
/// Index of the flags among the arguments of `execveat`.
const EXECVEAT_FLAGS: u32 = 4;

impl Notified {
    /// The rules of the filter.
    pub(super) fn rules(self) -> Vec<Rule> {
        let rule = |number: libc::c_long, when| Rule {
            number: number as i32,
            when,
            action: ScmpAction::Notify,
        };
        let mut rules = Vec::new();
        if self.exec {
            rules.push(rule(libc::SYS_execve, Vec::new()));
            rules.push(rule(libc::SYS_execveat, Vec::new()));
        } else {
            // The kernel's programs do not see what only asks: it is answered as kernels do that do not know it.
            let check = Condition {
                argument: EXECVEAT_FLAGS,
                test: Test::AnyBit(vec![AT_EXECVE_CHECK.cast_unsigned()]),
            };
            rules.push(Rule {
                action: ScmpAction::Errno(libc::EINVAL),
                ..rule(libc::SYS_execveat, vec![check])
            });
        }
        if self.connect {
            rules.push(rule(libc::SYS_connect, Vec::new()));
        }
        if self.sendto {
            // A test of all 64 bits, as a pointer needs it.
            let address = Condition {
                argument: SENDTO_ADDRESS,
                test: Test::NoneOf(vec![0]),
            };
            rules.push(rule(libc::SYS_sendto, vec![address]));
        }
        rules
    }
}
